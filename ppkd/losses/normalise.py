"""Standardising a feature map per channel, with the statistics of the batch at hand."""

from .common import full_precision, over_positions, up


def centred_and_variance(x):
    """``x - mean`` (N, C, H, W) and the biased variance (1, C, 1, 1) of ``x`` per channel.

    Both statistics are over all images and positions of the batch together.
    """
    flat = x.flatten(2)
    batch, channels, positions = flat.shape
    share = 1 / (batch * positions)
    # Any shift will do; that by one of the values makes a constant channel zero without rounding,
    # which would otherwise be blown up by dividing it by a deviation of its own size.
    flat = flat - flat[:1, :, :1].detach()
    centred = flat - over_positions(flat, share).sum(axis=0, keepdim=True)
    variance = over_positions(centred * centred, share).sum(axis=0)
    return centred.reshape(x.shape), variance.reshape([1, channels, 1, 1])


@full_precision
def batch_standardise(x, eps=1e-5):
    """``(x - mean) / sqrt(variance + eps)`` per channel over batch and positions.

    Batch normalisation without affine parameters and without running statistics: it uses the
    statistics of the batch in evaluation too. The connectors of the RTMDet distillation recipe
    (MMRazor, MMYOLO) put it on both sides before the channel-wise loss.

    Args:
        x: (N, C, H, W). Its gradient is kept; for a teacher detach it first.
        eps: added to the (biased) variance. A dead channel becomes zero.

    Returns:
        (N, C, H, W).
    """
    centred, variance = centred_and_variance(up(x))
    return centred * (variance + eps).rsqrt()

"""Parts of a recorded tensor: heads often pack what a method wants apart into the channels of one map."""


def channels(x, begin, end):
    """Channels `begin` to `end` of (N, C, H, W)."""
    return x[:, begin:end]


def fields(x, anchors, begin, end, skip=0):
    """Fields `begin` to `end` of every anchor.

    Args:
        x: (N, skip + anchors * F, H, W), the fields of one anchor next to each other.
        anchors: anchors per position.
        skip: channels before the first anchor's.

    Returns:
        (N, anchors * (end - begin), H, W).
    """
    batch, count, height, width = x.shape
    x = x[:, skip:].reshape([batch, anchors, (count - skip) // anchors, height, width])
    return x[:, :, begin:end].flatten(1, 2)

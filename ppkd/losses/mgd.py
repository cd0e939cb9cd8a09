"""Masked Generative Distillation (MGD).

Yang et al., "Masked Generative Distillation", ECCV 2022 (arXiv 2205.01529). (Not
"Matching Guided Distillation", which has the same initials.)
"""

import paddle
import paddle.nn.functional as F
from paddle import nn

from .common import check_choice, check_same_shape, frozen, full_precision, up

MASKS = ("spatial", "channel")


def draw_mask(shape, dropped, mask="spatial"):
    """A random mask for a map of ``shape`` (N, C, H, W): 1 keeps, 0 drops.

    Args:
        shape: of the map.
        dropped: the expected fraction of zeros.
        mask: ``spatial`` gives (N, 1, H, W), shared by the channels; ``channel`` (N, C, 1, 1).

    Returns:
        A float32 tensor drawn from Paddle's global generator.
    """
    batch, channels, height, width = shape
    drawn = paddle.rand([batch, 1, height, width] if mask == "spatial" else [batch, channels, 1, 1])
    return (drawn >= dropped).astype("float32")


@full_precision
def mgd_generate(student, mask_keep, generation):
    """The map that ``generation`` makes of the masked student; kept values are not rescaled."""
    first, _, second = generation
    hidden = F.relu(_convolve(up(student) * mask_keep, first))
    return _convolve(hidden, second)


def _convolve(x, conv):
    return F.conv2d(x, up(conv.weight), up(conv.bias), padding=1)


@full_precision
def mgd(student, teacher, mask_keep, generation):
    """``1/N * sum (generation(student * mask_keep) - teacher)^2``.

    Args:
        student, teacher: (N, C, H, W), of equal shape; no gradient reaches the teacher.
        mask_keep: 0 or 1, of a shape that broadcasts; see :func:`draw_mask`.
        generation: 3x3 convolution, ReLU, 3x3 convolution, as a sequence.

    Returns:
        A scalar: the sum over everything divided by the batch only, hence the tiny weights.

    Raises:
        ValueError: unequal shapes.
    """
    check_same_shape("mgd", student, teacher)
    gap = mgd_generate(student, mask_keep, generation) - frozen(teacher)
    return (gap * gap).sum() / gap.shape[0]


class MGDLoss(nn.Layer):
    """Masked generative distillation of one pair of maps: ``alpha *`` :func:`mgd`.

    A new mask is drawn at every forward pass. The generation block is trained with the student.
    Recipes: one-stage detectors alpha 2e-5, lambda_ 0.65; two-stage 5e-7 and 0.45.

    .. code-block:: yaml

        loss: {name: mgd, alpha: 2.0e-5, lambda_: 0.65}

    Args:
        channels: C of the maps. Unequal channels are a connector's business.
        alpha: the weight.
        lambda_: the fraction of the student's map that is dropped.
        mask: ``spatial`` (detection) or ``channel`` (classification).

    Raises:
        ValueError: ``mask`` is neither, or ``lambda_`` is outside 0..1.
    """

    def __init__(self, channels, alpha=2e-5, lambda_=0.65, mask="spatial"):
        super().__init__()
        check_mask(lambda_, mask)
        self.alpha = alpha
        self.lambda_ = lambda_
        self.mask = mask
        self.generation = generation_block(channels)

    def forward(self, student, teacher, mask_keep=None):
        """The weighted scalar; ``mask_keep`` is drawn if not given."""
        if mask_keep is None:
            mask_keep = draw_mask(student.shape, self.lambda_, self.mask)
        return mgd(student, teacher, mask_keep, self.generation) * self.alpha


def check_mask(lambda_, mask):
    """Raise ``ValueError`` unless ``mask`` is one of ``MASKS`` and ``lambda_`` a fraction from 0 to 1."""
    check_choice("mgd", "mask", mask, MASKS)
    if not 0 <= lambda_ <= 1:
        raise ValueError(f"mgd: lambda_ is {lambda_}, expected a fraction from 0 to 1")


def generation_block(channels):
    """The layers that make a whole map of a masked one: 3x3 convolution, ReLU, 3x3 convolution."""
    return nn.Sequential(_conv(channels), nn.ReLU(), _conv(channels))


def _conv(channels):
    # The authors leave PyTorch's default start in place: uniform, by fan-in, weight and bias.
    bound = (channels * 9) ** -0.5
    uniform = nn.initializer.Uniform(-bound, bound)
    return nn.Conv2D(channels, channels, 3, padding=1, weight_attr=uniform, bias_attr=uniform)

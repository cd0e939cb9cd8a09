"""Channel-Wise Distillation (CWD).

Shu et al., "Channel-wise Knowledge Distillation for Dense Prediction", ICCV 2021 (arXiv
2011.13256): softmax of every channel over its positions, then the KL divergence.
"""

import paddle.nn.functional as F
from paddle import nn

from .common import check_choice, check_same_shape, frozen, full_precision, up
from .kl import kl_rows

NORMS = ("channel", "spatial")
DIVERGENCES = ("kl", "mse", "kl_eps")
# Added to the probabilities of ``kl_eps``.
_EPS = 1e-5


@full_precision
def cwd(student, teacher, tau=1.0, norm="channel", divergence="kl", student_channels=None):
    """Distance of two maps, each turned into distributions by a softmax.

    * ``channel``, ``kl`` (the paper): each channel is one distribution over its positions,
      ``tau^2 / (N * C) * sum p_T * (log p_T - log p_S)``, ``p = softmax_p(x / tau)``.
    * ``spatial``, ``kl``: each position is one distribution over the channels (so the authors'
      code calls it), ``tau^2 / (N * H * W) * sum ...``.
    * ``mse``: ``1 / (N * C) * sum (p_T - p_S)^2``, or ``1 / (N * H * W)`` for ``spatial``; the
      temperature is 1 whatever ``tau`` says, as in the authors' code.
    * ``kl_eps``: PaddleDetection's form of ``kl``, to repeat its results: ``log(1e-5 + p)`` in place
      of ``log p``, which is a fifth too small on a large map, no ``tau^2``, and in place of C the student's
      channels before a connector made them equal to the teacher's.

    Args:
        student, teacher: (N, C, H, W), of equal shape; no gradient reaches the teacher.
        tau: the temperature.
        norm, divergence: one of the above.
        student_channels: of the student's map before a connector, if there is one; for ``kl_eps``.

    Returns:
        A scalar.

    Raises:
        ValueError: unequal shapes, or an unknown ``norm`` or ``divergence``.
    """
    check_same_shape("cwd", student, teacher)
    check_choice("cwd", "norm", norm, NORMS)
    check_choice("cwd", "divergence", divergence, DIVERGENCES)
    student, teacher = up(student).flatten(2), frozen(teacher).flatten(2)
    batch, channels, positions = student.shape
    axis, rows = (2, channels) if norm == "channel" else (1, positions)
    if divergence == "kl":
        distance = kl_rows(student, teacher, tau, axis) * tau**2
    elif divergence == "kl_eps":
        p_s, p_t = F.softmax(student / tau, axis=axis), F.softmax(teacher / tau, axis=axis)
        distance = p_t * ((_EPS + p_t).log() - (_EPS + p_s).log())
        rows = student_channels or rows
    else:
        distance = (F.softmax(student, axis=axis) - F.softmax(teacher, axis=axis)).square()
    return distance.sum() / (batch * rows)


class CWDLoss(nn.Layer):
    """:func:`cwd` with its options; weighting is the term's business.

    The detectors of MMRazor take five FPN outputs with tau 1 and weight 10 each.

    .. code-block:: yaml

        loss: {name: cwd, tau: 1.0}

    Raises:
        ValueError: an unknown ``norm`` or ``divergence``.
    """

    def __init__(self, tau=1.0, norm="channel", divergence="kl", student_channels=None):
        super().__init__()
        check_choice("cwd", "norm", norm, NORMS)
        check_choice("cwd", "divergence", divergence, DIVERGENCES)
        self.tau = tau
        self.norm = norm
        self.divergence = divergence
        self.student_channels = student_channels

    def forward(self, student, teacher):
        return cwd(student, teacher, self.tau, self.norm, self.divergence, self.student_channels)

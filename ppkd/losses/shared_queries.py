"""The same queries, decoded by both: no matching is needed, since what they become is in the same order.

Wang et al., "KD-DETR: Knowledge Distillation for Detection Transformer with Consistent Distillation Points Sampling",
CVPR 2024 (arXiv 2211.08071).
"""

from .common import full_precision
from .sets import SetLoss, check_count


class SharedQueriesLoss(SetLoss):
    """Of every pair of layers: what both decoders make of the same queries.

    With class scores p (sigmoids) and boxes b of student s and teacher t for query q, w the teacher's highest score of
    it, and W the sum of w over images and queries, at least 1 an image, the parts are

        ``cls = weight_cls / W * sum w * KL(p_t || p_s)``, or of ``cls: qfl`` that of |p_s - p_t|^beta * BCE(p_s, p_t)
        ``l1 = weight_l1 / W * sum w * |b_s - b_t|_1``,  ``giou = weight_giou / W * sum w * (1 - GIoU)``

    each the mean over the pairs of layers. The paper writes w for the weight by which what the teacher takes for
    background does not outweigh the rest, and does not divide.

    .. code-block:: yaml

        student: ["decoder.cls[*]", "decoder.box[*]"]
        loss: {name: shared_queries, general: 100, specific: 100}

    Args:
        general: queries drawn at random anew in every step (the paper's general sampling).
        specific: of the teacher's own queries those of its highest scores (specific sampling); null for all of them.
        cls: ``kl`` or ``qfl``.
        beta: exponent of ``qfl``.
    """

    called = "shared_queries"
    # The engine lets both decoders decode the same queries, and gives what they make of them.
    shares_queries = True

    def __init__(
        self, general=100, specific=None, cls="kl", beta=2.0, weight_cls=1.0, weight_l1=5.0, weight_giou=2.0
    ):  # fmt: skip
        super().__init__(cls, beta, weight_cls, weight_l1, weight_giou)
        check_count(self.called, "specific", specific, 0)
        if general is None:
            raise ValueError("shared_queries: general is None, expected how many queries are drawn, from 0")
        check_count(self.called, "general", general, 0)
        if general == specific == 0:
            raise ValueError("shared_queries: general and specific are both 0, so there is no query")
        self.general, self.specific = general, specific

    @full_precision
    def forward(self, student, teacher):
        """Compare ``(classes, boxes)`` of both sides, as `sets.SetLoss.stacked` takes them, query by query.

        Returns:
            Dict of ``cls``, ``l1`` and ``giou``.

        Raises:
            ValueError: sources of another shape, or unequal numbers of queries.
        """
        if student[0][0].shape[1] != teacher[0][0].shape[1]:
            raise ValueError("shared_queries: the two sides have not decoded the same queries")
        return self.compared(*self.stacked(student, teacher), teacher[0][0].shape[0], importance=True)

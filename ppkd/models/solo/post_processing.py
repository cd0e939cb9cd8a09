"""What is left of SOLO's masks in the end: matrix NMS (Wang et al., SOLOv2, arXiv 2003.10152, section 3.3)."""

import paddle
from ppdet.core.workspace import register, serializable

_SMALL = 1e-12


@register
@serializable
class SOLOMatrixNMS:
    """Lowers the scores of masks that overlap with better ones of their class, and keeps the best.

    Args:
        nms_top_k: so many masks go into it.
        keep_top_k: so many are left at most.
        score_threshold: least score in the end.
        kernel: ``gaussian`` or ``linear``: how a score falls with the IoU.
        sigma: of the Gaussian.
    """

    def __init__(self, nms_top_k=500, keep_top_k=100, score_threshold=0.05, kernel="gaussian", sigma=2.0):
        if kernel not in ("gaussian", "linear"):
            raise ValueError(f"SOLOMatrixNMS.kernel is gaussian or linear, not {kernel!r}")
        self.nms_top_k, self.keep_top_k, self.score_threshold = nms_top_k, keep_top_k, score_threshold
        self.kernel, self.sigma = kernel, sigma

    def __call__(self, masks, labels, scores):
        """Choose.

        Args:
            masks: (M, h, w) of 0 and 1, float32.
            labels, scores: (M,).

        Returns:
            Indices of those that are left, the best first, and their scores; behind them the index of the last mask
            of all and the score 0, for there is always one that way.
        """
        order = paddle.argsort(scores, descending=True)[: self.nms_top_k]
        ordered = paddle.gather(scores, order) * self._decay(paddle.gather(masks, order), paddle.gather(labels, order))
        kept = paddle.nonzero(ordered >= self.score_threshold).flatten()
        kept = paddle.concat([kept, paddle.zeros([1], kept.dtype)])
        real = (paddle.arange(kept.shape[0] if kept.shape[0] > 0 else paddle.shape(kept)[0]) + 1).astype("int64")
        count = paddle.shape(kept)[0].astype("int64")
        left = paddle.gather(ordered, kept) * (real < count).astype(ordered.dtype)
        best = paddle.argsort(left, descending=True)[: self.keep_top_k + 1]
        return paddle.gather(order, paddle.gather(kept, best)), paddle.gather(left, best)

    def _decay(self, masks, labels):
        """(M,) factors for masks that are sorted by their scores."""
        flat = masks.flatten(1)
        overlap, areas = paddle.matmul(flat, flat, transpose_y=True), flat.sum(axis=1)
        ious = overlap / (areas.unsqueeze(1) + areas.unsqueeze(0) - overlap).clip(min=_SMALL)
        same = (labels.unsqueeze(1) == labels.unsqueeze(0)).astype(ious.dtype)
        ious = paddle.triu(ious * same, diagonal=1)
        # The largest IoU of a mask with a better one: it belongs to the one that suppresses.
        own = ious.max(axis=0).unsqueeze(1)
        if self.kernel == "gaussian":
            return (self.sigma * (own.square() - ious.square())).exp().min(axis=0)
        return ((1 - ious) / (1 - own).clip(min=_SMALL)).min(axis=0)

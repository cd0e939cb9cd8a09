"""RTMDet's assignment of boxes to points (arXiv 2212.07784, section 3.3): SimOTA with soft labels in its cost."""

import paddle
import paddle.nn.functional as F
from paddle import nn
from ppdet.core.workspace import register
from ppdet.modeling.assigners.utils import check_points_inside_bboxes
from ppdet.modeling.bbox_utils import batch_iou_similarity

# Cost of a point that lies in no box.
_BLOCKED = 1e8
# Images are taken together up to so many pairs of a box and a point: some tensors have four numbers for each.
_PAIRS = 2**24


@register
class DynamicSoftLabelAssigner(nn.Layer):
    """Each box takes the points that cost it least, as many as the sum of its best IoUs says.

    The cost is the sum of three: the class logit against the IoU as its soft target, -`iou_weight` * log IoU, and
    10 ** (distance to the box's centre in strides - `radius`). Only points inside of any box take part.

    Args:
        topk: so many IoUs are summed up, and so many points are taken at most.
        radius: distance from the centre, in strides, at which the third cost is 1.
        iou_weight: factor on the second.
        eps: added to the IoU in the logarithm.
        padding_competes: the reference lets the rows that fill up a batch win a point that several boxes want, if they
            cost it least: what an image learns then depends on how many boxes the others have.
    """

    def __init__(self, topk=13, radius=3.0, iou_weight=3.0, eps=1e-7, padding_competes=False):
        super().__init__()
        self.topk, self.radius, self.iou_weight, self.eps = topk, radius, iou_weight, eps
        self.padding_competes = padding_competes

    @paddle.no_grad()
    def forward(self, logits, boxes, points, strides, gt_labels, gt_boxes, gt_mask):
        """Assign the boxes of a batch.

        Args:
            logits: (N, P, C) class logits.
            boxes: (N, P, 4) predicted boxes in pixels.
            points: (P, 2) in pixels.
            strides: (P, 1) in pixels.
            gt_labels, gt_boxes: (N, G, 1) and (N, G, 4), padded with zeros.
            gt_mask: (N, G, 1), 1 for a box and 0 for padding.

        Returns:
            Labels (N, P) int64, C for background; boxes (N, P, 4) and their IoU with the predictions (N, P), both 0
            for background.
        """
        (batch, count, classes), most = logits.shape, gt_boxes.shape[1]
        if most == 0:
            labels = paddle.full([batch, count], classes, "int64")
            return labels, paddle.zeros([batch, count, 4]), paddle.zeros([batch, count])
        group = max(_PAIRS // (most * count), 1)
        made = []
        for i in range(0, batch, group):
            ours = (x[i : i + group] for x in (logits, boxes, gt_labels, gt_boxes, gt_mask))
            made.append(self._assign(points, strides, *ours))
        return tuple(paddle.concat(parts) for parts in zip(*made))

    def _assign(self, points, strides, logits, boxes, gt_labels, gt_boxes, gt_mask):
        (batch, count, classes), most = logits.shape, gt_boxes.shape[1]
        real = gt_mask.astype("float32")
        labels, gt_boxes = gt_labels.squeeze(2).astype("int64"), gt_boxes.astype("float32")
        ious = batch_iou_similarity(gt_boxes, boxes)
        cost = self._cost(logits, points, strides, labels, gt_boxes, real, ious)
        taken = self._cheapest(cost, ious) * real
        several = (taken.sum(axis=1, keepdim=True) > 1).astype("float32")
        rivals = cost if self.padding_competes else paddle.where(real > 0, cost, paddle.full_like(cost, float("inf")))
        winner = F.one_hot(rivals.argmin(axis=1), most).transpose([0, 2, 1])
        taken = taken * (1 - several) + winner * several
        which, positive = taken.argmax(axis=1), taken.sum(axis=1)
        place = paddle.stack([paddle.arange(batch).unsqueeze(1).expand([batch, count]), which], axis=2)
        assigned = paddle.where(positive > 0, paddle.gather_nd(labels, place), paddle.full_like(which, classes))
        return assigned, paddle.gather_nd(gt_boxes, place) * positive.unsqueeze(2), (taken * ious).sum(axis=1)

    def _cost(self, logits, points, strides, labels, gt_boxes, real, ious):
        """(N, G, P): what each point costs each box."""
        usable = (check_points_inside_bboxes(points, gt_boxes) * real).max(axis=1, keepdim=True)
        centres = (gt_boxes[..., :2] + gt_boxes[..., 2:]) / 2
        distance = (points.unsqueeze([0, 1]) - centres.unsqueeze(2)).square().sum(axis=3).sqrt() / strides.squeeze(1)
        place = paddle.stack([paddle.arange(len(labels)).unsqueeze(1).expand(labels.shape), labels], axis=2)
        own = paddle.gather_nd(logits.transpose([0, 2, 1]), place)
        soft = F.binary_cross_entropy_with_logits(own, ious, reduction="none") * (ious - F.sigmoid(own)).square()
        # Of a large box the last term may be infinite, and dearer than a point that is not usable: so in the reference.
        cost = soft - self.iou_weight * (ious + self.eps).log() + 10.0 ** (distance * usable - self.radius)
        return paddle.where(usable > 0, cost, paddle.full_like(cost, _BLOCKED))

    def _cheapest(self, cost, ious):
        """(N, G, P): 1 for the points that each box takes."""
        topk = min(self.topk, cost.shape[2])
        number = ious.topk(topk, axis=2)[0].sum(axis=2, keepdim=True).floor().clip(min=1.0)
        order = cost.topk(topk, axis=2, largest=False)[1]
        chosen = (paddle.arange(topk).astype("float32") < number).astype("float32")
        return paddle.put_along_axis(paddle.zeros_like(cost), order, chosen, 2)

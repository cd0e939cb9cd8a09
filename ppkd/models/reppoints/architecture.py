"""RepPoints as a whole (arXiv 1904.11490)."""

from ppdet.core.workspace import register

from ppkd.models.single_stage import SingleStage


@register
class RepPoints(SingleStage):
    """Backbone, neck and head.

    Args:
        backbone: one of ppdet's, with maps of strides 8, 16 and 32.
        neck: `FPN` with two extra levels.
        head: `RepPointsHead`.
    """

    def __init__(self, backbone="ResNet", neck="FPN", head="RepPointsHead"):
        super().__init__(backbone, neck, head)

    def get_pred(self):
        outputs = self._outputs()
        if not self.export_post_process:
            return dict(zip(("classes", "points_init", "points_refine"), outputs))
        boxes, scores = self.head.decode(outputs, self.inputs["im_shape"])
        boxes = boxes / self.inputs["scale_factor"].flip(-1).tile([1, 2]).unsqueeze(1)
        if not self.export_nms:
            return {"bbox": boxes, "scores": scores}
        boxes, counts, _ = self.head.nms(boxes, scores)
        return {"bbox": boxes, "bbox_num": counts}

"""RTMDet as a whole (Lyu et al., arXiv 2212.07784)."""

from ppdet.core.workspace import register

from ppkd.models.single_stage import SingleStage


@register
class RTMDet(SingleStage):
    """Backbone, neck and head.

    Args:
        backbone: `CSPNeXt`, or another backbone with maps of three strides.
        neck: `CSPNeXtPAFPN`.
        head: `RTMDetHead`.
    """

    def __init__(self, backbone="CSPNeXt", neck="CSPNeXtPAFPN", head="RTMDetHead"):
        super().__init__(backbone, neck, head)

    def get_pred(self):
        classes, distances = self._outputs()
        if not self.export_post_process:
            return {"classes": classes, "distances": distances}
        boxes, scores = self.head.decode(classes, distances)
        boxes = self.head.to_original(boxes, self.inputs["scale_factor"])
        if not self.export_nms:
            return {"bbox": boxes, "scores": scores}
        boxes, counts = self.head.suppress(boxes, scores, self.inputs["im_shape"] / self.inputs["scale_factor"])
        return {"bbox": boxes, "bbox_num": counts}

"""SOLO as a whole (arXiv 1912.04488)."""

import paddle
from ppdet.core.workspace import register

from ppkd.models.single_stage import SingleStage


@register
class SOLO(SingleStage):
    """Backbone, neck and head. It finds masks without boxes, of one image a batch as ppdet's SOLOv2 does.

    Args:
        backbone: one of ppdet's, with maps of strides 4 to 32.
        neck: `FPN` with one more level.
        head: `SOLOHead` or `DecoupledSOLOHead`.
    """

    def __init__(self, backbone="ResNet", neck="FPN", head="SOLOHead"):
        super().__init__(backbone, neck, head)

    def get_pred(self):
        masks, classes = self._outputs()
        shape, scale = self.inputs["im_shape"][0], self.inputs["scale_factor"][0]
        size = (shape / scale + 0.5).astype("int32")
        found, labels, scores = self.head.detect(masks, classes, shape.astype("int32"), size)
        return {"segm": found, "bbox_num": paddle.shape(labels)[:1], "cate_label": labels, "cate_score": scores}

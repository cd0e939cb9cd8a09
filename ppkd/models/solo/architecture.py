"""SOLO as a whole (arXiv 1912.04488)."""

import paddle
from ppdet.core.workspace import create, register
from ppdet.modeling.architectures.meta_arch import BaseArch


@register
class SOLO(BaseArch):
    """Backbone, neck and head. It finds masks without boxes, of one image a batch as ppdet's SOLOv2 does.

    Args:
        backbone: one of ppdet's, with maps of strides 4 to 32.
        neck: `FPN` with one more level.
        head: `SOLOHead` or `DecoupledSOLOHead`.
    """

    __category__ = "architecture"

    def __init__(self, backbone="ResNet", neck="FPN", head="SOLOHead"):
        super().__init__()
        self.backbone, self.neck, self.head = backbone, neck, head

    @classmethod
    def from_config(cls, cfg, *args, **kwargs):
        backbone = create(cfg["backbone"])
        neck = create(cfg["neck"], input_shape=backbone.out_shape)
        return {"backbone": backbone, "neck": neck, "head": create(cfg["head"], input_shape=neck.out_shape)}

    def _outputs(self):
        return self.head(self.neck(self.backbone(self.inputs)))

    def get_loss(self):
        losses = self.head.get_loss(*self._outputs(), self.inputs)
        return {**losses, "loss": paddle.add_n(list(losses.values()))}

    def get_pred(self):
        masks, classes = self._outputs()
        shape, scale = self.inputs["im_shape"][0], self.inputs["scale_factor"][0]
        size = (shape / scale + 0.5).astype("int32")
        found, labels, scores = self.head.detect(masks, classes, shape.astype("int32"), size)
        return {"segm": found, "bbox_num": paddle.shape(labels)[:1], "cate_label": labels, "cate_score": scores}

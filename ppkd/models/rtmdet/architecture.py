"""RTMDet as a whole (Lyu et al., arXiv 2212.07784)."""

import paddle
from ppdet.core.workspace import create, register
from ppdet.modeling.architectures.meta_arch import BaseArch


@register
class RTMDet(BaseArch):
    """Backbone, neck and head.

    Args:
        backbone: `CSPNeXt`, or another backbone with maps of three strides.
        neck: `CSPNeXtPAFPN`.
        head: `RTMDetHead`.
    """

    __category__ = "architecture"

    def __init__(self, backbone="CSPNeXt", neck="CSPNeXtPAFPN", head="RTMDetHead"):
        super().__init__()
        self.backbone, self.neck, self.head = backbone, neck, head
        # ppdet's export sets both.
        self.export_post_process = self.export_nms = True

    @classmethod
    def from_config(cls, cfg, *args, **kwargs):
        backbone = create(cfg["backbone"])
        neck = create(cfg["neck"], input_shape=backbone.out_shape)
        return {"backbone": backbone, "neck": neck, "head": create(cfg["head"], input_shape=neck.out_shape)}

    def _outputs(self):
        return self.head(self.neck(self.backbone(self.inputs)))

    def get_loss(self):
        losses = self.head.get_loss(self._outputs(), self.inputs)
        return {**losses, "loss": paddle.add_n(list(losses.values()))}

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

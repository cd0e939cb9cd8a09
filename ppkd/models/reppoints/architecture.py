"""RepPoints as a whole (arXiv 1904.11490)."""

import paddle
from ppdet.core.workspace import create, register
from ppdet.modeling.architectures.meta_arch import BaseArch


@register
class RepPoints(BaseArch):
    """Backbone, neck and head.

    Args:
        backbone: one of ppdet's, with maps of strides 8, 16 and 32.
        neck: `FPN` with two extra levels.
        head: `RepPointsHead`.
    """

    __category__ = "architecture"

    def __init__(self, backbone="ResNet", neck="FPN", head="RepPointsHead"):
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
        outputs = self._outputs()
        if not self.export_post_process:
            return dict(zip(("classes", "points_init", "points_refine"), outputs))
        boxes, scores = self.head.decode(outputs, self.inputs["im_shape"])
        boxes = boxes / self.inputs["scale_factor"].flip(-1).tile([1, 2]).unsqueeze(1)
        if not self.export_nms:
            return {"bbox": boxes, "scores": scores}
        boxes, counts, _ = self.head.nms(boxes, scores)
        return {"bbox": boxes, "bbox_num": counts}

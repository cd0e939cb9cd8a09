"""What the detectors of this wing share: backbone, neck and head, one after the other."""

import paddle
from ppdet.core.workspace import create
from ppdet.modeling.architectures.meta_arch import BaseArch


class SingleStage(BaseArch):
    """Backbone, neck and head, whose losses are added up; a subclass says what the head's outputs are as detections.

    Args:
        backbone: a module with `out_shape`.
        neck: likewise, made for the backbone's maps.
        head: a module with ``get_loss(outputs, inputs)``, made for the neck's.
    """

    __category__ = "architecture"

    def __init__(self, backbone, neck, head):
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

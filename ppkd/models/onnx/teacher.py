"""A model given as ONNX as ppdet builds it, with its outputs as sources."""

import paddle
import paddle.nn.functional as F
from paddle import nn
from ppdet.core.workspace import register

from ppkd.models.onnx.session import MEMORY, Session
from ppkd.terminal.log import logger

_NOT_THERE = "has nothing for CUDA here: pip uninstall onnxruntime, pip install onnxruntime-gpu"
_NOT_STARTED = (
    "does not start CUDA here: onnxruntime-gpu needs a GPU, and CUDA and cuDNN of the versions that it was built for"
)


@register
class ONNXTeacher(nn.Layer):
    """A file of another framework as a teacher, run by ONNX Runtime.

    Attributes:
        session: the `session.Session`.
        notice: what a run tells of it.
        out0, out1, ...: hand on the outputs, in the session's order, when they are recorded.

    Args:
        file: path of the ONNX file.
        memory: gigabytes that it may take (see `process.Process`).
        bgr: whether its images are blue, green, red.
    """

    def __init__(self, file, memory=MEMORY, bgr=False):
        super().__init__()
        gpu, expected = _gpu()
        self.session, self._bgr = Session(file, "teacher.onnx", memory, gpu), bgr
        if gpu is not None and self.session.provider != "CUDA" and (expected or self.session.known):
            logger().warning("teacher.onnx: %s: it runs on the CPU, since ONNX Runtime %s", file,
                             _NOT_STARTED if self.session.known else _NOT_THERE)  # fmt: skip
        self.notice = (
            f"ONNX Runtime ({self.session.provider}), in a process of its own that can take {memory:g} GB of memory "
            "at most (memory: GB)"
        )
        for i in range(len(self.session.outputs)):
            self.add_sublayer(f"out{i}", nn.Identity())

    @property
    def process_memory(self):
        """The most bytes that its process has taken so far, and that it can take."""
        return self.session.peak, int(self.session.memory * 2**30)

    def fitted(self, image):
        """Images (N, 3, H, W) in the size and the order of colours that the file takes, float32."""
        fixed = [ours if theirs is None else theirs for ours, theirs in zip(image.shape[2:], self.session.size)]
        if fixed != list(image.shape[2:]):
            image = F.interpolate(image, size=fixed, mode="bilinear", align_corners=False)
        return (image.flip(1) if self._bgr else image).astype("float32")

    def forward(self, batch, wanted):
        """Run the file.

        Args:
            batch: with ``image`` (N, 3, H, W), and ``im_shape`` and ``scale_factor`` if the file asks for them.
            wanted: names of the layers above whose output is recorded.
        """
        beside = {name: batch[name].numpy() for name in ("im_shape", "scale_factor") if name in batch}
        numbers = sorted(int(name[3:]) for name in wanted)
        names = [self.session.outputs[i] for i in numbers]
        for i, value in zip(numbers, self.session.maps(self.fitted(batch["image"]).numpy(), names, beside)):
            getattr(self, f"out{i}")(paddle.to_tensor(value.astype("float32")))


def _gpu():
    """The GPU that a file is to run on, Paddle's own, None for the CPU; and whether Paddle uses one.

    A Paddle that was not made for CUDA says nothing of the machine, so that ONNX Runtime may have the first.
    """
    if not paddle.is_compiled_with_cuda():
        return 0, False
    kind, _, number = paddle.get_device().partition(":")
    return (int(number or 0), True) if kind == "gpu" else (None, False)

"""S2ANet's aligned convolution asks a number for its ``numpy``, for a count of images that it does not use."""

from ppkd.bridge.compat.looks import NOT_NEEDED, says
from ppkd.bridge.compat.wrapping import wrap


def align_without_counting_images():
    """Let ``AlignConv`` do without the size of the batch.

    It writes ``x.shape[0].numpy()``, and a size is a number of Python's: S2ANet neither trains nor evaluates.

    Needed for: clones of PaddleDetection, develop of 2025 included; not for the wheel.
    """
    from ppdet.modeling.layers import AlignConv

    if not says(AlignConv.forward, r"batch = x\.shape.*\.numpy\(\)"):
        return NOT_NEEDED
    wrap(AlignConv, "forward", _uncounted)


def _uncounted(forward):
    from paddle.nn import functional as F

    def uncounted(self, x, refine_anchors, featmap_size, stride):
        return F.relu(self.align_conv(x, self.get_offset(refine_anchors, featmap_size, stride)))

    return uncounted

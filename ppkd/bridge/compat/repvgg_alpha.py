"""PP-YOLOE's backbone asks the device in every block of every step whether a learned factor is zero."""

from ppkd.bridge.compat.looks import NOT_NEEDED, says
from ppkd.bridge.compat.wrapping import wrap


def know_that_there_is_an_alpha():
    """Let ``RepVggBlock`` take its factor ``alpha`` if it has one, whatever its value is.

    It writes ``if self.alpha``, which reads the parameter: the host waits for the device, six times a pass and more.
    (At exactly 0 its own way leaves the factor out, as if it were 1.)

    Needed for: PaddleDetection's wheel and clones up to October 2024.
    """
    from ppdet.modeling.backbones.cspresnet import RepVggBlock

    if not says(RepVggBlock.forward, r"if self\.alpha:"):
        return NOT_NEEDED
    wrap(RepVggBlock, "forward", _without_a_look)


def _without_a_look(forward):
    def without_a_look(self, x):
        if hasattr(self, "conv") or self.alpha is None:
            return forward(self, x)
        return self.act(self.conv1(x) + self.alpha * self.conv2(x))

    return without_a_look

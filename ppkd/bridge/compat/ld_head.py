"""ppdet's LDGFLHead has no loss of its own: it wants a teacher's outputs as further arguments."""

import inspect

from ppkd.bridge.compat.looks import NOT_NEEDED
from ppkd.bridge.compat.wrapping import wrap


def let_ld_head_train_alone():
    """Give `LDGFLHead` the plain GFL loss where nobody passes it a teacher's outputs.

    A student file of PaddleDetection's localisation distillation has this head. Without the patch it cannot train but
    inside of ppdet's LDDistillModel: "get_loss() missing 2 required positional arguments". Here LD is made of terms
    beside the student's own loss.

    Needed for: PaddleDetection's wheel and clones up to October 2024.
    """
    from ppdet.modeling.heads.gfl_head import LDGFLHead

    own = inspect.signature(inspect.unwrap(LDGFLHead.get_loss)).parameters.values()
    if sum(parameter.default is parameter.empty for parameter in own) <= len(("self", "outputs", "targets")):
        return NOT_NEEDED
    wrap(LDGFLHead, "get_loss", _or_plain)


def _or_plain(with_teacher):
    from ppdet.modeling.heads.gfl_head import GFLHead

    def get_loss(self, outputs, targets, *soft):
        return with_teacher(self, outputs, targets, *soft) if soft else GFLHead.get_loss(self, outputs, targets)

    return get_loss

"""ppkd: knowledge distillation for object detectors on PaddlePaddle.

Importing it cures ppdet's defects on today's Paddle (`compat`) and adds detectors to ppdet's (`models`) in this
process, whenever ppdet is imported.
"""

from ppkd.bridge.compat.on_import import after_import
from ppkd.bridge.compat.stand_ins import StandIns
from ppkd.bridge.compat.zlib_order import load_zlib_before_paddle
from ppkd.moved import find_moved_modules

TYPE_CHECKING = False  # what type checkers take for true, without importing typing
if TYPE_CHECKING:
    from ppkd.api import compare, distill, doctor, evaluate, export, label, predict, report, train

# The functions of `api`, imported when first asked for: importing ppkd stays as quick as it is.
__all__ = ["compare", "distill", "doctor", "evaluate", "export", "label", "predict", "report", "train"]


def __getattr__(name):
    if name in __all__:
        from ppkd import api

        return getattr(api, name)
    raise AttributeError(f"module 'ppkd' has no attribute {name!r}")


def __dir__():
    return sorted({*globals(), *__all__})


def _extend_ppdet():
    from ppkd import models
    from ppkd.bridge import compat

    compat.cure_ppdet()
    models.register()


load_zlib_before_paddle()
after_import("ppdet", _extend_ppdet, StandIns)
find_moved_modules()

__version__ = "0.1.0"

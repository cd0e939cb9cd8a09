"""ppdet's ATSS assigner takes the nearest so many cells of every level, and small images do not have so many."""

import paddle

from ppkd.bridge.compat.looks import NOT_NEEDED, says
from ppkd.bridge.compat.module_view import replace


def take_what_cells_there_are():
    """Let `ATSSAssigner` choose among fewer cells than its ``topk`` (Zhang et al., CVPR 2020, choose at most k).

    Without it PP-YOLOE and TOOD do not train where the coarsest level has fewer than 9 cells, as TOOD's has up to 256
    pixels: "The rank (9) of the input 'k' for topk op must be less than or equal to 4".

    Needed for: PaddleDetection's wheel and clones up to October 2024.
    """
    from ppdet.modeling.assigners import ATSSAssigner

    if not says(ATSSAssigner, r"paddle\.topk\(\s*\w+,\s*self\.topk,"):
        return NOT_NEEDED
    replace("ppdet.modeling.assigners.atss_assigner", topk=_topk)


def _topk(x, k, axis=-1, largest=True):
    return paddle.topk(x, min(k, x.shape[axis]), axis=axis, largest=largest)

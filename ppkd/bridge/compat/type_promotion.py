"""Paddle 3 refuses to calculate with tensors of unequal types, which ppdet does with labels, masks and strides."""

import inspect
from functools import partial

import paddle

from ppkd.bridge.compat.looks import NOT_NEEDED, refuses_types, says
from ppkd.bridge.compat.module_view import replace
from ppkd.bridge.compat.wrapping import wrap


def _give(module, mixing, types, **functions):
    """Let a module of ppdet find `functions` in Paddle's place, if it says `mixing` and Paddle refuses those types.

    `mixing` is the very expression in which the types meet: those before it are the same where upstream casts there.
    """
    if not says(module, mixing) or not refuses_types(*types):
        return NOT_NEEDED
    return replace(module.__name__, **functions)


def let_assigners_take_int32_labels():
    """Cast the class labels to int64 before `ATSSAssigner` and `TaskAlignedAssigner` derive their index type from them.

    Without it PP-YOLOE does not train: "Type promotion only support ... data type x: int64, y: int32".

    Needed for: paddledet 2.6.0 on Paddle 3; clones from 2.7 on cast.
    """
    from ppdet.modeling.assigners import ATSSAssigner, TaskAlignedAssigner

    both = (ATSSAssigner, TaskAlignedAssigner)
    mixing = [assigner for assigner in both if says(assigner, r"index \+ batch_ind \* num_max_boxes\s")]
    if not mixing or not refuses_types("int64", "int32"):
        return NOT_NEEDED
    for assigner in mixing:
        wrap(assigner, "forward", _with_int64_labels)


def _with_int64_labels(forward):
    signature = inspect.signature(forward)

    def with_int64_labels(*args, **kwargs):
        call = signature.bind(*args, **kwargs)
        call.arguments["gt_labels"] = call.arguments["gt_labels"].astype("int64")
        return forward(*call.args, **call.kwargs)

    return with_int64_labels


def let_quality_focal_loss_mask():
    """Give the quality focal loss its mask of positives in numbers, by which it multiplies.

    Without it GFL does not train: "Type promotion only support ... data type x: float32, y: bool".

    Needed for: paddledet 2.6.0 on Paddle 3; clones from 2.7 on cast.
    """
    from ppdet.modeling.losses import gfocal_loss

    mixes = r"loss \* paddle\.logical_not\(pos_mask\) "
    return _give(gfocal_loss, mixes, ("float32", "bool"), to_tensor=_mask_to_tensor, logical_not=_not)


def _mask_to_tensor(data, dtype=None, **kwargs):
    return paddle.to_tensor(data, dtype="float32" if dtype == "bool" else dtype, **kwargs)


def _not(x):
    return paddle.logical_not(x).astype("float32")


def let_solov2_compare_areas():
    """Give SOLOv2's post-processing the strides as the floats that it compares areas with.

    Without it SOLOv2 does not evaluate: "Type promotion only support ... data type x: float32, y: int32".

    Needed for: paddledet 2.6.0 on Paddle 3; clones from 2.7 on cast.
    """
    from ppdet.modeling.heads import solov2_head

    return _give(solov2_head, r"sum_masks > strides,", ("float32", "int32"), gather=_gather_floats)


def _gather_floats(x, index, axis=None):
    found = paddle.gather(x, index, axis)
    return found.astype("float32") if found.dtype == paddle.int32 else found  # of all that it gathers, the strides


def let_ssd_compare_ranks():
    """Give SSD's mining of hard examples the numbers of them in the integers that it compares ranks with.

    Without it SSD does not train: "Type promotion only support ... data type x: int64, y: float32".

    Needed for: paddledet 2.6.0 on Paddle 3; clones from 2.7.1 on cast.
    """
    from ppdet.modeling.losses import ssd_loss

    compares = r"\(\s*idx_rank\s*<\s*num_negs\s*\)"
    return _give(ssd_loss, compares, ("int64", "float32"), stack=_stack_whole)


def _stack_whole(x, axis=0):
    return paddle.stack(x, axis).astype("int64")  # cut off, as Paddle 2 does; what else it stacks are indices


def let_ttfnet_add_places():
    """Give TTFNet's loss the places of its cells as the floats that it adds them to.

    Without it TTFNet does not train: "Type promotion only support ... data type x: float32, y: int32".

    Needed for: paddledet 2.6.0 on Paddle 3; clones from 2.7.1 on cast.
    """
    from ppdet.modeling.heads import ttf_head

    adds = r"pred_wh\[:, 0:2, :, :\]\s*\+\s*base_loc\s*,"
    return _give(ttf_head, adds, ("float32", "int32"), arange=_range_of_floats)


def _range_of_floats(start, end, step, dtype):
    return paddle.arange(start, end, step, "float32")


def let_sparse_rcnn_compare_classes():
    """Give Sparse R-CNN's loss the numbers of classes in the integers that it compares labels with.

    Without it Sparse R-CNN does not train: "Type promotion only support ... data type x: int32, y: int64".

    Needed for: paddledet 2.6.0 on Paddle 3; clones from 2.7.1 on cast.
    """
    from ppdet.modeling.losses import sparsercnn_loss

    compares = r"target_classes\.unsqueeze\(-1\)\s*==\s*class_ids\s*\)"
    return _give(sparsercnn_loss, compares, ("int32", "int64"), arange=partial(paddle.arange, dtype="int32"))


def let_queryinst_compare_classes():
    """Give QueryInst's loss the numbers of classes in the integers that it compares labels with.

    Without it QueryInst does not train: "Type promotion only support ... data type x: int32, y: int64".

    Needed for: paddledet 2.6.0 and clones on Paddle 3.
    """
    from ppdet.modeling.losses import queryinst_loss

    compares = r"tgt_labels\s*==\s*paddle\.arange\(0, self\.num_classes\),\s*dtype=['\"]float32['\"],?\s*\)"
    return _give(queryinst_loss, compares, ("int32", "int64"), arange=partial(paddle.arange, dtype="int32"))


def let_deformable_attention_divide():
    """Give deformable attention the sizes of its maps in the floats that it divides offsets by.

    Without it Deformable DETR and DINO do not run: "Type promotion only support ... data type x: float32, y: int64".

    Needed for: paddledet 2.6.0 on Paddle 3; clones from 2.7 on cast.
    """
    from ppdet.modeling.transformers.deformable_transformer import MSDeformableAttention

    divides = says(MSDeformableAttention.forward, r"sampling_offsets / offset_normalizer\n")
    if not divides or not refuses_types("float32", "int64"):
        return NOT_NEEDED
    if not hasattr(MSDeformableAttention, "ppdets_forward"):
        MSDeformableAttention.ppdets_forward = MSDeformableAttention.forward
        MSDeformableAttention.forward = _with_sizes_in_floats
    wrap(MSDeformableAttention, "__init__", _with_whole_sizes_behind)


def _with_sizes_in_floats(
    self, query, reference_points, value, value_spatial_shapes, value_level_start_index, value_mask=None
):
    # Neither a closure nor functools.wraps: an export traces the source, of a wrapped function that of the original.
    sizes = value_spatial_shapes.astype("float32")
    return self.ppdets_forward(query, reference_points, value, sizes, value_level_start_index, value_mask)


def _with_whole_sizes_behind(init):
    def with_whole_sizes_behind(self, *args, **kwargs):
        init(self, *args, **kwargs)
        self.ms_deformable_attn_core = partial(_sample, self.ms_deformable_attn_core)

    return with_whole_sizes_behind


def _sample(core, value, value_spatial_shapes, *rest):
    return core(value, value_spatial_shapes.astype("int64"), *rest)  # by which it splits


def let_denoising_choose_labels():
    """Give the choice of labels that DINO denoises in the numbers that it multiplies by those of real boxes.

    Without it DINO does not train: "Type promotion only support ... data type x: bool, y: float32".

    Needed for: paddledet 2.6.0 on Paddle 3; clones from 2.7.1 on cast.
    """
    from ppdet.modeling.transformers import utils

    multiplies = r"mask = paddle\.rand\([^\n]*\n\s*chosen_idx = paddle\.nonzero\(\s*mask \* pad_gt_mask\s*\)"
    return _give(utils, multiplies, ("bool", "float32"), rand=_draw)


def _draw(shape, *args, **kwargs):
    drawn = paddle.rand(shape, *args, **kwargs)
    return _Drawn(drawn) if len(shape) == 1 else drawn  # the others are of boxes


class _Drawn:
    """Random numbers that are there to be compared."""

    def __init__(self, values):
        self._values = values

    def __lt__(self, other):
        return (self._values < other).astype("float32")

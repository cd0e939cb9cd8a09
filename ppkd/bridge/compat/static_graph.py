"""Cures for what stops ppdet's own export; applied by `ppkd.exporting.static`, since nothing else needs them."""

import paddle

from ppkd.bridge.compat.looks import APPLIED, NOT_NEEDED, says
from ppkd.bridge.compat.module_view import replace
from ppkd.bridge.compat.rewriting import rewrite

# Attributes of ppdet's calls in the order in which the operators of Paddle 3 take them.
_ATTRIBUTES = {
    "distribute_fpn_proposals": ("min_level", "max_level", "refer_level", "refer_scale", "pixel_offset"),
    "generate_proposals": ("pre_nms_topN", "post_nms_topN", "nms_thresh", "min_size", "eta", "pixel_offset"),
    "matrix_nms": (
        "score_threshold", "nms_top_k", "keep_top_k", "post_threshold", "use_gaussian", "gaussian_sigma",
        "background_label", "normalized",
    ),
    "multiclass_nms3": (
        "score_threshold", "nms_top_k", "keep_top_k", "nms_threshold", "normalized", "nms_eta", "background_label",
    ),
    "prior_box": (
        "min_sizes", "max_sizes", "aspect_ratios", "variances", "flip", "clip", "step_w", "step_h", "offset",
        "min_max_aspect_ratios_order",
    ),
}  # fmt: skip
# Those that a call may leave out.
_LEFT_OUT = {"max_sizes": []}
_NEW_NAMES = {"generate_proposals_v2": "generate_proposals"}


def cure_export():
    """Apply the cures of this module whose defect this host has; applied again they change nothing.

    Returns:
        What became of each: cure -> `looks.APPLIED` or `looks.NOT_NEEDED`.
    """
    cures = (
        let_operators_be_traced,
        let_both_branches_count_alike,
        let_both_branches_move_on_alike,
        keep_projections_apart,
    )
    return {cure: cure() or APPLIED for cure in cures}


def let_operators_be_traced():
    """Let ppdet's own operators (NMS, proposals) be traced into the graphs of Paddle 3.

    ppdet knows dynamic mode and the graphs of Paddle 2. In those of Paddle 3 the operators take the same calls as in
    dynamic mode, through another module. Without it no detector with NMS is exported: "The type of '%BBoxes' in
    operator multiclass_nms3 should be one of [str, bytes, Variable]".

    Needed for: PaddleDetection's wheel and clones up to October 2024 on Paddle 3 (of the develop branch one kind of NMS
    knows these graphs, and nothing else does); on Paddle 2 nothing is changed.
    """
    from ppdet.modeling import ops

    if not paddle.framework.use_pir_api() or not says(ops, r"\n    if in_dynamic_mode\(\):"):
        return NOT_NEEDED
    if not isinstance(ops.C_ops, _Operators):
        ops.in_dynamic_mode, ops.C_ops = _calls_operators_directly, _Operators(ops.C_ops)


def _calls_operators_directly():
    return paddle.in_dynamic_mode() or _in_graph_of_paddle_3()


class _Operators:
    """Paddle's legacy operators; while a graph is built, those of Paddle 3."""

    def __init__(self, legacy):
        self._legacy = legacy

    def __getattr__(self, name):
        return _traced(_NEW_NAMES.get(name, name)) if _in_graph_of_paddle_3() else getattr(self._legacy, name)


def _traced(name):
    def call(*args):
        # As legacy operators are called: tensors first, then name, value, name, value.
        count = next(i for i, arg in enumerate(args) if isinstance(arg, str))
        attributes = _LEFT_OUT | dict(zip(args[count::2], args[count + 1 :: 2]))
        # Those with lists of results are told the lengths; here they follow from the levels.
        tensors = [arg for arg in args[:count] if not isinstance(arg, int)]
        return getattr(paddle._C_ops, name)(*tensors, *(attributes[key] for key in _ATTRIBUTES[name]))

    return call


def let_both_branches_count_alike():
    """Let the post-processing of R-CNNs use one kind of number for the boxes of an image with and without any.

    It takes a list of one for "none found, one fake box" and an element of a tensor otherwise, and the two branches of
    a condition have to agree. Without it Paddle 3 does not trace Faster, Mask and Cascade R-CNN ("Does not support rank
    inconsistency"), and on Paddle 2 their exported models do not run ("The axis is expected to be in range of [0, 0)").

    Needed for: paddledet 2.6.0 on Paddle 2.5 and later; clones from 2.6.1 on take a list of one in both.
    """
    from ppdet.modeling import post_process

    if not says(post_process, r"bbox_num_i = bbox_num\[i\]\s"):
        return NOT_NEEDED
    return replace(post_process.__name__, to_tensor=_count)


def let_both_branches_move_on_alike():
    """Let the post-processing of R-CNNs go from the boxes of one image to the next image's by a number.

    It adds a list of one, where it found any, to the number that it keeps where it found none, and the two branches of
    a condition have to agree. Without it Faster, Mask and Cascade R-CNN are not exported: "The dtype in output[2] of
    true_block&false_block must be equal".

    Needed for: clones of 2.6.1 and 2.7 on Paddle 3; the wheel and clones from 2.7.1 on add a number.
    """
    from ppdet.modeling.post_process import BBoxPostProcess

    moves = r"(id_start \+= bbox_num)\[i\s*:\s*i \+ 1\]"
    former = getattr(BBoxPostProcess, "ppdets_get_pred", BBoxPostProcess.get_pred)
    if not paddle.framework.use_pir_api() or not says(former, moves):
        return NOT_NEEDED
    return rewrite(BBoxPostProcess, "get_pred", moves, r"\1[i]")


def keep_projections_apart():
    """Let GFL's integral of its edge distributions end in a reshape, which changes nothing.

    All levels multiply by one shared projection, and then by their stride. Paddle Inference fuses the two
    (``matmul_v2_scale_fuse_pass``) by scaling the shared projection, once for every level: boxes come out wrong by
    factors, without a message.

    Needed for: Paddle Inference 2.6 with its default optimisation; not for the graphs of Paddle 3.
    """
    from ppdet.modeling.heads.gfl_head import Integral

    if paddle.framework.use_pir_api():
        return NOT_NEEDED
    if not hasattr(Integral, "ppdets_forward"):
        Integral.ppdets_forward, Integral.forward = Integral.forward, _ending_in_a_reshape


def _ending_in_a_reshape(self, x):
    # Neither a closure nor functools.wraps: Paddle traces the source, of a wrapped function that of the original.
    distances = self.ppdets_forward(x)
    return distances if self.training else distances.reshape([-1])


def _count(data, *args, **kwargs):
    if not paddle.in_dynamic_mode() and getattr(data, "shape", None) == (1,):  # DETR's is a plain number
        data = data.reshape([])
    return paddle.to_tensor(data, *args, **kwargs)


def _in_graph_of_paddle_3():
    return paddle.framework.in_pir_mode()

"""Whether what makes boxes of a decoder's predictions goes with the decoder: training alone would not show it."""

from ppkd.detectors.detr import DETR
from ppkd.errors import UserError


def check_post_process(model):
    """Refuse a post-processing of DETR and its kin that cannot work.

    Raises:
        UserError: a class that this ppdet has not got, which ppdet leaves a text where the config has a section of that
            name; or more boxes than the decoder makes, of which Paddle's ``topk`` reads other images' and what is not
            there, or ppdet counts such as there are not.
    """
    if not DETR.fits(model):
        return
    part = getattr(model, "post_process", None)
    if isinstance(part, str):
        raise UserError(
            f"DETR.post_process: this PaddleDetection has no {part}: it is DETRBBoxPostProcess in the wheel and "
            "DETRPostProcess in clones from 2.6.1 on"
        )
    top, queries = getattr(part, "num_top_queries", None), getattr(model.transformer, "num_queries", None)
    if top is None or queries is None:
        return
    kind, focal = type(part).__name__, getattr(part, "use_focal_loss", False)
    if focal or kind == "DETRPostProcess":
        classes = DETR(model).num_classes
        most = queries * classes if focal else queries
        if top > most:
            made = f"{queries} queries of {classes} classes" if focal else f"{queries} queries"
            raise UserError(f"{kind}.num_top_queries is {top}, and the decoder has {made}: set {most} or less")

"""``distill_loss: DistillYOLOv3Loss``: distillation gated by the teacher's objectness (Mehta and Ozturk 2018)."""

from ppkd.methods.params import as_paddledet, read
from ppkd.recipe.plan import Plan, TermSpec

SOURCES = ("head.box[*]", "head.objectness[*]", "head.cls[*]")


def plan(method):
    """One term on all pairs of levels of equal stride."""
    as_paddledet(method)  # the same numbers; the option is checked all the same
    weight = read(method, {"weight": 1000.0})["weight"]
    return Plan.of([TermSpec("yolov3", SOURCES, SOURCES, {"name": "yolov3"}, weight=weight)], method)

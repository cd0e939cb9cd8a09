"""A teacher's maps are held as long as the terms need them, and inputs of modules where they are taken."""

import weakref

import paddle
import pytest

from ppkd.build import build_model
from ppkd.detectors.recorders import Recorder
from ppkd.engine.model import DistillModel
from ppkd.engine.terms import Term
from ppkd.losses import FGDLoss
from tests.conftest import training_batch

PAIRS = [("retinanet", "FGD"), ("ppyoloe", "ppyoloe")]


def tensors(values):
    if isinstance(values, paddle.Tensor):
        return [values]
    return [x for value in values for x in tensors(value)] if isinstance(values, (list, tuple)) else []


@pytest.mark.parametrize("family, method", PAIRS)
def test_the_teachers_maps_are_let_go_as_soon_as_the_terms_have_them(family, method, recipe, monkeypatch):
    loaded = recipe(family, method)
    model, held, seen = build_model(loaded), [], []
    leave, add = Recorder.__exit__, DistillModel._added

    def left(self, *exception):
        leave(self, *exception)
        if not held:  # the teacher's comes first
            held.extend(weakref.ref(x) for x in tensors([*self.outputs.values()]))

    def added(self, *args):
        seen.extend(ref() is not None for ref in held)
        return add(self, *args)

    monkeypatch.setattr(Recorder, "__exit__", left)
    monkeypatch.setattr(DistillModel, "_added", added)
    # A loss that keeps nothing of its teacher: who else does?
    monkeypatch.setattr(Term, "forward", lambda self, student, *_: {"": sum(x.mean() for x in tensors(student))})
    monkeypatch.setattr(FGDLoss, "together", lambda losses, students, *_, **__: [{"": x.mean()} for x in students])
    model.train()
    model(training_batch(loaded))
    assert seen and not any(seen)


@pytest.mark.parametrize("family, method", PAIRS)
def test_no_input_is_kept_that_nobody_takes(family, method, recipe, monkeypatch):
    loaded = recipe(family, method)
    model, kept, leave = build_model(loaded), [], Recorder.__exit__
    monkeypatch.setattr(Recorder, "__exit__", lambda self, *e: (kept.append(dict(self.inputs)), leave(self, *e))[1])
    model.train()
    model(training_batch(loaded))
    assert kept == [{}, {}]

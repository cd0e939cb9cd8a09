"""Levels of a line that are compared together: what comes out is that of each by itself, and nobody else notices."""

import pytest

from benchmarks.study.launches import as_on_a_gpu
from ppkd.build import build_model
from ppkd.engine import terms, together
from ppkd.engine.balance import untouched
from ppkd.losses import FGDLoss
from tests.conftest import training_batch


@pytest.fixture
def opened(recipe, monkeypatch):
    """A model whose FGD has five levels, its batch, and a list of how many levels were compared at each time."""
    loaded = recipe("retinanet", "fgd")
    model, numbers, compute = build_model(loaded), [], FGDLoss.together

    def counted(losses, *rest, **context):
        numbers.append(len(losses))
        return compute(losses, *rest, **context)

    monkeypatch.setattr(FGDLoss, "together", staticmethod(counted))
    model.train()
    return model, training_batch(loaded), numbers


def _losses(model, batch):
    with untouched(model):
        return {name: float(x) for name, x in model(dict(batch)).items()}


def test_a_step_as_on_a_gpu_has_the_same_losses_by_the_same_names(opened):
    model, batch, numbers = opened
    here = _losses(model, batch)
    with as_on_a_gpu():
        there = _losses(model, batch)
    assert numbers == [5, 5]
    assert list(here) == list(there) and sum(name.startswith("fgd.s") for name in here) == 20
    assert there == {name: pytest.approx(x, rel=1e-4) for name, x in here.items()}


def test_a_loss_with_a_hook_is_called_by_itself_with_what_it_compares(opened):
    model, batch, numbers = opened
    expected, seen = _losses(model, batch), []
    handle = model.terms[1].loss.register_forward_pre_hook(lambda layer, inputs: seen.append(inputs[:2]))
    assert _losses(model, batch) == expected
    handle.remove()
    assert sorted(numbers) == [1, 4, 5]
    ((student, teacher),) = seen
    assert student.shape == teacher.shape and student.shape[2] > 1


def test_a_line_with_one_level_and_other_losses_are_compared_as_ever(opened, monkeypatch):
    model, batch, numbers = opened
    called = []
    monkeypatch.setattr(terms.Term, "compare", lambda self, *_: called.append(self.label) or {"": self.label})
    active = model.active_terms()[:1]
    found = together.compare_all(active, None, {active[0][0].label: None}, None)
    assert found == [(*active[0], {"": active[0][0].label})] and called == [active[0][0].label] and not numbers


def test_lines_of_other_options_are_not_compared_together(opened, recipe):
    """Two lines of the same loss and levels, as of masks beside context: each level has its own line's options."""
    numbers = opened[2]
    loss = "{name: fgd, temp: 2.0, alpha: 1.0}"
    other = f"distill.terms.other={{student: 'neck[*]', student_connector: align, loss: {loss}}}"
    loaded = recipe("retinanet", "fgd_by_hand", overrides=[other])
    model, batch = build_model(loaded), training_batch(loaded)
    model.train()
    found = _losses(model, batch)
    assert numbers == [5, 5]
    handles = [term.loss.register_forward_pre_hook(lambda *_: None) for term in model.terms]
    assert found == {name: pytest.approx(x, rel=1e-6) for name, x in _losses(model, batch).items()}
    assert numbers[2:] == [1] * 10
    for handle in handles:
        handle.remove()

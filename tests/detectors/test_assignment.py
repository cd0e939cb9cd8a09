"""PP-YOLOE's target assignment: what the terms get is what the student's loss used, and the teacher may decide."""

import argparse

import paddle
import pytest

from ppkd.build import build_model, build_student
from ppkd.detectors import detector_for
from ppkd.detectors.recorders import Recorder
from ppkd.engine.model import TEACHER
from ppkd.engine.terms import Term
from tests.conftest import enliven, training_batch
from tests.helpers_training import differing, fail, settle


@pytest.fixture
def distilled(recipe):
    """Function from overrides to a `DistillModel` of PP-YOLOE with lively heads, and a batch of four images."""

    def make(*overrides):
        loaded = recipe("ppyoloe", "ppyoloe", overrides=["TrainReader.batch_size=4", *overrides])
        model = build_model(loaded)
        enliven(model.student)
        return model, training_batch(loaded)

    return make


def used_by_the_loss(model, batch, monkeypatch):
    """The labels and scores that the student's own loss works with in a step, and the contexts that the terms got."""
    head, used, contexts = model.student.yolo_head, [], []
    box_loss, compare = head._bbox_loss, Term.compare
    with monkeypatch.context() as patch:
        patch.setattr(head, "_bbox_loss", lambda *args: used.append((args[3], args[5])) or box_loss(*args))
        patch.setattr(Term, "compare", lambda self, s, t, c: contexts.append(c) or compare(self, s, t, c))
        model(dict(batch))
    (labels, scores), assignment = used[0], contexts[0].assignment
    assert len(used) == 1
    return [labels, scores], [assignment.labels, assignment.scores]


@pytest.mark.parametrize("beside", [(), ("a mask",)], ids=["as in clones", "as in the wheel"])
def test_what_an_assigner_returns_beside_the_targets_is_no_part_of_them(beside, recipe):
    detector, recorder = detector_for(build_student(recipe("ppyoloe", distil=False))), argparse.Namespace()
    recorder.outputs = {path: [] for path in detector.assigners}
    recorder.outputs[detector.assigners[-1]].append(("labels", "boxes", "scores", *beside))
    found = detector.assigned(recorder)
    assert (found.labels, found.boxes, found.scores) == ("labels", "boxes", "scores")
    assert found.background == detector.head.num_classes


@pytest.mark.parametrize("epoch", [0, 1])
@pytest.mark.parametrize("assigner", ["student", "teacher"])
def test_terms_get_the_assignment_that_the_students_loss_used(epoch, assigner, distilled, monkeypatch):
    model, batch = distilled(f"distill.assigner={assigner}")
    used, recorded = used_by_the_loss(model, {**batch, "epoch_id": epoch}, monkeypatch)
    assert differing(used, recorded) == []
    assert (recorded[0] != model.student.yolo_head.num_classes).any(), "nothing was assigned"


def test_the_teachers_assignment_is_what_its_own_loss_would_make(distilled, monkeypatch):
    model, batch = distilled()
    batch["epoch_id"] = 1
    adapter = detector_for(model.teachers[TEACHER])
    with paddle.no_grad(), Recorder(adapter.model, [tap.path for tap in adapter.outputs()]) as recorder:
        adapter.run(dict(batch), {"yolo_head"})
    made = adapter.assign(recorder, batch)
    settle(adapter.model).train()
    settle(adapter.model)
    with Recorder(adapter.model, adapter.assigners) as recorder:
        adapter.model(dict(batch))
    own = adapter.assigned(recorder)
    assert (made.labels != made.background).any()
    assert (made.labels == own.labels).all()
    assert (made.boxes - own.boxes).abs().max() < 1e-3 and (made.scores - own.scores).abs().max() < 1e-4
    assert made.positive.sum() == (made.labels != made.background).astype("float32").sum()


def test_the_students_loss_takes_the_teachers_targets_in_dynamic_epochs_only(distilled, monkeypatch):
    model, batch = distilled("distill.assigner=teacher")
    by_teacher = [used_by_the_loss(model, {**batch, "epoch_id": epoch}, monkeypatch)[0] for epoch in (0, 1)]
    model._assigner = None
    by_student = [used_by_the_loss(model, {**batch, "epoch_id": epoch}, monkeypatch)[0] for epoch in (0, 1)]
    assert differing(by_teacher[0], by_student[0]) == [], "geometry alone"
    assert differing(by_teacher[1], by_student[1]), "the student's own predictions decided"
    assert detector_for(model.student).assigns_by_prediction({"epoch_id": 1})
    assert not detector_for(model.student).assigns_by_prediction({"epoch_id": 0})


def attributes(layer):
    """The names of all that is set on a layer; tensors become buffers."""
    return {*vars(layer), *layer._buffers, *layer._parameters, *layer._sub_layers}


def test_every_step_has_targets_of_its_own_and_the_head_keeps_none(distilled, monkeypatch):
    model, batch = distilled("distill.assigner=teacher")
    batch["epoch_id"] = 1
    head = model.student.yolo_head
    before = attributes(head)
    first, _ = used_by_the_loss(model, batch, monkeypatch)
    other = {key: value.flip(0) if isinstance(value, paddle.Tensor) else value for key, value in batch.items()}
    second, _ = used_by_the_loss(model, other, monkeypatch)
    again, _ = used_by_the_loss(model, batch, monkeypatch)
    assert differing(first, second) and differing(first, again) == []
    assert attributes(head) == before
    # The whole batch turned round: so are its targets.
    assert (first[0].flip(0) == second[0]).all()
    monkeypatch.setattr(head, "_bbox_loss", fail)
    with pytest.raises(ZeroDivisionError):
        model(dict(batch))
    monkeypatch.undo()
    assert attributes(head) == before


def test_given_changes_nothing_without_an_assignment(recipe):
    adapter, other = (detector_for(build_student(recipe(family, distil=False))) for family in ("ppyoloe", "gfl"))
    before = attributes(adapter.head)
    with adapter.given(None):
        assert attributes(adapter.head) == before
    with other.given(None):
        pass
    with Recorder(adapter.model, adapter.assigners) as recorder:
        pass
    assert adapter.assigned(recorder) is None

"""Time and memory of a run, from a few steps."""

from types import SimpleNamespace

import paddle
import pytest

from ppkd.diagnosis import speed
from ppkd.diagnosis.findings import ERROR, NOTE, Findings
from ppkd.diagnosis.show import _of_teachers
from ppkd.diagnosis.speed import largest_batch
from ppkd.engine.bank import Bank
from ppkd.training import bank_size


class OneStage:
    """A loader and the stages that it is all of: ten batches an epoch; images of the first are mixed of several."""

    stage = 0

    def __init__(self, mixed=0):
        self._mixed = mixed

    def loader(self, epoch):
        return self

    def __len__(self):
        return 10

    def mixes(self, epoch):
        return ["Mosaic"] if epoch < self._mixed else []


def test_the_time_of_the_whole_run(built, monkeypatch):
    """Ten batches an epoch, four of the five epochs with the teacher; loading 3 s, beside training or before it."""
    subject, _ = built("epoch=5", "distill.stop_epoch=4")
    for workers, expected in ((0, (250, 290)), (2, (100, 140)), (1, (150, 150))):
        subject.recipe.student["worker_num"], findings = workers, Findings()
        found = iter([(2.0, None, 1.0), (3.0, 2e9, 1.0)])
        monkeypatch.setattr(speed, "_steps", lambda *_, found=found: next(found))
        cost = speed.measure_speed(subject, OneStage(), 0, ([], 3.0), findings)
        assert (cost["plain"]["run_seconds"], cost["distilled"]["run_seconds"]) == expected
        assert cost["plain"]["memory_gb"] is None and cost["distilled"]["memory_gb"] == 2
        assert ("loading-slow" in findings.ids(NOTE)) == (workers < 2)


@pytest.mark.parametrize(
    "bank, mixed, seconds, told, error",
    [
        ("{views: 2}", 0, 278, ", in 2 epochs; then its bank is read, 10 GB", None),
        ("{views: 2}", 1, 284, ", in 2 epochs; then its bank is read, 10 GB", None),
        ("{views: 3}", 1, 290, "", None),  # none would be seen twice
        ("{views: 4}", 0, 290, "", None),
        ("{views: 2, gigabytes: 9}", 0, 290, "", "9; raise it, or have fewer views; on_failure: live goes on without"),
        ("{views: 2, gigabytes: 9, on_failure: live}", 0, 290, "", None),
        ("{views: 9, gigabytes: 21, on_failure: stop}", 0, 290, "", None),  # four of nine, all that the run would fill
    ],
)
def test_a_run_with_a_bank_asks_the_teacher_once_a_view(bank, mixed, seconds, told, error, built, monkeypatch):
    subject, _ = built("epoch=5", "distill.stop_epoch=4", f"distill.bank={bank}")
    found, findings = iter([(2.0, None, 1.0), (3.0, None, 1.0)]), Findings()
    monkeypatch.setattr(speed, "_steps", lambda *_: next(found))
    monkeypatch.setattr(speed, "_bytes_of_a_view", lambda *_: 5e9)
    monkeypatch.setattr(bank_size, "measured", lambda *_: (5e8, 0.6, 1))
    monkeypatch.setattr(type(subject.model), "teacher_seconds", 0.6)
    subject.recipe.student["worker_num"] = 0
    cost = speed.measure_speed(subject, OneStage(mixed), 0, ([], 3.0), findings)
    assert cost["distilled"]["run_seconds"] == seconds
    assert _of_teachers(cost) == f"\nthe teacher takes 0.60 s of a step, 20%{told}"
    assert findings.ids(ERROR) == (["bank-too-large"] if error else [])
    assert not error or error in findings.items[0].text


def test_a_bank_that_is_begun_is_read_although_it_is_above_its_limit(built, monkeypatch):
    subject, _ = built("epoch=5", "distill.stop_epoch=4", "distill.bank={views: 2, gigabytes: 9}")
    found, findings = iter([(2.0, None, 1.0), (3.0, None, 1.0)]), Findings()
    monkeypatch.setattr(speed, "_steps", lambda *_: next(found))
    monkeypatch.setattr(bank_size, "measured", lambda *_: (5e8, 0.6, 1))
    monkeypatch.setattr(Bank, "is_begun", lambda _: True)
    cost = speed.measure_speed(subject, OneStage(), 0, ([], 3.0), findings)
    assert cost["bank_views"] == 2 and not findings.ids(ERROR)


def test_a_loss_that_breaks_down_in_the_first_steps(built, monkeypatch):
    monkeypatch.setattr(speed, "_steps", lambda *_: (1.0, None, float("nan")))
    subject, findings = built()
    speed.measure_speed(subject, OneStage(), 0, ([], 0.1), findings)
    assert findings.ids(ERROR) == ["not-finite"]


@pytest.mark.parametrize("resets, before, after, expected", [(True, 9, 7, 7), (False, 5, 5, None), (False, 5, 9, 9)])
def test_the_peak_of_a_gpu_also_where_paddle_cannot_count_it_anew(resets, before, after, expected, monkeypatch):
    """Paddle 2.6 has no function for it: a peak below an earlier one is not known."""
    now, called = [before], []
    cuda = SimpleNamespace(max_memory_allocated=lambda: now[0])
    if resets:
        cuda.reset_max_memory_allocated = lambda: called.append(1)
    monkeypatch.setattr(paddle.device, "cuda", cuda)
    monkeypatch.setattr(paddle, "get_device", lambda: "gpu:0")
    peak = speed._Peak()
    now[0] = after
    assert peak.read() == expected and bool(called) == resets


def test_the_stand_in_is_needed_where_paddle_lacks_it():
    if paddle.__version__.startswith("2.6"):
        assert not hasattr(paddle.device.cuda, "reset_max_memory_allocated"), "delete the other way of `_Peak`"


@pytest.mark.parametrize("batch, held, peak, total, most", [
    (8, 2e9, 10e9, 80e9, 70), (8, 2e9, 10e9, 5e9, 2), (4, 2e9, 10e9, 1e9, 1), (8, 2e9, 2e9, 80e9, None),
])  # fmt: skip
def test_the_largest_batch_is_reckoned_by_a_step(batch, held, peak, total, most):
    assert largest_batch(batch, held, peak, total) == most


@pytest.mark.parametrize("total, told", [(40e9, ["batch-fits"]), (12e9, []), (8e9, ["batch-fits"])])
def test_a_gpu_with_room_for_twice_the_batch_or_none_for_it_is_told(total, told, monkeypatch):
    """A stand-in for the device: what Paddle says of a GPU's memory."""
    monkeypatch.setattr(speed, "device_memory", lambda: (1e9, total))
    findings, found = Findings(), {}
    speed._propose_batch(found, 8, 9e9, findings)
    assert [item.id for item in findings.items] == told and found["largest_batch"] > 0
    monkeypatch.setattr(speed, "device_memory", lambda: None)
    speed._propose_batch(found, 8, 9e9, findings)
    assert found["largest_batch"] is None

"""Time and memory of a run, from a few steps."""

from ppkd.diagnosis import speed
from ppkd.diagnosis.findings import ERROR, NOTE, Findings


def test_the_time_of_the_whole_run(built, monkeypatch):
    """Ten batches an epoch, four of the five epochs with the teacher; loading 3 s, beside training or before it."""
    loader = range(10)
    subject, _ = built("epoch=5", "distill.stop_epoch=4")
    for workers, expected in ((0, (250, 290)), (2, (100, 140)), (1, (150, 150))):
        subject.recipe.student["worker_num"], findings = workers, Findings()
        found = iter([(2.0, None, 1.0), (3.0, 2e9, 1.0)])
        monkeypatch.setattr(speed, "_steps", lambda *_, found=found: next(found))
        cost = speed.measure_speed(subject, loader, ([], 3.0), findings)
        assert (cost["plain"]["run_seconds"], cost["distilled"]["run_seconds"]) == expected
        assert cost["plain"]["memory_gb"] is None and cost["distilled"]["memory_gb"] == 2
        assert ("loading-slow" in findings.ids(NOTE)) == (workers < 2)


def test_a_loss_that_breaks_down_in_the_first_steps(built, monkeypatch):
    monkeypatch.setattr(speed, "_steps", lambda *_: (1.0, None, float("nan")))
    subject, findings = built()
    speed.measure_speed(subject, range(10), ([], 0.1), findings)
    assert findings.ids(ERROR) == ["not-finite"]

"""What a training step takes with and without the teacher, and the whole run by that."""

import contextlib
import math
import statistics
import time

import paddle
from paddle.utils import unique_name

from ppkd.bridge.workspace import create, scope
from ppkd.engine.bank import kept
from ppkd.errors import UserError
from ppkd.training.banking import Banking
from ppkd.training.learning_rate import learning_rate
from ppkd.training.meters import memory_used
from ppkd.training.precision import Precision

STEPS, SECONDS = 4, 60  # steps of each kind, the first not counted; no more once so much time has gone


def measure_speed(subject, stages, epoch, batches, findings):
    """Take a few whole steps of either kind. The models' weights are others afterwards.

    Args:
        subject: `subject.Subject` with a model, whose epoch is set.
        stages: `stages.Stages` of the run.
        epoch: the one that the batches are of.
        batches: ``(list of batches, seconds that loading one took)``.
        findings: `findings.Findings`.

    Returns:
        Plain values: seconds a step and memory of ``plain`` and ``distilled`` steps, and ``run_seconds`` of each;
        ``teacher_seconds``, those of the teachers in the last distilled step; ``bank_bytes``, what a bank would take of
        the disk for a view of every image, or None where there can be none; ``bank_views``, of the run's own bank,
        and ``bank_wanted``, whether the recipe has one.
    """
    model, config = subject.model, subject.recipe.student
    loader, (batches, loading) = stages.loader(epoch), batches
    with scope(config), unique_name.guard():
        optimizer = create("OptimizerBuilder", learning_rate(config, len(loader)), model)
    found = {}
    model.train()
    for name, layer in (("plain", model.student), ("distilled", model)):
        model.timed = name == "distilled"
        seconds, memory, loss = _steps(layer, optimizer, batches)
        found[name] = {"step_seconds": seconds, "memory_gb": None if memory is None else memory / 1e9}
        if not math.isfinite(loss):
            findings.add("not-finite", f"the loss is not finite any more after {STEPS} {name} steps")
    workers = int(config.get("worker_num") or 0)
    epochs = int(config.get("epoch") or 1)
    taught_in = [epoch for epoch in range(epochs) if any(term.weight(epoch) for term in model.terms)]
    active = len(taught_in)
    plain, distilled = (_with_loading(found[name]["step_seconds"], loading, workers) for name in found)
    _propose_batch(found, int(config["TrainReader"].get("batch_size") or 1), memory, findings)
    model.timed = False
    found |= {
        "teacher_seconds": model.teacher_seconds,
        "teacher_processes": _processes(model),
        "bank_bytes": _bytes_of_a_view(model, batches, getattr(loader, "images", 0)),
        "loading_seconds": loading,
        "batches_per_epoch": len(loader),
        "epochs": epochs,
        "epochs_distilled": active,
        "device": paddle.get_device(),
    }
    found["plain"]["run_seconds"] = len(loader) * epochs * plain
    every = {term.spec.every for term in model.terms}
    taught = sum(any(batch % each == 0 for each in every) for batch in range(len(loader)))
    # From a bank the teacher is asked once a view, in as many epochs; images that are mixed of several have no views.
    viewed = sum(not loader.mixes(number) for number in taught_in)
    found["bank_views"] = _views(subject, stages, viewed, findings)
    found["bank_wanted"] = model.bank_spec is not None
    spared = (viewed - (found["bank_views"] or viewed)) * min(model.teacher_seconds or 0, distilled - plain)
    found["distilled"]["run_seconds"] = taught * (active * (distilled - plain) - spared) + epochs * len(loader) * plain
    if loading / max(workers, 1) > found["plain"]["step_seconds"]:
        text = f"loading a batch takes {loading:.2f} s by one process ({workers} workers), a plain step "
        findings.add("loading-slow", text + f"{found['plain']['step_seconds']:.2f} s")
    return found


def _processes(model):
    """Of teachers that run in processes of their own: name -> gigabytes that they have taken, and can take at most."""
    found = {name: getattr(teacher, "process_memory", None) for name, teacher in model.teachers.items()}
    return {name: {"peak_gb": both[0] / 2**30, "most_gb": both[1] / 2**30} for name, both in found.items() if both}


def _bytes_of_a_view(model, batches, images):
    if model.bound or not images or not model.asked or not batches or "image" not in batches[0]:
        return None
    with paddle.no_grad():
        arrays = kept(model.banked, *model.asked.run(dict(batches[0]), model.banked, model.asked.assigner))
        return sum(array.nbytes for array in arrays.values()) * images // int(batches[0]["image"].shape[0])


def _views(subject, stages, epochs, findings):
    """The views of a bank that the run will read, or None; a run that would be refused for its bank is a finding."""
    spec = subject.model.bank_spec
    if spec is None or subject.model.bound:
        return None
    recipe = subject.recipe
    try:
        unused = Banking(recipe, subject.model, stages, Precision(recipe.student, False)).of_no_use()
    except UserError as error:
        findings.add("bank-too-large", str(error))
        return None
    return spec.views if not unused and spec.views < epochs else None


def largest_batch(batch, held, peak, total):
    """How many images a batch may have for its step to fit a GPU, by a step that was taken.

    Args:
        batch: images of that step.
        held: bytes of what stays from step to step: weights, the optimizer's means.
        peak: bytes at most in the step.
        total: bytes of the device, of which a tenth is left for what cannot be foreseen.

    Returns:
        The number, at least 1; None where the step shows no growth to reckon by.
    """
    grown = (peak - held) / batch
    return max(1, int((0.9 * total - held) / grown)) if grown > 0 else None


def _propose_batch(found, batch, peak, findings):
    device = device_memory()
    most = largest_batch(batch, device[0], peak, device[1]) if device and peak is not None else None
    found["largest_batch"] = most
    if most is not None and not batch <= most < 2 * batch:
        size = f"{peak / 1e9:.1f} of {device[1] / 1e9:.0f} GB with {batch} images"
        findings.add("batch-fits", f"a distilled step takes {size}: about {most} images a batch would fit", batch=most)


def device_memory():
    """``(bytes held now, bytes of the device)`` of the GPU in use, or None without one."""
    if not paddle.get_device().startswith("gpu"):
        return None
    total = paddle.device.cuda.get_device_properties().total_memory
    return paddle.device.cuda.memory_allocated(), total


def take_batches(loader, epoch, count=STEPS):
    """The first batches of an epoch.

    Returns:
        ``(batches with epoch_id, mean seconds of loading one)``.
    """
    begin, batches = time.perf_counter(), []
    with contextlib.closing(loader.epoch(epoch)) as source:
        for batch in source:
            batch["epoch_id"] = epoch
            batches.append(batch)
            if len(batches) == count:
                break
    return batches, (time.perf_counter() - begin) / len(batches)


def _with_loading(step, loading, workers):
    """Seconds a batch: worker processes load beside training, none means before it."""
    return max(step, loading / workers) if workers else step + loading


def _steps(layer, optimizer, batches):
    """Median seconds of a step, peak memory in bytes or None, and the last loss."""
    peak = _Peak()
    times, loss, start = [], 0.0, time.perf_counter()
    for i in range(STEPS):
        begin = time.perf_counter()
        losses = layer(dict(batches[i % len(batches)]))
        losses["loss"].backward()
        optimizer.step()
        optimizer.clear_grad()
        loss = float(losses["loss"])  # reading a value waits for the device
        times.append(time.perf_counter() - begin)
        if i and time.perf_counter() - start > SECONDS:
            break
    return statistics.median(times[1:]), peak.read(), loss


class _Peak:
    """The most memory in use since it was made: Paddle's on a GPU, else the process's (on Linux)."""

    def __init__(self):
        self._gpu = paddle.get_device().startswith("gpu")
        self._known = True
        if self._gpu:
            # Paddle 2.6 cannot count anew: there a peak is known if it is higher than all before it.
            reset = getattr(paddle.device.cuda, "reset_max_memory_allocated", None)
            self._before = 0 if reset else memory_used()
            if reset:
                reset()
            return
        try:
            with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
                file.write("5")  # the kernel counts the peak of resident memory anew
        except OSError:
            self._known = False

    def read(self):
        """Bytes, or None where the peak cannot be counted anew."""
        if self._gpu:
            return peak if (peak := memory_used()) > self._before else None
        if not self._known:
            return None
        with open("/proc/self/status", encoding="ascii") as file:
            for line in file:
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
        return None

"""What a bank takes of the disk, and whether a run has use for it."""

import contextlib
import math
import time

import paddle
from paddle import distributed as dist

from ppkd.engine.bank import kept
from ppkd.terminal.log import counted
from ppkd.training.sharing import gathered


def epochs_of_views(model, stages, epochs):
    """The epochs of a run that have views, of each of its readers: by weights, for what ends by itself is not known.

    Args:
        model: `model.DistillModel`.
        stages: `stages.Stages`.
        epochs: of the run.

    Returns:
        Number of the stage -> its epochs.
    """
    found = {}
    for epoch in range(epochs):
        if any(term.weight(epoch) for term in model.terms) and not (loader := stages.loader(epoch)).mixes(epoch):
            found.setdefault(loader.stage, []).append(epoch)
    return found


def never_read(views, epochs):
    """Why nothing of a run's own bank would ever be read, or None.

    Args:
        views: of the bank.
        epochs: `epochs_of_views`.
    """
    most = max(map(len, epochs.values()), default=0)
    if most > views:
        return None
    return f"with {counted(views, 'view')} in {counted(most, 'epoch')} with a teacher none would be seen twice"


def too_large(spec, model, stages, precision, epochs):
    """Why a bank would take more than it may, ``gigabytes``, or None; the same on all ranks, and in a resumed run.

    Args:
        spec: `bank.BankSpec`.
        model, stages, precision: as of `banking.Banking`.
        epochs: `epochs_of_views`.
    """
    if spec.gigabytes is None:
        return None
    size = 0
    for of_one in epochs.values():
        loader = stages.loader(of_one[0])
        record = measured(model, precision, loader, of_one[0], spec.dtype)[0]
        size += record * len(loader) * min(spec.views, len(of_one))
    if dist.get_world_size() > 1:
        size = sum(gathered(size))
    if size <= spec.gigabytes * 1e9:
        return None
    return (
        f"{counted(spec.views, 'view')} would take about {in_words(size)}, more than distill.bank.gigabytes has: "
        f"{spec.gigabytes:g}; raise it, or have fewer views"
    )


def measured(model, precision, loader, epoch, dtype):
    """What a record and the teachers take: by the first batch of an epoch that is read.

    Returns:
        ``(bytes of a record on the mean, seconds of the teachers, images of the batch)``.
    """
    with contextlib.closing(loader.epoch(epoch)) as batches:
        batch = next((batch for batch in batches if "image" in batch), None)
    if batch is None:
        return 0.0, 0.0, 1
    batch["epoch_id"] = epoch
    seconds = []
    for _ in range(2):  # the first one also makes what a framework makes once
        begin = time.perf_counter()
        with precision.context(), paddle.no_grad():
            arrays = kept(model.banked, *model.asked.run(dict(batch), model.banked, model.asked.assigner), dtype)
        seconds.append(time.perf_counter() - begin)
    pixels = float(batch["image"].shape[2] * batch["image"].shape[3])
    size = sum(array.nbytes for array in arrays.values())
    return size * (loader.pixels or pixels) / pixels, min(seconds), int(batch["image"].shape[0])


def in_words(count):
    """A number of bytes as people say it."""
    power = min(int(math.log10(max(count, 1)) // 3), 4)
    return f"{count / 1000**power:.3g} {('bytes', 'kB', 'MB', 'GB', 'TB')[power]}"

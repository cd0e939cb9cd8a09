"""How many views a bank has: as a file says it, or with ``views: auto`` as many as pay, if they are small."""

import contextlib
import math
import os
import shutil
import time

import paddle
from paddle import distributed as dist

from ppkd.engine.bank import FILE, kept
from ppkd.recipe.bank import AUTO
from ppkd.terminal.log import counted, logger
from ppkd.training.sharing import gathered

# As many as lost nothing, where each was seen four times (docs/bank.md).
MOST, SEEN = 8, 4
# What a run may take of a disk without being asked to.
SMALL = 10 * 10**9
# Left free for what else a run writes: its checkpoints.
ROOM = 1 << 28


class Views:
    """The number of views of a run; a part of its state, so that a resumed one has as many.

    Attributes:
        number: of the bank; 0 without one, None while that is not decided.
    """

    def __init__(self):
        self.number = None

    def state(self):
        """What resuming needs."""
        return {} if self.number is None else {"number": self.number}

    def restore(self, state):
        """Go on as `state` was; None is a state of before there was any."""
        number = (state or {}).get("number")
        self.number = None if number is None else int(number)

    def decide(self, spec, folder, model, stages, precision, epochs):
        """Decide it where it is not decided; with ``auto`` it is said with its reason.

        Args:
            spec: `bank.BankSpec`.
            folder: the bank's, which need not be there.
            model, stages, precision: as of `banking.Banking`.
            epochs: of the run.

        Returns:
            The number of views, 0 for no bank; the same on all ranks.
        """
        if spec.views != AUTO:
            self.number = spec.views
        elif self.number is None:
            found = _of(folder, spec.dtype, model, stages, precision, epochs)
            self.number, why = gathered(found)[0] if dist.get_world_size() > 1 else found
            logger().info("distill.bank.views: auto: %s", why)
        return self.number


def _of(folder, dtype, model, stages, precision, epochs):
    """``(views, why in words)``."""
    # By weights alone: where terms end by themselves is not known before.
    taught = [epoch for epoch in range(epochs) if any(term.weight(epoch) for term in model.terms)]
    readers = {}
    for epoch in taught:
        if not (loader := stages.loader(epoch)).mixes(epoch):
            readers.setdefault(loader.stage, []).append(epoch)
    fewest = min(map(len, readers.values()), default=0)
    views = min(MOST, fewest // SEEN)
    if views < SEEN:
        return 0, (
            f"none; the teacher is asked in every step: a bank pays from {SEEN * SEEN} epochs with a teacher on, and "
            f"this run has {fewest} whose images are not mixed"
        )
    size = 0
    for epochs_of_one in readers.values():
        loader = stages.loader(epochs_of_one[0])
        size += measured(model, precision, loader, epochs_of_one[0], dtype)[0] * len(loader) * views
    size *= dist.get_world_size()
    told = f"{counted(views, 'view')} would take about {in_words(size)}"
    if size > SMALL:
        return 0, (
            f"none; the teacher is asked in every step: {told}, more than {in_words(SMALL)}; "
            f"distill.bank.views={views} has them nevertheless"
        )
    free = free_of(folder)
    if not os.path.exists(os.path.join(folder, FILE)) and size + ROOM > free:
        return 0, f"none; the teacher is asked in every step: {told}, and {in_words(free)} are free in {folder}"
    return views, f"{counted(views, 'view')} of each image: the teacher is asked once about each, not in every step"


def measured(model, precision, loader, epoch, dtype):
    """What a record and a teacher take: by the first batch of an epoch that is read.

    Returns:
        ``(bytes of a record on the mean, seconds of the teachers, images of a batch)``.
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


def free_of(folder):
    """Bytes that are free where a folder is, or will be."""
    while not os.path.isdir(folder):
        folder = os.path.dirname(os.path.abspath(folder))
    return shutil.disk_usage(folder).free


def in_words(count):
    """A number of bytes as people say it."""
    power = min(int(math.log10(max(count, 1)) // 3), 4)
    return f"{count / 1000**power:.3g} {('bytes', 'kB', 'MB', 'GB', 'TB')[power]}"

"""Averages of losses and times between two log lines, read from the device only when a line is due."""

import resource
import time

import paddle

from ppkd.losses.common import up
from ppkd.terminal.log import duration

_NO_LOSS = (
    "kind", "epoch", "step", "seconds_per_step", "data_seconds", "images_per_second", "seconds_left", "memory_gb",
    "memory_held_gb", "teacher_seconds", "student_seconds", "skipped_steps", "bad_images",
    "unlabelled_images", "bad_unlabelled_images", "boxed_images", "teacher_boxes",
)  # fmt: skip
# Seconds after which a line is due whatever `log_iter` says, so that nobody takes a slow run for one that hangs.
_SILENCE = 20


class Meters:
    """Collects one log interval.

    Args:
        total_steps: steps of the whole run, for the time left.
        every: steps between two log lines.
        batch_size: images of one step over all ranks.
    """

    def __init__(self, total_steps, every, batch_size):
        self._total, self._every, self._batch_size = total_steps, every, batch_size
        self._done = 0
        self._sums, self._steps, self._batches, self._counted = {}, 0, 0, 0
        self._data_time, self._teacher_times = 0.0, []
        self._begin = self._mark = self._told = time.time()
        self._spent = 0.0

    def start(self):
        """An epoch begins: what passed since the last step (evaluation, saving) is no training time."""
        self._begin = self._mark = self._told = time.time()

    def data_ready(self):
        """A batch has arrived."""
        self._data_time += time.time() - self._mark

    def add(self, losses, teacher_seconds=None, whole=True):
        """A batch is done.

        Args:
            losses: list, one entry a batch that counts, of scalar tensors by name, which are summed on the device.
            teacher_seconds: time of the teacher's part, if it was measured.
            whole: whether a step of the optimizer ends with it.
        """
        self._batches += 1
        if teacher_seconds is not None:
            self._teacher_times.append(teacher_seconds)
        self._counted += len(losses)
        # In float32, since a student under mixed precision may have some in a type that sums soon leave or round in.
        for name, value in ((name, up(value.detach())) for batch in losses for name, value in batch.items()):
            self._sums[name] = self._sums[name] + value if name in self._sums else value
        self._steps += whole
        self._done += whole
        now = time.time()
        self._spent += now - self._begin
        self._begin = self._mark = now

    def due(self, ahead=0):
        """Whether the interval is full, or will be after `ahead` more steps."""
        return self._steps + ahead >= self._every

    def silent(self):
        """Whether no line came for `_SILENCE` seconds, and there is something to tell."""
        return self._steps > 0 and time.time() - self._told > _SILENCE

    def read(self):
        """Averages of the interval as plain numbers, and start a new one."""
        values = self.so_far()
        self._sums, self._steps, self._batches, self._counted = {}, 0, 0, 0
        self._data_time, self._teacher_times = 0.0, []
        self._spent = 0.0
        return values

    def so_far(self):
        """Averages of the interval as far as it is, as plain numbers."""
        self._told = time.time()
        steps = max(self._steps, 1)
        values = {name: float(value) / max(self._counted, 1) for name, value in self._sums.items()}
        per_step = self._spent / steps
        values |= {
            "seconds_per_step": round(per_step, 4),
            "data_seconds": round(self._data_time / steps, 4),
            "images_per_second": round(self._batch_size / per_step, 2) if per_step else 0.0,
            "seconds_left": round(per_step * max(self._total - self._done, 0), 1),
            "memory_gb": round(memory_used() / 1e9, 3),
            "memory_held_gb": round(memory_held() / 1e9, 3),
        }
        rest = per_step - self._data_time / steps
        if self._teacher_times:
            teacher = sum(self._teacher_times) / len(self._teacher_times)
            values["teacher_seconds"], rest = round(teacher, 4), rest - teacher * self._batches / steps
        # Forward, backward, terms and the optimizer.
        values["student_seconds"] = round(max(rest, 0.0), 4)
        return values

    @staticmethod
    def lines(record, where):
        """The record as log lines: detection losses first, then one line for each distillation term.

        Args:
            record: what `read` returned, with ``lr``.
            where: text in front, for example ``epoch 1/12 step 20/36``.
        """
        plain = {k: v for k, v in record.items() if "." not in k and k not in _NO_LOSS}
        lr = plain.pop("lr")
        teacher = f", teacher {record['teacher_seconds']:.2f}" if "teacher_seconds" in record else ""
        loss = f"{plain.pop('loss'):.4f}" if "loss" in plain else "none, all steps were skipped"
        beside = f"  {record['unlabelled_images']} unlabelled images" if record.get("unlabelled_images") else ""
        head = "  ".join([f"loss {loss}"] + [f"{k} {v:.4f}" for k, v in plain.items()])
        yield (
            f"{where}  {head}  lr {lr:.2e}  {record['seconds_per_step']:.2f} s/step (data {record['data_seconds']:.2f}"
            f"{teacher}, student {record['student_seconds']:.2f})  {record['images_per_second']:.1f} images/s{beside}  "
            f"memory {record['memory_held_gb']:.1f}, at most {record['memory_gb']:.1f} GB  "
            f"{duration(record['seconds_left'])} left"
        )
        terms = {}
        for key, value in record.items():
            if "." in key:
                name, level, part = (key.split(".", 2) + [""])[:3]
                terms.setdefault(name, {}).setdefault(level, []).append(f"{part} {value:.4f}".strip())
        for name, levels in terms.items():
            yield f"  {name}  " + "  |  ".join(f"{level}: {' '.join(parts)}" for level, parts in levels.items())


def memory_used():
    """Bytes: on a GPU the most that Paddle has held there, else the most that the process has held."""
    if paddle.get_device().startswith("gpu"):
        return paddle.device.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def memory_held():
    """Bytes: as `memory_used`, but now; where the system does not tell what a process holds, the most."""
    if paddle.get_device().startswith("gpu"):
        return paddle.device.cuda.memory_allocated()
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * resource.getpagesize()
    except OSError:
        return memory_used()

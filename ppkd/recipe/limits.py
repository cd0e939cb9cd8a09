"""Numbers of a config that no detector and no machine has: refused before anything of that size is made.

Each is far beyond all that is in use; what a detector's own keys come to is seen when it is built (`bridge.room`).
"""

from ppkd.errors import UserError
from ppkd.recipe.keys import RUN_KEYS
from ppkd.recipe.settings import READERS, SIZES

_CLASSES = 100_000  # V3Det has 13,000, ImageNet 22,000
_PROCESSES = 256  # that load
_SIDE = 16384  # of images in pixels: each would be 3 GB
_OF_READERS = 1_000_000
_OF_DETECTORS = 1_000_000  # whole numbers: how many of something, or how large; what is no count may be larger
# Learning rates that ppdet's schedules write down, one a step, where there is a warm-up: 4 GB.
RATES = 50_000_000


def check_limits(config, origin=None):
    """Refuse what is beyond all measure in a run's or a teacher's config.

    Args:
        config: ppdet's.
        origin: top-level key -> file or ``-o`` that set it, for messages.

    Raises:
        UserError: names the key, its value and the limit.
    """
    origin = origin or {}

    def refuse_above(most, value, key):
        if isinstance(value, int | float) and abs(value) > most:
            where = origin.get(key.split(".")[0])
            raise UserError(f"{where + ': ' if where else ''}{key} is {value!r:.40}, and {most} is the most")

    refuse_above(_CLASSES, config.get("num_classes"), "num_classes")
    refuse_above(_PROCESSES, config.get("worker_num"), "worker_num")
    for name in READERS:
        for key, value in _numbers(config.get(name), name):
            refuse_above(_SIDE if _is_size(key) else _OF_READERS, value, key)
    for name in config:
        for key, value in _numbers(config[name], str(name)) if name not in RUN_KEYS else ():
            if isinstance(value, int):
                refuse_above(_OF_DETECTORS, value, key)


def _numbers(value, key):
    """``(path of keys, number)`` of all numbers in a section."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _numbers(item, f"{key}.{name}")
    elif isinstance(value, list):
        for item in value:
            yield from _numbers(item, key)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield key, value


def _is_size(key):
    last = key.rsplit(".", 1)[-1]
    return last in SIZES or last == "pad_to_stride"

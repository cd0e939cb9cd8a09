"""What kind of value stands where ppkd itself reads a config: one table, looked at once, before anything is read.

All that comes after it relies on it. What ppdet alone reads is judged by ppdet, and told in one line by the block in
which ppdet gets it (`bridge.workspace.built_from_config`).
"""

from collections.abc import Callable
from dataclasses import dataclass

from ppkd.errors import UserError
from ppkd.files.yaml_io import Tagged
from ppkd.recipe.keys import is_number
from ppkd.recipe.limits import check_limits
from ppkd.recipe.settings import READERS

_LARGEST = 2**63 - 1  # what Paddle takes for a seed
_SHOWN = 200  # characters of a value


@dataclass(frozen=True)
class Kind:
    """A kind of values.

    Attributes:
        takes: function that says whether a value, other than null, is one.
        called: what a value has to be, in words.
    """

    takes: Callable
    called: str


def _is_whole(value):
    return isinstance(value, int) and not isinstance(value, bool)


def _lists(inner):
    return lambda value: isinstance(value, list) and all(map(inner, value))


def _is_text(value):
    return isinstance(value, str)


def _is_mapping(value):
    return isinstance(value, dict)


def _is_step(value):
    return isinstance(value, dict) and all(isinstance(each, dict | None) for each in value.values())


_PLAIN = Kind(lambda value: isinstance(value, dict) and not isinstance(value, Tagged), "a mapping without a tag")
_MAPPING = Kind(_is_mapping, "a mapping")
_MAPPINGS = Kind(_lists(_is_mapping), "a list of mappings")
_STEPS = Kind(_lists(_is_step), "a list of transforms like [{Decode: {}}, {Resize: {target_size: [640, 640]}}]")
_FLAG = Kind(lambda value: isinstance(value, bool) or _is_whole(value) and value in (0, 1), "true or false")
_TEXT, _FOLDER, _WEIGHTS = (Kind(_is_text, called) for called in ("text", "a folder", "a path or a URL"))
_PATH = Kind(_is_text, "a path")
_TEXTS = Kind(_lists(_is_text), "a list of names")
_FIELDS = Kind(lambda value: _TEXTS.takes(value) and "image" in value, "a list of names, image among them")
_COUNT = Kind(lambda value: _is_whole(value) and value >= 0, "a whole number")
_WHOLE = Kind(_is_whole, "a whole number")
_IMAGES = Kind(lambda value: _is_whole(value) and value > 0, "a number of images")
_CLASSES = Kind(lambda value: value == "auto" or _is_whole(value) and value > 0, "a number of classes or auto")
_NUMBER = Kind(is_number, "a number")
_SHARE = Kind(lambda value: is_number(value) and 0 <= value <= 1, "a number from 0 to 1")
_ABOVE_0 = Kind(lambda value: is_number(value) and value > 0, "a number above 0")
# Nothing at all would be a run without them, where a shell's variable is not set.
_PHOTOGRAPHS = Kind(lambda value: value is False or bool(value), "an image folder, a .txt list or a COCO .json file")

_THREE = Kind(lambda value: _lists(is_number)(value) and len(value) == 3, "three numbers")
_THREE_NOT_0 = Kind(lambda value: _THREE.takes(value) and all(value), "three numbers, none of them 0")

# What teachers are told of how images are normalised.
_NORMALISED = {"mean": _THREE, "std": _THREE_NOT_0, "is_scale": _FLAG, "norm_type": _TEXT}
_READER = {
    "sample_transforms": _STEPS, "batch_transforms": _STEPS, "inputs_def": _PLAIN, "batch_size": _IMAGES,
    "shuffle": _FLAG, "drop_last": _FLAG, "collate_batch": _FLAG, "use_shared_memory": _FLAG,
    **{f"{where}.*.NormalizeImage.{key}": kind for where in ("sample_transforms", "batch_transforms")
       for key, kind in _NORMALISED.items()},
}  # fmt: skip
_FILES = {"dataset_dir": _PATH, "anno_path": _PATH, "label_list": _PATH}
_DATASET = _FILES | {"image_dir": _PATH, "data_fields": _FIELDS}
# Path of keys -> kind; `*` is each item of a list. Parts come after what they are parts of.
_TABLE = {
    **dict.fromkeys(("LearningRate", "OptimizerBuilder", *READERS), _PLAIN),
    **dict.fromkeys(("TrainDataset", "EvalDataset", "TestDataset", "export"), _MAPPING),
    **{f"{name}.{key}": kind for name in READERS for key, kind in _READER.items()},
    **{f"{name}.{key}": kind for name in ("TrainDataset", "EvalDataset") for key, kind in _DATASET.items()},
    **{f"TestDataset.{key}": kind for key, kind in _FILES.items()},
    "stages": _MAPPINGS,
    "stages.*.TrainReader": _PLAIN,
    **{f"stages.*.TrainReader.{key}": kind for key, kind in _READER.items()},
    "LearningRate.base_lr": _NUMBER,
    "LearningRate.schedulers": _MAPPINGS,
    **{f"LearningRate.schedulers.*.{key}": _NUMBER for key in ("max_epochs", "epochs", "steps")},
    **dict.fromkeys(("use_gpu", "use_ema", "allow_empty", "print_params", "print_flops", "classwise", "deterministic",
                     "ema_filter_no_grad", "save_prediction_only"), _FLAG),
    **dict.fromkeys(("epoch", "snapshot_epoch", "log_iter", "worker_num", "seed"), _COUNT),
    **dict.fromkeys(("train_images", "train_annotations", "val_images", "val_annotations", "dataset_dir"), _PATH),
    **dict.fromkeys(("ema_black_list", "custom_white_list", "custom_black_list"), _TEXTS),
    **dict.fromkeys(("architecture", "metric", "norm_type", "ema_decay_type"), _TEXT),
    **dict.fromkeys(("weights", "pretrain_weights"), _WEIGHTS),
    "save_dir": _FOLDER,
    "unlabelled": _PHOTOGRAPHS,
    "num_classes": _CLASSES,
    "ema_decay": _SHARE,
    "cycle_epoch": _WHOLE,
    "init_loss_scaling": _ABOVE_0,
}  # fmt: skip


def check_shape(config, origin=None):
    """Refuse values of another kind than ppkd reads, or beyond all measure, in a run's or a teacher's config.

    Args:
        config: ppdet's.
        origin: top-level key -> file or ``-o`` that set it, for messages.

    Raises:
        UserError: names file, key and value, and what it has to be.
    """
    origin = origin or {}
    for path, kind in _TABLE.items():
        for key, value in _found(config, *path.split(".")):
            _check(key, value, kind, origin)
            if kind is _COUNT and value > _LARGEST:
                raise UserError(f"{_where(key, origin)}{key} is {value!r:.60}, more than {_LARGEST}")
    if "architecture" in config:
        for key, value in _found(config, config["architecture"]):
            _check(key, value, _PLAIN, origin)
    check_limits(config, origin)


def _found(value, first, *rest):
    """``(path of keys, value)`` of what is there and no null."""
    if isinstance(value, list):
        parts = enumerate(value) if first == "*" else ()
    else:
        parts = [(first, value[first])] if isinstance(value, dict) and first in value else ()
    for key, part in parts:
        if part is None:
            continue
        if not rest:
            yield str(key), part
        for inner, found in _found(part, *rest) if rest else ():
            yield f"{key}.{inner}", found


def _check(key, value, kind, origin):
    if not kind.takes(value):
        found = f"!{value.tag}" if kind is _PLAIN and isinstance(value, Tagged) else f"{value!r:.{_SHOWN}}"
        raise UserError(f"{_where(key, origin)}{key} has to be {kind.called}, found {found}")


def _where(key, origin):
    given = origin.get(key.partition(".")[0])
    return f"{given}: " if given else ""

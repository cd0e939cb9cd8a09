"""``epochs``, ``imgsz`` and ``batch``: single settings that move all that hangs on them.

A file may have them, and ``-o`` (``--epochs``, ``--imgsz``, ``--batch``) goes before it. They change what the files
say; what ``-o`` says of one of the keys that they move is its own.
"""

from ppkd.errors import UserError
from ppkd.files.yaml_io import Tagged

KEYS = ("epochs", "imgsz", "batch")
STRIDE = 32
# The transform that always keeps an image's shape (`ppkd.models.of_mmdet`).
KEPT_RATIO = "ResizeOfMMDet"
# Keys that are epochs of the run, wherever in a config they stand: they keep their place in it.
_EPOCHS = frozenset({
    "static_assigner_epoch", "l1_epoch", "mosaic_epoch", "mixup_epoch", "cutmix_epoch", "cycle_epoch", "milestones",
    "flat_epochs", "last_plateau_epochs", "restart_epochs",
})  # fmt: skip
_OF_TERMS = ("start_epoch", "stop_epoch", "warmup_epochs")
READERS = ("TrainReader", "EvalReader", "TestReader", "UnlabelledReader")
# Keys of readers that are sizes of images in pixels.
SIZES = frozenset({
    "target_size", "input_dim", "image_shape", "short_side_sizes", "min_size", "max_size", "size", "img_size",
})  # fmt: skip


def take(values, where):
    """Take the settings out of a mapping.

    Returns:
        Those of `KEYS` that are given.

    Raises:
        UserError: one is no whole number from 1, or ``imgsz`` no multiple of 32.
    """
    found = {key: values.pop(key) for key in KEYS if key in values}
    for key, value in found.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise UserError(f"{where}: {key} has to be a whole number from 1, found {value!r}")
    size = found.get("imgsz")
    if size is not None and size % STRIDE:
        near = max(STRIDE, round(size / STRIDE) * STRIDE)
        raise UserError(
            f"{where}: imgsz has to be a multiple of {STRIDE}, since maps are halved five times: {near}, not {size}"
        )
    return found


def settle(config, settings):
    """Let the settings change a config, in place.

    Args:
        config: of a run, or of a teacher.
        settings: of `take`.

    Returns:
        ``(top-level keys that changed, function from an epoch of the file to that of the run)``.

    Raises:
        UserError: ``imgsz`` for a config whose readers do not say a size.
    """
    before, move = {key: config[key] for key in config}, lambda epoch: epoch
    if (epochs := settings.get("epochs")) is not None:
        given, config["epoch"] = config.get("epoch"), epochs
        if isinstance(given, int) and not isinstance(given, bool) and given > 0:
            move = _mover(given, epochs)
            for key in [key for key in config if key != "epoch"]:
                config[key] = _moved(config[key], key, given, epochs, move)
    if (size := settings.get("imgsz")) is not None:
        _resize(config, size)
    if (batch := settings.get("batch")) is not None:
        _load(config, batch)
    return [key for key in config if key not in before or config[key] != before[key]], move


def settle_method(options, given, move):
    """Let the epochs of a method's options, and of its terms, keep their place in the run; in place.

    Args:
        options: the ``distill:`` block as merged.
        given: what ``-o distill.*`` says, which stays as it is.
        move: of `settle`.
    """
    for key in _OF_TERMS:
        if _counts(options.get(key)) and key not in given:
            options[key] = move(options[key])
    if isinstance(later := options.get("magnitude"), dict) and "magnitude" not in given:
        options["magnitude"] = {move(epoch) if _counts(epoch) else epoch: value for epoch, value in later.items()}
    terms, theirs = options.get("terms"), given.get("terms")
    for name, term in terms.items() if isinstance(terms, dict) else ():
        if isinstance(term, dict):
            own = theirs.get(name) if isinstance(theirs, dict) else None
            settle_method(term, own if isinstance(own, dict) else {}, move)


def _mover(old, new):
    """An epoch of a run of `old` epochs as that of `new` epochs; what lies beyond the run's end, or before, stays."""
    return lambda epoch: max(1, round(epoch * new / old)) if 0 < epoch <= old else epoch


def _moved(value, key, old, new, move):
    if key == "LearningRate" and isinstance(value, dict) and isinstance(value.get("schedulers"), list):
        schedulers = [_scheduler(each, old, new, move) for each in value["schedulers"]]
        return _like(value, {**value, "schedulers": schedulers})
    if key == "stages" and isinstance(value, list):
        return [{**each, "epoch": move(each["epoch"])} if _has_epoch(each) else each for each in value]
    if key in _EPOCHS:
        if isinstance(value, list) and all(map(_counts, value)):
            return [move(epoch) for epoch in value]
        return move(value) if _counts(value) else value
    if isinstance(value, dict):
        return _like(value, {k: _moved(v, k, old, new, move) for k, v in value.items()})
    return [_moved(item, None, old, new, move) for item in value] if isinstance(value, list) else value


def _scheduler(given, old, new, move):
    if not isinstance(given, dict):
        return given
    made = _like(given, {k: _moved(v, k, old, new, move) for k, v in given.items()})
    end = given.get("max_epochs")
    if _counts(end):
        # One more than is run lets the last epoch still learn: that is no share of the run.
        made["max_epochs"] = new + end - old if 0 <= end - old <= 1 else max(1, round(end * new / old))
    for key in ("epochs", "steps"):  # of a warm-up, which a longer run needs no more of
        if _counts(given.get(key)) and new < old:
            made[key] = max(1, round(given[key] * new / old))
    return made


def _resize(config, size):
    base = longest_side(config)
    if base is None:
        raise UserError("imgsz: neither EvalReader nor TestReader says a size of images (Resize.target_size) to go by")
    for name in READERS:
        if isinstance(config.get(name), dict):
            config[name] = _resized(config[name], size / base)
    if isinstance(config.get("stages"), list):
        config["stages"] = [_resized(stage, size / base) for stage in config["stages"]]
    for key in ("eval_size", "eval_height", "eval_width"):
        if config.get(key):
            config[key] = _scaled(config[key], size / base, STRIDE)


def longest_side(config):
    """The longer side in pixels of the images that a config evaluates, or is used on; None if it does not say."""
    return next((side for side in map(_longest, [config.get(name) for name in READERS[1:3]]) if side), None)


def _resized(value, factor, unit=STRIDE):
    if isinstance(value, dict):
        # Images that keep their ratio are padded to the stride afterwards.
        unit = 1 if value.get("keep_ratio") is True else unit
        return _like(value, {
            k: _scaled(v, factor, unit) if k in SIZES else _resized(v, factor, 1 if k == KEPT_RATIO else STRIDE)
            for k, v in value.items()
        })  # fmt: skip
    return [_resized(item, factor, unit) for item in value] if isinstance(value, list) else value


def _scaled(value, factor, unit):
    if isinstance(value, list):
        return [_scaled(item, factor, unit) for item in value]
    # Below the stride a number is one of channels or -1 for any size.
    return max(unit, round(value * factor / unit) * unit) if _counts(value) and value >= STRIDE else value


def _longest(reader):
    """The longer side of the images that a reader makes, or None."""
    steps = reader.get("sample_transforms") if isinstance(reader, dict) else None
    steps = [step for step in steps or [] if isinstance(step, dict)]
    given = [step[name] for step in steps for name in ("Resize", KEPT_RATIO) if isinstance(step.get(name), dict)]
    sides = given[-1].get("target_size") if given else ((reader or {}).get("inputs_def") or {}).get("image_shape")
    sides = [side for side in (sides if isinstance(sides, list) else [sides]) if _counts(side) and side >= STRIDE]
    return max(sides, default=None)


def _load(config, batch):
    for name in ("TrainReader", "EvalReader"):
        reader = config.get(name)
        # Detectors with masks are evaluated image by image.
        if isinstance(reader, dict) and (name == "TrainReader" or reader.get("batch_size", 1) != 1):
            config[name] = _like(reader, {**reader, "batch_size": batch})
    stages = config.get("stages")
    for stage in stages if isinstance(stages, list) else ():
        if isinstance(stage, dict) and "batch_size" in (stage.get("TrainReader") or {}):
            stage["TrainReader"] = _like(stage["TrainReader"], {**stage["TrainReader"], "batch_size": batch})


def _like(value, items):
    """A mapping of `items` with the tag that `value` has."""
    return Tagged(value.tag, items, value.args, value.where) if isinstance(value, Tagged) else items


def _counts(value):
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _has_epoch(stage):
    return isinstance(stage, dict) and _counts(stage.get("epoch"))

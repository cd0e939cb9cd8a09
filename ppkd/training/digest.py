"""What a run is, in plain values: kept in its resume files, so that another run is not taken for its continuation."""

import os

from ppkd.engine.plugin_files import fingerprint
from ppkd.errors import UserError
from ppkd.training.contents import PREFIX, VALIDATED

# Keys that change nothing about what is learned.
_FREE = frozenset(
    {
        "save_dir", "log_iter", "snapshot_epoch", "snapshot_steps", "keep", "keep_resume", "patience", "worker_num",
        "use_gpu", "use_npu", "use_xpu", "use_mlu", "use_vdl", "vdl_log_dir", "weights", "print_flops", "print_params",
        "profiler_options", "export", "EvalReader", "TestReader", "EvalDataset", "TestDataset", "metric", "map_type",
        "classwise",
        "save_prediction_only", "output_eval", "allow_outside", "find_unused_parameters",
        "use_fused_allreduce_gradients", "class_names", "max_bad_images", "on_nonfinite", "max_nonfinite",
        "deterministic",
    }
)  # fmt: skip


def digest(recipe, ranks):
    """Key -> value of all that a run's result depends on, flat and in plain values.

    Args:
        recipe: `recipe.Recipe`.
        ranks: number of processes.
    """
    parts = {"": {k: v for k, v in recipe.student.items() if k not in _FREE}}
    # What the teacher's file says of a run is not used.
    parts |= {f"{name}.": _of_teacher(spec) for name, spec in recipe.teachers.items()}
    if recipe.method is not None:
        method = recipe.method
        # Teachers are there already, and of a plugin its content counts, not where it lies.
        options = {k: v for k, v in method.options.items() if k not in ("teachers", "plugins")}
        if isinstance(options.get("bank"), dict):  # where it lies changes nothing
            options["bank"] = {k: v for k, v in options["bank"].items() if k not in ("folder", "on_failure")}
        parts["distill."] = {"slim_method": method.name, "levels": method.levels, **method.params, **options}
        files = method.options.get("plugins") or ()
        parts["distill.plugins."] = {os.path.basename(path): fingerprint(path) for path in files}
    found = {"ranks": ranks}
    for prefix, values in parts.items():
        found |= _flat(values, prefix)
    return found


def _of_teacher(spec):
    from ppkd.recipe.keys import RUN_KEYS

    own = {"weight": spec.weight, "input_scale": spec.input_scale}
    return own | {k: v for k, v in spec.config.items() if k not in RUN_KEYS and k not in _FREE}


def check_same(stored, now, forced):
    """Refuse to go on with a checkpoint of another recipe.

    Args:
        stored, now: what `digest` gave then and now.
        forced: whether the user wants to go on all the same.

    Returns:
        The differences, one line each.

    Raises:
        UserError: there are differences and `forced` is false.
    """
    differing = [
        _line(key, stored, now)
        for key in sorted(stored.keys() | now.keys())
        if stored.get(key) != now.get(key) and _known(key, stored, now)
    ]
    if differing and not forced:
        more = f" and {len(differing) - 8} more" if len(differing) > 8 else ""
        raise UserError(
            f"-r: the checkpoint is of another recipe: {'; '.join(differing[:8])}{more}. "
            f"{_without(stored, now)}Add --force to go on with this one all the same"
        )
    return differing


def validated_otherwise(stored, now):
    """Lines about files of the validation set that are others than they were, as `check_same` has them."""
    keys = [key for key in sorted(stored.keys() & now.keys()) if key.startswith(PREFIX + VALIDATED)]
    return [_line(key, stored, now) for key in keys if stored[key] != now[key]]


def _known(key, stored, now):
    """Whether a difference says something of what is learned: a file may not be needed any more, and was not looked at
    in former times."""
    if key.startswith(PREFIX + VALIDATED):
        return False
    return not key.startswith(PREFIX) or (key in stored and key in now)


def _without(stored, now):
    """How a run goes on as it was begun where its file has got more of ``distill`` since, as a shipped one may have."""
    new = sorted({".".join(key.split(".")[:2]) for key in now.keys() - stored.keys() if key.startswith("distill.")})
    new = [key for key in new if not any(name == key or name.startswith(f"{key}.") for name in stored)]
    return f"With -o {' '.join(f'{key}=null' for key in new)} it goes on as it was begun. " if new else ""


def _line(key, stored, now):
    if key.startswith(PREFIX):
        then, other = (str(values[key])[:12] for values in (stored, now))
        return f"{key[len(PREFIX) :]}: the file's content is another one (SHA-256 {then}... then, {other}... now)"
    return f"{key}: {_shown(stored, key)} then, {_shown(now, key)} now"


def _shown(values, key):
    return repr(values[key]) if key in values else "not set"


def _flat(value, path):
    if isinstance(value, dict) and value:
        pairs = value.items()
    elif isinstance(value, (list, tuple)) and any(isinstance(item, (dict, list, tuple)) for item in value):
        pairs = enumerate(value)
    else:
        return {path: list(value) if isinstance(value, tuple) else value if _plain(value) else str(value)}
    prefix = path if not path or path.endswith(".") else path + "."
    return {k: v for key, item in pairs for k, v in _flat(item, f"{prefix}{key}").items()}


def _plain(value):
    return value is None or isinstance(value, (bool, int, float, str, list, dict))

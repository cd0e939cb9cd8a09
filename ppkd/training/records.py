"""The lines of ``metrics.jsonl``, read back: each by itself, and what is no record of training left out."""

import json

from ppkd.errors import UserError
from ppkd.files.regular import open_file
from ppkd.terminal.log import logger

# What curves are drawn of. Beside it a record has any numbers: losses, figures of an evaluation.
_NEEDED = {"train": ("epoch", "step", "lr", "loss"), "eval": ("epoch", "step")}
_COUNTS = ("epoch", "step")
# What is no number: lists of names.
_NAMES = {"restart": ("terms", "parts")}


def read_records(path):
    """The records of a file, in order; how many lines are left out goes to the log.

    Raises:
        UserError: the file cannot be read at all.
    """
    try:
        with open_file(path, "rb") as file:
            lines = [line for line in file if line.endswith(b"\n")]  # the last may have been cut off by a kill
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error}") from error
    found = [(number, readable(line)) for number, line in enumerate(lines, 1)]
    lost = [number for number, record in found if record is None]
    if lost:
        logger().warning(
            "%s: %d of %d lines are no records of training and left out, the first is line %d",
            path, len(lost), len(lines), lost[0],
        )  # fmt: skip
    return [record for _, record in found if record is not None]


def readable(line, whole=True):
    """The record of a line, or None: a mapping of ``kind`` and numbers; if `whole`, with those that its kind has."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict) or not isinstance(record.get("kind"), str):
        return None
    names = _NAMES.get(record["kind"], ())
    numbers = {key: value for key, value in record.items() if key not in ("kind", *names)}
    if not all(_are_names(record.get(key, [])) for key in names):
        return None
    unknown = (None,) if record["kind"] == "gradients" else ()  # where a gradient is zero, none has a share in it
    if not all(value in unknown or _is_number(value) for value in numbers.values()):
        return None
    needed = _NEEDED.get(record["kind"], _COUNTS) if whole else ("step",)
    if any(key not in numbers for key in needed):
        return None
    return record if all(type(record.get(key, 0)) is int and record.get(key, 0) >= 0 for key in _COUNTS) else None


def _are_names(value):
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def _is_number(value):
    return type(value) is float or (type(value) is int and abs(value) < 1 << 62)

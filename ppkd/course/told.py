"""What the examinations of a course found: it stands in their logs, which nobody opens while all goes on."""

import os

from ppkd.bridge.kinds import ERROR, WARNING
from ppkd.files.json_io import read_json


def warnings_of(path):
    """The warnings in a file that ``ppkd doctor`` wrote, of a pair or of data, one line each."""
    return _lines(path, WARNING)


def errors_of(path):
    """The same of what ends a course."""
    return _lines(path, ERROR)


def error_names(path):
    """Names of the findings of a pair that end a course, as ``--waive`` takes them."""
    return [*dict.fromkeys(each["id"] for each in _content(path).get("findings") or () if each["level"] == ERROR)]


def _lines(path, level):
    found = _content(path)
    lines = [
        f"{each['id']}: {each['text']}. {each['advice']}"
        for each in found.get("findings") or () if each["level"] == level
    ]  # fmt: skip
    for section, data in (found.get("data") or {}).items():
        for kind, each in data["found"].items():
            if each["level"] == level and each["count"]:
                example = f", for example {each['examples'][0]}" if each["examples"] else ""
                lines.append(f"{section}: {each['count']} of: {kind}{example}")
    return lines


def _content(path):
    found = read_json(path) if os.path.isfile(path) else None
    return found if isinstance(found, dict) else {}

"""The list of runs that docs/evidence.md is made of, and what may stand in it."""

import contextlib
import fcntl
import json
import os

from ppkd.files.write import write_text


def key_of(record):
    """Which run a record is of."""
    return record["data"], record["arm"], record["seed"]


def read(path):
    """All records of a file, none if there is no file."""
    if not os.path.exists(path):
        return []
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def find(path, key):
    """The record of one run, or None."""
    return next((record for record in read(path) if key_of(record) == key), None)


def write(path, record):
    """Add a record, or replace the one of the same run; the list keeps the order of sets, arms and seeds."""
    with _alone(path):
        records = [other for other in read(path) if key_of(other) != key_of(record)] + [record]
        write_text(path, json.dumps(sorted(records, key=key_of), indent=1) + "\n")


@contextlib.contextmanager
def _alone(path):
    """A block in which no other process writes the file."""
    folder = os.open(os.path.dirname(os.path.abspath(path)), os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


class Hidden:
    """Takes the folders of a machine out of texts.

    Args:
        folders: name -> path.
    """

    def __init__(self, **folders):
        self._folders = sorted(((os.path.abspath(path), name) for name, path in folders.items()), key=_length)

    def __call__(self, text):
        for path, name in self._folders:
            text = text.replace(path, name)
        return text


def _length(item):
    return -len(item[0])  # the longest first: one may lie in another

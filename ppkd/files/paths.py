"""Names out of files that others wrote: they stay inside of the folder they belong to, and are plain where we write."""

import functools
import os
import re

_ODD = re.compile(r'[\x00-\x1f\x7f-\x9f/\\:*?"<>|\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]+')


def safe_name(text):
    """A name for a file or folder: no separators, no characters that cannot be seen or mean something to a shell's
    pattern or another system, and neither hidden nor an option, a parent, or longer than file systems allow."""
    name = _ODD.sub("_", str(text)).strip().lstrip(".-~ ")
    while len(name.encode("utf-8")) > 200:
        name = name[:-1]
    return name


class Folder:
    """A folder whose files' names come from a file that somebody else wrote.

    Args:
        path: the folder; may itself be a link.
    """

    def __init__(self, path):
        self.path = path
        self._real = os.path.realpath(path)
        self._folder = functools.lru_cache(maxsize=4096)(os.path.realpath)

    def holds(self, path):
        """Whether `path` lies below the folder, all ``..`` and links followed; it need not exist."""
        folder, name = os.path.split(path)
        real = os.path.join(self._folder(folder), name)
        if name in ("", ".", "..") or os.path.islink(real):
            real = os.path.realpath(path)
        return real == self._real or real.startswith(os.path.join(self._real, ""))

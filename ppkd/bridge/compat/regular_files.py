"""ppdet opens whatever a config or a list of files names: a FIFO is waited for, a device never ends."""

import builtins

from ppkd.bridge.compat import own_builtins
from ppkd.errors import UserError
from ppkd.files.regular import NotAFile, open_file


def open_files_alone():
    """Let ppdet's modules open regular files for reading, and nothing else.

    ``label_list``, ``bbox_file``, ``proposals_file`` and the lists of other data sets come to ``open`` in many places.

    Needed for: all of paddledet and PaddleDetection.
    """
    own_builtins.give("open", lambda module: _open)


def _open(file, mode="r", *args, **kwargs):
    if not isinstance(mode, str) or set(mode) & set("wax+") or isinstance(file, int):
        return builtins.open(file, mode, *args, **kwargs)
    try:
        return open_file(file, mode, *args, **kwargs)
    except NotAFile as error:
        raise UserError(f"{file}: {error}") from None

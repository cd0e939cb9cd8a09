"""What tests of cures say of the host: a defect that it has, or that it is mended there."""

import contextlib

import pytest

from ppkd.bridge import compat
from ppkd.bridge.workspace import import_ppdet


def cured(name):
    """Whether this host has the defect of the cure `name`, which then has been applied."""
    import_ppdet()
    return compat.applied(name)


@contextlib.contextmanager
def defect(cure, error, match=None):
    """What stands inside, upstream's own way, fails where `cure` was applied, and works on a host that is mended."""
    if not cured(cure):
        yield
        return
    with pytest.raises(error, match=match):
        yield

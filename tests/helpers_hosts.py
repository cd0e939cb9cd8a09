"""What tests of cures say of the host: a defect that it has, or that it is mended there."""

import contextlib

import pytest

from ppkd.bridge import compat
from ppkd.bridge.host import versions
from ppkd.bridge.workspace import import_ppdet


def cured(name):
    """Whether this host has the defect of the cure `name`, which then has been applied."""
    import_ppdet()
    return compat.applied(name)


def on_a_clone():
    """Whether ppdet is a clone of PaddleDetection, which has some of the wheel's defects and others mended."""
    import_ppdet()
    return versions()["paddledet"].startswith("clone")


def renamed(family):
    """What a config of the tests has to say otherwise where classes of ppdet are called otherwise than in the wheel."""
    import_ppdet()
    from ppdet.modeling import post_process

    if family in ("detr", "deformable_detr", "dino") and hasattr(post_process, "DETRPostProcess"):
        return ["DETR.post_process=DETRPostProcess", "DETRPostProcess.num_top_queries=12"]
    return []


@contextlib.contextmanager
def defect(cure, error, match=None):
    """What stands inside, upstream's own way, fails where `cure` was applied, and works on a host that is mended."""
    if not cured(cure):
        yield
        return
    with pytest.raises(error, match=match):
        yield

"""What ppdet and pycocotools read of an annotation file: `coco.Tidied`'s content, in place of the file's own."""

import contextlib
import gc

from ppkd.bridge.annotation_file import read_annotations
from ppkd.bridge.coco import Tidied

_handed, _seen = {}, []


def read_tidied(path, keys=(), note=None):
    """`Tidied` of a file.

    Args:
        path: the file.
        keys: top-level keys that have to be there.
        note: as `Tidied` takes it.

    Raises:
        UserError: the file is missing, is not JSON, or lacks a key.
    """
    with uncollected():
        return Tidied(read_annotations(path, keys), note)


@contextlib.contextmanager
def uncollected():
    """A block that makes millions of objects, none of them garbage: to look for it takes longer than to make them."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


def coco_class():
    """pycocotools' ``COCO`` of `read_tidied`."""
    from pycocotools import coco

    global _class
    if _class is None:

        class Coco(coco.COCO):
            def __init__(self, annotation_file=None):
                super().__init__()
                if annotation_file is not None:
                    self.dataset = _content(annotation_file)
                    self.createIndex()

        _class = Coco
    return _class


_class = None


def _content(path):
    content = _handed.pop(path, None)
    if content is None:
        content = read_tidied(path).content
    if _seen:
        content["images"] = [image for image in content.get("images", ()) if image["id"] in _seen[-1]]
        if "annotations" in content:
            content["annotations"] = [entry for entry in content["annotations"] if entry["image_id"] in _seen[-1]]
    return content


@contextlib.contextmanager
def reading():
    """A block in which ppdet reads annotations by `coco_class`."""
    from pycocotools import coco

    former, coco.COCO = coco.COCO, coco_class()
    try:
        yield
    finally:
        coco.COCO = former


@contextlib.contextmanager
def handed_over(path, content):
    """A block in which the next to read `path` gets `content`, which has been read already."""
    _handed[path] = content
    try:
        yield
    finally:
        _handed.pop(path, None)


@contextlib.contextmanager
def only(images):
    """A block in which annotation files have no other images than those whose ids are in the set `images`."""
    _seen.append(images)
    try:
        yield
    finally:
        _seen.pop()

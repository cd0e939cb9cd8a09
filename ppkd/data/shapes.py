"""A synthetic object detection data set in COCO format, made in seconds, the same everywhere.

Six classes of coloured shapes on cluttered backgrounds: disc, square, triangle, star, ring and
cross. Only the shape tells the class: colour, size, angle and contrast are drawn alike for all.
Objects hide one another, boxes are those of the visible part, about one picture in fifteen has no
object, and the background holds distractors that are none of the six.

    python -m ppkd.data.shapes --out DIR [--train 800 --val 200 --size 224 --seed 0]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable

import numpy as np
from PIL import Image

from ppkd.data.render import CLASSES, draw

__all__ = ["CLASSES", "VERSION", "generate", "is_complete", "render"]

FORMAT = "ppkd-shapes"
VERSION = 2  # raise it with every change of the pictures or labels: old sets are then made anew
_SPLITS = ("train", "val")
_ENTRIES = {*_SPLITS, "annotations", "meta.json"}


def render(seed: int, split: str, index: int, size: int = 224):
    """Picture `index` (from 0) of a split, whatever the number of pictures in the set.

    Args:
        seed: seed of the data set, 0 or more.
        split: "train" or "val".
        index: position in the split, from 0.
        size: width and height in pixels.

    Returns:
        (image, objects): uint8 RGB array [size, size, 3], and a list of
        (class index 0..5, x, y, width, height) in pixels.
    """
    return _draw(seed, split, index, size)[:2]


def _draw(seed, split, index, size):
    return draw(np.random.Generator(np.random.PCG64([seed, _SPLITS.index(split), index])), size)


def generate(
    out_dir: str | os.PathLike,
    *,
    train: int = 800,
    val: int = 200,
    size: int = 224,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> str:
    """Writes the data set, unless it is there already with the same parameters.

    Writes `train/*.jpg`, `val/*.jpg`, `annotations/instances_{train,val}.json` (COCO, with
    boxes and masks; `area` is box width x height, as the size groups of a box evaluation want it)
    and `meta.json`. All of it is made in a folder beside `out_dir` and renamed at the end:
    `out_dir` is complete or untouched.

    Args:
        out_dir: the folder to make. A data set of other parameters that an earlier call wrote
            there is replaced; any other content is refused.
        train, val: numbers of pictures, 1 or more.
        size: width and height of the pictures in pixels, 64 or more. Objects are 9 to 118 px
            (square root of the box area), and at most about half the picture.
        seed: 0 or more.
        progress: called with (pictures done, pictures in all) after every picture.

    Returns:
        `out_dir` as an absolute path.

    Raises:
        ValueError: a parameter out of range.
        FileExistsError: `out_dir` holds something else.
        OSError: the folder cannot be written; the message names it.
    """
    meta = _meta(train, val, size, seed)
    out = os.path.abspath(os.fspath(out_dir))
    final = os.path.realpath(out)  # a link stays, what it points to is replaced
    if _complete(final, meta):
        return out
    _refuse_foreign(final)
    parent, name = os.path.split(final)
    work = None
    try:
        os.makedirs(parent, exist_ok=True)
        _sweep(parent, name)
        work = tempfile.mkdtemp(prefix=f".{name}.tmp-", dir=parent)
        # mkdtemp makes it private; inside, a plain folder with the user's usual rights
        fresh = os.path.join(work, "new")
        _write(fresh, meta, progress)
        _install(fresh, final, os.path.join(work, "old"), meta)
    except OSError as error:
        if error.errno is None:  # our own words, not the system's
            raise
        reason = error.strerror or error
        raise OSError(error.errno, f"cannot write the shapes data set: {reason}", final) from error
    finally:
        if work is not None:
            shutil.rmtree(work, ignore_errors=True)
    return out


def is_complete(
    out_dir: str | os.PathLike,
    *,
    train: int = 800,
    val: int = 200,
    size: int = 224,
    seed: int = 0,
) -> bool:
    """Whether `generate` with these parameters would find its work done."""
    return _complete(os.path.realpath(os.fspath(out_dir)), _meta(train, val, size, seed))


def _meta(train, val, size, seed):
    for key, value, least in (
        ("train", train, 1),
        ("val", val, 1),
        ("size", size, 64),
        ("seed", seed, 0),
    ):
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
            raise ValueError(f"{key} must be a whole number of at least {least}, not {value!r}")
    return {
        "format": FORMAT,
        "version": VERSION,
        "train": int(train),
        "val": int(val),
        "size": int(size),
        "seed": int(seed),
        "classes": list(CLASSES),
    }


def _read_meta(folder):
    try:
        with open(os.path.join(folder, "meta.json"), encoding="utf-8") as file:
            meta = json.load(file)
    except (OSError, ValueError):
        return None
    return meta if isinstance(meta, dict) and meta.get("format") == FORMAT else None


def _annotation_file(folder, split):
    return os.path.join(folder, "annotations", f"instances_{split}.json")


def _complete(folder, meta):
    """meta.json comes last, so it vouches for the rest; files may still have been deleted since."""
    if _read_meta(folder) != meta:
        return False
    for split in _SPLITS:
        pictures = os.path.join(folder, split)
        if not os.path.isfile(_annotation_file(folder, split)) or not os.path.isdir(pictures):
            return False
        if sum(name.endswith(".jpg") for name in os.listdir(pictures)) != meta[split]:
            return False
    return True


def _refuse_foreign(folder):
    """Only an empty folder or an earlier data set of ours may be replaced."""
    if not os.path.lexists(folder):
        return
    if os.path.isdir(folder):
        entries = set(os.listdir(folder))
        if not entries or (entries <= _ENTRIES and _read_meta(folder) is not None):
            return
    raise FileExistsError(
        f"{folder} exists and is no shapes data set of ppkd: choose another folder, or empty it"
    )


def _sweep(parent, name):
    """Removes what killed runs left behind a day or more ago."""
    for entry in os.listdir(parent):
        path = os.path.join(parent, entry)
        if entry.startswith(f".{name}.tmp-"):
            with contextlib.suppress(OSError):
                if time.time() - os.stat(path).st_mtime > 86400:
                    shutil.rmtree(path, ignore_errors=True)


def _write(folder, meta, progress):
    total, done = sum(meta[split] for split in _SPLITS), 0
    os.makedirs(os.path.join(folder, "annotations"))
    for split in _SPLITS:
        os.mkdir(os.path.join(folder, split))
        coco = _empty_coco()
        for index in range(meta[split]):
            image, objects, outlines = _draw(meta["seed"], split, index, meta["size"])
            _append(coco, index + 1, meta["size"], objects, outlines)
            path = os.path.join(folder, split, coco["images"][-1]["file_name"])
            # full colour resolution: half of it would wash out the smallest objects
            Image.fromarray(image).save(path, quality=95, subsampling=0)
            done += 1
            if progress is not None:
                progress(done, total)
        _dump(_annotation_file(folder, split), coco)
    _dump(os.path.join(folder, "meta.json"), meta)


def _empty_coco():
    categories = [
        {"id": i, "name": name, "supercategory": "shape"} for i, name in enumerate(CLASSES, 1)
    ]
    return {
        "info": {"description": "ppkd shapes", "version": str(VERSION)},
        "licenses": [],
        "images": [],
        "annotations": [],
        "categories": categories,
    }


def _append(coco, image_id, size, objects, outlines):
    coco["images"].append(
        {"id": image_id, "file_name": f"{image_id:06d}.jpg", "width": size, "height": size}
    )
    for (kind, x, y, w, h), polygons in zip(objects, outlines):
        coco["annotations"].append(
            {
                "id": len(coco["annotations"]) + 1,
                "image_id": image_id,
                "category_id": kind + 1,
                "bbox": [float(x), float(y), float(w), float(h)],
                "area": float(w * h),
                "segmentation": polygons,
                "iscrowd": 0,
            }
        )


def _dump(path, content):
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        json.dump(content, file)


def _install(fresh, final, old, meta):
    """Renames the finished folder into place; another process may have been faster."""
    _refuse_foreign(final)
    try:
        if os.path.lexists(final):
            os.rename(final, old)
        os.rename(fresh, final)
    except OSError:
        if _complete(final, meta):
            return
        if os.path.isdir(old) and not os.path.lexists(final):
            os.rename(old, final)
        raise


def main(argv: list[str] | None = None) -> int:
    """The command line: 0 when the data set is there, 1 with a message when it cannot be."""
    parser = argparse.ArgumentParser(prog="python -m ppkd.data.shapes", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, metavar="DIR")
    parser.add_argument("--train", type=int, default=800, metavar="N", help="pictures (800)")
    parser.add_argument("--val", type=int, default=200, metavar="N", help="pictures (200)")
    parser.add_argument("--size", type=int, default=224, metavar="S", help="pixels a side (224)")
    parser.add_argument("--seed", type=int, default=0, metavar="K")
    args = parser.parse_args(argv)

    def show(done, total):
        if done == total or done % 50 == 0:
            end = "\n" if done == total else ""
            print(f"\r{done}/{total} pictures", end=end, file=sys.stderr, flush=True)

    try:
        out = generate(args.out, train=args.train, val=args.val, size=args.size, seed=args.seed,
                       progress=show)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(out)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

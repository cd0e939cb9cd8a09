"""From a folder in any of the formats to one in COCO's, with a summary to look at; the source stays as it is."""

import json
import os
import shutil
from collections import Counter, defaultdict

from ppkd.bridge.bad_images import share
from ppkd.bridge.images import BadImage, decode
from ppkd.errors import UserError, nearest
from ppkd.files.class_names import given_names
from ppkd.files.paths import safe_name
from ppkd.files.scratch import scratch_folder
from ppkd.importing import coco, cvat, label_studio, labelme, voc, yolo
from ppkd.importing.images import Images
from ppkd.importing.judged import Judged
from ppkd.importing.sizes import fitted
from ppkd.importing.source import MISSING, Source, packed, unpacked
from ppkd.importing.split import splits
from ppkd.importing.summary import as_text, draw
from ppkd.terminal.log import logger
from ppkd.terminal.progress import follow

# In the order in which `auto` asks; YOLO's is the last, since other formats come with a classes.txt as well.
FORMATS = {"coco": coco, "label-studio": label_studio, "labelme": labelme, "cvat": cvat, "voc": voc, "yolo": yolo}


def convert(folder, output, form="auto", val=None, seed=0, images="copy", names=None):
    """Write ``annotations/instances_SPLIT.json``, ``images/`` and ``summary.png`` into a new folder.

    Args:
        folder: the data set.
        output: the folder to make; there must be nothing of that name.
        form: ``auto`` or one of `FORMATS`.
        val: share of the images for validation, ``20%`` or 0.2; None keeps the splits of the data set, and without any
            takes 20 %.
        seed: of the random split.
        images: ``copy`` them, ``link`` (hard links, no space), or ``leave`` them where they are.
        names: as for `class_names.given_names`, or None for the data set's own.

    Returns:
        The summary as text.

    Raises:
        UserError: whatever is wrong with the data set; nothing is left at `output` then.
    """
    if not os.path.isdir(folder):
        raise UserError(f"{folder}: no such folder")
    if os.path.lexists(output):
        raise UserError(f"--output {output}: is there already, and nothing is overwritten; give a new folder")
    if _inside(output, folder):
        raise UserError(f"--output {output}: lies in the data set {folder} itself; give a folder beside it")
    source, form = read(folder, form)
    source.names = _names(source, names)
    entries = _measured(source)
    told = splits(entries, None if val is None else _share(val), seed, source)
    parent = os.path.dirname(os.path.abspath(output))
    try:
        os.makedirs(parent, exist_ok=True)
        with scratch_folder(parent) as scratch:
            root = _place_images(entries, folder, scratch, images)
            os.makedirs(os.path.join(scratch, "annotations"))
            for split in sorted({entry["split"] for entry in entries}):
                path = os.path.join(scratch, "annotations", f"instances_{split}.json")
                with open(path, "w", encoding="utf-8") as file:
                    _write([e for e in entries if e["split"] == split], source.names, file)
            text = as_text(entries, source, form, told)
            with open(os.path.join(scratch, "summary.txt"), "w", encoding="utf-8") as file:
                file.write(text + "\n")
            draw(entries, source.names, os.path.join(scratch, "summary.png"), seed)
            os.chmod(scratch, 0o777 & ~_umask())
            os.rename(scratch, output)
    except OSError as error:
        if os.path.lexists(output):
            raise UserError(f"--output {output}: another command has made it meanwhile; it is left as it is") from None
        raise UserError(f"--output {output}: cannot be written: {error}") from error
    return f"{text}\n\n{_how(output, entries, root)}"


def read(folder, form="auto"):
    """The `Source` in a folder, and its format.

    Raises:
        UserError: no or an unknown format, no image, no annotated image.
    """
    if form != "auto" and form not in FORMATS:
        raise UserError(f"--format {form}: there are {', '.join(FORMATS)} and auto{nearest(form, FORMATS)}")
    images = Images(folder)
    if not images.paths:
        raise UserError(f"{folder}: no image in it or below")
    if form == "auto":
        form = next((name for name, reader in FORMATS.items() if reader.finds(folder)), None)
        if form is None:
            raise UserError(f"{folder}: in none of the formats {', '.join(FORMATS)} as far as can be seen (--format)")
    elif form != "yolo" and not FORMATS[form].finds(folder):
        raise UserError(f"{folder}: no file in the format {form} in it")
    source = Source(folder, images)
    try:
        FORMATS[form].read(source)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{folder}: not as {form} writes it: {type(error).__name__}: {error}") from error
    _return_borrowed(source)
    if form != "yolo":  # where it is background
        named = {picture.path for picture in source.pictures}
        source.dropped["images that no annotation names"] += len(set(images.paths) - named)
    source.dropped = +source.dropped
    if not source.pictures:
        raise UserError(f"{folder}: no annotated image ({form}){source.told()}")
    return source, form


def _return_borrowed(source):
    """Leave images of another split's folder to files that annotate them; those that were meant are missing then."""
    if not source.images.borrowed:
        return
    users = defaultdict(set)
    for picture in source.pictures:
        users[picture.path].add(picture.where)
    kept = []
    for picture in source.pictures:
        borrowed = (picture.path, picture.where) in source.images.borrowed
        if borrowed and len(users[picture.path]) > 1:
            source.dropped[MISSING] += 1
            continue
        source.dropped["images that lie in the folder of another split"] += borrowed
        kept.append(picture)
    source.pictures = kept


def _names(source, given):
    """The classes in their order; labels that are none of the given ones are an error."""
    used = Counter()
    for picture in source.pictures:
        shapes = picture.shapes(1, 1) if callable(picture.shapes) else picture.shapes
        for shape in shapes:
            used[shape.label] += 1
            if given is None and source.names is not None and shape.label not in source.names:
                raise UserError(f"{picture.where}: label {shape.label!r} is none of the data set's own list of labels")
    if given is None:
        names = source.names or sorted(used)
    else:
        names = given_names(given.split(",") if "," in given or not os.path.exists(given) else given, "--names")
        if unknown := sorted(set(used) - set(names)):
            raise UserError(f"--names: lacks {', '.join(unknown[:8])}{nearest(unknown[0], names)}")
    if not used:
        raise UserError(f"{source.folder}: no object in any of {len(source.pictures)} images{source.told()}")
    if len(set(names)) < len(names):
        twice = next(name for name, count in Counter(names).items() if count > 1)
        raise UserError(f"{source.folder}: two classes are called {twice!r}; --names does not help, rename one of them")
    return names


def _measured(source):
    """One entry an image: its size by its pixels, and objects in COCO's keys, within the image, `packed`."""
    entries, seen, judged = [], {}, Judged(source)
    for picture in follow(source.pictures, "reading images", len(source.pictures)):
        first = seen.setdefault(os.path.realpath(picture.path), picture)
        if first is not picture:
            twice = "twice by it" if first.where == picture.where else f"by {first.where} as well"
            raise UserError(f"{picture.where}: {picture.path} is annotated {twice}; remove one of them")
        try:
            height, width = decode(picture.path).shape[:2]
        except BadImage as bad:
            source.dropped["images that cannot be read"] += 1
            logger().warning("left out: %s: %s", picture.path, bad.reason)
            continue
        if (shapes := fitted(picture, width, height, source.dropped)) is None:
            continue
        judged.add(picture.where, shapes, width, height)
        objects = [o for o in (_object(s, width, height, source.dropped) for s in shapes) if o is not None]
        entries.append({"path": picture.path, "width": width, "height": height, "split": picture.split,
                        "objects": packed(objects)})  # fmt: skip
    judged.judge()
    if not any(entry["objects"] for entry in entries):
        text = f"no object is within any of {len(entries)} images that can be taken"
        raise UserError(f"{source.folder}: {text}{source.told()}")
    return entries


def _object(shape, width, height, dropped):
    xs, ys = zip(*shape.points)
    x1, x2 = (min(max(x, 0.0), float(width)) for x in (min(xs), max(xs)))
    y1, y2 = (min(max(y, 0.0), float(height)) for y in (min(ys), max(ys)))
    if x2 - x1 < 1e-6 or y2 - y1 < 1e-6:
        inside = min(xs) < width and max(xs) > 0 and min(ys) < height and max(ys) > 0
        dropped["objects without area" if inside else "objects outside of their image"] += 1
        return None
    if min(min(xs), min(ys)) < -1 or max(xs) > width + 1 or max(ys) > height + 1:
        dropped["objects beyond the edge of their image: cut off there"] += 1
    box = [round(n, 3) for n in (x1, y1, x2 - x1, y2 - y1)]
    found = {"label": shape.label, "bbox": box, "area": round(box[2] * box[3], 3), "iscrowd": 0, "segmentation": []}
    if shape.polygon:
        points = [(min(max(x, 0.0), float(width)), min(max(y, 0.0), float(height))) for x, y in shape.points]
        found["segmentation"] = [[round(n, 3) for point in points for n in point]]
        found["area"] = round(_area(points), 3) or found["area"]
    found |= shape.more
    if box[2] < max(xs) - min(xs) - 0.001 or box[3] < max(ys) - min(ys) - 0.001:
        found["area"] = min(found["area"], round(box[2] * box[3], 3))  # a part is cut off
    return found


def _area(points):
    pairs = zip(points, [*points[1:], points[0]])
    return abs(sum(x1 * y2 - x2 * y1 for (x1, y1), (x2, y2) in pairs)) / 2


def _place_images(entries, folder, scratch, how):
    """Copy or link the images into ``images/``; the folder that their names are below, if it is another."""
    if how == "leave":
        for entry in entries:
            entry["file_name"] = os.path.relpath(entry["path"], folder).replace(os.sep, "/")
        return os.path.abspath(folder)
    os.makedirs(os.path.join(scratch, "images"))
    taken = set()
    for entry in entries:
        parts = os.path.relpath(entry["path"], folder).split(os.sep)
        names = ("_".join(safe_name(part) for part in parts[-n:]) for n in range(1, len(parts) + 1))
        stem, ending = os.path.splitext(safe_name(parts[-1]) or "image")
        numbered = (f"{stem}_{number}{ending}" for number in range(2, len(entries) + 2))
        name = next(n for n in (*names, *numbered) if n and n.lower() not in taken)
        taken.add(name.lower())
        entry["file_name"], target = name, os.path.join(scratch, "images", name)
        try:
            (os.link if how == "link" else shutil.copyfile)(os.path.realpath(entry["path"]), target)
        except OSError as error:
            done = "linked (--images copy works everywhere)" if how == "link" else "copied"
            raise UserError(f"{entry['path']}: cannot be {done}: {error}") from error
    return None


def _write(entries, names, file):
    """Write an annotation file entry by entry: the whole would take many times the memory."""
    ids = {name: number for number, name in enumerate(names, 1)}
    # Names of files that are no text are such in JSON alone.
    plain = any("\ud800" <= letter <= "\udfff" for entry in entries for letter in entry["file_name"])
    lists = {
        "images": _images(entries),
        "annotations": _annotations(entries, ids),
        "categories": ({"id": number, "name": name} for name, number in ids.items()),
    }
    for begin, (key, values) in zip("{,,", lists.items()):
        file.write(f'{begin} "{key}": [' if begin == "," else f'{begin}"{key}": [')
        for place, value in enumerate(values):
            file.write((", " if place else "") + json.dumps(value, ensure_ascii=plain))
        file.write("]")
    file.write("}")


def _images(entries):
    for number, entry in enumerate(entries, 1):
        yield {"id": number, **{key: entry[key] for key in ("file_name", "width", "height")}}


def _annotations(entries, ids):
    count = 0
    for number, entry in enumerate(entries, 1):
        for found in unpacked(entry["objects"]):
            count += 1
            keys = {key: value for key, value in found.items() if key != "label"}
            yield keys | {"id": count, "image_id": number, "category_id": ids[found["label"]]}


def _how(output, entries, root):
    keys = [f"dataset_dir={output}"]
    if root:
        keys += [f"train_images={root}", f"val_images={root}"]
    has_val = any(entry["split"] == "val" for entry in entries)
    missing = "" if has_val else "; there is no validation set: --val 20% makes one"
    return f"look at {os.path.join(output, 'summary.png')}, then train with -o {' '.join(keys)}{missing}"


def _share(text):
    try:
        value = share(text)
    except UserError:
        value = 0
    if not 0 < value < 1:
        raise UserError(f"--val {text}: has to be a share such as 20% or 0.2")
    return value


def _inside(path, folder):
    real = os.path.realpath(path)
    return real == os.path.realpath(folder) or real.startswith(os.path.join(os.path.realpath(folder), ""))


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask

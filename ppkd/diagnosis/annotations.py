"""What is wrong with a COCO annotation file, entry by entry; no image is opened."""

import collections
import math

# Pixels by which a box may lie beyond the edge: annotators round.
_SLACK = 1.0


def check_annotations(content, note):
    """Look at all entries of an annotation file.

    Args:
        content: what the file holds: a dict with ``images`` and ``categories``, and mostly ``annotations``.
        note: function from a kind of `data.KINDS` and an example's text.

    Returns:
        The sound entries of ``images``, and the ids of those that have a box.
    """
    images = _images(content["images"], note)
    categories = _categories(content["categories"], note)
    boxes, seen = collections.Counter(), collections.Counter()
    for key in ("images", "categories", "annotations"):
        if not isinstance(content.get(key), list):
            note("no-list", f"`{key}` is {'missing' if key not in content else type(content[key]).__name__}")
    for number, entry in enumerate(_entries(content.get("annotations"))):
        if not isinstance(entry, dict):
            note("broken-annotation", f"entry {number} is no mapping")
            continue
        name = f"annotation {entry.get('id', f'number {number}')}"
        key = _plain(entry.get("id"))
        seen[key] += 1
        if key is not None and seen[key] == 2:
            note("duplicate-annotation", name)
        lacking = [field for field in ("id", "image_id", "category_id") if _plain(entry.get(field)) is None]
        if lacking:
            note("broken-annotation", f"{name}: no {' and no '.join(lacking)}")
            continue
        image = images.get(entry["image_id"])
        if image is None:
            note("unknown-image", f"{name}: image_id {entry['image_id']!r}")
            continue
        if _check_box(entry, image, f"{name} of {image['file_name']}", categories, note):
            boxes[entry["image_id"]] += 1
    for key, image in images.items():
        if not boxes[key]:
            note("no-boxes", image["file_name"])
    return list(images.values()), set(boxes)


def _entries(value):
    return value if isinstance(value, list) else []


def _plain(value):
    """An id, or None if it cannot be one: pycocotools and ppdet take whole numbers."""
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _images(entries, note):
    found, files = {}, collections.Counter()
    for number, entry in enumerate(_entries(entries)):
        entry_id = _plain(entry.get("id")) if isinstance(entry, dict) else None
        sound = entry_id is not None and isinstance(entry.get("file_name"), str)
        sizes = [_number(entry.get(key)) for key in ("width", "height")] if sound else []
        if not sound or not all(size and size > 0 for size in sizes):
            name = entry.get("file_name") if isinstance(entry, dict) else None
            note("broken-image-entry", f"image {name or f'number {number}'}: needs id, file_name, width and height")
            continue
        if entry["id"] in found:
            note("duplicate-image", f"id {entry['id']}: {found[entry['id']]['file_name']} and {entry['file_name']}")
        files[entry["file_name"]] += 1
        if files[entry["file_name"]] == 2:
            note("duplicate-file", entry["file_name"])
        found[entry["id"]] = entry
    return found


def _categories(entries, note):
    known = set()
    for entry in _entries(entries):
        key = _plain(entry.get("id")) if isinstance(entry, dict) else None
        if key is None or not isinstance(entry.get("name"), (str, int, float)):
            note("broken-category", repr(entry)[:60])
        elif key in known:
            note("duplicate-category", f"id {key}: {entry['name']}")
        known.add(key)
    return known


def _check_box(entry, image, name, categories, note):
    """Whether training gets a box of this annotation."""
    if entry["category_id"] not in categories:
        note("unknown-category", f"{name}: category_id {entry['category_id']!r}")
        return False
    lacking = [key for key in ("area", "iscrowd") if _number(entry.get(key)) is None]
    if lacking:
        note("missing-key", f"{name}: no {' and no '.join(lacking)}")
    if entry.get("iscrowd") == 1:
        note("crowd", name)
        return False
    box = entry.get("bbox")
    if not isinstance(box, list) or len(box) != 4 or any(_number(value) is None for value in box):
        note("broken-box", f"{name}: bbox {box!r}"[:120])
        return False
    x, y, width, height = map(float, box)
    shown = f"{name}: {x:g}, {y:g}, {width:g} x {height:g}"
    if width < 0 or height < 0:
        note("negative-box", shown)
        return False
    if width * height == 0 or (_number(entry.get("area")) or 1) <= 0 or entry.get("area") == 0:
        note("empty-box", shown)
        return False
    if x >= image["width"] or y >= image["height"] or x + width <= 0 or y + height <= 0:
        note("box-outside", shown)
    elif min(x, y) < -_SLACK or x + width > image["width"] + _SLACK or y + height > image["height"] + _SLACK:
        note("box-beyond-edge", f"{shown}, the image {image['width']:g} x {image['height']:g}")
    return True


def _number(value):
    """A finite number, or None."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        return value if math.isfinite(float(value)) else None
    except OverflowError:  # a whole number of hundreds of digits
        return None

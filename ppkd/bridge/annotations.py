"""What ppdet makes of an annotation file: which boxes it keeps, and why it loses the others; no image is opened."""

import collections

from ppkd.bridge.kinds import ANNOTATIONS
from ppkd.bridge.masks import has_area, is_sound, outlines

_EXAMPLES = 5
# Pixels by which a box may lie beyond the edge: annotators round.
_SLACK = 1.0
# Least width and height of a box that ppdet keeps.
_LEAST = 1e-5
# Share of lost boxes that is worth a warning.
_LOST = 0.1
# Share of boxes beyond the edges of their images, or within the first pixel, that is worth one.
_BEYOND = 0.1
# Boxes and the share of them that are told by their numbers to be no x, y, width, height in pixels.
_MANY, _TELLING = 8, 0.2
# Of what a box covers, the least and the most that an `area` of it or of its mask is.
_THIN, _FULL = 0.005, 1.5
# Above it, and below 0, pycocotools does not count a box; it looks at neither `ignore` nor width and height.
_COUNTED_AREA = 1e10
_ALL_SMALL = 0.9


class Found:
    """What was found in one data set.

    Args:
        kinds: kind -> (level, what comes of it), of which `note` takes the names.

    Attributes:
        counts: kind -> number.
        examples: kind -> the first few, as text.
        listed, kept: boxes of the annotation file, and those that are trained on.
        counted: those that COCO's evaluation counts, see `weigh`.
    """

    def __init__(self, kinds=ANNOTATIONS):
        self.kinds = kinds
        self.listed = self.kept = self.counted = 0
        self.counts, self.examples = collections.Counter(), collections.defaultdict(list)

    def note(self, kind, example):
        """Count one of a kind."""
        self.counts[kind] += 1
        if len(self.examples[kind]) < _EXAMPLES:
            self.examples[kind].append(example)

    def of(self, *levels):
        """Kinds of some levels that were found, in the order of the table."""
        return [kind for kind, (level, _) in self.kinds.items() if level in levels and self.counts[kind]]

    def told(self, kind):
        """A kind in words, with its first example."""
        count, example = self.counts[kind], self.examples[kind][0]
        if count == 1:
            return f"{kind}: {self.kinds[kind][1]} ({example})"
        return f"{count} {kind}: {self.kinds[kind][1]} ({example}, ...)"


def weigh(tidied, found, masks=False, evaluated=False, load_crowd=False, by_pycocotools=True):
    """Look at all entries of an annotation file as ppdet does.

    Args:
        tidied: `coco.Tidied`. Boxes without a mask that a detector needs get ``ignore`` when they are for training.
        found: `Found` to note in.
        masks: whether the detector needs masks.
        evaluated: whether it is a validation set.
        load_crowd: as the data set has it.
        by_pycocotools: whether it evaluates, which counts boxes that training would lose.

    Returns:
        Ids of the images that have a box which is kept.
    """
    content = tidied.content
    images = {image["id"]: (image, image["width"], image["height"]) for image in content["images"]}
    full, classes, copies, shape = set(), [], set(), Together()
    entries = content.get("annotations", ())
    found.listed = len(entries) + tidied.unused
    for entry in entries:
        image, wide, tall = images[entry["image_id"]]
        found.counted += not entry["iscrowd"] and 0 <= entry["area"] <= _COUNTED_AREA
        kind = _loss(entry, load_crowd)
        # pycocotools looks at the masks of all, those that training leaves out as well.
        if masks and (evaluated or kind is None) and (without := _without_mask(entry, image, evaluated)):
            if without == "empty-mask" and evaluated:
                found.note(without, _shown(entry, image))  # which nothing can be found for; the box counts
            else:
                kind, entry["ignore"] = without, 1
        if kind is not None:
            found.note(kind, _shown(entry, image))
            continue
        classes.append(entry["category_id"])
        key = hash((entry["image_id"], entry["category_id"], *entry["bbox"]))
        if key in copies:
            found.note("copied-box", _shown(entry, image))
        copies.add(key)
        kind = shape.add(*entry["bbox"], wide, tall, entry["area"])
        if kind is not None:
            found.note(kind, _shown(entry, image))
        if kind != "box-outside":
            found.kept += 1
        full.add(entry["image_id"])
    of_category = collections.Counter(classes)
    for image in content["images"] if "annotations" in content else ():
        if image["id"] not in full:
            found.note("no-boxes", image["file_name"])
    if "annotations" in content:
        shape.judge(found)
        _judge_categories(content["categories"], of_category, evaluated, found)
        _judge_losses(found, found.counted if evaluated and by_pycocotools else found.kept)
    return full


def _loss(entry, load_crowd):
    """Why ppdet keeps no box of an annotation, in the order in which it looks; None if it does."""
    if entry["iscrowd"] and not load_crowd:
        return "crowd"
    if entry.get("ignore"):
        return "ignored-box"
    x, y, width, height = entry["bbox"]
    if width < 0 or height < 0:
        return "negative-box"
    if not (entry["area"] > 0 and x + width - x > _LEAST and y + height - y > _LEAST):
        return "empty-box"
    return None


def _without_mask(entry, image, evaluated):
    """The kind of an annotation that has no mask; None if it has one. Run lengths to learn from become outlines."""
    mask, width, height = entry.get("segmentation"), image["width"], image["height"]
    if not is_sound(mask, height, width):
        return "no-mask" if evaluated else "mask-lost"
    if isinstance(mask, dict) and not evaluated:
        mask = entry["segmentation"] = outlines(mask)
    return None if isinstance(mask, dict) or any(has_area(part, height, width) for part in mask) else "empty-mask"


def _shown(entry, image):
    x, y, width, height = entry["bbox"]
    size = f"the image {image['width']:g} x {image['height']:g}"
    name = f"annotation {entry['id']} of {image['file_name']}"
    return f"{name}: {x:g}, {y:g}, {width:g} x {height:g}, {size}"


class Together:
    """What only all boxes together show: that their numbers are others than x, y, width, height in pixels.

    Attributes:
        boxes: their number.
        small, beyond, corners, areas: of these, within the first pixel; beyond the edge of their image; within it, if
            they are taken for two corners; of an area that is not theirs.
    """

    def __init__(self):
        self.boxes = self.small = self.beyond = self.corners = self.areas = 0
        self._example = self._area = ""

    def add(self, x, y, width, height, wide, tall, area=None):
        """Count a box; its kind if it lies outside of its image, `wide` and `tall`, or reaches beyond it."""
        self.boxes += 1
        if area is not None and not _THIN * width * height <= area <= _FULL * (width + 2) * (height + 2):
            self.areas += 1
            self._area = self._area or f"{area:g} of {width:g} x {height:g}"
        if width <= 1 and height <= 1 and 0 <= x <= 1 and 0 <= y <= 1:
            self.small += 1
        # What would be two corners inside of the image.
        self.corners += -_SLACK <= x < width <= wide + _SLACK and -_SLACK <= y < height <= tall + _SLACK
        if x >= -_SLACK and y >= -_SLACK and x + width <= wide + _SLACK and y + height <= tall + _SLACK:
            return None
        self.beyond += 1
        self._example = self._example or f"{x:g}, {y:g}, {width:g}, {height:g} in {wide:g} x {tall:g}"
        return "box-outside" if x >= wide or y >= tall or x + width <= 0 or y + height <= 0 else "box-beyond-edge"

    def judge(self, found):
        """Note what the boxes together are."""
        if self.boxes and self.small > _ALL_SMALL * self.boxes:
            found.note("normalised-boxes", f"{self.small} of {self.boxes} boxes are within the first pixel")
        elif self.small > 1 and self.small > _BEYOND * self.boxes:  # files of two tools put together
            found.note("some-normalised", f"{self.small} of {self.boxes} boxes are within the first pixel")
        if self.boxes >= _MANY and self.corners == self.boxes and self.beyond > _TELLING * self.boxes:
            text = f"{self.beyond} of {self.boxes} boxes reach beyond their image, none would as corners"
            found.note("corner-boxes", f"{text}: {self._example}")
        elif self.beyond >= _MANY and self.beyond > _BEYOND * self.boxes:
            found.note("boxes-beyond", f"{self.beyond} of {self.boxes} boxes: {self._example}")
        if self.areas > _BEYOND * self.boxes and not self.small:
            found.note("unlike-areas", f"{self.areas} of {self.boxes} boxes: {self._area}")


def _judge_categories(categories, used, evaluated, found):
    names = set()
    for category in categories:
        name = str(category["name"])
        if name in names:
            found.note("same-name", name)
        names.add(name)
        if not used[category["id"]] and not evaluated:  # few pictures need not show everything
            found.note("unused-category", f"{name} (id {category['id']})")


def _judge_losses(found, used):
    lost = found.listed - found.kept
    reasons = ", ".join(f"{found.counts[kind]} {kind}" for kind in LOSSES if found.counts[kind])
    text = f"{lost} of {found.listed} boxes: {reasons}"
    if not used:
        found.note("nothing-kept", text if found.listed else "there is no box in the file")
    elif lost > _LOST * found.listed:
        found.note("boxes-lost", text)


# Why boxes are lost. Those with a box that is broken stand for themselves: nothing starts with them.
LOSSES = (
    "crowd", "ignored-box", "no-bbox", "empty-box", "negative-box", "box-outside", "unknown-image", "mask-lost",
    "no-mask", "empty-mask", "missing-key", "broken-box", "unknown-category", "broken-annotation",
)  # fmt: skip

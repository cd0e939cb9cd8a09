"""What only all boxes of a file show: that they are in shares of the image, or two corners for x, y, width, height."""

from collections import Counter

from ppkd.bridge.annotations import Found, Together
from ppkd.errors import UserError


class Judged:
    """Boxes as the validator of training sees them, before they are cut off at the edges, which would hide it.

    Args:
        source: `source.Source`.
    """

    def __init__(self, source):
        # Files about one image each are judged together.
        self._folder, self._images = source.folder, Counter(picture.where for picture in source.pictures)
        self._found = {}

    def add(self, where, shapes, width, height):
        """Count the shapes of an image."""
        where = where if self._images[where] > 1 else self._folder
        for shape in shapes:
            if shape.more.get("iscrowd") or shape.more.get("ignore"):
                continue  # as the validator does
            xs, ys = zip(*shape.points)
            # Those of other formats are corners already.
            together = self._found.setdefault((where, "iscrowd" in shape.more), Together())
            together.add(min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys), width, height)

    def judge(self):
        """Look at what was counted.

        Raises:
            UserError: nearly all boxes of a file are no x, y, width, height in pixels.
        """
        for (where, of_coco), together in self._found.items():
            found = Found()
            together.judge(found)
            # Cut off, they would never be found: here fewer than the validator's are enough, if it is all of them.
            if 1 < together.boxes == together.beyond == together.corners and not found.counts["corner-boxes"]:
                text = f"all {together.boxes} boxes reach beyond their image, none would as corners"
                found.note("corner-boxes", text)
            for kind in ("normalised-boxes", "corner-boxes") if of_coco else ("normalised-boxes",):
                if found.counts[kind]:
                    raise UserError(f"{where}: {found.told(kind)}")

"""Classes of two lists by their names, however they are spelt: COCO's *airplane* is PASCAL VOC's *aeroplane*."""

from collections import Counter
from dataclasses import dataclass

# The first of each line is what the others are taken for.
_SAME = (
    ("airplane", "aeroplane", "plane"),
    ("motorcycle", "motorbike"),
    ("bicycle", "bike"),
    ("couch", "sofa"),
    ("diningtable",),
    ("pottedplant", "houseplant"),
    ("tv", "tvmonitor", "television", "tvset"),
    ("cellphone", "mobilephone", "mobile"),
    ("hairdrier", "hairdryer", "hairdrier"),
    ("donut", "doughnut"),
    ("hotdog",),
    ("refrigerator", "fridge"),
    ("wineglass",),
    ("trafficlight", "trafficlights"),
    ("skis", "ski"),
    ("remote", "remotecontrol"),
)
_CANON = {other: first for first, *others in _SAME for other in others}


@dataclass(frozen=True)
class Matched:
    """Which class of one list is which of another.

    Attributes:
        place: number of the first list's class -> number of the second's.
        spelt: ``(theirs, ours)`` of those whose names are not the same text.
        missing: names of the second list that the first has not.
        unused: names of the first list that the second has not.
    """

    place: dict
    spelt: list
    missing: list
    unused: list

    def __str__(self):
        text = f"{len(self.place)} of its {len(self.place) + len(self.unused)} classes are the data set's"
        if self.spelt:
            text += f" ({', '.join(f'{theirs} as {ours}' for theirs, ours in self.spelt)})"
        return text + (f"; it does not know {', '.join(self.missing)}" if self.missing else "")


def match(theirs, ours):
    """Find the classes of `theirs` among `ours`: by the same text first, then by spelling.

    Args:
        theirs: list of names; None for a number that is no class.
        ours: list of names.

    Returns:
        `Matched`. A spelling that stands for several of either list stands for none.
    """
    place, left = {}, set(range(len(ours)))
    for read in (str, _plain):
        spellings = {}
        for number in sorted(left):
            spellings.setdefault(read(ours[number]), []).append(number)
        rest = [k for k, name in enumerate(theirs) if name is not None and k not in place]
        times = Counter(read(theirs[k]) for k in rest)
        for k in rest:
            found = spellings.get(read(theirs[k]), ())
            if len(found) == 1 and times[read(theirs[k])] == 1:
                place[k] = found[0]
                left.discard(found[0])
    return Matched(
        dict(sorted(place.items())),
        [(theirs[k], ours[number]) for k, number in sorted(place.items()) if theirs[k] != ours[number]],
        [ours[number] for number in sorted(left)],
        [name for k, name in enumerate(theirs) if name is not None and k not in place],
    )


def _plain(name):
    plain = "".join(c for c in name.casefold() if c.isalnum())
    return _CANON.get(plain, plain)

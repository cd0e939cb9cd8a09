"""A teacher's own detections as boxes for images without labels: ``distill.pseudo_boxes``."""

from dataclasses import dataclass

from ppkd.errors import UserError, nearest
from ppkd.recipe.keys import is_number
from ppkd.recipe.schedules import Schedule

NAME = "pseudo_boxes"
KEYS = ("from", "threshold", "weight", "soft")


@dataclass(frozen=True)
class PseudoBoxes:
    """What ``distill.pseudo_boxes`` says.

    Attributes:
        teacher: the name of the one that detects, or None for the first.
        threshold: the least score of a box; a mapping from classes to their own; None where F1 on the validation set
            decides, as it does for classes that a mapping leaves out.
        weight: factor on the student's own loss on these images. With 0 terms alone take the boxes.
        soft: whether a box counts by its score.
        schedule: the factor over epochs; where it is 0, nothing is detected.
    """

    teacher: str | None = None
    threshold: float | dict | None = None
    weight: float = 1.0
    soft: bool = True
    schedule: Schedule = Schedule()

    @property
    def keys(self):
        """The keys that give it again, without those of the schedule."""
        keys = {"weight": self.weight}
        if self.teacher is not None:
            keys["from"] = self.teacher
        if self.threshold is not None:
            keys["threshold"] = self.threshold
        return keys if self.soft else keys | {"soft": False}


def own_keys(options, where, schedule_keys):
    """The mapping that stands in the file, or None; ``true`` is one of defaults alone.

    Args:
        options: of the ``distill:`` block.
        where: file and block, for messages.
        schedule_keys: names of the keys that it may have beside `KEYS`.

    Raises:
        UserError: no mapping, or a key that there is not.
    """
    given, known = options.get(NAME), (*KEYS, *schedule_keys)
    if given is None or given is False:
        return None
    if given is True:
        return {}
    if not isinstance(given, dict):
        raise UserError(f"{where}.{NAME} has to be true, or a mapping of {', '.join(known)}; found {given!r}")
    for key in given:
        if key not in known:
            raise UserError(f"{where}.{NAME} has no key {key!r}{nearest(str(key), known)}; it has {', '.join(known)}")
    return given


def pseudo_boxes_of(given, schedule, where):
    """The `PseudoBoxes` of a mapping.

    Args:
        given: of `own_keys`, not None.
        schedule: its `Schedule`.
        where: file and block, for messages.

    Raises:
        UserError: a value of the wrong kind.
    """
    where = f"{where}.{NAME}"
    teacher, weight, soft = given.get("from"), given.get("weight", 1.0), given.get("soft", True)
    if not isinstance(teacher, str | None):
        raise UserError(f"{where}.from has to be the name of one teacher, found {teacher!r}")
    if not is_number(weight) or weight < 0:
        raise UserError(f"{where}.weight has to be a number from 0, found {weight!r}")
    if not isinstance(soft, bool):
        raise UserError(f"{where}.soft has to be true or false, found {soft!r}")
    return PseudoBoxes(teacher, _threshold(given.get("threshold"), f"{where}.threshold"), weight, soft, schedule)


def _threshold(value, where):
    if isinstance(value, dict) and value:
        return {str(name): _score(each, f"{where}.{name}") for name, each in value.items()}
    return None if value is None else _score(value, where)


def _score(value, where):
    if not is_number(value) or not 0 <= value <= 1:
        raise UserError(f"{where} has to be a score from 0 to 1, or a mapping from classes to scores; found {value!r}")
    return float(value)

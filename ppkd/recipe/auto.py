"""``slim_method: Auto`` and ``--method auto``: which method teaches a pair of detectors, in one place."""

from ppkd.errors import UserError
from ppkd.files.shipped import by_name
from ppkd.files.yaml_io import clone, merge, read_with_bases

AUTO = "Auto"
SECTIONS = {"PKD": {"loss_weight": 6.0}}  # the authors' weight
# For how long, and from where, as the shipped file has it as well (docs/evidence.md). On both data sets of it a student
# ended no lower from a bank than with the live teacher, which takes longer; where a data set is large, or no space is
# left, the teacher is asked in every step.
SCHEDULE = {
    "stop_epoch": "33%", "hand_over": "reset", "bank": {"views": 4, "on_failure": "live", "gigabytes": 10}
}  # fmt: skip
_OF_PPYOLOE, _OF_OTHERS = "ppyoloe_plus_custom_ppyoloe", "PKD"


def is_auto(name):
    """Whether a method's name, as it stands in a file or behind ``--method``, leaves the choice to `lines_of`."""
    return isinstance(name, str) and name.lower() == AUTO.lower()


def lines_of(student, teacher, unlabelled=False):
    """What a slim file says about the method that is chosen for a pair.

    Args:
        student, teacher: configs.
        unlabelled: whether there are images without labels, from which nothing but the teacher teaches.

    Returns:
        ``(mapping, why in words)``.
    """
    if is_ppyoloe(student) and is_ppyoloe(teacher):
        lines, why = lines_of_shipped(_OF_PPYOLOE), f"as {_OF_PPYOLOE}"
    else:
        lines, why = lines_of_method(_OF_OTHERS), f"{_OF_OTHERS} with its own defaults"
    # Where parts of both have equal shapes, starting from the teacher's is worth most in a short run.
    lines["distill"] = {**(lines.get("distill") or {}), **clone(SCHEDULE), "inherit": True}
    if not unlabelled:
        why += ", for the first third of the run, from a bank of its answers, then alone: docs/evidence.md"
    return without_end(lines, unlabelled), why


def without_end(lines, unlabelled):
    """A method's lines, of a teacher that teaches to the end where there are images without labels."""
    if unlabelled and "distill" in lines:
        lines["distill"] = {key: value for key, value in lines["distill"].items() if key not in SCHEDULE}
    return lines


def lines_of_method(name):
    """The lines of a method by itself, on the neck's features where it takes a section."""
    lines, section = {"slim": "Distill", "slim_method": name}, f"{name}FeatureLoss"
    return lines | ({"distill_loss": section, section: dict(SECTIONS[name])} if name in SECTIONS else {})


def lines_of_shipped(name):
    """The lines about the method of a slim file that comes with ppkd."""
    own, _ = read_with_bases(by_name()[name])
    return {key: clone(value) for key, value in own.items() if key != "pretrain_weights"}


def is_ppyoloe(config):
    """Whether a config describes a PP-YOLOE, whose architecture is called YOLOv3 or PPYOLOE."""
    section = config.get(config.get("architecture"))
    return isinstance(section, dict) and section.get("yolo_head") == "PPYOLOEHead"


def settled(method, said, student, teacher, unlabelled, path):
    """A slim file's keys of the method with the chosen one's in place of ``slim_method: Auto``.

    What the file itself says in ``distill``, and in the section of the chosen loss, goes over the choice.

    Args:
        method: the file's keys of the method.
        said: all of the file's own keys.
        student, teacher, unlabelled: as of `lines_of`.
        path: the file's.

    Returns:
        ``(mapping, lines for the log)``; what was given and no line if it names a method.

    Raises:
        UserError: the file says a method's loss as well.
    """
    if not is_auto(method.get("slim_method")):
        return method, []
    for key in ("distill_loss", "distill_loss_name"):
        if key in method:
            raise UserError(f"{path}: {key}: `slim_method: Auto` chooses the loss; leave it out, or name a method")
    lines, why = lines_of(student, teacher, unlabelled)
    section = lines.get("distill_loss")
    own = method | ({section: said[section]} if said.get(section) is not None else {})
    # An empty ``distill:``, whose keys are all commented out, says nothing.
    own = {key: value for key, value in own.items() if key != "slim_method" and (key, value) != ("distill", None)}
    if "bank" in (own.get("distill") or {}):  # a bank of one's own has what it says, and no limit that it does not
        lines["distill"].pop("bank", None)
    return merge(clone(lines), own), [f"slim_method: Auto: {lines['slim_method']}, {why}"]

"""How a teacher teaches where nobody has written a slim file: the one place for what `--method` means."""

from ppkd.errors import UserError, nearest
from ppkd.files.shipped import by_name
from ppkd.files.yaml_io import clone, read_with_bases
from ppkd.methods import NAMES

AUTO = "auto"
# Shipped recipes for pairs of PP-YOLOE, whose own lines are taken.
_PPYOLOE = {AUTO: "ppyoloe_plus_custom_ppyoloe", "ppyoloedistill": "ppyoloe_plus_custom_ppyoloe",
            "fgd": "ppyoloe_plus_custom_fgd"}  # fmt: skip
# For all others: the neck's features, with the authors' weight.
_OTHERS = {AUTO: "PKD"}
_SECTIONS = {"PKD": {"loss_weight": 6.0}}


def lines_of(method, student, teacher):
    """The lines of a slim file about the method.

    Args:
        method: ``auto``, a method's name (``FGD``), or the name of a slim file that comes with ppkd.
        student, teacher: configs.

    Returns:
        ``(mapping, why in words)``.

    Raises:
        UserError: no such method.
    """
    known, both = method.lower(), _is_ppyoloe(student) and _is_ppyoloe(teacher)
    if (shipped := _PPYOLOE.get(known) if both else None) or method in _slim_files():
        lines = _own_lines(shipped or method)
        why = f"as {shipped or method}"
    else:
        name = next((each for each in NAMES if each.lower() == _OTHERS.get(known, known).lower()), None)
        if name is None:
            raise UserError(f"--method {method}: there are auto, {', '.join(NAMES)}, and the slim files of "
                            f"`ppkd configs`{nearest(method, (*NAMES, *_slim_files()))}")  # fmt: skip
        lines, why = _plain(name), f"{name} with its own defaults"
    if known == AUTO:
        why += "; auto is the same for every data set: nothing was measured to choose it"
        # Where parts of both have equal shapes, starting from the teacher's is worth most in a short run.
        lines["distill"] = {**(lines.get("distill") or {}), "inherit": True}
    return lines, why


def _plain(name):
    lines = {"slim": "Distill", "slim_method": name}
    return lines | ({"distill_loss": f"{name}FeatureLoss", f"{name}FeatureLoss": dict(_SECTIONS[name])}
                    if name in _SECTIONS else {})  # fmt: skip


def _own_lines(name):
    own, _ = read_with_bases(by_name()[name])
    return {key: clone(value) for key, value in own.items() if key != "pretrain_weights"}


def _slim_files():
    return [name for name, path in by_name().items() if "slim" in path.replace("\\", "/").split("/")]


def _is_ppyoloe(config):
    section = config.get(config.get("architecture"))
    return isinstance(section, dict) and section.get("yolo_head") == "PPYOLOEHead"

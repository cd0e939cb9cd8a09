"""How a teacher teaches where nobody has written a slim file: what `--method` means."""

from ppkd.errors import UserError, nearest
from ppkd.files.shipped import by_name
from ppkd.methods import NAMES
from ppkd.recipe import auto

# Shipped recipes for pairs of PP-YOLOE, whose own lines are taken.
_PPYOLOE = {"ppyoloedistill": "ppyoloe_plus_custom_ppyoloe", "fgd": "ppyoloe_plus_custom_fgd"}


def lines_of(method, student, teacher, unlabelled=False):
    """The lines of a slim file about the method.

    Args:
        method: ``auto``, a method's name (``FGD``), or the name of a slim file that comes with ppkd.
        student, teacher, unlabelled: as of `auto.lines_of`.

    Returns:
        ``(mapping, why in words)``.

    Raises:
        UserError: no such method.
    """
    if auto.is_auto(method):
        return auto.lines_of(student, teacher, unlabelled)
    known, both = method.lower(), auto.is_ppyoloe(student) and auto.is_ppyoloe(teacher)
    if (shipped := _PPYOLOE.get(known) if both else None) or method in _slim_files():
        return auto.without_end(auto.lines_of_shipped(shipped or method), unlabelled), f"as {shipped or method}"
    name = next((each for each in NAMES if each.lower() == known), None)
    if name is None:
        raise UserError(f"--method {method}: there are auto, {', '.join(NAMES)}, and the slim files of "
                        f"`ppkd configs`{nearest(method, (*NAMES, *_slim_files()))}")  # fmt: skip
    return auto.lines_of_method(name), f"{name} with its own defaults"


def _slim_files():
    return [name for name, path in by_name().items() if "slim" in path.replace("\\", "/").split("/")]

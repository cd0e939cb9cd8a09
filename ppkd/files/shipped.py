"""The config files that come with ppkd, found by name: they are part of the package, and stand above it in a clone."""

import functools
import os
import pathlib
import re

from ppkd.errors import UserError, nearest

_PACKAGE = pathlib.Path(__file__).resolve().parents[1]
ENDINGS = (".yml", ".yaml")
_SLIM = os.path.join("slim", "distill")


@functools.cache
def folder():
    """The folder of the configs: of an installed package inside of it, else ``configs`` of the clone."""
    return next((place for place in (_PACKAGE / "configs", _PACKAGE.parent / "configs") if place.is_dir()), None)


@functools.cache
def by_name():
    """Name -> path of every config that can be named; parts that only others build on need their folder's name."""
    if folder() is None:
        return {}
    found = sorted(path for path in folder().rglob("*.yml") if "_base_" not in path.relative_to(folder()).parts)
    return {path.stem: str(path) for path in found}


def find_config(given, option):
    """The path that `given` means: a file that exists goes first, then a config that comes with ppkd, by its name.

    Args:
        given: a path, ``retinanet_r50_fpn_2x_coco`` or ``configs/retinanet/retinanet_r50_fpn_2x_coco.yml``.
        option: for messages.

    Raises:
        UserError: a name without an ending that is none of them; says the nearest. What looks like a path comes back
            as it is, for the reader to say what is wrong with it.
    """
    if names_a_file(given):
        return given
    if found := shipped(given):
        return found
    if os.path.splitext(given)[1] or os.path.basename(given) != given:
        return given
    near = nearest(given, by_name())
    raise UserError(f"{option} {given}: neither a file nor a config that comes with ppkd, see `ppkd configs`{near}")


def names_a_file(path):
    """Whether a path goes before a config's name: a folder does not, such as that of a run, called as its config is."""
    return os.path.lexists(path) and not os.path.isdir(path)  # a link to nothing is the user's mistake, not no file


def shipped(given):
    """The path of the config that comes with ppkd under this name, or at this place in its folder; else None."""
    if folder() is None:
        return None
    stem, ending = os.path.splitext(given)
    if os.path.basename(given) == given and ending in ("", *ENDINGS):
        return by_name().get(stem if ending else given)
    parts = pathlib.PurePath(given).parts
    inside = folder().joinpath(*parts[1:] if parts[0] == "configs" else parts)
    safe = not os.path.isabs(given) and ".." not in parts and ending in ENDINGS
    return str(inside) if safe and inside.is_file() else None


def listing():
    """``[(heading, [(name, line), ...]), ...]``: detectors by folder, and the slim files."""
    groups = {}
    for name, path in by_name().items():
        place = os.path.dirname(os.path.relpath(path, folder()))
        heading = "--slim_config" if place == _SLIM else f"-c, {place}" if place else ""
        if heading and place != "datasets":
            groups.setdefault(heading, []).append((name, _about(path)))
    return sorted(groups.items())


def _about(path):
    """The first sentence of the comment with which a file begins."""
    lines = []
    with open(path, encoding="utf-8") as file:
        for line in file:
            if line.startswith("#"):
                lines.append(line.strip("# \n"))
            elif lines:
                break
    return re.split(r"(?<=[\w)])\.\s", " ".join(lines))[0].rstrip(".") + "."

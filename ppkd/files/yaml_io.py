"""Reads PaddleDetection's YAML without running anything that stands in it.

ppdet reads with ``yaml.Loader``, which builds arbitrary Python objects. Here a tag such as ``!COCODataSet``
becomes a `Tagged` mapping; only `workspace` turns it into an object, and only for classes ppdet registered.
"""

import os
import re

import yaml

from ppkd.errors import UserError, nearest
from ppkd.files.regular import open_file
from ppkd.files.shipped import by_name, names_a_file, shipped
from ppkd.files.yaml_loader import EXPONENT, Loader, Tagged, line_of, reason_of

BASE_KEY = "_BASE_"
# A detector's config has ten; bases that double with each file would have no end.
_MOST_LAYERS = 1000


def parse_value(text):
    """Parse the right side of ``-o key=value`` as YAML; ``null``, ``None`` and ``~`` mean none.

    Raises:
        UserError: the text is not YAML.
    """
    if text.strip() in ("null", "None", "~"):
        return None
    try:
        loader = Loader(text)
        loader.name = "-o"
        return loader.get_single_data()
    except (yaml.YAMLError, RecursionError) as error:
        raise UserError(f"-o: {text!r} is not a YAML value: {reason_of(error)}") from None


def read_yaml(path):
    """Read one YAML file into a dict.

    Raises:
        UserError: missing or unreadable file, broken YAML (with file and line), or no mapping at the top.
    """
    if os.path.splitext(path)[1] not in (".yml", ".yaml"):
        raise UserError(f"{path}: a config file ends in .yml or .yaml")
    try:
        with open_file(path, encoding="utf-8") as file:
            content = yaml.load(file, Loader=Loader)
    except FileNotFoundError:
        raise UserError(f"{path}: no such config file{_siblings(path)}") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: cannot be read: it is not in UTF-8, save it so: {error}") from None
    except (yaml.YAMLError, RecursionError) as error:
        raise UserError(f"{path}{line_of(error)}: broken YAML: {reason_of(error)}{_of_a_source(path, error)}") from None
    if content is None:
        content = {}
    if not isinstance(content, dict):
        raise UserError(f"{path}: a config file holds `key: value` lines, this one holds a {type(content).__name__}")
    return content


def read_with_bases(path, _chain=()):
    """Read a file and its ``_BASE_`` files.

    Returns:
        ``(own, layers)``: the file's own keys, and a list of ``(path, own keys)`` from the lowest base to the
        file itself, later layers overriding earlier ones.

    Raises:
        UserError: as `read_yaml`; a missing base names the file that asked for it; a cycle of bases.
    """
    real = os.path.realpath(path)
    own = read_yaml(path)
    bases = own.pop(BASE_KEY, None)
    bases, layers = [] if bases is None else bases, []
    for base in bases if isinstance(bases, list) else [bases]:
        if not isinstance(base, str):
            raise UserError(f"{_place(path, base)}: _BASE_ lists paths of config files, this is {base!r}")
        base_path = path_of_base(path, base)
        if not os.path.exists(base_path):  # what is there and no file says so when it is read
            raise UserError(
                f"{_place(path, base)}: its _BASE_ {base!r} does not exist (looked for {base_path}"
                f" and among ppkd's own){_siblings(base_path)}"
            )
        chain = (*_chain, real)
        if os.path.realpath(base_path) in chain:
            circle = " -> ".join([*chain[chain.index(os.path.realpath(base_path)) :], os.path.realpath(base_path)])
            raise UserError(f"{_place(path, base)}: its _BASE_ {base!r} leads back to where it came from: {circle}")
        layers += read_with_bases(base_path, chain)[1]
        if len(layers) > _MOST_LAYERS:
            raise UserError(f"{path}: its _BASE_ files, and theirs, come to more than {_MOST_LAYERS}")
    return own, [*layers, (path, own)]


def path_of_base(path, base):
    """The file that a value of ``_BASE_`` in the file `path` means: beside it, or one that comes with ppkd."""
    beside = os.path.normpath(os.path.join(os.path.dirname(path), os.path.expanduser(base)))
    return beside if names_a_file(beside) else shipped(base) or beside


def _place(path, base):
    """``file:line`` of a value of ``_BASE_``."""
    with open(path, encoding="utf-8") as file:
        top = yaml.compose(file, Loader=Loader)
    values = next(value for key, value in top.value if key.value == BASE_KEY)
    nodes = values.value if isinstance(values, yaml.SequenceNode) else [values]
    line = next((node.start_mark.line for node in nodes if node.value == base), values.start_mark.line)
    return f"{path}:{line + 1}"


def merge(into, over):
    """Merge mapping `over` into mapping `into` in place, ppdet's way: nested mappings merge, all else replaces.

    A `Tagged` value replaces what is there; a plain mapping over a `Tagged` one changes its fields and keeps the tag,
    unless it has a ``name``: that is the other way to say which class is meant.
    """
    for key, value in over.items():
        here = into.get(key)
        named_anew = isinstance(here, Tagged) and isinstance(value, dict) and "name" in value
        if isinstance(here, dict) and isinstance(value, dict) and not isinstance(value, Tagged) and not named_anew:
            merge(here, value)
        else:
            into[key] = clone(value)
    return into


def clone(value):
    """Deep-copy nested mappings and lists; tags are kept."""
    if isinstance(value, Tagged):
        return Tagged(value.tag, {k: clone(v) for k, v in value.items()}, [clone(v) for v in value.args], value.where)
    if isinstance(value, dict):
        return {k: clone(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [clone(v) for v in value]
    return value


def dump(value):
    """Write nested mappings, lists and `Tagged` values as YAML that `read_yaml` and ppdet read back."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, default_flow_style=None, width=120, allow_unicode=True)


def flow(value):
    """A value as YAML in one line, as it stands behind ``key: ``."""
    text = yaml.dump(value, Dumper=_Dumper, sort_keys=False, default_flow_style=True, width=10**6, allow_unicode=True)
    return text.strip().removesuffix("...").strip()


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data):
        return True


def _represent_tagged(dumper, value):
    if value.args:
        return dumper.represent_sequence("!" + value.tag, value.args)
    return dumper.represent_mapping("!" + value.tag, dict(value))


_Dumper.add_representer(Tagged, _represent_tagged)
_Dumper.add_implicit_resolver(*EXPONENT)  # so that a text which looks like such a number is quoted


def _of_a_source(path, error):
    """A hint for what everybody who writes a list of sources runs into, or nothing."""
    mark = getattr(error, "problem_mark", None)
    with open(path, encoding="utf-8") as file:
        lines = file.read().splitlines()
    line = lines[mark.line] if mark is not None and mark.line < len(lines) else ""
    unquoted = re.search(r"[\[{,:]\s*([A-Za-z_][\w.]*\[[*\w,]+\])", line)
    return f'; in brackets or braces a source is quoted: "{unquoted[1]}"' if unquoted else ""


def _siblings(path):
    """The nearest names of config files beside a missing one and of ppkd's own, and the folder if that is missing."""
    folder, named = os.path.split(path)
    missing = "" if os.path.isdir(folder or ".") else f" (nor is there a folder {folder})"
    beside = [] if missing else [name for name in os.listdir(folder or ".") if name.endswith((".yml", ".yaml"))]
    return missing + nearest(named, [*beside, *by_name()])

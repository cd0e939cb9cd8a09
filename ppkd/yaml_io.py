"""Reads PaddleDetection's YAML without running anything that stands in it.

ppdet reads with ``yaml.Loader``, which builds arbitrary Python objects. Here a tag such as ``!COCODataSet``
becomes a `Tagged` mapping; only `workspace` turns it into an object, and only for classes ppdet registered.
"""

import os
import re

import yaml

from ppkd.errors import UserError, nearest

BASE_KEY = "_BASE_"


class Tagged(dict):
    """A mapping that carried a tag: ``!COCODataSet {image_dir: train}`` has tag ``COCODataSet``.

    Attributes:
        tag: class name without the exclamation mark.
        args: positional arguments, for the rare ``!PiecewiseDecay [..]`` form.
        where: ``file:line`` for messages.
    """

    def __init__(self, tag, values=(), args=(), where=""):
        super().__init__(values)
        self.tag, self.args, self.where = tag, list(args), where


class _Loader(yaml.SafeLoader):
    """yaml.SafeLoader with tags kept as `Tagged` and duplicate keys refused."""


def _construct_tagged(loader, suffix, node):
    where = f"{node.start_mark.name}:{node.start_mark.line + 1}"
    if isinstance(node, yaml.SequenceNode):
        return Tagged(suffix, args=loader.construct_sequence(node, deep=True), where=where)
    if isinstance(node, yaml.MappingNode):
        return Tagged(suffix, _construct_mapping(loader, node), where=where)
    return Tagged(suffix, where=where)


def _construct_mapping(loader, node):
    seen = set()
    for key_node, _ in node.value:
        if key_node.tag == "tag:yaml.org,2002:merge":  # `<<: *anchor`
            continue
        key = loader.construct_object(key_node, deep=True)
        if isinstance(key, str) and key in seen:
            mark = key_node.start_mark
            raise UserError(f"{mark.name}:{mark.line + 1}: the key {key!r} stands twice in the same mapping")
        seen.add(key if isinstance(key, str) else None)
    return loader.construct_mapping(node, deep=True)


def _refuse_python(loader, suffix, node):
    where = f"{node.start_mark.name}:{node.start_mark.line + 1}"
    raise UserError(f"{where}: the tag !!python/{suffix} is refused: a config file builds no Python objects")


_Loader.add_multi_constructor("!", _construct_tagged)
_Loader.add_multi_constructor("tag:yaml.org,2002:python/", _refuse_python)
# YAML 1.1 reads 1e-3 (no dot) and 1.0e3 (no sign) as text; nobody who writes them means text.
_EXPONENT = (
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)
_Loader.add_implicit_resolver(*_EXPONENT)
_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _construct_mapping)


def parse_value(text):
    """Parse the right side of ``-o key=value`` as YAML; ``null``, ``None`` and ``~`` mean none.

    Raises:
        UserError: the text is not YAML.
    """
    if text.strip() in ("null", "None", "~"):
        return None
    try:
        loader = _Loader(text)
        loader.name = "-o"
        return loader.get_single_data()
    except yaml.YAMLError as error:
        raise UserError(f"-o: {text!r} is not a YAML value: {_reason(error)}") from None


def read_yaml(path):
    """Read one YAML file into a dict.

    Raises:
        UserError: missing or unreadable file, broken YAML (with file and line), or no mapping at the top.
    """
    if os.path.splitext(path)[1] not in (".yml", ".yaml"):
        raise UserError(f"{path}: a config file ends in .yml or .yaml")
    try:
        with open(path, encoding="utf-8") as file:
            content = yaml.load(file, Loader=_Loader)
    except FileNotFoundError:
        raise UserError(f"{path}: no such config file{_siblings(path)}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path}{_line(error)}: broken YAML: {_reason(error)}{_of_a_source(path, error)}") from None
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
    if real in _chain:
        raise UserError(f"{path}: _BASE_ files lead back to this file: " + " -> ".join([*_chain, real]))
    own = read_yaml(path)
    bases = own.pop(BASE_KEY, None) or []
    bases = bases if isinstance(bases, list) else [bases]
    layers = []
    for base in bases:
        base_path = os.path.join(os.path.dirname(path), os.path.expanduser(str(base)))
        if not os.path.isfile(base_path):
            raise UserError(
                f"{path}: its _BASE_ {base!r} does not exist (looked for {os.path.normpath(base_path)})"
                + _siblings(base_path)
            )
        layers += read_with_bases(os.path.normpath(base_path), (*_chain, real))[1]
    return own, [*layers, (path, own)]


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
_Dumper.add_implicit_resolver(*_EXPONENT)  # so that a text which looks like such a number is quoted


def _line(error):
    mark = getattr(error, "problem_mark", None)
    return f":{mark.line + 1}" if mark is not None else ""


def _reason(error):
    """PyYAML's reason in one line, without its own way to name the place."""
    problem, context = getattr(error, "problem", None), getattr(error, "context", None)
    if problem is None:
        return " ".join(str(error).split())
    begun = getattr(error, "context_mark", None)
    return problem + (f" ({context}{f' that begins in line {begun.line + 1}' if begun else ''})" if context else "")


def _of_a_source(path, error):
    """A hint for what everybody who writes a list of sources runs into, or nothing."""
    mark = getattr(error, "problem_mark", None)
    with open(path, encoding="utf-8") as file:
        lines = file.read().splitlines()
    line = lines[mark.line] if mark is not None and mark.line < len(lines) else ""
    unquoted = re.search(r"[\[{,:]\s*([A-Za-z_][\w.]*\[[*\w,]+\])", line)
    return f'; in brackets or braces a source is quoted: "{unquoted[1]}"' if unquoted else ""


def _siblings(path):
    """The nearest names of config files beside a missing one, or the folder that is missing as well."""
    folder = os.path.dirname(path) or "."
    if not os.path.isdir(folder):
        return f" (nor is there a folder {folder})"
    return nearest(os.path.basename(path), [n for n in os.listdir(folder) if n.endswith((".yml", ".yaml"))])

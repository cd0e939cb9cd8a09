"""The YAML reader that builds plain values and nothing else, and says in words what is wrong with a file."""

import re

import yaml

from ppkd.errors import UserError

# PaddleDetection's largest config comes to some thousands of values.
_MOST = 100_000


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


class Loader(yaml.SafeLoader):
    """yaml.SafeLoader with tags kept as `Tagged`; duplicate keys, circles and endless repetition are refused."""

    def construct_document(self, node):
        # At once and not, as PyYAML does, container by container: only so a circle is an error.
        data = self.construct_object(node, deep=True)
        self.constructed_objects, self.recursive_objects, self.state_generators = {}, {}, []
        if _count(data, {}) > _MOST:
            raise yaml.constructor.ConstructorError(
                None, None, f"anchors repeat so much that it comes to more than {_MOST} values", node.start_mark
            )
        return data

    def construct_object(self, node, deep=False):
        try:
            value = super().construct_object(node, deep)
            if isinstance(value, int):
                str(value)  # Python writes no number of more than 4300 digits, which 0x... and 1:0:0... read
            return value
        except (yaml.YAMLError, UserError, RecursionError):
            raise
        except Exception as error:  # no such day, !!int of a text, a list as a key: PyYAML lets Python's errors through
            raise yaml.constructor.ConstructorError(
                None, None, f"a value that cannot be ({type(error).__name__}: {error})", node.start_mark
            ) from error

    def flatten_mapping(self, node):
        super().flatten_mapping(node)
        if len(node.value) > _MOST:
            raise yaml.constructor.ConstructorError(None, None, f"`<<` brings more than {_MOST} keys", node.start_mark)


def _count(value, known):
    """How many values there are in `value` if what stands in several places is counted in each."""
    if not isinstance(value, (dict, list, set)):
        return 1
    if id(value) not in known:
        parts = [*value.values(), *getattr(value, "args", ())] if isinstance(value, dict) else value
        known[id(value)] = 1 + sum(_count(part, known) for part in parts)
    return known[id(value)]


def _construct_tagged(loader, suffix, node):
    where = f"{node.start_mark.name}:{node.start_mark.line + 1}"
    if isinstance(node, yaml.SequenceNode):
        return Tagged(suffix, args=loader.construct_sequence(node, deep=True), where=where)
    if isinstance(node, yaml.MappingNode):
        return Tagged(suffix, _construct_mapping(loader, node), where=where)
    if node.value:
        mark = node.start_mark
        raise yaml.constructor.ConstructorError(
            None, None, f"!{suffix} stands before a plain value; a class takes {{key: value}} or [value]", mark
        )
    return Tagged(suffix, where=where)


def _construct_mapping(loader, node):
    seen = set()
    for key_node, _ in node.value:
        if key_node.tag == "tag:yaml.org,2002:merge":  # `<<: *anchor`
            continue
        key = loader.construct_object(key_node, deep=True)
        mark = key_node.start_mark
        if not _hashable(key):
            raise yaml.constructor.ConstructorError(None, None, "a key has to be a plain value", mark)
        if key in seen:
            raise UserError(f"{mark.name}:{mark.line + 1}: the key {key!r} stands twice in the same mapping")
        seen.add(key)
    return loader.construct_mapping(node, deep=True)


def _hashable(key):
    try:
        hash(key)
    except TypeError:
        return False
    return True


def _refuse_python(loader, suffix, node):
    where = f"{node.start_mark.name}:{node.start_mark.line + 1}"
    raise UserError(f"{where}: the tag !!python/{suffix} is refused: a config file builds no Python objects")


Loader.add_multi_constructor("!", _construct_tagged)
Loader.add_multi_constructor("tag:yaml.org,2002:python/", _refuse_python)
# YAML 1.1 reads 1e-3 (no dot) and 1.0e3 (no sign) as text; nobody who writes them means text.
EXPONENT = (
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)
Loader.add_implicit_resolver(*EXPONENT)
Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _construct_mapping)


def line_of(error):
    """``:LINE`` of a YAML error, or nothing if it has none."""
    mark = getattr(error, "problem_mark", None)
    return f":{mark.line + 1}" if mark is not None else ""


def reason_of(error):
    """PyYAML's reason in one line, without its own way to name the place, and what would be right if that is clear."""
    if isinstance(error, RecursionError):
        return "nested too deeply"
    problem, context = getattr(error, "problem", None), getattr(error, "context", None)
    if problem is None:
        return " ".join(str(error).split())
    begun = getattr(error, "context_mark", None)
    hint = next((hint for part, hint in _HINTS if part in problem), "")
    inside = f" ({context}{f' that begins in line {begun.line + 1}' if begun else ''})" if context else ""
    return problem + inside + hint


_HINTS = (
    ("'\\t'", "; YAML is indented with spaces, never with tabs"),
    ("undefined alias", "; an anchor is known behind its place and in its own file only, not to those that inherit it"),
    ("unconstructable recursive", ": an alias inside of what it stands for"),
)

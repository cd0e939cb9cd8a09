"""Config files of any content: plain values and tags, or a UserError that names the file; nothing runs."""

import datetime
import math

from hypothesis import example
from hypothesis import strategies as st

from ppkd.errors import UserError
from ppkd.files.yaml_io import Tagged, clone, dump, parse_value, read_with_bases, read_yaml
from tests.conftest import CONFIGS
from tests.fuzz.inputs import inputs

TEXTS = [path.read_text() for path in sorted(CONFIGS.glob("*.yml"))]
PIECES = st.sampled_from(
    ["a", "b: ", "- ", "[", "]", "{", "}", ", ", ": ", "\n", "\n  ", "\n    ", "\t", "&x ", "*x", "<<: ", "!T ", "!",
     "!! ", "!!python/object/apply:os.system ", "!!python/name:os.system", "!<tag:yaml.org,2002:python/module:os>", "|",
     ">", "'", '"', "? ", "#", "---", "...", "%TAG ! tag:yaml.org,2002:python/\n", "%YAML 1.1\n", "!!binary ", "!!set ",
     "!!omap ", "!!pairs ", "!!timestamp ", "!!int ", "!!float ", "!!bool ", "!!null ", "2001-99-99", "2001-01-01",
     "1e3", "1_0", "0x", "190:20:30", "~", "null", "yes", ".inf", ".nan", "_BASE_: ", "x.yml", "é", "\x85", "\ufeff",
     "\\", "@"]
)  # fmt: skip
FRAGMENTS = st.lists(PIECES | st.text(max_size=5), max_size=25).map("".join)


@st.composite
def mutated(draw):
    """A real config with some pieces put in or cut out."""
    text = draw(st.sampled_from(TEXTS))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(text)))
        text = text[:at] + draw(PIECES) + text[at + draw(st.integers(0, 12)) :]
    return text


def check(value):
    kinds = (dict, list, set, tuple, str, bytes, int, float, bool, type(None), datetime.date, datetime.datetime, Tagged)
    assert type(value) in kinds, type(value)
    if isinstance(value, dict):
        parts = [*value.keys(), *value.values(), *getattr(value, "args", ())]
    else:
        parts = value if isinstance(value, (list, set, tuple)) else ()
    for part in parts:
        check(part)


def same(a, b):
    if isinstance(a, float) and isinstance(b, float) and math.isnan(a):
        return math.isnan(b)
    if isinstance(a, dict):
        more = (getattr(a, "tag", None), getattr(a, "args", [])), (getattr(b, "tag", None), getattr(b, "args", []))
        return same(list(a), list(b)) and all(map(same, a.values(), b.values())) and same(*map(list, more))
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def _written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz")
    (folder / "x.yml").write_text("a: 1\n")
    return folder / "config.yml"


def test_files(tmp_path_factory, quiet):
    path = _written(tmp_path_factory)

    @inputs(FRAGMENTS | mutated())
    def run(text):
        path.write_text(text, encoding="utf-8", errors="surrogateescape")
        try:
            with quiet():
                found = read_yaml(str(path))
                read_with_bases(str(path))
        except UserError as error:
            assert str(path.parent) in str(error)
            return
        check(found)
        clone(found)
        path.write_text(dump(found), encoding="utf-8")
        if set(found) != {"_BASE_"}:
            assert same(read_yaml(str(path)), found), (text, dump(found))

    run()


def test_files_of_bytes(tmp_path_factory, quiet):
    path = _written(tmp_path_factory)

    @inputs(st.binary(max_size=60))
    def run(content):
        path.write_bytes(content)
        try:
            with quiet():
                check(read_yaml(str(path)))
        except UserError as error:
            assert str(error).startswith(str(path))

    run()


def test_overrides(quiet):
    @inputs(FRAGMENTS)
    @example("&a [*a]")
    def run(text):
        try:
            with quiet():
                check(parse_value(text))
        except UserError as error:
            assert str(error).startswith("-o:")

    run()

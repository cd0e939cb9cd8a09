"""The small languages of a recipe: sources, schedules, targets, names of files."""

import contextlib
import math
import os

import pytest
from hypothesis import strategies as st

from ppkd.build import build_student
from ppkd.detectors import detector_for
from ppkd.errors import UserError
from ppkd.files.paths import Folder, safe_name
from ppkd.files.yaml_io import flow, parse_value
from ppkd.recipe.plan import SCHEDULE_KEYS, schedule_keys, schedule_of
from ppkd.recipe.recipe import load_recipe
from ppkd.recipe.schedules import DECAYS
from ppkd.recipe.targets import Target
from tests.conftest import CONFIGS
from tests.fuzz.inputs import inputs

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 40) | st.integers() | st.floats() | st.text(max_size=6)
    | st.sampled_from([*DECAYS, "20%", "0", "1e3"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=4,
)  # fmt: skip

SOURCES = st.lists(
    st.sampled_from(["neck", "backbone", "head", "head.cls", "head.cls_tower", ".", "0", "1", "[", "]", "*", "s8",
                     "s16", ",", " ", "-1", "99", "fpn_convs", "\n", "٣", "9" * 5000, "_", "[*]", "[s8,s16]", "[0]",
                     "fpn",
                     "conv"])
    | st.text(max_size=3),
    max_size=7,
).map("".join)  # fmt: skip


@pytest.fixture(scope="module")
def detectors(shapes):
    """Adapters of two families whose dry forwards, the same for the same parts, are made once."""
    with contextlib.ExitStack() as stack:
        found = []
        for family in ("retinanet", "ppyoloe"):
            path = str(CONFIGS / f"{family}_tiny.yml")
            detector = detector_for(build_student(load_recipe(path, overrides=[f"dataset_dir={shapes}"])))
            stack.enter_context(detector.looked_at_once())
            found.append(detector)
        yield found


def test_sources(detectors):
    @inputs(SOURCES, st.sampled_from([0, 1]))
    def run(text, which):
        try:
            levels = detectors[which].levels(text)
        except UserError:
            return
        assert levels and all(level.source and level.channels >= 0 for level in levels)

    run()


def test_schedules():
    numbers = st.integers(-2, 30) | ANYTHING
    options = st.fixed_dictionaries({}, optional=dict.fromkeys(SCHEDULE_KEYS, numbers | st.sampled_from(DECAYS)))

    @inputs(options, st.none() | st.integers(0, 30))
    def run(keys, epochs):
        try:
            schedule = schedule_of(keys, epochs, "x.yml: distill")
        except UserError as error:
            assert str(error).startswith("x.yml: distill.")
            return
        factors = [schedule.factor(epoch) for epoch in range(40)]
        assert all(math.isfinite(factor) and 0 <= factor <= 1 for factor in factors)
        for epoch, factor in enumerate(factors):
            assert not schedule.over(epoch) or factor == 0
        assert schedule_of(schedule_keys(schedule), epochs, "again") == schedule

    run()


def test_targets():
    texts = st.from_regex(r"\A *[-+0-9.eE]{0,8} ?%? *\Z") | st.text(max_size=8) | st.floats().map(lambda x: f"{x}%")

    @inputs(texts | ANYTHING)
    def run(value):
        try:
            target = Target.parse(value)
        except ValueError as error:
            assert repr(value) in str(error)
            return
        assert 0 < target.value < math.inf
        assert target.relative == isinstance(value, str)
        again = Target.parse(parse_value(flow(target.text)))
        assert again.relative == target.relative and math.isclose(again.value, target.value, rel_tol=1e-9)

    run()


def test_names(tmp_path_factory):
    root = tmp_path_factory.mktemp("fuzz")
    (root / "data" / "sub").mkdir(parents=True)
    (root / "data" / "out").symlink_to(root)
    (root / "data" / "in").symlink_to(root / "data" / "sub")
    folder = Folder(str(root / "data"))
    parts = st.sampled_from(["..", ".", "sub", "out", "in", "data", "x", "", "/", "~"]) | st.text(max_size=3)

    @inputs(st.lists(parts, max_size=8).map("/".join))
    def run(text):
        name = safe_name(text)
        assert os.sep not in name and name not in (".", "..") and not name.startswith((".", "-", "~"))
        assert safe_name(name) == name and len(name.encode()) <= 200 and name.isprintable() or not name.isascii()
        if "\0" in text or not _encodes(text):
            return
        path = os.path.join(folder.path, text)
        real = os.path.realpath(path)
        assert folder.holds(path) == (os.path.commonpath([real, os.path.realpath(folder.path)]) == folder._real)

    run()


def _encodes(text):
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        return False
    return True

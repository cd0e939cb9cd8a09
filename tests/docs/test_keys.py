"""The reference of keys has every key that the code knows, and no other, with the defaults of the code."""

import re

import pytest
import yaml

from ppkd.bridge import own_data
from ppkd.methods import NAMES, cwd, features, ld, matching_guided, own_terms, plan, ppyoloe
from ppkd.methods.block import TERM_KEYS
from ppkd.recipe import hand_over, settings, teachers
from ppkd.recipe.keys import METHOD_KEYS, RUN_KEYS, STUDENT_KEYS
from ppkd.recipe.method import ENGINE_OPTIONS, MethodSpec
from ppkd.training import stages
from tests.conftest import ROOT

DOCS = ROOT / "docs"
TEXT = (DOCS / "keys.md").read_text(encoding="utf-8")
SECTIONS = {
    "The run": RUN_KEYS,
    "The student": STUDENT_KEYS,
    "The slim file": METHOD_KEYS,
    "`distill:`": ENGINE_OPTIONS,
    "A term": TERM_KEYS,
    "A further teacher": teachers._OWN,
}
METHODS = {
    **{name: features.DEFAULTS[name.lower()] for name in ("FGD", "CWD", "PKD", "MGD", "Mimic")},
    "LD": ld.DEFAULTS,
    "PPYOLOEDistill": ppyoloe.DEFAULTS,
    "DistillYOLOv3Loss": {"weight": 1000.0},
    "MatchingGuided": matching_guided.DEFAULTS,
    "No method, terms alone": own_terms.DEFAULTS,
}


def rows(title, text=TEXT):
    """The cells of the rows of all tables below a heading."""
    lines = re.split(rf"^#+ {re.escape(title)}\n", text, maxsplit=1, flags=re.M)[1].split("\n#")[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| `")]


def keys(title):
    return [name for row in rows(title) for name in re.findall(r"`([^`]+)`", row[0])]


@pytest.mark.parametrize("title", SECTIONS)
def test_every_key_is_there_once(title):
    assert sorted(keys(title)) == sorted(SECTIONS[title])


def test_stages_and_own_data_are_told():
    told = {row[0]: row[1] for row in rows("The run")}
    assert all(f"`{key}`" in told["`stages`"] for key in stages._KEYS)
    assert ", ".join(f"`{key}`" for key in own_data.KEYS) in told


def test_every_method_has_its_parameters():
    assert {*METHODS} == {*NAMES, "No method, terms alone"}
    for name in METHODS:
        assert keys(name) == (["places"] if name == "CWD" else []) + list(METHODS[name]), name
    assert cwd._DEFAULT_PLACES == {"GFL": ["neck", "head.cls"]}
    assert rows("CWD")[0][1] == "`[neck, head.cls]` for GFL, else `[neck]`"


@pytest.mark.parametrize("name", METHODS)
def test_defaults_are_those_of_the_code(name):
    shown = {row[0].strip("`"): yaml.safe_load(row[1].strip("`")) for row in rows(name) if row[0] != "`places`"}
    assert shown == METHODS[name]


def test_yolov3s_weight_is_the_plans():
    assert plan(MethodSpec("DistillYOLOv3Loss", file="x.yml")).terms[0].weight == METHODS["DistillYOLOv3Loss"]["weight"]


def test_the_pages_that_explain_them_name_them():
    """What keys.md only lists stands with its meaning on the page that it links to."""
    explained = {
        "config.md": set(ENGINE_OPTIONS),
        "training.md": {"snapshot_epoch", "snapshot_steps", "keep", "keep_resume", "patience", "accumulate",
                        "total_batch_size", "scale_lr", "amp_level", "amp_dtype", "stages", *hand_over.RESTART_KEYS},
        "own_data.md": {*own_data.KEYS, *settings.KEYS},
        "matching.md": set(matching_guided.DEFAULTS),
        "methods.md": {key for name in METHODS if name != "MatchingGuided" for key in METHODS[name]},
    }  # fmt: skip
    for page, names in explained.items():
        text = (DOCS / page).read_text(encoding="utf-8")
        assert [name for name in sorted(names) if not re.search(rf"\b{name}\b", text)] == [], page

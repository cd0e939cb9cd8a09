"""What the documentation of terms shows is right: tables name what there is, snippets are read."""

import inspect
import re
import textwrap

import pytest
import yaml

from ppkd import losses
from ppkd.detectors.context import Context
from ppkd.engine import connectors
from ppkd.engine.connector_layers import check_connectors
from ppkd.engine.connectors import CONNECTORS
from ppkd.engine.loss_layers import check_loss
from ppkd.losses import LOSSES
from ppkd.methods import plan
from ppkd.methods.block import TERM_KEYS
from ppkd.recipe.method import MethodSpec
from tests.conftest import ROOT

TEXT = (ROOT / "docs" / "terms.md").read_text(encoding="utf-8")


def section(title):
    return TEXT[TEXT.index(f"## {title}\n") :].split("\n## ")[0]


def first_column(title):
    rows = [line for line in section(title).splitlines() if line.startswith("| `")]
    return {name for row in rows for name in re.findall(r"`([^`]+)`", row.split("|")[1])}


def snippets(doc):
    """The YAML blocks of a docstring."""
    found = re.findall(r"\.\. code-block:: yaml\n\n((?:[ ]+.*\n|\n)+)", doc + "\n")
    return [yaml.safe_load(textwrap.dedent(block)) for block in found]


def test_the_tables_name_what_there_is():
    assert first_column("Losses") == set(LOSSES)
    assert first_column("Connectors") == set(CONNECTORS)
    keys = first_column("Keys of a term")
    assert keys | {"magnitude_steps"} == set(TERM_KEYS)
    own = section("A loss or connector of your own")
    assert [name for name in Context.NAMES if f"`{name}`" not in own] == []


def test_blocks_of_the_page_are_read():
    blocks = [textwrap.dedent(block).strip() for block in re.findall(r"(?:^    .*\n|^\n)+", TEXT, re.M)]
    read = [yaml.safe_load(text) for text in blocks if re.match(r"(_BASE_|slim|distill|magnitude):", text)]
    own = [values["distill"] for values in read if "terms" in values.get("distill", {})]
    assert len(read) >= 4 and len(own) == 2
    for options in own:
        if "plugins" not in options:  # test_plugins.py runs that one
            assert plan(MethodSpec("terms", options=options, file="x.yml")).terms


@pytest.mark.parametrize("name", sorted(set(LOSSES) - {"yolov3"}))
def test_every_loss_shows_a_snippet_that_is_read(name):
    shown = snippets(inspect.getdoc(LOSSES[name]))
    assert shown, f"{LOSSES[name].__name__} shows no snippet"
    for values in shown:
        assert check_loss(values["loss"], "x")["name"] == name


def test_snippets_of_connectors_are_read():
    seen = set()
    for kind in vars(connectors).values():
        for values in snippets(inspect.getdoc(kind) or "") if inspect.isclass(kind) else ():
            shown = [values[key] for key in ("student_connector", "teacher_connector") if key in values]
            assert shown, f"{kind.__name__}: a snippet without a connector"
            seen |= {link["name"] for given in shown for link in check_connectors(given, "x")}
            if "loss" in values:
                check_loss(values["loss"], "x")
    assert {"align", "projector", "resize", "generate", "teacher_head", "match", "norm"} <= seen


def test_every_file_of_a_loss_names_its_paper():
    files = {inspect.getmodule(LOSSES[name]) for name in LOSSES}
    for module in files:
        assert re.search(r"(19|20)\d\d", module.__doc__), module.__name__
    assert losses.__doc__

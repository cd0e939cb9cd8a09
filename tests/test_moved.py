"""Modules that moved into a wing are found under their former name, and nothing else is."""

import importlib
import importlib.util
import sys

import pytest

from ppkd.moved import NOW


@pytest.mark.parametrize("former, now", [
    ("ppkd.reproduce", "ppkd.training.reproduce"), ("ppkd.tensor_files", "ppkd.files.tensor_files"),
    ("ppkd.workspace", "ppkd.bridge.workspace"), ("ppkd.weights", "ppkd.bridge.weights"),
    ("ppkd.sizes", "ppkd.engine.sizes"), ("ppkd.step", "ppkd.training.step"), ("ppkd.cost", "ppkd.study.cost"),
    ("ppkd.teachers", "ppkd.recipe.teachers"), ("ppkd.convert", "ppkd.files.convert"),
    ("ppkd.matching", "ppkd.engine.channel_matching"),
])  # fmt: skip
def test_a_former_name_is_the_module_of_today(former, now, monkeypatch):
    monkeypatch.delitem(sys.modules, former, raising=False)
    with pytest.warns(DeprecationWarning, match=f"{former} is {now} now"):
        assert importlib.import_module(former) is importlib.import_module(now)


@pytest.mark.parametrize("name", ["ppkd.nonsense", "ppkd.page", "ppkd.banking", "ppkd.engine.workspace", "ppkd.base.x"])
def test_a_name_that_never_was_is_not_found(name):
    with pytest.raises(ModuleNotFoundError, match="No module named"):
        importlib.import_module(name)


def test_the_modules_of_today_are_there():
    lacking = [now for now in NOW.values() if importlib.util.find_spec(f"ppkd.{now}") is None]
    assert len(NOW) > 60 and not lacking

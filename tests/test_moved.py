"""Modules that moved into a wing are found under their former name, and nothing else is."""

import importlib
import sys

import pytest


@pytest.mark.parametrize("former, now", [
    ("ppkd.reproduce", "ppkd.training.reproduce"), ("ppkd.tensor_files", "ppkd.files.tensor_files"),
    ("ppkd.workspace", "ppkd.bridge.workspace"), ("ppkd.weights", "ppkd.bridge.weights"),
    ("ppkd.sizes", "ppkd.engine.sizes"), ("ppkd.step", "ppkd.training.step"), ("ppkd.cost", "ppkd.study.cost"),
])  # fmt: skip
def test_a_former_name_is_the_module_of_today(former, now, monkeypatch):
    monkeypatch.delitem(sys.modules, former, raising=False)
    with pytest.warns(DeprecationWarning, match=f"{former} is {now} now"):
        assert importlib.import_module(former) is importlib.import_module(now)


@pytest.mark.parametrize("name", ["ppkd.nonsense", "ppkd.page", "ppkd.engine.workspace", "ppkd.base.x"])
def test_a_name_that_never_was_is_not_found(name):
    with pytest.raises(ModuleNotFoundError, match="No module named"):
        importlib.import_module(name)

"""compat/stand_ins.py: ppdet is imported without packages that one transform or tool of it wants."""

import importlib
import sys

import pytest

from ppkd.bridge.compat import stand_ins
from ppkd.bridge.compat.stand_ins import StandIns
from ppkd.errors import UserError


@pytest.fixture
def packages(monkeypatch, tmp_path):
    """Three packages for the real ones: one is not there, one breaks when it is imported, one is fine."""
    for name, code in (
        ("breaks_here", "import breaks_here.part\nimport numpy\nnumpy.no_such_types"),
        ("is_fine", "x = 1"),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(code)
        (tmp_path / name / "part.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    names = ("not_there", "breaks_here", "is_fine")
    monkeypatch.setattr(stand_ins, "PACKAGES", {name: f"The lanes of {name}" for name in names})
    monkeypatch.setattr(stand_ins, "MISSING", {})
    yield names
    for name in [name for name in sys.modules if name.partition(".")[0] in names]:
        del sys.modules[name]


def run_in(module, code):
    """What the code of a module of that name defines."""
    values = {"__name__": module}
    exec(code, values)
    return values


IMPORTS = """
import not_there.augmenters as augmenters, breaks_here, is_fine
from not_there.lines.more import LineString
from breaks_here.part import Part
"""


def test_ppdet_imports_what_is_not_there_and_is_told_when_it_uses_it(packages):
    with StandIns():
        got = run_in("ppdet.data.lanes", IMPORTS)
    assert got["is_fine"].x == 1
    uses = [
        lambda: got["LineString"]([1]), lambda: got["augmenters"].Flip(0.5), lambda: got["LineString"].from_points,
        lambda: type("OfPpdet", (got["LineString"],), {"__module__": "ppdet.data.lanes"})(), lambda: got["Part"](),
    ]  # fmt: skip
    for use, name in zip(uses, ["not_there"] * 4 + ["breaks_here"]):
        with pytest.raises(UserError) as error:
            use()
        assert f"The lanes of {name} in ppdet want {name}" in str(error.value) and f"pip install {name} " in str(
            error.value
        )
    assert "no_such_types" in str(error.value), "why it could not be imported"
    assert set(stand_ins.MISSING) == {"not_there", "breaks_here"}


def test_others_go_on_finding_that_it_is_not_there(packages):
    with StandIns():
        run_in("ppdet.data.lanes", IMPORTS)
        sys.modules.pop("not_there")
        with pytest.raises(ModuleNotFoundError, match="not_there"):
            run_in("somebody.elses", "import not_there")
    with pytest.raises(ModuleNotFoundError, match="not_there"):
        importlib.import_module("not_there")
    with pytest.raises(ModuleNotFoundError, match="not_there"):
        run_in("ppdet.tracker", "from not_there.utils import assignment")


def test_the_real_names_are_those_that_ppdet_imports():
    assert set(stand_ins.PACKAGES) == {"imgaug", "pkg_resources", "sklearn"}

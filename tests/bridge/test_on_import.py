"""`import ppkd` cures ppdet, in whatever order and by whomever the two are imported."""

import subprocess
import sys
from importlib.util import find_spec

import pytest

from ppkd.bridge.compat.wrapping import wrap
from tests.conftest import ROOT

CURED = "from ppdet.modeling.heads import tood_head; assert 'concat' in vars(tood_head.paddle)"


def run(code, folder):
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=120, check=False,
        env={"PYTHONPATH": f"{ROOT}:{folder}", "PATH": "", "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.parametrize(
    "code",
    [
        f"import ppkd, ppdet.modeling; {CURED}",
        f"import ppkd, importlib.util; assert importlib.util.find_spec('ppdet'); import ppdet; {CURED}",
        pytest.param(
            f"import zlib, ppdet, ppkd; {CURED}",
            marks=pytest.mark.skipif(find_spec("pkg_resources") is None, reason="ppdet alone asks for pkg_resources"),
        ),
    ],
    ids=["before", "looked for and not imported", "after"],
)
def test_ppdet_is_cured(code, tmp_path):
    run(code, tmp_path)


def test_importing_ppkd_alone_imports_neither_paddle_nor_ppdet(tmp_path):
    run("import ppkd, sys; assert not {'paddle', 'ppdet'} & set(sys.modules)", tmp_path)


def test_the_action_runs_once_after_the_packages_own_code(tmp_path):
    (tmp_path / "late.py").write_text("print('package')\nvalue = 1\n")
    code = """
import sys
from ppkd.bridge.compat.on_import import after_import
finders = list(sys.meta_path)
after_import("late", lambda: print("action", sys.modules["late"].value))
import late
assert sys.meta_path == finders, "the finder is gone"
after_import("late", lambda: print("at once"))
import importlib; importlib.reload(late)
"""
    assert run(code, tmp_path).split("\n") == ["package", "action 1", "at once", "package", ""]


def test_a_missing_package_stays_missing(tmp_path):
    code = """
from ppkd.bridge.compat.on_import import after_import
after_import("nowhere", lambda: print("action"))
try:
    import nowhere
except ModuleNotFoundError as error:
    print(error)
"""
    assert run(code, tmp_path) == "No module named 'nowhere'\n"


def test_a_wrapper_goes_around_once_and_another_around_it():
    class Owner:
        def method(self, x):
            return x

    def doubled(original):
        return lambda self, x: 2 * original(self, x)

    def increased(original):
        return lambda self, x: original(self, x) + 1

    plain = Owner.method
    for wrapper in (doubled, increased, doubled, increased):
        wrap(Owner, "method", wrapper)
    assert Owner().method(3) == 7
    assert Owner.method.__wrapped__.__wrapped__ is plain and Owner.method.__name__ == "method"

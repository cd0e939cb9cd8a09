"""bridge/imports.py and bridge/pip.py: what cannot be imported is told by its name, with a command that gets it."""

import importlib
import importlib.machinery
import importlib.util
import runpy
import sys
from importlib import metadata
from types import ModuleType, SimpleNamespace

import numpy
import pytest

from ppkd import cli
from ppkd.bridge import pip
from ppkd.bridge.imports import why_not_found, why_not_imported
from ppkd.bridge.workspace import import_ppdet
from ppkd.errors import UserError
from tests.helpers_tools import the_error


@pytest.fixture(scope="module", autouse=True)
def _imported():
    import_ppdet()


NUMPY = f"numpy=={numpy.__version__}"


def told(module, monkeypatch, capsys):
    """What a command says of importing a module on the way."""
    monkeypatch.delenv("PPKD_TRACEBACK", raising=False)
    with pytest.raises(SystemExit) as stop:
        cli.run(cli.hosts_parser(), lambda _: importlib.import_module(module), [])
    error = the_error(stop.value.code, capsys.readouterr().err)
    assert "Some value" not in error
    return error


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Packages as pip installs them: a function of ``{file: code}`` that returns the folder."""
    folder = tmp_path / "site-packages"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    before = set(sys.modules)

    def make(files):
        for name, code in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(code)
        importlib.invalidate_caches()
        return folder

    yield make
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_a_package_that_another_one_misses_is_told_and_no_value_is_blamed(monkeypatch, tmp_path, capsys):
    """Paddle 2.6 on Python 3.12 wants setuptools and asks for none: "some value in the files given does not fit"."""
    (tmp_path / "of_paddle.py").write_text("import importlib\nimportlib.import_module('setuptools_of_paddle.part')\n")
    monkeypatch.syspath_prepend(tmp_path)
    error = told("of_paddle", monkeypatch, capsys)
    assert f"No module named 'setuptools_of_paddle' (wanted by {tmp_path}/of_paddle.py)" in error
    assert error.endswith(f". pip install setuptools_of_paddle {NUMPY} adds it")


@pytest.mark.parametrize("python, words", [((3, 11), r"requirements\.txt"), ((3, 13), "install it anew")])
def test_a_ppdet_that_cannot_be_imported_is_one_line(python, words, monkeypatch, tmp_path):
    (tmp_path / "requirements.txt").write_text("numpy < 2.0")
    spec = importlib.machinery.ModuleSpec("ppdet", None, origin=str(tmp_path / "ppdet" / "__init__.py"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    monkeypatch.setattr(sys, "version_info", python)
    monkeypatch.setitem(sys.modules, "ppdet.engine", None)
    with pytest.raises(UserError, match=rf"^ppdet in {tmp_path}/ppdet cannot be imported: .*{words}"):
        import_ppdet()


@pytest.mark.parametrize(
    "module, name",
    [
        ("cv2", "opencv-python-headless"), ("google.protobuf", "protobuf"), ("dateutil.parser", "python-dateutil"),
        ("distutils.util", "setuptools"), ("pkg_resources", '"setuptools<80"'), ("nobody_knows", "nobody_knows"),
    ],
)  # fmt: skip
def test_a_package_that_ppdet_misses_is_told_by_the_name_that_pip_knows(module, name, monkeypatch):
    """And numpy stays: alone, `pip install scipy` puts numpy 2 beside what was built for numpy 1."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(pip, "installed", lambda name: [])
    # What Python is without: of 3.11 distutils is a part.
    monkeypatch.setattr(sys, "stdlib_module_names", sys.stdlib_module_names - {"distutils"})
    error = ModuleNotFoundError(f"No module named '{module}'", name=module)
    assert why_not_imported(error).endswith(f"No module named '{module}'. pip install {name} {NUMPY} adds it")


def test_a_folder_that_packages_share_is_not_the_package(place):
    """`google` is there where any package of google's is; what is missing is protobuf."""
    place({"google_of_test/cloud/__init__.py": ""})
    error = ModuleNotFoundError("No module named 'google_of_test.protobuf'", name="google_of_test.protobuf")
    assert why_not_found(error).endswith(f"pip install google_of_test {NUMPY} adds it")


def test_protobuf_is_one_of_those_that_bring_a_folder_google(monkeypatch):
    monkeypatch.setattr(metadata, "packages_distributions", lambda: {"google": ["google-auth", "protobuf"]})
    assert pip.install("google") == f"pip uninstall -y protobuf && pip install protobuf {NUMPY}"


def test_what_was_made_by_hand_is_there(monkeypatch):
    monkeypatch.setitem(sys.modules, "by_hand", ModuleType("by_hand"))
    error = ModuleNotFoundError("No module named 'by_hand.below'; 'by_hand' is not a package", name="by_hand.below")
    assert "It comes from by_hand" in why_not_found(error)


@pytest.mark.parametrize("name", ["numpy", "paddle"])
def test_what_ppdet_asks_of_numpy_in_vain_is_no_fault_of_numpy(name):
    """A clone of 2023 asks numpy 2 for names of numpy 1: its requirements have it."""
    said = why_not_found(ImportError("cannot import name 'x'.", name=name))
    assert said == "cannot import name 'x'. What it names is broken: install it anew"


def test_a_part_of_python_is_none_of_pip_s():
    said = why_not_found(ModuleNotFoundError("No module named '_lzma'", name="_lzma"))
    assert "pip" not in said and f"part of Python that {sys.executable} was built without" in said


def test_numpy_itself_is_that_of_ppdet_where_it_is_missing(monkeypatch):
    monkeypatch.setattr(pip, "installed", lambda name: [])
    monkeypatch.setattr(pip, "version", lambda *names: None)
    for python, command in (((3, 11), 'pip install "numpy<1.24"'), ((3, 12), "pip install numpy")):
        monkeypatch.setattr(sys, "version_info", python)
        assert pip.install("numpy") == command
    assert pip.install("scipy") == "pip install scipy", "there is no numpy to be kept"


_OF_NUMPY_1 = "raise ValueError('numpy.dtype size changed, may indicate binary incompatibility')"


@pytest.mark.parametrize(
    "code, package, said",
    [
        ("from os import nothing_of_this_name", "brittle", "cannot import name 'nothing_of_this_name' from 'os'"),
        (_OF_NUMPY_1, "brittle", "ValueError: numpy.dtype size changed"),
        ("import numpy; numpy.nothing_of_this_name", "brittle", "AttributeError: module 'numpy' has no attribute"),
        ("import numpy.nothing_of_this_name", "brittle", "No module named 'numpy.nothing_of_this_name'"),
        ("from brittle.below import x", "brittle", "brittle/below.py, line 1)"),
        ("import leaning", "leaning", "OSError: no such thing"),
    ],
)
def test_a_package_that_is_broken_is_told_by_its_name(code, package, said, place, monkeypatch, capsys):
    place({"brittle/__init__.py": code, "brittle/below.py": "x = = 1", "leaning.py": "raise OSError('no such thing')"})
    error = told("brittle", monkeypatch, capsys)
    assert said in error
    assert f". It comes from {package}, which is broken or does not go with numpy {numpy.__version__}: " in error
    assert error.endswith(f": pip install {package} {NUMPY}")


@pytest.mark.parametrize(
    "package, code, command",
    [
        ("numpy", "raise RuntimeError('its own')", "pip install --force-reinstall --no-deps numpy==1.23.5"),
        ("paddle", "raise RuntimeError('its own')", "pip install --force-reinstall --no-deps paddlepaddle==2.6.2"),
        ("paddle", "x = = 1", "pip install --force-reinstall --no-deps paddlepaddle==2.6.2"),
        ("cv2", "raise ImportError('its own')",
         "pip uninstall -y opencv-python && pip install opencv-python-headless numpy==1.23.5"),
    ],
)  # fmt: skip
def test_what_the_user_chose_is_put_back_as_it_was(package, code, command, place, monkeypatch, capsys):
    """numpy and Paddle in their version; of OpenCV, which comes by four names, the one that needs no libGL."""
    run = f"import runpy, pathlib\nrunpy.run_path(pathlib.Path(__file__).parent / '{package}' / 'x.py')"
    place({f"{package}/__init__.py": "", f"{package}/x.py": code, "asks.py": run})
    names = {"numpy": ["numpy"], "paddle": ["paddlepaddle"], "cv2": ["opencv-python"]}
    monkeypatch.setattr(metadata, "packages_distributions", lambda: names)
    monkeypatch.setattr(metadata, "version", {"numpy": "1.23.5", "paddlepaddle": "2.6.2"}.get)
    error = told("asks", monkeypatch, capsys)
    assert f"It comes from {package}" in error and error.endswith(f": {command}")


def test_paddle_for_gpus_is_told_where_its_index_is(monkeypatch):
    monkeypatch.setattr(metadata, "packages_distributions", lambda: {"paddle": ["paddlepaddle", "paddlepaddle-gpu"]})
    monkeypatch.setattr(metadata, "version", {"numpy": "2.2.6", "paddlepaddle-gpu": "3.3.1"}.get)
    begin = "pip install --force-reinstall --no-deps paddlepaddle-gpu==3.3.1 -i the index that https://www.paddlepaddle"
    assert pip.install("paddle").startswith(begin)


def test_no_more_goes_than_what_is_installed_again(monkeypatch):
    """basemap brings a folder of matplotlib's as well; of OpenCV's four packages each writes over the others."""
    brought = {"mpl_toolkits": ["basemap", "matplotlib"], "cv2": ["opencv-contrib-python", "opencv-python"]}
    monkeypatch.setattr(metadata, "packages_distributions", lambda: brought)
    assert pip.install("mpl_toolkits") == f"pip uninstall -y matplotlib && pip install matplotlib {NUMPY}"
    assert pip.install("cv2").startswith("pip uninstall -y opencv-contrib-python opencv-python && pip install opencv-")


def _ask_instead_of_ppdet(code, place, monkeypatch):
    """Let `code` be what ppdet does when it is imported; returns its file."""
    file = place({"ppdet/__init__.py": "", "ppdet/engine.py": code}) / "ppdet/engine.py"
    finder = file.parents[2] / "finder.py"  # no frame of this file is on the way
    finder.write_text(f"import runpy\ndef find_spec(name, *_):\n if name == 'ppdet.engine': runpy.run_path('{file}')\n")
    monkeypatch.delitem(sys.modules, "ppdet.engine")
    monkeypatch.setattr(sys, "meta_path", [SimpleNamespace(**runpy.run_path(finder)), *sys.meta_path])
    return file


def test_so_it_is_where_ppdet_asks_for_it(place, monkeypatch):
    place({"brittle/__init__.py": _OF_NUMPY_1})
    _ask_instead_of_ppdet("import brittle", place, monkeypatch)
    with pytest.raises(UserError, match=r"^ppdet in .* cannot be imported: ValueError: .* It comes from brittle, "):
        import_ppdet()


@pytest.mark.parametrize("asks", ["hollow.image", "from hollow import image", "import hollow.image"])
def test_a_package_that_lacks_what_ppdet_asks_of_it_is_named(asks, place, monkeypatch):
    """A folder that is left of cv2 can be imported, and has nothing in it."""
    place({"hollow/of_no_use.txt": ""})
    _ask_instead_of_ppdet(f"import hollow\n{asks}", place, monkeypatch)
    monkeypatch.setattr(metadata, "packages_distributions", lambda: {"hollow": ["hollow-python"]})
    command = f"pip uninstall -y hollow-python && pip install hollow-python {NUMPY}"
    with pytest.raises(UserError, match=rf"^ppdet in .* cannot be imported: .*{command}"):
        import_ppdet()


def test_a_file_of_ppdet_that_was_damaged_is_named(place, monkeypatch):
    file = _ask_instead_of_ppdet("def f(:\n  pass", place, monkeypatch)
    with pytest.raises(UserError, match=rf"{file}, line 1\)\. Put that file back as it was"):
        import_ppdet()


def test_an_error_that_is_none_of_an_import_is_not_taken_for_one(monkeypatch, capsys):
    monkeypatch.delenv("PPKD_TRACEBACK", raising=False)
    with pytest.raises(SystemExit):
        cli.run(cli.hosts_parser(), lambda _: numpy.zeros(3).reshape(2), [])
    assert "Some value in the files given does not fit" in capsys.readouterr().err


def test_what_does_without_libgl_goes_with_the_numpy_that_is_there():
    how = why_not_found(ImportError("libGL.so.1: cannot open shared object file"))
    assert how.endswith(f" && pip install opencv-python-headless {NUMPY} does without")


def test_what_protobuf_says_is_left_as_it_is():
    """It goes on with the version to install, which is not the newest."""
    said = "Descriptors cannot be created directly. ... Downgrade the protobuf package to 3.20.x or lower"
    assert why_not_found(ImportError(said)) == said

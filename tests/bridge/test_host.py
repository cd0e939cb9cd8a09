"""`ppkd hosts`, what a run's record keeps of its host, and a host that lacks Paddle or ppdet."""

import importlib.machinery
import importlib.util
import pathlib
import subprocess
import sys

import numpy
import paddle
import pytest

import ppkd
from ppkd.bridge import compat, host
from ppkd.bridge.compat import static_graph
from ppkd.bridge.compat.looks import APPLIED, NOT_APPLICABLE, NOT_NEEDED, says
from ppkd.bridge.gate import vars_of
from ppkd.bridge.workspace import import_ppdet
from ppkd.errors import UserError
from ppkd.files.yaml_io import dump, parse_value
from tests.helpers_tools import call


@pytest.fixture(scope="module", autouse=True)
def _imported():
    import_ppdet()


def test_hosts_prints_where_everything_is_and_every_cure(capsys):
    code, errors = call("hosts")
    assert code == 0, errors
    text = capsys.readouterr().out
    place = host.place_of_ppdet()
    for part in (f"Paddle  {paddle.__version__}", place, sys.executable, f"numpy   {numpy.__version__}"):
        assert part in text
    lines = [line.split() for line in text.splitlines() if line.startswith("  ")]
    assert len(lines) == len(compat.cures()) + len(static_graph.cure_export()) > 20
    for cure in compat.cures():
        assert f"  {compat.STATES[cure.__name__]:<13} {cure.__name__}: " in text
    for cure, state in static_graph.cure_export().items():
        assert f"  {state:<13} {cure.__name__}: " in text


def test_where_ppdet_is_can_be_told_without_its_import_and_what_that_prints():
    """``ppkd distill`` asks at its end, in a process that has left all work to others."""
    code = "import sys, ppkd.bridge.host as h; print(h.place_of_ppdet()); sys.exit('ppdet' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (told.returncode, told.stdout) == (0, host.place_of_ppdet() + "\n"), told.stderr


def test_the_record_holds_the_same_as_plain_values():
    kept = host.record_of_host()
    assert parse_value(dump(kept)) == kept
    assert set(kept["cures"]) == {APPLIED, NOT_NEEDED, NOT_APPLICABLE}
    assert sorted(sum(kept["cures"].values(), [])) == sorted(cure.__name__ for cure in compat.cures())
    assert kept["cures"][NOT_APPLICABLE] == [], "a cure does not find what it is for"


def test_a_wheel_has_its_version_and_a_clone_its_commit(tmp_path, monkeypatch):
    package = tmp_path / "PaddleDetection" / "ppdet"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    monkeypatch.setattr(host, "place_of_ppdet", lambda: str(package))
    assert host.version_of_ppdet() == "a folder without a version"

    def git(*words):
        command = ["git", "-C", str(tmp_path / "PaddleDetection"), "-c", "user.name=a", "-c", "user.email=a@b", *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    git("init", "-q")
    git("add", ".")
    git("commit", "-q", "-m", "first")
    commit = git("rev-parse", "--short=8", "HEAD")
    assert host.version_of_ppdet() == f"clone, commit {commit}"
    (package / "__init__.py").write_text("x = 1")
    assert host.version_of_ppdet() == f"clone, commit {commit}, changed"
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: (_ for _ in ()).throw(FileNotFoundError("git")))
    assert host.version_of_ppdet() == "clone, commit unknown"


@pytest.mark.parametrize(
    "name, python, words",
    [
        ("paddle", (3, 10), ["pip install paddlepaddle==2.6.2 "]),
        ("paddle", (3, 13), ["pip install paddlepaddle==3.3.1 "]),
        ("ppdet", (3, 11), ["ppkd[paddledet]", "pip install -r PaddleDetection/requirements.txt, ", "python -m ppkd"]),
        ("ppdet", (3, 12), ['pip install "ppkd[clone]" ', "not its requirements.txt, ", "python -m ppkd"]),
    ],
)
def test_a_host_without_one_of_them_is_told_commands_that_work_on_its_python(name, python, words, monkeypatch):
    """What clones' requirements.txt pins has no releases for Python 3.12 and 3.13: pip compiles numpy for minutes."""
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda wanted: None if wanted == name else real(wanted))
    monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "version_info", python)
    code, errors = call("train", "-c", "nothing.yml")
    assert code == 1 and errors.count("\n") == 1
    assert all(word in errors for word in [*words, "not installed in"]), errors
    assert "no-build-isolation" not in errors, "which wants a package wheel, that no environment has"


def test_a_folder_of_its_name_is_no_package(monkeypatch, tmp_path):
    """Python takes any for one: "ppdet in ? cannot be imported"."""
    (tmp_path / "ppdet").mkdir()
    monkeypatch.delitem(sys.modules, "ppdet")
    monkeypatch.setattr(sys, "meta_path", [importlib.machinery.PathFinder])
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    with pytest.raises(UserError, match=f"is not installed in .*; {tmp_path}/ppdet, a folder without __init__.py"):
        host.check_host()


def test_where_neither_paddle_nor_numpy_is_configs_are_listed_and_python_is_told():
    """`pip install ppkd` alone brings neither: "No module named 'numpy'", of which ppkd was said to be wrong."""
    without = "import importlib.util as u, sys\nreal, sys.modules['numpy'] = u.find_spec, None\n"
    without += "u.find_spec = lambda name: None if name in ('paddle', 'ppdet') else real(name)\n"
    listed = run_code(without + "from ppkd.cli import main\nmain(['configs', 'picodet_s'])")
    assert listed.returncode == 0 and "picodet_s_320_coco_lcnet" in listed.stdout, listed.stderr
    own = run_code(without + "from ppkd.cli import main\nmain(['--version'])")
    assert (own.returncode, own.stderr) == (0, "") and own.stdout.startswith(f"ppkd {ppkd.__version__} "), own.stderr
    for call_of_it in ("train('a.yml')", "doctor('a.yml', 'b.yml')"):
        told = run_code(without + f"import ppkd\nppkd.{call_of_it}")
        assert told.stderr.splitlines()[-1].startswith("ppkd.errors.UserError: Paddle is not installed in"), told.stderr


def run_code(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)


def test_a_cure_looks_below_our_own_wrappers_and_at_what_is_there(tmp_path, monkeypatch):
    from ppkd.bridge.compat.wrapping import wrap

    (tmp_path / "hosts_of_test.py").write_text("class Head:\n    def forward(self):\n        return 'four values'\n")
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("hosts_of_test")
    wrap(module.Head, "forward", lambda original: lambda self: "of ours")
    for code in (module, module.Head, module.Head.forward):
        assert says(code, "four values") and not says(code, "of ours|three values")


def test_a_cure_without_its_class_is_not_applicable(monkeypatch):
    def of_no_module():
        from ppdet.modeling.heads import NoSuchHead  # noqa: F401

    def needless():
        return NOT_NEEDED

    monkeypatch.setattr(compat, "STATES", {})
    monkeypatch.setattr(compat, "cures", lambda: (of_no_module, needless))
    compat.cure_ppdet()
    assert compat.STATES["needless"] == NOT_NEEDED
    assert compat.STATES["of_no_module"].startswith(f"{NOT_APPLICABLE}: cannot import name 'NoSuchHead'")
    assert not compat.applied("of_no_module")


def _a_compose_that_looks_elsewhere(patch):
    from ppdet.data import reader

    table = vars(vars_of(reader.transform)["module"])
    patch.setattr(reader, "Compose", lambda transforms: [table[name] for each in transforms for name in each])


def _a_reader_without_its_module(patch):
    from ppdet.data import reader

    patch.delattr(reader, "transform")


def _schedules_out_of_a_table(patch):
    from ppdet.optimizer import optimizer

    patch.setattr(optimizer, "LearningRate", lambda schedulers: None)


def _another_name_for_what_downloads(patch):
    from paddle.utils import download

    patch.delattr(download, "_download")


def _data_sets_that_fetch_for_themselves(patch):
    from ppdet.data.source import dataset

    patch.delattr(dataset, "get_dataset_path")


@pytest.mark.parametrize(
    "change, protection",
    [
        (_a_compose_that_looks_elsewhere, "look_classes_up_among_the_judged"),
        (_a_reader_without_its_module, "look_classes_up_among_the_judged"),
        (_schedules_out_of_a_table, "look_classes_up_among_the_judged"),
        (_another_name_for_what_downloads, "fetch_nothing"),
        (_data_sets_that_fetch_for_themselves, "fetch_nothing"),
    ],
)
def test_a_ppdet_in_which_a_protection_finds_no_place_is_refused(monkeypatch, change, protection):
    """It was dropped as not applicable, without a word."""
    change(monkeypatch)
    monkeypatch.setattr(compat, "STATES", {})
    with pytest.raises(
        UserError, match=f"^this ppdet is built in a way .* not used: {protection} cannot be applied"
    ) as e:
        compat.cure_ppdet()
    assert "\n" not in str(e.value) and compat.STATES == {}


def test_every_cure_says_what_it_is_for():
    for cure in compat.cures():
        assert pathlib.Path(cure.__code__.co_filename).parent.name == "compat"
        assert cure.__doc__ and "Needed for: " in cure.__doc__, cure.__name__

"""The house: every wing imports only those below it, and no module stands outside."""

import re
import subprocess
import sys

from tests.conftest import ROOT

COMMAND = "from importlinter.cli import lint_imports_command; lint_imports_command()"


def lint(folder):
    return subprocess.run(
        [sys.executable, "-c", COMMAND, "--no-cache"],
        cwd=folder, capture_output=True, text=True, check=False,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(folder), "PYTHONIOENCODING": "utf-8"},
    )  # fmt: skip


def test_a_wing_imports_only_those_below_it():
    done = lint(ROOT)
    assert done.returncode == 0 and "2 kept, 0 broken" in done.stdout, done.stdout + done.stderr


def test_an_import_upwards_is_seen(tmp_path):
    for name in ("pyproject.toml", "ppkd"):
        subprocess.run(["cp", "-r", str(ROOT / name), str(tmp_path)], check=True)
    with open(tmp_path / "ppkd/files/paths.py", "a", encoding="utf-8") as file:
        file.write("\n\ndef _up():\n    from ppkd.training import trainer\n\n    return trainer\n")
    done = lint(tmp_path)
    assert done.returncode == 1 and "ppkd.files is not allowed to import ppkd.training" in done.stdout, done.stdout


def test_a_touch_of_ppdet_outside_of_the_bridge_is_seen(tmp_path):
    for name in ("pyproject.toml", "ppkd"):
        subprocess.run(["cp", "-r", str(ROOT / name), str(tmp_path)], check=True)
    for name in ("losses/common.py", "training/meters.py"):
        with open(tmp_path / "ppkd" / name, "a", encoding="utf-8") as file:
            file.write("\n\ndef _touch():\n    from ppdet.engine import Trainer\n\n    return Trainer\n")
    done = lint(tmp_path)
    assert done.returncode == 1, done.stdout
    assert "ppkd.losses.common -> ppdet" in done.stdout and "ppkd.training.meters -> ppdet" in done.stdout, done.stdout


def test_a_module_outside_of_the_list_is_seen(tmp_path):
    for name in ("pyproject.toml", "ppkd"):
        subprocess.run(["cp", "-r", str(ROOT / name), str(tmp_path)], check=True)
    (tmp_path / "ppkd" / "attic.py").write_text("")
    assert "attic" in lint(tmp_path).stdout


def test_the_page_has_all_wings_and_no_other():
    page = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    told = set(re.findall(r"`([\w/]+/|\w+\.py)`", page.split("## The path of one batch")[0]))
    told -= {"ppkd/", "tests/", "benchmarks/"}
    there = {f"{path.parent.name}/" for path in (ROOT / "ppkd").glob("*/__init__.py")}
    there |= {path.name for path in (ROOT / "ppkd").glob("*.py") if not path.name.startswith("__")}
    assert told == there


def test_the_page_has_the_wings_in_the_order_of_the_contract():
    contract = (ROOT / "pyproject.toml").read_text(encoding="utf-8").split("layers = [")[1].split("]")[0]
    floors = [re.findall(r"\w+", floor) for floor in reversed(re.findall(r'"(.*)"', contract))]
    floor_of = {name: number for number, floor in enumerate(floors) for name in floor}
    page = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    cells = re.findall(r"^\| (`.*?) \|", page.split("## The path of one batch")[0], re.M)
    told = [re.findall(r"`(\w+)(?:/|\.py)`", cell) for cell in cells]
    told = [floor_of[name] for names in told for name in names]
    assert len(told) > 20 and told == sorted(told)


def test_the_page_names_files_that_are_there():
    page = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:\w+/)+(?:\w+\.\w+)?)`", page.split("## The path of one batch")[1]))
    named = {name for name in named if "NAME" not in name}
    lacking = [name for name in named if not (ROOT / "ppkd" / name).exists() and not (ROOT / name).exists()]
    assert len(named) > 25 and not lacking


def test_tests_and_benchmarks_mirror_the_wings():
    wings = {path.parent.name for path in (ROOT / "ppkd").glob("*/__init__.py")}
    own = {"tests": {"configs", "docs", "e2e", "fuzz", "golden"}, "benchmarks": {"configs", "device", "evidence"}}
    for folder, extra in own.items():
        there = {path.parent.name for path in (ROOT / folder).glob("*/*.*")} - {"__pycache__"}
        assert there - wings == extra
        # What is tested through all of the house stands above the wings, as the commands and their arguments.
        assert folder != "tests" or wings - there == {"cli", "commands", "data"}
    assert {path.name for path in (ROOT / "benchmarks").glob("*.*")} == {"gpu_check.py", "run.py"}

"""The wheel is whole: configs and weights travel in it, by way of an sdist too, and it asks for nobody's ppdet."""

import email
import os
import re
import shutil
import subprocess
import sys
import zipfile

import pytest

from tests.conftest import ROOT

CONFIGS = {path.relative_to(ROOT).as_posix() for path in (ROOT / "configs").rglob("*.yml")}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel of an sdist of what the repository holds."""
    folder = tmp_path_factory.mktemp("source")
    for name in ("ppkd", "configs"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    run([sys.executable, "setup.py", "-q", "sdist", "-d", "sdist"], folder)
    (source,) = (folder / "sdist").glob("*.tar.gz")
    shutil.unpack_archive(source, folder / "unpacked", filter="data")
    (unpacked,) = (folder / "unpacked").iterdir()
    run([sys.executable, "setup.py", "-q", "bdist_wheel", "-d", "wheel"], unpacked)
    (made,) = (unpacked / "wheel").glob("*.whl")
    return made


def run(command, folder, **environment):
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False, timeout=300, env={**os.environ, **environment}
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_it_holds_every_config_and_the_demos_teacher(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {name.removeprefix("ppkd/") for name in names if name.startswith("ppkd/configs/")} == CONFIGS
    assert {"ppkd/data/teacher_shapes.pdparams", "ppkd/data/teacher_shapes.json", "ppkd/reporting/page.css"} <= names
    assert {name.split("/")[0] for name in names} == {
        "ppkd",
        next(n for n in names if n.endswith("RECORD")).split("/")[0],
    }
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "ppkd").rglob("*.py")}
    assert {name for name in names if name.endswith(".py")} == modules


def test_it_asks_for_nothing_that_would_change_ppdet_paddle_or_numpy(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith("METADATA")]
        metadata = email.message_from_bytes(archive.read(name))
    asked = metadata.get_all("Requires-Dist")
    always = {re.match(r"[\w-]+", line)[0].lower() for line in asked if "extra ==" not in line}
    assert always == {"pyyaml", "pillow", "safetensors", "requests", "tqdm"}
    extras = {line.split("extra == ")[1].strip("'\"") for line in asked if "extra ==" in line}
    assert {"paddledet", "cpu", "gpu"} <= extras
    assert set(metadata["Requires-Python"].split(",")) == {">=3.10", "<3.14"}


def test_installed_in_an_empty_folder_its_configs_are_found_by_name(wheel, tmp_path):
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    (tmp_path / "empty").mkdir()
    text = """
        import ppkd.files.shipped as shipped, ppkd.demo.demo as demo, os
        from ppkd.recipe.recipe import load_recipe
        student, slim = (shipped.find_config(n, "-c") for n in ("ppyoloe_plus_tiny_custom", "ppyoloe_plus_custom_fgd"))
        recipe = load_recipe(student, slim, ["num_classes=3"])
        teacher = recipe.teachers["teacher"].config
        print(student, os.path.isfile(demo.SHIPPED_TEACHER), recipe.name, teacher["num_classes"])
    """
    code = "\n".join(line.strip() for line in text.strip().splitlines())
    found = run([sys.executable, "-c", code], tmp_path / "empty", PYTHONPATH=str(tmp_path / "site")).split()
    inside = tmp_path / "site" / "ppkd" / "configs" / "custom" / "ppyoloe_plus_tiny_custom.yml"
    assert found == [str(inside), "True", "ppyoloe_plus_tiny_custom", "3"]

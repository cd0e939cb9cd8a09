"""A config that comes with ppkd is found by its name; a file that exists goes first."""

import pytest

from ppkd.errors import UserError
from ppkd.files import shipped
from ppkd.files.shipped import by_name, find_config, listing
from ppkd.files.yaml_io import read_with_bases
from ppkd.recipe.recipe import load_recipe
from tests.conftest import ROOT
from tests.helpers_tools import call, the_error, write

TINY = str(ROOT / "configs" / "custom" / "ppyoloe_plus_tiny_custom.yml")


@pytest.mark.parametrize(
    "given",
    [
        "ppyoloe_plus_tiny_custom", "ppyoloe_plus_tiny_custom.yml", "configs/custom/ppyoloe_plus_tiny_custom.yml",
        "custom/ppyoloe_plus_tiny_custom.yml", TINY,
    ],
)  # fmt: skip
def test_by_name_or_by_its_place_in_any_folder(given, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_config(given, "-c") == TINY


def test_a_path_that_exists_goes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    own = write(tmp_path / "configs" / "custom" / "ppyoloe_plus_tiny_custom.yml", "architecture: RetinaNet\n")
    write(tmp_path / "ppyoloe_plus_tiny_custom.yml", "architecture: FCOS\n")
    assert find_config(own, "-c") == own
    assert load_recipe("configs/custom/ppyoloe_plus_tiny_custom.yml").student == {"architecture": "RetinaNet"}
    assert load_recipe("ppyoloe_plus_tiny_custom.yml").student == {"architecture": "FCOS"}
    assert find_config("ppyoloe_plus_tiny_custom", "-c") == TINY, "not the file of another name"


def test_a_folder_hides_no_config_and_a_link_to_nothing_is_not_passed_over(tmp_path, monkeypatch):
    """With ``save_dir=.`` a run's folder has its config's name: "a config file ends in .yml" of the next command."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ppyoloe_plus_tiny_custom").mkdir()
    assert find_config("ppyoloe_plus_tiny_custom", "-c") == TINY
    own = write(tmp_path / "mine.yml", "_BASE_: [ppyoloe_plus_tiny_custom]\nepoch: 7\n")
    assert TINY in [path for path, _ in read_with_bases(own)[1]]
    (tmp_path / "ppyoloe_plus_tiny_custom.yml").symlink_to("moved.yml")
    with pytest.raises(UserError, match="^ppyoloe_plus_tiny_custom.yml: no such config file"):
        load_recipe("ppyoloe_plus_tiny_custom.yml")
    with pytest.raises(UserError, match="its _BASE_ 'ppyoloe_plus_tiny_custom.yml' does not exist"):
        read_with_bases(write(tmp_path / "mine.yml", "_BASE_: ppyoloe_plus_tiny_custom.yml\n"))


def test_both_options_take_names():
    loaded = load_recipe("retinanet_r50_fpn_2x_coco", "retinanet_resnet101_coco_distill")
    assert loaded.name == "retinanet_r50_fpn_2x_coco" and loaded.method.name == "FGD"
    assert loaded.method.file == by_name()["retinanet_resnet101_coco_distill"]


def test_a_base_and_a_further_teacher_can_be_named(tmp_path):
    own = write(tmp_path / "mine.yml", "_BASE_: [ppyoloe_plus_tiny_custom, datasets/coco_detection.yml]\nepoch: 7\n")
    assert load_recipe(own).student["epoch"] == 7
    files = [path for path, _ in read_with_bases(own)[1]]
    assert TINY in files and str(ROOT / "configs" / "datasets" / "coco_detection.yml") in files
    beside = write(tmp_path / "ppyoloe_plus_tiny_custom.yml", "epoch: 3\n")
    own = write(tmp_path / "mine.yml", "_BASE_: [ppyoloe_plus_tiny_custom.yml]\n")
    assert [path for path, _ in read_with_bases(own)[1]] == [beside, own]
    slim = "_BASE_: [retinanet_r101_fpn_2x_coco]\nslim: Distill\ndistill:\n"
    slim += "  teachers: {second: {config: fcos_r50_fpn_1x_coco}}\n"
    terms = '  terms: [{student: "neck[*]", teacher: "teacher.neck[*]", loss: pkd}]\n'
    loaded = load_recipe("retinanet_r50_fpn_2x_coco", write(tmp_path / "slim.yml", slim + terms))
    assert loaded.teachers["second"].config["architecture"] == "FCOS"


@pytest.mark.parametrize(
    "given, message",
    [
        (
            "ppyoloe_plus_tinny_custom",
            "-c ppyoloe_plus_tinny_custom: neither a file.*nearest: ppyoloe_plus_tiny_custom",
        ),
        ("zzz", "-c zzz: neither a file nor a config that comes with ppkd, see `ppkd configs`$"),
        ("configs/custom/nothing.yml", "configs/custom/nothing.yml: no such config file"),
        ("../configs/runtime.yml", "../configs/runtime.yml: no such config file"),
        ("optimizer_1x", "-c optimizer_1x: neither a file"),
    ],
)
def test_what_is_neither_is_told(given, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        load_recipe(given)


def test_a_missing_base_is_told(tmp_path):
    own = write(tmp_path / "mine.yml", "_BASE_: [ppyoloe_plus_tinny_custom.yml]\n")
    with pytest.raises(UserError, match=r"mine\.yml:1: its _BASE_ 'ppyoloe_plus_tinny_custom\.yml' does not exist"):
        load_recipe(own)


def test_every_name_means_one_file_and_has_a_line():
    files = [path for path in (ROOT / "configs").rglob("*.yml") if "_base_" not in path.parts]
    assert len(by_name()) == len(files), "two configs of one name"
    for heading, lines in listing():
        for name, line in lines:
            assert 15 < len(line) < 260 and line.endswith("."), (heading, name, line)


def test_configs_lists_them(capsys):
    assert call("configs") == (0, "")
    text = capsys.readouterr().out
    assert text.startswith("--slim_config\n") and "\n-c, custom\n" in text
    assert "  ppyoloe_plus_tiny_custom " in text and "minutes on a CPU" in text
    assert "optimizer_1x" not in text and "coco_instance" not in text
    assert call("configs", "picodet_s")[0] == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["-c,", "picodet_s_320_coco_lcnet"]
    assert "no config has 'zzz' in its name" in the_error(*call("configs", "zzz"))


def test_an_installation_without_them_says_so(monkeypatch):
    monkeypatch.setattr(shipped, "folder", lambda: None)
    assert "installed without its configs" in the_error(*call("configs"))

"""The published recipes on a machine that has neither COCO, nor a network, nor a GPU.

What takes long, training steps of all of them with their full-size networks, is ``benchmarks/methods/recipes.py``.
"""

import os
import re

import paddle
import pytest

from benchmarks.methods.recipes import OF_FGD, RECIPES, problems, run
from ppkd.bridge.workspace import build_detector
from ppkd.build import wrap
from ppkd.methods import plan
from ppkd.recipe.recipe import load_recipe
from tests.conftest import ROOT
from tests.helpers_tools import OFFLINE, the_error
from tests.recipe.test_configs import STUDENTS

PUBLISHED = [
    "-c", ROOT / "configs/retinanet/retinanet_r50_fpn_2x_coco.yml",
    "--slim_config", ROOT / "configs/slim/distill/retinanet_resnet101_coco_distill.yml",
]  # fmt: skip
# One recipe a pair of networks: in the others only a reader or the assignment differs.
ONCE = [
    name
    for name, published in RECIPES.items()
    if published.slim and not name.endswith(("_plain", "_by_teacher")) and not name.startswith("fgd_")
]
# Of FGD's authors' own one a pair of detectors; the others differ in depth.
ONCE += [
    "fgd_retina_rx101_64x4d_distill_retina_r50_fpn_2x_coco",
    "fgd_cascade_mask_rcnn_rx101_32x4d_distill_mask_rcnn_r50_fpn_2x_coco",
    "fgd_reppoints_rx101_64x4d_distill_reppoints_r50_fpn_2x_coco", "fgd_fcos_r101_distill_fcos_r50_2x_coco",
    "fgd_gfl_r101_distill_gfl_r50_fpn_1x_coco", "fgd_solo_r101_ms_distill_solo_r50_coco",
]  # fmt: skip
no_gpu = pytest.mark.skipif(paddle.is_compiled_with_cuda(), reason="this Paddle may find a GPU")


def warnings(log):
    """The lines of a log that are warnings."""
    return re.findall(r"^[\d:]+ W (.*)$", log, flags=re.MULTILINE)


def expected(found, *more):
    """Whether these are the warnings of one process without a GPU, and ``more``: nothing else is wrong with it."""
    starts = ("use_gpu: true, but Paddle finds no GPU; going on with the CPU", "the learning rate 0.01 is for 16 ")
    starts += more
    return len(found) == len(starts) and all(line.startswith(start) for line, start in zip(found, starts))


@no_gpu
def test_the_published_recipe_without_coco(run_tool):
    done = run_tool("train", *PUBLISHED)
    message = the_error(done.returncode, done.stderr)
    assert re.match(
        r"TrainDataset: no data set folder at dataset/coco \(that is /.*dataset/coco\), which has to hold "
        r"train2017 and annotations/instances_train2017\.json\. .*train2017\.zip, val2017\.zip and "
        r"annotations_trainval2017\.zip.*https://cocodataset\.org \(20 GB\).*-o dataset_dir=/path/to/coco",
        message,
    )
    assert expected(warnings(done.stdout))


@no_gpu
def test_the_published_recipe_without_network(run_tool, shapes, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    for name, value in OFFLINE.items():
        monkeypatch.setenv(name, value)
    data = [f"dataset_dir={shapes}", "image_dir=train", "anno_path=annotations/instances_train.json"]
    done = run_tool("train", *PUBLISHED, "-o", *(f"TrainDataset.{one}" for one in data), new=True)
    message = the_error(done.returncode, done.stderr)
    assert re.match(
        r"student weights \(pretrain_weights\): https://\S*ResNet50_cos_pretrained\.pdparams could not be downloaded "
        r"\(ProxyError\)\. Is there a network\?.*give the file's path instead$",
        message,
    )
    again = r"W https://\S*ResNet50_cos_pretrained\.pdparams: ProxyError; trying again"
    six = "num_classes: 80, and of the training set "
    assert expected(warnings(re.sub(rf".*{again}\n", "", done.stdout)), six)


def test_every_published_slim_file_has_its_benchmark():
    """The demo's, those for own data, with a vision transformer and for clones with RT-DETR have tests of theirs."""
    measured = {published.slim for published in RECIPES.values()} - {None}
    apart = ("shapes", "custom", "dino", "rtdetr")
    assert measured == {slim for slim in STUDENTS if not any(part in slim for part in apart)}
    pairs = {(published.student, published.slim) for published in RECIPES.values()}
    assert all((student, slim) in pairs for slim, student in STUDENTS.items() if slim in measured)


def test_every_published_slim_file_stands_in_the_table_of_recipes():
    docs = (ROOT / "docs/methods.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\S+)` \| `(\S+)`(?: \([^|]*\))? \| (`\S+` \([^|]*\)) \|", docs, flags=re.MULTILINE)
    rows = {(recipe, student, tuple(re.findall(r"`(\S+)`", teachers))) for recipe, student, teachers in rows}
    expected = set()
    for slim in {published.slim for name, published in RECIPES.items() if not name.startswith("fgd_")} - {None}:
        files = [ROOT / "configs" / name for name in (STUDENTS[slim], slim)]
        urls = [spec.weights for spec in load_recipe(*map(str, files)).teachers.values()]
        linked = r"(?:https://paddledet\.bj\.bcebos\.com/models|pretrained)/(\w+)\.pdparams"
        teachers = tuple(re.fullmatch(linked, url)[1] for url in urls)
        expected.add((files[1].stem, STUDENTS[slim].removesuffix(".yml"), teachers))
    assert rows == expected


def test_the_recipes_of_fgds_authors_stand_in_a_table_of_their_own():
    docs = (ROOT / "docs/methods.md").read_text(encoding="utf-8")
    rows = set(re.findall(r"^\| `(fgd_\S+)` \| `(\S+)` \| `(\S+)` \|", docs, flags=re.MULTILINE))
    expected = set()
    for name, student in OF_FGD.items():
        text = (ROOT / f"configs/slim/distill/fgd_{name}.yml").read_text(encoding="utf-8")
        expected.add((f"fgd_{name}", student, re.search(r"mmdet/mmdet_(\S+)\.yml\]", text)[1]))
    assert rows == expected


@pytest.mark.parametrize("name", ONCE)
def test_student_and_teacher_match_on_every_level(name, monkeypatch):
    """What the loss is made of, found by dry forwards of the two detectors; they have random weights and no data."""
    monkeypatch.setattr("ppkd.detectors.base.Detector.probe_size", 128)
    published = RECIPES[name]
    files = [os.path.join(ROOT, "configs", path) for path in (published.student, published.slim)]
    # Depth is time and nothing else: channels and levels do not depend on it.
    shallow = ["depth_mult=0.33", "teacher.depth_mult=0.33"] if "ppyoloe" in name else []
    shallow += ["teacher.ResNet.depth=50"] if name.startswith("fgd_") else []
    loaded = load_recipe(*files, shallow)
    student = build_detector(loaded.student)
    teachers = {name: build_detector(spec.config) for name, spec in loaded.teachers.items()}
    labels = {term.label for term in wrap(loaded, plan(loaded.method), student, teachers).terms}
    owners = [label for part in published.parts for label in labels if f"{part}.".startswith(f"{label}.")]
    assert len(owners) == len(published.parts) and set(owners) == labels


@pytest.mark.parametrize("name", ["picodet_from_gfl", "gfl_alone"])
def test_three_steps_of_the_cheapest(name, tmp_path):
    record = run(name, str(tmp_path))
    assert record["problems"] == []


def test_the_benchmark_tells_what_is_missing_zero_or_not_finite():
    pulls = [{"name": "a.x", "norm": 0.0}, {"name": "b", "norm": float("nan")}, {"name": "c", "norm": 1.0}]
    good = {"loss": 1.0, "a.x": 1.0, "b": 2.0}
    steps = [{**good, "a.x": 0.0}, {"loss": float("inf"), "a.x": 0.0}, {**good, "a.x": 0.0}]
    found = problems({"steps": steps, "pulls": pulls}, ("a.x", "b"))
    assert found == [
        "step 2: loss is inf",
        "step 2: b is missing",
        "a.x is 0 in every step",
        "a.x: the student's gradient is 0.0",
        "b: the student's gradient is nan",
        "c: nobody expects it",
    ]
    assert problems({"steps": steps[:1], "pulls": []}, ()) == ["1 steps instead of 3"]

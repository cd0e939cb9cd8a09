"""A detector of another framework, given as ONNX: its boxes by the data set's classes, as a teacher and as ppdet's."""

import json

import numpy as np
import paddle
import pytest
import yaml

from ppkd.build import build_model
from ppkd.detectors import detector_for
from ppkd.engine.model import TEACHER
from ppkd.errors import UserError
from ppkd.recipe.recipe import load_recipe
from ppkd.training.record import read_record
from tests.conftest import CONFIGS, training_batch
from tests.helpers_tools import call
from tests.helpers_training import fit, terms_of
from tests.models.onnx_file import detector

pytest.importorskip("onnxruntime")

TERMS = {
    "boxes": {
        "student": ["head.cls[*]", "head.ltrb[*]"],
        "teacher": "found",
        "loss": {"name": "found_boxes", "least_iou": 0.1},
    }
}
# In pixels of the images, which are of the size that the file takes.
BOXES = [[0, 0, 64, 48], [16, 16, 48, 64], [8, 8, 24, 24]]
SCORES, LABELS = [0.9, 0.8, 0.7], [1, 0, 2]


@pytest.fixture
def given(tmp_path, shapes):
    """Function that loads a recipe whose teacher finds `BOXES`, whose classes are called `names`, on every image."""

    def load(names=("Square!", "disc", "zebra"), about=(), terms=TERMS, overrides=(), size=(64, 64), **teacher):
        (tmp_path / "x.onnx").write_bytes(detector(BOXES, SCORES, LABELS, (1, 3, *size), about))
        detections = {"layout": "split", **({"names": list(names)} if names else {})}
        entry = {"onnx": str(tmp_path / "x.onnx"), "detections": detections | teacher.pop("more", {}), **teacher}
        slim = {"slim": "Distill", "teacher": entry, "distill": {"terms": terms}}
        (tmp_path / "slim.yml").write_text(yaml.safe_dump(slim, sort_keys=False))
        rest = [f"dataset_dir={shapes}", f"save_dir={tmp_path / 'out'}", "TrainReader.batch_size=4", *overrides]
        return load_recipe(str(CONFIGS / "ppyoloe_tiny.yml"), str(tmp_path / "slim.yml"), rest)

    return load


def names_of(recipe):
    return recipe.teachers[TEACHER].config["ONNXDetector"]["classes"]


def test_it_finds_the_data_sets_classes_in_the_images_own_pixels(given):
    recipe = given()
    ours = names_of(recipe)
    teacher = build_model(recipe).teachers[TEACHER]
    assert "2 of its 3 classes are the data set's (Square! as square)" in teacher.notice
    found = teacher.detect(paddle.zeros([2, 3, 128, 192]))
    expected = [[ours.index("disc"), 0.9, 0, 0, 192, 96], [ours.index("square"), 0.8, 48, 32, 144, 128]]
    assert len(found) == 2 and all(np.allclose(each, expected) for each in found)
    batch = {"image": paddle.zeros([2, 3, 128, 192]), "im_shape": paddle.to_tensor([[128.0, 192], [128, 96]]),
             "scale_factor": paddle.to_tensor([[2.0, 2], [0.5, 1]])}  # fmt: skip
    made = teacher(batch)
    assert made["bbox_num"].tolist() == [2, 2]
    assert np.allclose(made["bbox"][0, 2:], [0, 0, 96, 48]) and np.allclose(made["bbox"][3, 2:], [48, 64, 96, 256])


def test_its_term_trains_the_student_and_the_record_has_the_classes(given, tmp_path):
    recipe = given()
    model = build_model(recipe)
    losses = terms_of(model(training_batch(recipe)), model)
    assert set(losses) == {"boxes.giou", "boxes.cls"} and all(float(x) > 0 for x in losses.values())
    fit(given(overrides=["epoch=1"]), max_steps=2)
    record, _ = read_record(tmp_path / "out" / "ppyoloe_tiny")
    assert names_of(record) == names_of(recipe) and record.teachers[TEACHER].detects


def test_names_in_the_file_are_taken_where_no_key_gives_any(given):
    recipe = given(None, {"names": "{0: 'disc', 1: 'square', 2: 'x'}"}, bgr=True)
    teacher, ours = build_model(recipe).teachers[TEACHER], names_of(recipe)
    found = teacher.detect(paddle.zeros([1, 3, 64, 64]))[0]
    assert found[:, 0].tolist() == [ours.index("square"), ours.index("disc")]
    assert detector_for(teacher).levels("found")[0].channels == 6
    image = paddle.arange(3, dtype="float32").reshape([1, 3, 1, 1]).expand([1, 3, 64, 64])
    assert teacher.fitted(image)[0, :, 0, 0].tolist() == [2, 1, 0]


def test_the_file_may_be_measured_and_says_of_which_size_its_images_are(given):
    recipe = given(more={"keep_ratio": True}, mean=[0.1, 0.2, 0.3], bgr=True, size=(64, 96))
    steps = recipe.teachers[TEACHER].config["EvalReader"]["sample_transforms"]
    assert steps[1]["Resize"]["target_size"] == [64, 96] and steps[2]["Pad"]["size"] == [64, 96]
    assert steps[3]["NormalizeImage"]["mean"] == [0.1, 0.2, 0.3]


def test_doctor_tells_its_classes_its_share_of_a_step_and_what_it_may_take(given, tmp_path, shapes, capsys):
    given(("Square!", "disc", "zebra"))
    files = ["-c", str(CONFIGS / "ppyoloe_tiny.yml"), "--slim_config", str(tmp_path / "slim.yml"), "--images", "2"]
    call("doctor", *files, "--json", tmp_path / "found.json", "-o", f"dataset_dir={shapes}", "TrainReader.batch_size=2")
    found, printed = json.loads((tmp_path / "found.json").read_text()), capsys.readouterr().out
    known = found["classes"]["teachers"]["teacher"]
    assert (known["number"], known["names"], known["file"]) == (
        3,
        ["Square!", "disc", "zebra"],
        str(tmp_path / "x.onnx"),
    )
    told = {line["id"]: line["text"] for line in found["findings"]}
    assert "does not know" in told["classes-missing"] and not told.keys() & {"classes-unknown", "class-names"}
    assert "the teacher takes" in printed and "runs as it is" in printed and "so far, 4 GB and what Python" in printed


@pytest.mark.parametrize(
    "options, told",
    [
        ({"names": None}, "neither the file nor detections.names says what its classes are called"),
        ({"names": ("cat", "dog", "cow")}, r"none of its classes \(cat, dog, cow\) is one of the data set's"),
        ({"names": ("disc", "square")}, "it finds class 2, and has names for 2"),
        ({"input_scale": 0.5}, "give detections.size in place of input_scale"),
        ({"more": {"layout": "yolo"}}, "are wanted, channels first, found"),
        ({"more": {"scores": "odds"}}, "detections.scores: there is no output 'odds'; it has boxes"),
        ({"terms": {"x": TERMS["boxes"] | {"teacher": "boxes"}}}, "loss found_boxes takes boxes: teacher: found"),
        ({"terms": {"x": TERMS["boxes"] | {"teacher": "output[*]"}}}, "loss found_boxes takes boxes: teacher: found"),
        ({"terms": {"x": TERMS["boxes"] | {"loss": "ppyoloe"}}}, "as many sources of the teacher"),
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_one_line(given, options, told):
    with pytest.raises(UserError, match=told):
        recipe = given(**options)
        build_model(recipe)(training_batch(recipe))

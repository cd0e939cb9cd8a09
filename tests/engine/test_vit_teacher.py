"""A vision transformer teaches a detector: from the slim file's line to the record of the run."""

import json
import logging

import pytest
import yaml

from ppkd.build import build_model
from ppkd.engine.model import TEACHER
from ppkd.errors import UserError
from ppkd.explain import explained
from ppkd.recipe.recipe import load_recipe
from ppkd.terminal.log import logger
from ppkd.training.record import read_record
from tests.conftest import CONFIGS, ROOT, training_batch
from tests.helpers_tools import call
from tests.helpers_training import differing, fit, terms_of
from tests.models.test_vit import file_of
from tests.models.vit.make import CASES

SHIPPED = ROOT / "configs"
TERMS = {
    "tokens": {"student": "neck[s32]", "teacher": "tokens", "student_connector": "linear", "loss": "cosine"},
    "early": {"student": "neck[*]", "teacher": "tokens.0", "student_connector": "align", "loss": "mimic", "every": 2},
    "whole": {"student": "neck[s32]", "teacher": "cls", "student_connector": "linear", "loss": "cosine"},
}


@pytest.fixture
def given(tmp_path, shapes):
    """Function that loads a recipe whose teacher is the transformer of a case."""

    def load(case="dinov3", teacher=None, overrides=(), **keys):
        path = tmp_path / "slim.yml"
        teacher = {"vit": CASES[case][0], "pretrain_weights": file_of(case, tmp_path)} if teacher is None else teacher
        content = {"slim": "Distill", "teacher": teacher, "distill": {"terms": TERMS}} | keys
        path.write_text(yaml.safe_dump(content, sort_keys=False))
        rest = [f"dataset_dir={shapes}", f"save_dir={tmp_path / 'out'}", "TrainReader.batch_size=4", *overrides]
        return load_recipe(str(CONFIGS / "ppyoloe_tiny.yml"), str(path), rest)

    return load


@pytest.mark.parametrize("case", ["dinov3", "dinov2"])
def test_its_terms_are_computed_on_its_own_images(case, given, caplog, monkeypatch):
    loaded = given(case)
    monkeypatch.setattr(logger(), "propagate", True)  # to where pytest listens
    caplog.set_level(logging.INFO, "ppkd")
    model = build_model(loaded)
    assert ("DINOv3 licence" in caplog.text) == (case == "dinov3")
    assert "its images are normalised otherwise" in caplog.text
    seen = []
    model.teachers[TEACHER].backbone.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    batch = training_batch(loaded)
    losses = terms_of(model(batch), model)
    assert {key.split(".")[0] for key in losses} == set(TERMS)
    assert all(float(x) > 0 for x in losses.values())
    # PP-YOLOE's pixels are 0 to 1; ImageNet's mean goes off and they are divided by its deviation.
    assert float(seen[0].min()) < -1.5 and seen[0].shape == batch["image"].shape


def test_images_take_whole_patches(given):
    loaded = given("dinov2", overrides=["distill.teachers.teacher.input_scale=0.7"])
    loaded.teachers[TEACHER].config["ViTTeacher"]["variant"]["patch"] = 28  # of 96 pixels: 67 are wanted, 56 are two
    prepare = preparation_of(loaded)
    assert prepare(training_batch(loaded))["image"].shape[2:] == [56, 56]


def preparation_of(loaded):
    from ppkd.engine.teacher_inputs import preparation_for

    return preparation_for(loaded.student, loaded.teachers[TEACHER])[0]


def test_a_run_goes_on_to_the_bit_and_its_record_tells_the_teacher(given, tmp_path):
    def loaded(name):
        return given(overrides=["epoch=2", f"save_dir={tmp_path / name}"])

    whole = fit(loaded("whole"))
    fit(loaded("parted"), max_steps=4)
    parted = fit(loaded("parted"), resume="auto")
    assert differing(whole.student.state_dict(), parted.student.state_dict()) == []
    recipe, _ = read_record(tmp_path / "parted" / "ppyoloe_tiny")
    spec = recipe.teachers[TEACHER]
    assert spec.config["ViTTeacher"]["variant"]["registers"] == 4 and not spec.detects
    assert build_model(recipe, load=False).terms[0].label == "tokens.s32"


def test_what_explain_prints_is_the_same_again(given, tmp_path, shapes):
    overrides = [f"teacher.pretrain_weights={tmp_path / 'model.safetensors'}"]
    loaded = given(overrides=overrides)
    text = explained(loaded, overrides, str(tmp_path))
    (tmp_path / "again.yml").write_text(text)
    again = load_recipe(str(CONFIGS / "ppyoloe_tiny.yml"), str(tmp_path / "again.yml"), [f"dataset_dir={shapes}"])
    assert again.teachers[TEACHER].config == loaded.teachers[TEACHER].config
    assert again.teachers[TEACHER].weights == loaded.teachers[TEACHER].weights is not None


@pytest.mark.parametrize(
    "student, slim",
    [("picodet/picodet_s_320_coco_lcnet", "picodet_dinov2"),
     ("custom/ppyoloe_plus_tiny_custom", "ppyoloe_plus_custom_dinov3")],
)  # fmt: skip
def test_a_shipped_recipe_builds_with_a_smaller_transformer(student, slim, tmp_path, shapes):
    case = "dinov3" if "dinov3" in slim else "dinov2"
    own = [f"dataset_dir={shapes}", "pretrain_weights=null"]
    if "custom" in student:
        own += [f"{kind}_annotations=annotations/instances_{kind}.json" for kind in ("train", "val")]
        own += [f"{kind}_images={kind}" for kind in ("train", "val")]
    loaded = load_recipe(str(SHIPPED / f"{student}.yml"), str(SHIPPED / f"slim/distill/{slim}.yml"), own)
    variant = loaded.teachers[TEACHER].config["ViTTeacher"]["variant"]
    assert variant["family"] == case and variant["width"] in (384, 768)
    variant |= CASES[case][0]
    loaded.teachers[TEACHER].weights = file_of(case, tmp_path)
    (term,) = build_model(loaded, load=False).terms
    assert term.label == "tokens.s32" and term.spec.magnitude.text == "11% of gradient every epoch"


@pytest.mark.parametrize(
    "teacher, told",
    [
        ("dinov3-vits16", "teacher has to be a mapping such as {vit: NAME"),
        ({"vit": "dinov3-vits61"}, "distill.teachers.teacher.vit: no vision transformer 'dinov3-vits61'"),
        ({"vit": "dinov3-vits16", "config": "x.yml"}, "has config or vit, not both"),
        ({"vit": "dinov3-vits16", "weihgt": 2}, "unknown key 'weihgt'"),
        ({"pretrain_weights": "x"}, r"lacks config.*\(or vit"),
    ],
)
def test_a_teacher_that_is_none_is_refused(teacher, told, given):
    with pytest.raises(UserError, match=told):
        given(teacher=teacher)


def test_a_teacher_without_weights_is_refused(given):
    with pytest.raises(UserError, match=r"the teacher has no weights.*-o teacher.pretrain_weights=PATH"):
        build_model(given(teacher={"vit": CASES["dinov3"][0]}))


def test_a_method_that_it_lacks_the_parts_of_is_refused(given):
    with pytest.raises(UserError, match="FGD needs neck, which the teacher's ViTTeacher does not have"):
        build_model(given(slim_method="FGD"))


def test_doctor_has_nothing_against_it_and_the_report_tells_the_run(given, tmp_path, shapes, capsys):
    fit(given(overrides=["epoch=1"]), validate=True)
    files = ["-c", str(CONFIGS / "ppyoloe_tiny.yml"), "--slim_config", str(tmp_path / "slim.yml")]
    rest = ["-o", f"dataset_dir={shapes}", "TrainReader.batch_size=4"]
    rest += ["distill.terms.tokens.magnitude=11% of gradient every epoch"]  # of a new head's, which is 0 as it starts
    code, errors = call("doctor", *files, "--json", tmp_path / "found.json", *rest)
    found = json.loads((tmp_path / "found.json").read_text())
    told = {line["id"] for line in found["findings"]}
    errors = {line["id"] for line in found["findings"] if line["level"] == "error"}
    assert errors <= {"train-eval-normalisation"}, "which is of the small config that tests use"
    assert 0 < found["cost"]["teacher_seconds"] < found["cost"]["distilled"]["step_seconds"] * 2
    assert "the teacher takes" in capsys.readouterr().out
    assert "share-of-nothing" in told
    wrong = {"strides-differ", "teacher-head", "teacher-near-zero", "classes-number", "classes-unknown", "build-failed"}
    wrong.add("no-gradient")
    assert not told & wrong
    code, errors = call("report", tmp_path / "out" / "ppyoloe_tiny", "--output", tmp_path / "page")
    assert code == 0, errors
    assert list((tmp_path / "page").glob("*.html"))

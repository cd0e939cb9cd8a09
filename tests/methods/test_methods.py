"""What the methods refuse when a run is built, and what their options do."""

import re

import numpy as np
import paddle
import pytest

from ppkd.build import build_model, build_student
from ppkd.engine.model import TEACHER, DistillModel
from ppkd.methods import check_sources, plan
from ppkd.recipe.method import MethodSpec
from ppkd.recipe.recipe import load_recipe
from tests.conftest import CONFIGS, enliven, training_batch
from tests.helpers_tools import OFFLINE, call, the_error, write
from tests.helpers_training import count_calls, terms_of

# Slim files of the methods without a teacher, by name.
SLIM = {
    "FGD": "slim_method: FGD\ndistill_loss: FGDFeatureLoss\nFGDFeatureLoss: {}\n",
    "CWD": "slim_method: CWD\ndistill_loss: CWDFeatureLoss\nCWDFeatureLoss: {}\n",
    "LD": "slim_method: LD\n",
    "MGD": "slim_method: MGD\ndistill_loss: MGDFeatureLoss\nMGDFeatureLoss: {}\n",
    "Mimic": "slim_method: Mimic\n",
    "PKD": "slim_method: PKD\n",
    "PPYOLOEDistill": "slim_method: PPYOLOEDistill\ndistill_loss: DistillPPYOLOELoss\nDistillPPYOLOELoss: {}\n",
    "DistillYOLOv3Loss": "distill_loss: DistillYOLOv3Loss\nDistillYOLOv3Loss: {}\n",
}


@pytest.fixture
def train(shapes, teacher_weights, tmp_path, monkeypatch):
    """Function that runs what ``tools/train.py`` does with a wrong method; the one line of its error.

    The teacher is the family's wide one and has weights, whatever the method.
    """
    monkeypatch.chdir(tmp_path)
    for name, value in OFFLINE.items():
        monkeypatch.setenv(name, value)

    def run(method, *overrides, student="retinanet", teacher=None):
        teacher = teacher or student
        text = f"_BASE_: [{CONFIGS / teacher}_wide.yml]\nslim: Distill\n" + SLIM[method]
        slim = write(tmp_path / "slim.yml", text)
        given = [f"dataset_dir={shapes}", f"teacher.pretrain_weights={teacher_weights[teacher]}", *overrides]
        message = the_error(*call("train", "-c", CONFIGS / f"{student}_tiny.yml", "--slim_config", slim, "-o", *given))
        assert not (tmp_path / "output").exists()
        return message.removeprefix(f"{slim}: ")

    return run


# What a detector has to have.


@pytest.mark.parametrize(
    "method, student, missing, working",
    [
        ("LD", "retinanet", "head.box_dist, which the student's RetinaNet", "CWD, FGD, MGD, Mimic, PKD"),
        (
            "LD", "yolov3", "head.box_dist, which the student's YOLOv3",
            "CWD, DistillYOLOv3Loss, FGD, MGD, Mimic, PKD",
        ),
        ("LD", "mask_rcnn", "head.box_dist and head.cls, which the student's MaskRCNN", "CWD, FGD, MGD, Mimic, PKD"),
        (
            "DistillYOLOv3Loss", "retinanet", "head.objectness, which the student's RetinaNet",
            "CWD, FGD, MGD, Mimic, PKD",
        ),
        (
            "DistillYOLOv3Loss", "ppyoloe", "head.box and head.objectness, which the student's YOLOv3",
            "CWD, FGD, LD, MGD, Mimic, PKD, PPYOLOEDistill",
        ),
        ("DistillYOLOv3Loss", "yolox", "boxes on anchors, which the student's YOLOX", "CWD, FGD, MGD, Mimic, PKD"),
        (
            "PPYOLOEDistill", "gfl", "a target assignment, which the student's GFL",
            "CWD, FGD, LD, MGD, Mimic, PKD",
        ),
        (
            "PPYOLOEDistill", "retinanet", "head.box_dist, which the student's RetinaNet",
            "CWD, FGD, MGD, Mimic, PKD",
        ),
    ],
)  # fmt: skip
def test_a_detector_without_what_the_method_needs(method, student, missing, working, train):
    message = train(method, student=student)
    assert message == (
        f"{method} needs {missing} does not have; methods that work on these two detectors: {working}"
    )


def test_a_teacher_without_what_the_method_needs(train):
    message = train("LD", student="gfl", teacher="retinanet")
    assert message == (
        "LD needs head.box_dist, which the teacher's RetinaNet does not have; "
        "methods that work on these two detectors: CWD, FGD, MGD, Mimic, PKD"
    )


@pytest.mark.parametrize(
    "method, student, override",
    [
        ("CWD", "gfl", None),
        ("CWD", "retinanet", "distill.places=[head.cls]"),
        ("LD", "gfl", None),
        ("PPYOLOEDistill", "ppyoloe", None),
        ("DistillYOLOv3Loss", "yolov3", None),
    ],
)
def test_scores_of_unequal_classes_are_not_compared(method, student, override, train):
    message = train(method, *filter(None, [override, "teacher.num_classes=20"]), student=student)
    assert re.search(
        r"student's head\.cls\[0\] has (6|18) channels, the teacher's head\.cls\[0\] (20|60)\b.*num_classes.*"
        "a method on neck features does without",
        message,
    )


@pytest.mark.parametrize("method", ["FGD", "CWD"])
def test_features_may_be_compared_across_unequal_classes(method, shapes, tmp_path):
    text = f"_BASE_: [{CONFIGS}/retinanet_wide.yml]\nslim: Distill\n" + SLIM[method]
    given = [f"dataset_dir={shapes}", "teacher.num_classes=20"]
    loaded = load_recipe(str(CONFIGS / "retinanet_tiny.yml"), write(tmp_path / "slim.yml", text), given)
    student, teacher = build_student(loaded), build_student(load_recipe(
        str(CONFIGS / "retinanet_wide.yml"), overrides=[f"dataset_dir={shapes}", "num_classes=20"],
    ))  # fmt: skip
    DistillModel(student, {TEACHER: teacher}, plan(loaded.method))


def test_methods_of_one_detector_that_others_fit_too(shapes):
    """Every method passes on the detectors that it is made for, and CWD follows its places."""
    built = {f: build_student(load_recipe(str(CONFIGS / f"{f}_tiny.yml"), None, [f"dataset_dir={shapes}"]))
             for f in ("retinanet", "yolov3")}  # fmt: skip
    for name, family, params in [
        ("CWD", "retinanet", {"places": ["neck", "head.cls"]}), ("CWD", "yolov3", {"places": ["backbone"]}),
        ("DistillYOLOv3Loss", "yolov3", {}), ("FGD", "yolov3", {}),
    ]:  # fmt: skip
        method = MethodSpec(name, params, architecture="X", file="x.yml")
        check_sources(method, plan(method), built[family], built[family])


# Values


@pytest.mark.parametrize(
    "method, overrides, message",
    [
        ("PPYOLOEDistill", ["feat_distiller=fdg"],
         r"feat_distiller has to be one of fgd, cwd, pkd, mgd, mimic; found 'fdg'; nearest: fgd"),
        ("PPYOLOEDistill", ["feat_distill_place=neck_feat"],
         r"feat_distill_place has to be one of neck_feats, backbone_feats; found 'neck_feat'; nearest: neck_feats"),
        ("PPYOLOEDistill", ["assigner=techer"],
         r"assigner has to be one of teacher, student; found 'techer'; nearest: teacher"),
        ("PPYOLOEDistill", ["feat_distill_params=3"],
         r"feat_distill_params has to be a mapping of parameters, found 3"),
        ("PPYOLOEDistill", ["feat_distill_params.alfa_fgd=3"],
         r"PPYOLOEDistill with fgd has no parameter 'alfa_fgd'; nearest: alpha_fgd"),
        ("PPYOLOEDistill", ["loss_weight.logit=1"],
         r"PPYOLOEDistill has no parameter 'loss_weight\.logit'; nearest: logits; it has: loss_weight\.feat, "),
        ("PPYOLOEDistill", ["loss_weight=4"], r"loss_weight has to be a mapping of parameters, found 4"),
        ("PPYOLOEDistill", ["alpha=much"], r"alpha has to be a number, found 'much'"),
        ("PPYOLOEDistill", ["logits_distill=1"], r"logits_distill has to be true or false, found 1"),
        ("PPYOLOEDistill", ["logits_ld_params.T=true"], r"logits_ld_params\.T has to be a number, found True"),
        ("PPYOLOEDistill", ["feat_distiller=mgd", "numerics=paddledet"],
         r"distill\.numerics=paddledet is not offered for mgd: PaddleDetection's has no mask"),
        ("LD", ["loss_kd.weight=1"],
         r"LD has no parameter 'loss_kd\.weight'; nearest: loss_weight; it has: loss_kd\.T, "),
        ("LD", ["loss_ld.T=hot"], r"loss_ld\.T has to be a number, found 'hot'"),
        ("LD", ["topk=many"], r"topk has to be a number, found 'many'"),
        ("CWD", ["places=[nek]"],
         r"places has to be one of neck, backbone, head\.cls, head\.objectness; found 'nek'; nearest: neck"),
        ("CWD", ["places=neck"],
         r"places has to be a list of neck, backbone, head\.cls, head\.objectness; found 'neck'"),
        ("CWD", ["tau=cold"], r"tau has to be a number, found 'cold'"),
        ("CWD", ["taw=2"], r"CWD has no parameter 'taw'; nearest: tau"),
        ("DistillYOLOv3Loss", ["wait=2"], r"DistillYOLOv3Loss has no parameter 'wait'.*it has: weight"),
        ("DistillYOLOv3Loss", ["weight=[1]"], r"weight has to be a number, found \[1\]"),
        ("PKD", ["resize=1"],
         r"PKD has no parameter 'resize'; nearest: resize_stu, normalize; it has: loss_weight, "),
        ("PKD", ["resize_stu=1"], r"resize_stu has to be true or false, found 1"),
        ("MGD", ["alpha=1"], r"MGD has no parameter 'alpha'; nearest: alpha_mgd; it has: alpha_mgd, lambda_mgd, "),
        ("MGD", ["lambda_mgd=most"], r"lambda_mgd has to be a number, found 'most'"),
        ("MGD", ["numerics=paddledet"], r"distill\.numerics=paddledet is not offered for mgd: PaddleDetection's has"),
        ("Mimic", ["weight=2"],
         r"Mimic has no parameter 'weight'; nearest: loss_weight, final_weight; it has: loss_weight, norm"),
        ("Mimic", ["loss_weight=[1]"], r"loss_weight has to be a number, found \[1\]"),
        *((name, ["numerics=paddle"],
           r"distill\.numerics has to be one of authors, paddledet; found 'paddle'; nearest: padd") for name in SLIM),
        ("FGD", ["inherit=perhaps"],
         r"distill\.inherit has to be true, false or the name of a teacher, found 'perhaps'"),
    ],
)  # fmt: skip
def test_a_wrong_parameter_is_told_in_one_line(method, overrides, message, train):
    # Parameters are read before data and weights are: any detector will do.
    found = train(method, *(f"distill.{override}" for override in overrides))
    assert re.match(message, found), found


def test_an_unknown_method_names_those_there_are(train, monkeypatch):
    monkeypatch.setitem(SLIM, "typo", "slim_method: PPYOLOEDistil\n")
    assert re.match(
        r"slim_method: 'PPYOLOEDistil' is no distillation method of ppkd; nearest: PPYOLOEDistill.*; "
        "known: CWD, DistillYOLOv3Loss, FGD, LD, MGD, MatchingGuided, Mimic, PKD, PPYOLOEDistill; "
        "or write terms of your own: distill.terms$",
        train("typo"),
    )


# Options of PPYOLOEDistill


@pytest.mark.parametrize("distiller", ["cwd", "fgd", "pkd", "mgd", "mimic"])
@pytest.mark.parametrize("place", ["neck_feats", "backbone_feats"])
def test_every_feature_distiller_trains_between_unequal_channels(distiller, place, recipe):
    given = [f"distill.feat_distiller={distiller}", f"distill.feat_distill_place={place}"]
    loaded = recipe("ppyoloe", "ppyoloe", overrides=given)
    model = build_model(loaded)
    losses = model(training_batch(loaded))
    feats = {key: float(value) for key, value in losses.items() if key.startswith("feat.")}
    assert {key.split(".")[1] for key in feats} == {"s8", "s16", "s32"}
    assert all(np.isfinite(value) for value in feats.values()) and sum(feats.values()) > 0
    losses["loss"].backward()
    adapters = {n: p for n, p in model.terms.named_parameters() if "connect_student" in n and n.endswith("weight")}
    assert len(adapters) == 3, "each of the levels has other channels"
    assert all(p.grad is not None and np.abs(p.grad.numpy()).max() > 0 for p in adapters.values())
    part = model.student.neck if place == "neck_feats" else model.student.backbone
    assert any(p.grad is not None and np.abs(p.grad.numpy()).max() > 0 for p in part.parameters())


def test_alpha_scales_the_whole_loss_while_there_is_a_term_and_leaves_the_students_own_alone(recipe):
    def losses(*overrides):
        given = ["distill.stop_epoch=1", "distill.assigner=student", *overrides]
        loaded = recipe("ppyoloe", "ppyoloe", overrides=given)
        paddle.seed(3)
        model, batch = build_model(loaded), training_batch(loaded)
        calls, result = count_calls(model.teachers[TEACHER].backbone), []
        for model.epoch in (0, 1):
            out = model({**batch, "epoch_id": model.epoch})
            result.append(({key: float(value) for key, value in out.items()}, len(calls), bool(terms_of(out, model))))
        return result

    whole, scaled, default = (losses(*o) for o in (["distill.alpha=1"], ["distill.alpha=0.5"], []))
    assert [(calls, terms) for _, calls, terms in whole] == [(1, True), (1, False)]
    for (one, *_), (half, *_), (eighth, *_), factor in zip(whole, scaled, default, (0.5, 1.0)):
        assert half["loss"] == pytest.approx(one["loss"] * factor)
        assert eighth["loss"] == pytest.approx(one["loss"] * factor**3)
        # What is logged beside the sum is as it enters it.
        assert {k: v for k, v in half.items() if k != "loss"} == {k: v for k, v in one.items() if k != "loss"}


@pytest.mark.parametrize("given, told", [
    (["logits_distill=false", "assigner=teacher"], True), (["logits_distill=false"], False),
    (["assigner=teacher"], False),
])  # fmt: skip
def test_an_assigner_that_changes_nothing_is_told(given, told, recipe, caplog):
    build_model(recipe("ppyoloe", "ppyoloe", overrides=[f"distill.{one}" for one in given]))
    assert ("assigner: teacher changes nothing" in caplog.text) == told


@pytest.mark.parametrize("weights, factor", [((0, 0), 1.0), ((0, 1), 0.125), ((4, 0), 0.125)])
def test_alpha_is_one_if_all_weights_are_zero(weights, factor, recipe):
    given = [f"distill.loss_weight.logits={weights[0]}", f"distill.loss_weight.feat={weights[1]}"]
    assert build_model(recipe("ppyoloe", "ppyoloe", overrides=given)).alpha == factor


@pytest.mark.parametrize("off", [["logits_distill=false"], ["feat_distill=false"], ["logits_ld_distill=false"]])
def test_what_is_switched_off_is_not_logged(off, recipe):
    loaded = recipe("ppyoloe", "ppyoloe", overrides=[f"distill.{one}" for one in off])
    model = build_model(loaded)
    names = {name.split(".")[0] for name in terms_of(model(training_batch(loaded)), model)}
    kd = "logits.kd" in model(training_batch(loaded))
    assert (names, kd) == {
        "logits_distill=false": ({"feat"}, False),
        "feat_distill=false": ({"logits"}, True),
        "logits_ld_distill=false": ({"logits", "feat"}, False),
    }[off[0]]


# PKD, MGD and Mimic


@pytest.mark.parametrize(
    "name, params, loss, weight",
    [
        ("PKD", {}, {"name": "pkd", "unbiased": False}, 1.0),
        (
            "PKD", {"loss_weight": 6, "resize_stu": False},
            {"name": "pkd", "unbiased": False}, 6,
        ),
        ("MGD", {}, {"name": "mgd", "alpha": 2e-5, "lambda_": 0.65}, 1.0),
        (
            "MGD", {"alpha_mgd": 5e-7, "lambda_mgd": 0.45, "loss_weight": 2},
            {"name": "mgd", "alpha": 5e-7, "lambda_": 0.45}, 2,
        ),
        ("Mimic", {"loss_weight": 0.5}, {"name": "mimic"}, 0.5),
    ],
)  # fmt: skip
def test_a_feature_distiller_is_one_term_on_the_neck_without_inheritance(name, params, loss, weight):
    made = plan(MethodSpec(name, {"student_channels": 8, "teacher_channels": 9, **params}))
    (term,) = made.terms
    assert (term.name, term.student, term.teacher) == (name.lower(), "neck[*]", "neck[*]")
    assert (term.loss, term.weight, term.trained) == (loss, weight, True)
    assert (term.student_connector, term.teacher_connector) == ("align", "none")
    assert (made.inherit, made.alpha, made.assigner) == ((), 1.0, "student")
    assert plan(MethodSpec(name, params, options={"inherit": True})).inherit == ("neck", "head")


@pytest.mark.parametrize("name", ["PKD", "MGD", "Mimic"])
def test_normalize_standardises_what_is_compared(name):
    (term,) = plan(MethodSpec(name, {"normalize": True})).terms
    # What MGD generates is compared, not what goes into its generator.
    wanted = "align" if name == "MGD" else "align_standardise"
    assert (term.student_connector, term.teacher_connector) == (wanted, "standardise")


@pytest.mark.parametrize("name", ["PKD", "Mimic"])
def test_paddledetections_numerics_of_feature_distillers(name):
    (term,) = plan(MethodSpec(name, {"normalize": True}, options={"numerics": "paddledet"})).terms
    assert (term.student_connector, term.teacher_connector) == ("align_normalise", "normalise")
    assert (term.loss.get("unbiased"), term.trained) == (True if name == "PKD" else None, False)


@pytest.mark.parametrize("name, key", [("PKD", "loss_weight"), ("MGD", "alpha_mgd"), ("Mimic", "loss_weight")])
def test_the_weight_of_a_slim_file_multiplies_what_is_logged(name, key, recipe):
    default = {"loss_weight": 1.0, "alpha_mgd": 2e-5}[key]

    def terms(*overrides):
        paddle.seed(1)
        loaded = recipe("fcos", name, overrides=overrides)
        batch, model = training_batch(loaded), build_model(loaded)
        model.train()
        losses = model(batch)
        found = {name: float(value) for name, value in terms_of(losses, model).items()}
        own = sum(float(losses[key]) for key in ("loss_cls", "loss_box", "loss_quality"))
        assert float(losses["loss"]) == pytest.approx(own + sum(found.values()), rel=1e-5)
        return found

    once, thrice = terms(), terms(f"distill.{key}={3 * default}")
    assert set(once) == {f"{name.lower()}.s{stride}" for stride in (8, 16, 32, 64)}
    assert all(thrice[label] == pytest.approx(3 * value, rel=1e-4) and value > 0 for label, value in once.items())


def test_levels_are_limited_by_the_names_of_the_slim_file(recipe, tmp_path, shapes):
    """PaddleDetection's `distill_loss_name` has a name a level, from the first."""
    text = f"_BASE_: [{CONFIGS}/fcos_wide.yml]\nslim: Distill\nslim_method: PKD\ndistill_loss: PKDFeatureLoss\n"
    slim = write(tmp_path / "slim.yml", text + "distill_loss_name: [a, b]\nPKDFeatureLoss: {loss_weight: 6}\n")
    method = load_recipe(str(CONFIGS / "fcos_tiny.yml"), slim, [f"dataset_dir={shapes}"]).method
    (term,) = plan(method).terms
    assert (term.max_levels, term.weight) == (2, 6)


# Other pairs than those of the invariants


@pytest.mark.parametrize("places", [["neck"], ["backbone"], ["head.cls"], ["neck", "backbone", "head.cls"]])
def test_cwd_compares_the_places_that_are_asked_for(places, recipe):
    loaded = recipe("retinanet", "cwd", overrides=[f"distill.places={places}"])
    model = build_model(loaded)
    enliven(model.student)
    terms = terms_of(model(training_batch(loaded)), model)
    assert {name.split(".")[0] for name in terms} == {f"cwd_{place.split('.')[-1]}" for place in places}
    assert all(np.isfinite(float(value)) for value in terms.values())


def test_ld_teaches_across_detectors_of_equal_bins(recipe, teacher_weights):
    """A PicoDet may learn from a GFL where strides and bins agree."""
    loaded = recipe("gfl", "ld", overrides=["GFLHead.reg_max=7", "teacher.GFLHead.reg_max=7"])
    student = build_student(loaded)
    teacher = build_student(recipe("picodet", distil=False))
    model = DistillModel(student, {TEACHER: enliven(teacher)}, plan(loaded.method))
    terms = terms_of(model(training_batch(loaded)), model)
    assert set(terms) == {"ld.main", "ld.vlr", "ld.kd"}
    assert sum(float(value) for value in terms.values()) > 0


# Parts without weight.


@pytest.mark.parametrize(
    "method, params",
    [
        ("FGD", dict.fromkeys(("alpha_fgd", "beta_fgd", "gamma_fgd", "lambda_fgd"), 0)),
        ("LD", {part: {"loss_weight": 0} for part in ("loss_ld", "loss_ld_vlr", "loss_kd")}),
        ("PKD", {"loss_weight": 0}),
        ("MGD", {"alpha_mgd": 0}),
        ("Mimic", {"loss_weight": 0}),
        ("PPYOLOEDistill", {"logits_loss_weight": {"class": 0, "iou": 0, "dfl": 0}, "feat_distill": False}),
        ("PPYOLOEDistill", {"logits_distill": False, "feat_distiller": "mgd", "feat_distill_params": {"alpha_mgd": 0}}),
    ],
)
def test_a_term_whose_parts_have_no_weight_has_none(method, params):
    (term,) = plan(MethodSpec(method, params)).terms
    assert term.weight == 0

"""A teacher's detections as boxes for images without labels: which count, and what the student's loss makes of them."""

import time
from dataclasses import replace

import numpy as np
import paddle
import pytest

from ppkd.bridge.bad_images import STAND_IN
from ppkd.bridge.box_targets import BoxTargets
from ppkd.bridge.compat import yolox_sizes
from ppkd.bridge.ground_truth import keep_ground_truth
from ppkd.bridge.unlabelled import KEY
from ppkd.bridge.workspace import build_detector, create, scope
from ppkd.engine.model import DistillModel
from ppkd.engine.soft_scores import counted_by_score
from ppkd.errors import UserError
from ppkd.methods import plan
from ppkd.methods.block import plan_block
from ppkd.recipe.method import MethodSpec
from ppkd.recipe.recipe import load_recipe
from ppkd.terminal.log import logger
from tests.conftest import CONFIGS, enliven, training_batch
from tests.helpers_training import FOUR, differing, settle

BOXES = "distill.pseudo_boxes={threshold: 0.5, soft: false}"
PKD = "distill.terms={pkd: {student: 'neck[*]', student_connector: align, loss: pkd, weight: 3}}"
GROUND_TRUTH = ("gt_bbox", "gt_class", "pad_gt_mask", "is_crowd", "ppkd_boxes", "ppkd_boxes_valid", "ppkd_classes")
# In every image one large box of class 1 and one of class 2 below the threshold.
SURE, DOUBTFUL = [1, 0.9, 8, 8, 40, 48], [2, 0.3, 20, 4, 60, 40]


@pytest.fixture
def built(shapes, tmp_path):
    """Function that builds the model of some overrides, whose teacher finds what one says; and two batches."""

    def build(*overrides, family="ppyoloe", found=((SURE, DOUBTFUL),) * 4, beside=True, batches=True):
        slim = tmp_path / "slim.yml"
        slim.write_text(f"_BASE_: [{CONFIGS}/{family}_wide.yml]\nslim: Distill\npretrain_weights: none.pdparams\n")
        given = [FOUR, f"dataset_dir={shapes}", *overrides]
        loaded = load_recipe(str(CONFIGS / f"{family}_tiny.yml"), str(slim), given)
        paddle.seed(3)
        student, teacher = (
            enliven(build_detector(config)) for config in (loaded.student, loaded.teachers["teacher"].config)
        )
        model = DistillModel(student, {"teacher": teacher}, plan(loaded.method), beside=beside)
        settle(student)
        with scope(loaded.student):
            reader = create("TrainReader")
            keep_ground_truth(reader._batch_transforms, reader._sample_transforms)
        model.boxes.begin(BoxTargets(reader), None)
        if found is not None:
            teacher.get_pred = lambda: as_ppdet_has_it(found)
        return model, training_batch(loaded), training_batch(loaded, 1)

    return build


def as_ppdet_has_it(found):
    rows = [row for image in found for row in image]
    return {
        "bbox": paddle.to_tensor(np.array(rows, "float32").reshape(-1, 6)),
        "bbox_num": paddle.to_tensor(np.array([len(image) for image in found], "int32")),
    }


def step(model, batch, other=None, **more):
    given = dict(batch)
    if other is not None:
        given[KEY] = {**other, **more}
    return {name: value.numpy() for name, value in model(given).items()}


def labelled(batch, boxes, classes):
    """A batch in which each image has these boxes."""
    count, many = batch["image"].shape[0], len(boxes)
    each = {"gt_bbox": np.array(boxes, "float32"), "gt_class": np.array(classes, "int32").reshape(-1, 1),
            "pad_gt_mask": np.ones((many, 1), "float32"), "is_crowd": np.zeros((many, 1), "int32")}  # fmt: skip
    return {**batch, **{key: paddle.to_tensor(np.stack([value] * count)) for key, value in each.items()}}


def test_the_students_own_loss_takes_the_boxes_above_the_threshold(built):
    model, batch, other = built(BOXES)
    alone = float(model.student(dict(batch))["loss"])
    other["epoch_id"] = 0  # as of the batch that it stands beside
    expected = float(model.student(labelled(other, [SURE[2:]], [1]))["loss"])
    bare = {key: value for key, value in other.items() if key not in GROUND_TRUTH}
    losses = step(model, batch, bare)
    assert float(losses["pseudo_boxes"]) == pytest.approx(expected, rel=1e-5)
    assert float(losses["loss"]) == pytest.approx(alone + expected, rel=1e-5)
    assert model.boxes.counted.tolist() == [4, 4, 4]
    model.boxes.set_least([0.2] * len(model.boxes.least))
    model.boxes.spec = replace(model.boxes.spec, weight=0.5)
    both = float(model.student(labelled(other, [SURE[2:], DOUBTFUL[2:]], [1, 2]))["loss"])
    assert float(step(model, batch, other)["pseudo_boxes"]) == pytest.approx(both / 2, rel=1e-5)
    assert model.boxes.counted.tolist() == [8, 8, 12]


def test_the_time_of_its_detecting_is_the_teachers(built):
    model, batch, other = built(BOXES)
    find = model.teachers["teacher"].get_pred
    model.teachers["teacher"].get_pred = lambda: (time.sleep(0.2), find())[1]
    model.timed = True
    step(model, batch, other)
    assert model.teacher_seconds >= 0.2


def test_the_teacher_looks_at_the_weak_view_and_the_student_at_the_strong_one(built):
    model, batch, other = built(BOXES, PKD, found=None)
    seen = {"teacher": [], "student": []}
    for name, backbone in (("teacher", model.teachers["teacher"].backbone), ("student", model.student.backbone)):
        backbone.register_forward_pre_hook(lambda _, given, to=seen[name]: to.append(float(given[0]["image"].sum())))
    strong = other["image"] * 0.5
    weak, strong_sum, labelled_sum = (float(x.sum()) for x in (other["image"], strong, batch["image"]))
    step(model, batch, other, ppkd_strong=strong)
    assert seen["student"] == [labelled_sum, strong_sum]
    assert seen["teacher"] == [labelled_sum, weak, strong_sum], "terms, boxes, terms"


def test_what_a_detector_cannot_mean_is_no_box(built):
    beyond, flat, nothing = [1, 0.9, 50, 50, 900, 900], [1, 0.9, 5, 5, 5.5, 40], [-1, 0.99, 0, 0, 9, 9]
    model, batch, other = built(BOXES, found=((beyond, flat, nothing), (), (DOUBTFUL,), ()))
    height, width = other["image"].shape[2:]
    seen = []
    model.boxes.targets, targets = lambda *given: seen.append(given[1]) or targets(*given), model.boxes.targets
    losses = step(model, batch, other)
    assert [len(scores) for _, _, scores in seen[0]] == [1, 0, 0, 0] and np.isfinite(losses["pseudo_boxes"])
    assert seen[0][0][0].tolist() == [[50, 50, width, height]] and model.boxes.counted.tolist() == [4, 1, 1]


def test_a_batch_without_any_box_is_background_and_a_stand_in_counts_nothing(built):
    model, batch, other = built(BOXES, found=((), (), (), ()))
    losses = step(model, batch, other)
    assert losses["pseudo_boxes"] > 0
    assert float(losses["loss"]) == pytest.approx(float(model.student(dict(batch))["loss"]) + losses["pseudo_boxes"])
    assert step(model, batch, other, **{STAND_IN: paddle.zeros([1])})["pseudo_boxes"] == 0


def test_without_images_beside_or_outside_of_its_epochs_the_step_is_the_plain_one(built):
    model, batch, other = built("distill.pseudo_boxes={threshold: 0.5, start_epoch: 1, stop_epoch: 2}")
    alone = {name: value.numpy() for name, value in model.student(dict(batch)).items()}
    assert differing(alone, step(model, batch, other)) == [] and not model.takes("unlabelled")
    assert model.enter(1) is False and model.takes("unlabelled")
    assert differing(alone, step(model, batch)) == [] and step(model, batch, other)["pseudo_boxes"] > 0
    assert model.enter(2) is True and model.teachers == {} and not model.takes("unlabelled")
    assert differing(alone, step(model, batch, other)) == []


@pytest.mark.parametrize("weight, turned", [(1, [1, 3]), (0, [])])
def test_a_hand_over_comes_where_they_begin_and_end_as_with_a_term(weight, turned, built):
    given = f"threshold: 0.5, start_epoch: 1, stop_epoch: 3, weight: {weight}"
    model, *_ = built(TERM.format("all"), f"distill.pseudo_boxes={{{given}}}")
    assert [epoch for epoch in range(5) if model.turned(epoch) == ["pseudo_boxes"]] == turned


def test_a_schedule_scales_it(built):
    model, batch, other = built("distill.pseudo_boxes={threshold: 0.5, warmup_epochs: 1, decay: linear}", "epoch=4")
    values = []
    for epoch in range(4):
        model.enter(epoch)
        values.append(float(step(model, batch, other).get("pseudo_boxes", 0)))
    assert np.array(values) / values[1] == pytest.approx([0.5, 1, 0.5, 0], rel=1e-4)


TERM = "distill.terms={{mine: {{student: 'neck[*]', student_connector: align, loss: fgd, on: {}}}}}"


def test_a_loss_that_needs_boxes_takes_the_teachers(built):
    model, batch, other = built(TERM.format("unlabelled"), "distill.pseudo_boxes={threshold: 0.5, weight: 0}")
    found = step(model, batch, other)
    named = [name for name in found if name.startswith("mine")]
    again = step(model, batch, labelled(other, [SURE[2:]], [1]))
    assert named and "pseudo_boxes" not in found and differing(found, again) == []
    model.boxes.set_least([None] * len(model.boxes.least))
    without = step(model, batch, other)
    assert [name for name in named if abs(found[name] - without[name]) > 1e-6]
    # And in epochs without boxes it leaves these images alone.
    model, batch, other = built(TERM.format("all"), "distill.pseudo_boxes={threshold: 0.5, start_epoch: 1}")
    assert differing(step(model, batch, other), step(model, batch)) == []
    model.enter(1)
    assert differing(step(model, batch, other), step(model, batch))


def test_boxes_and_terms_are_of_the_same_images(built):
    model, batch, other = built(BOXES, PKD)
    alone = step(model, batch, other)
    assert {"pseudo_boxes", "pkd.s8", "pkd.s16", "pkd.s32"} <= set(alone)
    added = sum(float(alone[name]) for name in alone if name.startswith(("pkd", "pseudo_boxes")))
    assert float(alone["loss"]) == pytest.approx(float(model.student(dict(batch))["loss"]) + added, rel=1e-5)
    model.enter(0)
    assert float(model.part(model({**batch, KEY: dict(other)}))) == pytest.approx(
        sum(float(alone[name]) for name in alone if name.startswith("pkd")), rel=1e-5
    )


def test_a_teacher_detects_in_its_own_pixels_and_training_leaves_it_as_it_was(built):
    model, batch, other = built(BOXES, found=None)
    before = {name: tensor.numpy().copy() for name, tensor in model.teachers["teacher"].state_dict().items()}
    model.boxes.set_least([0.0] * len(model.boxes.least))
    model.preparations["teacher"] = twice_as_large
    model.teachers["teacher"].get_pred = lambda: as_ppdet_has_it(((SURE,),) * 4)
    seen = []
    model.boxes.targets, targets = lambda *given: seen.append(given[1]) or targets(*given), model.boxes.targets
    model({**batch, KEY: dict(other)})["loss"].backward()
    assert seen[0][0][0].tolist() == [[4, 4, 20, 24]]
    after = {name: tensor.numpy() for name, tensor in model.teachers["teacher"].state_dict().items()}
    assert differing(before, after) == []


def twice_as_large(batch):
    return {**batch, "image": paddle.nn.functional.interpolate(batch["image"], scale_factor=2)}


@pytest.mark.parametrize(
    "family", ["ppyoloe", "gfl", "fcos", "retinanet", "yolov3", "picodet_v2", "faster_rcnn", "yolox"]
)
def test_the_targets_are_those_of_the_families_own_readers(family, built):
    """The same boxes, as a data set's and as a teacher's, come to the same loss."""
    model, batch, _ = built(BOXES, family=family, found=None)
    kept = [batch[key].numpy() for key in ("ppkd_boxes", "ppkd_boxes_valid", "ppkd_classes")]
    found = [[[k, 0.9, *box] for box, k in zip(boxes[v > 0], classes[v > 0])] for boxes, v, classes in zip(*kept)]
    model.teachers["teacher"].get_pred = lambda: as_ppdet_has_it(found)
    bare = {key: batch[key] for key in ("image", "im_shape", "scale_factor", "im_id", "ppkd_frame", "epoch_id")}
    yolox_sizes.GENERATOR.seed(0)
    paddle.seed(0)
    own = float(model.student(dict(batch))["loss"])
    boxed, *_ = model.boxes.boxed(bare, dict(model.asked)["teacher"], None, model._student)
    yolox_sizes.GENERATOR.seed(0)
    paddle.seed(0)
    assert float(model.student(boxed)["loss"]) == pytest.approx(own, rel=1e-4)
    nothing = [[] for _ in found]
    model.teachers["teacher"].get_pred = lambda: as_ppdet_has_it(nothing)
    boxed, *_ = model.boxes.boxed(bare, dict(model.asked)["teacher"], None, model._student)
    assert np.isfinite(float(model.student(boxed)["loss"]))


@pytest.mark.parametrize(
    ("given", "more", "told"),
    [
        ("distill.pseudo_boxes=true", {"beside": False}, "no images without labels; unlabelled: FOLDER"),
        ("distill.pseudo_boxes={from: wide}", {}, "from: there is no teacher 'wide'"),
        ("distill.pseudo_boxes={treshold: 0.5}", {}, "no key 'treshold'; nearest: threshold"),
        ("distill.pseudo_boxes={threshold: 50}", {}, "threshold has to be a score from 0 to 1"),
        ("distill.pseudo_boxes={threshold: {'0': high}}", {}, "threshold.0 has to be a score"),
        ("distill.pseudo_boxes={threshold: {car: 0.5}}", {}, "no class 'car'"),
        ("distill.pseudo_boxes={threshold: {'1': 0.5}}", {}, "no score for 0, 2"),
        ("distill.pseudo_boxes=true", {}, "no score for 0, 1"),
        ("distill.pseudo_boxes={weight: -1}", {}, "weight has to be a number from 0"),
        ("distill.pseudo_boxes={stop: auto}", {}, "no key 'stop'"),
        ("distill.pseudo_boxes=0.5", {}, "has to be true, or a mapping"),
        ("distill.terms={pseudo_boxes: {student: 'neck[*]', loss: pkd}}", {}, "stands beside terms"),
        ("teacher.num_classes=5", {"overrides": [BOXES]}, "5 classes and the student 6"),
    ],
)
def test_what_cannot_be_is_refused_by_name(given, more, told, built):
    overrides = more.pop("overrides", [])
    with pytest.raises(UserError, match=told):
        built(given, *overrides, **more)


def test_the_block_that_explain_prints_gives_it_again():
    given = {"from": "wide", "threshold": {"car": 0.4}, "weight": 2, "soft": False, "decay": "cosine"}
    for keys in (given, True, {"threshold": 1, "stop_epoch": 2}):
        first = plan(MethodSpec("terms", options={"pseudo_boxes": keys, "stop_epoch": 3, "stop": "auto"}, epochs=5))
        block = plan_block(first)
        again = plan(MethodSpec("terms", options={"pseudo_boxes": block["pseudo_boxes"]}, epochs=5))
        assert again.pseudo_boxes == first.pseudo_boxes and not again.pseudo_boxes.schedule.auto
    assert plan(MethodSpec("terms", options={"pseudo_boxes": False, "terms": PLAIN})).pseudo_boxes is None


PLAIN = {"pkd": {"student": "neck[*]", "loss": "pkd"}}
SOFT = "distill.pseudo_boxes={threshold: 0.5}"


def test_a_box_counts_by_its_score_where_an_assigner_gives_scores(built):
    model, batch, other = built(SOFT)

    def loss(*boxes, soft=True):
        model.boxes.spec = replace(model.boxes.spec, soft=soft)
        found = tuple([k, score, *SURE[2:]] for k, score in boxes)
        model.teachers["teacher"].get_pred = lambda: as_ppdet_has_it((found,) * 4)
        return float(step(model, batch, other)["pseudo_boxes"])

    hard = loss((1, 0.6), soft=False)
    assert loss((1, 1.0)) == pytest.approx(hard, rel=1e-6)
    assert loss((1, 0.6)) != pytest.approx(hard, rel=1e-2)
    assert loss((1, 0.9), (2, 0.6)) != pytest.approx(loss((1, 0.6), (2, 0.9)), rel=1e-3)


def test_scores_are_matched_to_boxes_by_corners_and_class():
    class ATSSAssigner(paddle.nn.Layer):
        def forward(self, made):
            return made

    first, second = [[0.0, 0, 4, 4], [0, 0, 4, 4], [2, 2, 9, 9]], [[1.0, 1, 3, 3], [0, 0, 0, 0], [0, 0, 0, 0]]
    boxes = paddle.to_tensor([first, second])
    classes, scores = paddle.to_tensor([[0, 1, 0], [2, 0, 0]]), paddle.to_tensor([[0.5, 0.7, 0.9], [0.6, 0, 0]])
    labels = paddle.to_tensor([[1, 0, 0, 3], [2, 3, 3, 3]], "int32")
    picked = paddle.stack([boxes[0][[1, 0, 2, 0]], boxes[1][[0, 0, 0, 0]]])
    worth = paddle.ones([2, 4, 3])
    model = paddle.nn.LayerDict({"assigner": ATSSAssigner()})
    with counted_by_score([model, model], boxes, classes, scores):
        made = model["assigner"]((labels, picked, worth, "more"))
    assert made[3] == "more" and made[0] is labels
    assert made[2][:, :, 0].numpy().tolist() == [pytest.approx([0.7, 0.5, 0.9, 1]), pytest.approx([0.6, 1, 1, 1])]
    assert bool((model["assigner"]((labels, picked, worth))[2] == 1).all())


@pytest.mark.parametrize("family", ["gfl", "yolov3", "picodet_v2"])
def test_elsewhere_the_objectness_or_the_whole_loss_does(family, built):
    losses = []
    model, batch, other = built(SOFT, family=family)
    for score, soft in ((1.0, True), (0.6, True), (0.6, False)):
        model.boxes.spec = replace(model.boxes.spec, soft=soft)
        found = (([1, score, *SURE[2:]],),) * 4
        model.teachers["teacher"].get_pred = lambda found=found: as_ppdet_has_it(found)
        losses.append(float(step(model, batch, other)["pseudo_boxes"]))
    assert losses[2] == pytest.approx(losses[0], rel=1e-5)
    share = losses[1] / losses[0]
    assert share == pytest.approx(0.6, rel=1e-5) if family == "gfl" else share != pytest.approx(1, rel=1e-3)


def test_a_teacher_that_never_reaches_a_threshold_is_told_once(built, caplog, monkeypatch):
    monkeypatch.setattr(logger(), "propagate", True)
    model, *_ = built(BOXES)
    warned = lambda: [r for r in caplog.records if "reaches the threshold" in r.getMessage()]  # noqa: E731
    counts = []
    with caplog.at_level("WARNING"):
        for seen, boxes in ((63, 0), (64, 1), (64, 0), (90, 0)):
            paddle.assign(paddle.to_tensor([seen, boxes, boxes], "int64"), model.boxes.counted)
            model.boxes.counts()
            counts.append(len(warned()))
    assert counts[:2] == [0, 0] and counts[2] == counts[3] > 0

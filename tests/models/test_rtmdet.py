"""RTMDet beyond the reference's numbers: transforms, schedule, undecayed parameters, and what differs from it."""

import copy
import math

import numpy as np
import paddle
import pytest

from ppkd.bridge.workspace import create, import_ppdet, scope
from ppkd.build import build_student
from ppkd.recipe.recipe import load_recipe
from ppkd.training.stages import Stages
from tests.conftest import ROOT, enliven, training_batch
from tests.helpers_training import fit, settle

import_ppdet()
from ppkd.models.rtmdet import DynamicSoftLabelAssigner  # noqa: E402
from ppkd.models.rtmdet.transforms import (  # noqa: E402
    FILL,
    BatchMixup,
    MosaicCanvas,
    RandomRatioResize,
    RandomWindow,
)

# --- transforms: a box is where its colour is ------------------------------------------------------


def sample(height=40, width=60, boxes=((8, 6, 20, 30), (30, 10, 56, 34)), first=1):
    """A dark image with a bright box for each of `boxes`, whose brightness is 20 times its class."""
    image = np.zeros((height, width, 3), "uint8")
    for i, (x1, y1, x2, y2) in enumerate(boxes):
        image[y1:y2, x1:x2] = 20 * (first + i)
    boxes = np.array(boxes, "float32").reshape(-1, 4)
    classes = np.arange(first, first + len(boxes), dtype="int32").reshape(-1, 1)
    return {"image": image, "gt_bbox": boxes, "gt_class": classes, "is_crowd": np.zeros_like(classes), "im_id": first}


def check(one):
    """That each box lies around the pixels of its class's brightness, within a pixel or two of resizing."""
    image = one["image"].astype("float32").mean(axis=2)
    height, width = image.shape
    assert len(one["gt_bbox"]) == len(one["gt_class"]) == len(one["is_crowd"])
    for (x1, y1, x2, y2), (kind,) in zip(one["gt_bbox"], one["gt_class"]):
        assert 0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height
        if min(x2 - x1, y2 - y1) < 6:
            continue
        inner = image[int(y1) + 2 : int(y2) - 2, int(x1) + 2 : int(x2) - 2]
        assert np.abs(inner - 20 * kind).max(initial=0) <= 2


def five():
    return [sample(first=1), sample(50, 30, ((2, 3, 28, 40),), 3), sample(20, 80, ((5, 5, 60, 18),), 4),
            sample(64, 64, ((10, 10, 50, 50),), 5), sample(first=7)]  # fmt: skip


def test_a_mosaic_has_the_boxes_of_four_images_where_they_are():
    seen = set()
    for _ in range(30):
        made = MosaicCanvas((64, 64))(five())
        assert made["image"].shape == (128, 128, 3)
        assert set(made["gt_class"][:, 0]) <= {1, 2, 3, 4, 5}, "the fifth is ppdet's for a mixup of its own"
        assert (made["image"] == FILL).any()
        seen |= set(made["gt_class"][:, 0])
        check(made)
    assert seen == {1, 2, 3, 4, 5}


def test_a_single_sample_is_left_alone():
    one = sample()
    assert MosaicCanvas((64, 64))(one) is one


def test_an_image_is_scaled_to_fit_a_random_frame():
    factors = set()
    for _ in range(20):
        made = RandomRatioResize((120, 120), (0.5, 2.0))(sample())
        height, width = made["image"].shape[:2]
        assert 60 - 1 <= width <= 240 + 1 and abs(height - width * 40 / 60) <= 1
        assert (made["h"], made["w"]) == (height, width) and made["im_shape"].tolist() == [height, width]
        factors.add(width)
        check(made)
    assert len(factors) > 10


def test_a_window_keeps_what_is_left_of_the_boxes_in_it():
    counts = set()
    for _ in range(40):
        made = RandomWindow((24, 24))(sample())
        assert made["image"].shape == (24, 24, 3)
        counts.add(len(made["gt_bbox"]))
        check(made)
    assert counts == {1, 2}, "a window without a box is drawn again"
    small = RandomWindow((100, 100))(sample())
    assert small["image"].shape == (40, 60, 3) and len(small["gt_bbox"]) == 2


def test_windows_of_an_image_without_boxes_end():
    made = RandomWindow((24, 24))(sample(boxes=()))
    assert made["image"].shape == (24, 24, 3) and made["gt_bbox"].shape == (0, 4)


def test_a_mixture_is_of_two_images_and_keeps_all_boxes():
    images = [sample(40, 60, ((4, 4, 20, 20),), kind) for kind in (1, 2, 3)]
    shares = []
    for _ in range(20):
        mixed = BatchMixup(alpha=32.0)([dict(one) for one in images])
        for one, before in zip(mixed, images):
            own, other = one["gt_class"][:, 0]
            assert own == before["gt_class"][0, 0] != other and len(one["gt_bbox"]) == 2
            share = (one["image"][10, 10, 0] / 20 - other) / (own - other)
            shares.append(share)
            np.testing.assert_allclose(one["image"][:2], 0)
    assert 0.2 < min(shares) < 0.45 < 0.55 < max(shares) < 0.8, "of a beta distribution around a half"
    alone = BatchMixup()(images[:1])
    assert alone == images[:1]
    assert all(one is other for one, other in zip(BatchMixup(prob=0.0)(images), images))


def published(size, **overrides):
    given = [f"{key}={value}" for key, value in overrides.items()]
    return load_recipe(str(ROOT / "configs" / "rtmdet" / f"rtmdet_{size}_300e_coco.yml"), overrides=given)


def at_64(value):
    """A reader's transforms with 640 pixels made 64."""
    if isinstance(value, dict):
        return {key: at_64(item) for key, item in value.items()}
    if isinstance(value, list):
        return [at_64(item) for item in value]
    return {640: 64, 1280: 128}.get(value, value) if type(value) is int else value


@pytest.mark.parametrize("size, ratio, mixed", [("tiny", 0.5, 0.5), ("s", 0.5, 1.0), ("m", 0.1, 1.0), ("x", 0.1, 1.0)])
def test_the_published_stages_make_batches_and_have_the_published_numbers(size, ratio, mixed, recipe, shapes):
    config, small = published(size).student, recipe("rtmdet", distil=False).student
    assert config["stages"][0]["epoch"] == 280 == config["TrainReader"]["mosaic_epoch"]
    readers = [config["TrainReader"], config["stages"][0]["TrainReader"]]
    steps = [step for reader in readers for step in reader["sample_transforms"]]
    ratios = [step["RandomRatioResize"] for step in steps if "RandomRatioResize" in step]
    assert ratios == [{"size": [1280, 1280], "ratio": [ratio, 2.0]}, {"size": [640, 640], "ratio": [ratio, 2.0]}]
    assert config["TrainReader"]["batch_transforms"][0] == {"BatchMixup": {"alpha": 32.0, "prob": mixed}}
    config = {**small, "TrainReader": at_64(config["TrainReader"]), "stages": at_64(config["stages"]), "worker_num": 0}
    config["TrainReader"]["batch_size"] = 4
    stages = Stages(config, seed=0)
    for epoch in (0, 280):
        with scope(config):
            batches = [next(stages.loader(epoch).epoch(epoch)) for _ in range(2)]
        assert batches[0]["image"].shape == [4, 3, 64, 64]
        assert all(np.array_equal(*(batch[key].numpy() for batch in batches)) for key in ("image", "gt_bbox"))
        boxes, mask = batches[0]["gt_bbox"].numpy(), batches[0]["pad_gt_mask"].numpy()[..., 0] > 0
        assert mask.any() and boxes.min() >= 0 and boxes.max() <= 64
        assert (boxes[mask][:, 2:] > boxes[mask][:, :2]).all()


# --- schedule and optimizer ------------------------------------------------------------------------


def test_the_rate_is_flat_until_half_way_then_a_cosine_down_to_a_twentieth():
    config = published("s").student
    with scope(config):
        rates = create("LearningRate", 100)  # 100 steps an epoch
    found = []
    for _ in range(30000):
        found.append(rates.get_lr())
        rates.step()
    assert found[0] == pytest.approx(0.004 * 1e-5) and found[500] == pytest.approx(0.002, rel=1e-4)
    assert {round(x, 9) for x in found[1000:15001]} == {0.004}
    for step in (15001, 20000, 29999):
        part = (step - 15000) / 15000
        assert found[step] == pytest.approx(0.0002 + 0.0038 * (1 + math.cos(math.pi * part)) / 2, rel=1e-6)
    assert rates.get_lr() == pytest.approx(0.0002, rel=1e-3)
    with pytest.raises(ValueError, match="flat_epochs has to be from 0 to less than max_epochs 3, found 3"):
        from ppkd.models.rtmdet.schedule import FlatCosineDecay

        FlatCosineDecay(3, 3)


@pytest.fixture
def adam(recipe):
    """Overrides that give the tiny RTMDet the published optimizer at a rate of 0.01, without momentum's keys."""
    loaded = recipe("rtmdet", distil=False, overrides=["TrainReader.batch_size=4"])
    loaded.student["OptimizerBuilder"] = published("s").student["OptimizerBuilder"]
    return loaded


def test_norms_and_biases_are_not_decayed_and_everything_else_is(adam):
    from ppkd.training.trainer import Trainer

    with Trainer.open(adam, max_steps=1) as trainer:
        groups = {id(p): group["weight_decay"] for group in trainer.optimizer._param_groups for p in group["params"]}
        norms = {
            id(p) for layer in trainer.student.sublayers() if isinstance(layer, paddle.nn.BatchNorm2D)
            for p in layer.parameters()
        }  # fmt: skip
        for name, p in trainer.student.named_parameters():
            if p.trainable:
                undecayed = id(p) in norms or name.endswith(".bias")
                assert groups[id(p)] == (0.0 if undecayed else 0.05), name


def test_a_run_with_groups_of_parameters_resumes_to_the_bit(adam, recipe, tmp_path):
    def run(name, **options):
        loaded = copy.deepcopy(adam)
        loaded.student["save_dir"] = str(tmp_path / name)
        return fit(loaded, **options), loaded.output_dir

    whole, _ = run("whole", max_steps=4)
    _, folder = run("first", max_steps=2)
    second, _ = run("second", max_steps=4, resume=f"{folder}/model_final")
    states = [trainer.student.state_dict() for trainer in (whole, second)]
    assert all(np.array_equal(states[0][name].numpy(), states[1][name].numpy()) for name in states[0])


# --- the assigner, where it does not do as the reference does ---------------------------------------


def test_an_image_learns_the_same_whatever_is_beside_it_in_its_batch():
    """Golden case 9: in the reference a row that fills up the batch can win a point that two boxes want."""
    case = np.load(ROOT / "tests" / "golden" / "rtmdet" / "assigner_case9.npz")
    names = ("in_pred_scores", "in_pred_bboxes", "in_gt_labels", "in_gt_bboxes", "in_pad_flag")
    logits, boxes, labels, truth, mask = (paddle.to_tensor(case[name]) for name in names)
    points, strides = paddle.to_tensor(case["in_priors"]).split(2, axis=1)

    def assign(upto, competes):
        made = DynamicSoftLabelAssigner(padding_competes=competes)
        given = logits[:1], boxes[:1], points, strides[:, :1], labels[:1, :upto], truth[:1, :upto], mask[:1, :upto]
        return [x.numpy() for x in made(*given)]

    own = int(mask[0].sum())
    alone, filled, theirs = assign(own, False), assign(truth.shape[1], False), assign(truth.shape[1], True)
    assert own < truth.shape[1]
    assert all(np.array_equal(a, b) for a, b in zip(alone, filled))
    assert not all(np.array_equal(a, b) for a, b in zip(alone, theirs))


def test_images_are_assigned_alike_one_by_one_and_together(monkeypatch):
    case = np.load(ROOT / "tests" / "golden" / "rtmdet" / "assigner_case6.npz")
    names = ("in_pred_scores", "in_pred_bboxes", "in_gt_labels", "in_gt_bboxes", "in_pad_flag")
    logits, boxes, *truth = (paddle.to_tensor(case[name]) for name in names)
    points, strides = paddle.to_tensor(case["in_priors"]).split(2, axis=1)
    made, groups = DynamicSoftLabelAssigner(), []
    assign = made._assign
    monkeypatch.setattr(made, "_assign", lambda *args: groups.append(len(args[2])) or assign(*args))
    together = made(logits, boxes, points, strides[:, :1], *truth)
    monkeypatch.setattr("ppkd.models.rtmdet.assigner._PAIRS", 1)
    apart = made(logits, boxes, points, strides[:, :1], *truth)
    assert groups == [len(logits), *[1] * len(logits)] and len(logits) > 1
    assert all(np.array_equal(a.numpy(), b.numpy()) for a, b in zip(together, apart))


def test_a_batch_of_two_copies_of_an_image_has_the_loss_of_one(recipe):
    loaded = recipe("rtmdet", distil=False)
    model, batch = enliven(build_student(loaded)), training_batch(loaded)
    for layer in model.head.rtm_reg:
        layer.bias.set_value(paddle.full([4], 1.5))  # boxes of some size, or no IoU is above 0
    model.train()
    settle(model)
    one = {key: batch[key][:1] for key in ("image", "gt_class", "gt_bbox", "pad_gt_mask")}
    two = {key: paddle.concat([value, value]) for key, value in one.items()}
    quality = []
    model.head.assigner.register_forward_post_hook(lambda *args: quality.append(float(args[-1][2].sum())))
    single, double = ({k: float(v) for k, v in model(dict(x)).items()} for x in (one, two))
    assert quality[1] == pytest.approx(2 * quality[0], rel=1e-5) and quality[0] > 0
    # The losses are sums divided by the sum of the IoUs, of the whole batch and at least 1: so in the reference.
    divided = max(2 * quality[0], 1) / max(quality[0], 1)
    for name, value in single.items():
        assert double[name] * divided == pytest.approx(2 * value, rel=1e-4), name

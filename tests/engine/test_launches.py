"""How many kernels a step asks a GPU for, beyond those of the student and its teacher; counted on the CPU."""

import paddle
import pytest

from benchmarks.engine.launches import Parts
from benchmarks.launches import counted, launches
from ppkd.build import build_model
from ppkd.losses import FGDLoss, LDLoss, PPYOLOELoss
from tests.conftest import training_batch

# Parts of the step of PP-YOLOE's pair, with features by FGD on three levels and all of its logits. What was wanted of
# the terms is 450.
MOST = {"terms": 820, "wrapper": 40, "average": 60, "skip": 20}


@pytest.fixture(scope="module")
def parts(shapes, teacher_weights, tmp_path_factory):
    from ppkd.recipe.recipe import load_recipe
    from tests.conftest import CONFIGS

    given = [f"dataset_dir={shapes}", f"save_dir={tmp_path_factory.mktemp('launches')}"]
    given.append(f"teacher.pretrain_weights={teacher_weights['ppyoloe']}")
    loaded = load_recipe(str(CONFIGS / "ppyoloe_tiny.yml"), str(CONFIGS / "ppyoloe_ppyoloe.yml"), given)
    return Parts(build_model(loaded), training_batch(loaded)).count()


@pytest.mark.parametrize("part", MOST)
def test_a_part_of_a_step_launches_no_more_than(part, parts):
    assert 0 < parts[part] <= MOST[part]


def test_parts_that_others_make_are_counted_too(parts):
    assert min(parts[part] for part in ("plain", "teacher", "optimizer")) > 100


def maps(channels, sizes, trained):
    made = [paddle.randn([2, channels, *size]) for size in sizes]
    for x in made:
        x.stop_gradient = not trained
    return made


BOXES, VALID = [[[4.0, 6.0, 30.0, 25.0], [0.0, 0.0, 9.0, 9.0]]] * 2, [[1.0, 1.0], [1.0, 0.0]]
SIZES = [(16, 16), (8, 8), (4, 4), (2, 2), (1, 1)]


def fgd():
    loss, boxes, valid = FGDLoss(16), paddle.to_tensor(BOXES), paddle.to_tensor(VALID)
    frame, sides = paddle.full([2, 2], 64.0), [maps(16, [(8, 8)], trained) for trained in (True, False)]
    (student,), (teacher,) = sides
    return lambda: loss(student, teacher, boxes, valid, frame, (64, 64))


def heads():
    return [tuple(maps(channels, SIZES, trained) for channels in (3, 68)) for trained in (True, False)]


def ld():
    loss, boxes, valid, sides = LDLoss(), paddle.to_tensor(BOXES), paddle.to_tensor(VALID), heads()
    return lambda: loss(*sides, boxes, valid, (4, 8, 16, 32, 64), 0.5)


def ppyoloe():
    from ppkd.detectors.context import Assignment

    loss, cells, sides = PPYOLOELoss(kd_weight=20000.0), sum(h * w for h, w in SIZES), heads()
    labels, scores = paddle.randint(0, 4, [2, cells]), paddle.rand([2, cells, 3])
    return lambda: loss(*sides, Assignment(labels, None, scores, None, 3), 0)


# A level of FGD, of which 60 were wanted; five levels of LD, found anchors included; five of PP-YOLOE's head.
@pytest.mark.parametrize("make, most", [(fgd, 204), (ld, 250), (ppyoloe, 190)])
def test_a_loss_launches_no_more_than(make, most):
    compute = make()
    assert 0 < launches(lambda: paddle.add_n([*compute().values()]).backward()) <= most


def test_every_kernel_is_counted_forward_and_backward():
    x = paddle.ones([3])
    x.stop_gradient = False
    with counted() as found:
        (x * 2.0).exp().sum().backward()
    assert dict(found) == {"scale": 2, "exp": 1, "sum": 1, "full": 1, "sum_grad": 1, "exp_grad": 1}


def test_what_is_made_once_is_not_counted():
    made = []
    assert launches(lambda: made.append(1) if made else made.append(paddle.ones([1]).exp())) == 0

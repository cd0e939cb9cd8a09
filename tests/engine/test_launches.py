"""How many kernels a step asks a GPU for, beyond those of the student and its teacher; counted on the CPU."""

import paddle
import pytest

from benchmarks.engine.launches import Parts
from benchmarks.losses.launches import count
from benchmarks.study.launches import counted, launches
from ppkd.build import build_model
from tests.conftest import training_batch

# Parts of the step of PP-YOLOE's pair, with features by FGD on three levels and all of its logits.
MOST = {"terms": 450, "wrapper": 40, "average": 60, "skip": 20}


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


# A level of FGD; five of one width, of which at most 60 a level were wanted; five levels of LD, found anchors included;
# three of PP-YOLOE's head.
@pytest.mark.parametrize("name, most", [("fgd", 130), ("fgd_levels", 207), ("ld", 230), ("ppyoloe", 138)])
def test_a_loss_launches_no_more_than(name, most):
    assert 0 < count(name) <= most


def test_every_kernel_is_counted_forward_and_backward():
    x = paddle.ones([3])
    x.stop_gradient = False
    with counted() as found:
        (x * 2.0).exp().sum().backward()
    assert dict(found) == {"scale": 2, "exp": 1, "sum": 1, "full": 1, "sum_grad": 1, "exp_grad": 1}


def test_what_is_made_once_is_not_counted():
    made = []
    assert launches(lambda: made.append(1) if made else made.append(paddle.ones([1]).exp())) == 0

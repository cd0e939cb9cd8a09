"""compat/zero_dim.py is needed: with plain Paddle in one of its modules the detector that uses it still fails."""

import importlib
from types import SimpleNamespace

import paddle
import pytest

from ppkd.bridge.compat import zero_dim
from ppkd.bridge.workspace import scope
from ppkd.build import build_student
from ppkd.training.evaluation import evaluate
from tests.conftest import training_batch
from tests.helpers_hosts import cured, defect

MODULES = {
    "heads.cascade_head": ("cascade_rcnn", "train"),
    "heads.tood_head": ("tood", "train"),
    "layers": ("solov2", "evaluate"),
    "post_process": ("faster_rcnn", "evaluate"),
    "proposal_generator.rpn_head": ("faster_rcnn", "train"),
    "proposal_generator.target": ("faster_rcnn", "train"),
    "transformers.deformable_transformer": ("deformable_detr", "train"),
    "transformers.dino_transformer": ("dino", "evaluate"),
}
AXIS = r"axis is expected to be in range of \[0, 0\)"
FAILS = AXIS + "|same dimension|input's rank|shape of input"


def use(loaded, how):
    """Train one step, or evaluate."""
    student = build_student(loaded)
    if how == "train":
        student.train()
        return float(student(training_batch(loaded))["loss"])
    with scope(loaded.student) as table:
        return evaluate(student, table)


@pytest.mark.parametrize("name", MODULES)
def test_without_the_patched_concat_numbers_do_not_join(name, recipe, monkeypatch):
    family, how = MODULES[name]
    loaded = recipe(family, distil=False)
    assert use(loaded, how)
    module = importlib.import_module(f"ppdet.modeling.{name}")
    if "concat" not in vars(module.paddle) or module.paddle is paddle:
        return  # mended: it trained or evaluated just now
    monkeypatch.delitem(vars(module.paddle), "concat")
    with pytest.raises(ValueError, match=FAILS):
        use(loaded, how)


def test_without_the_patched_cast_solov2_takes_element_0_of_a_number(recipe, monkeypatch):
    loaded = recipe("solov2", distil=False)
    module = importlib.import_module("ppdet.modeling.heads.solov2_head")
    if cured("index_numbers"):
        monkeypatch.delitem(vars(module.paddle), "cast")
    with defect("index_numbers", IndexError):
        use(loaded, "evaluate")


def test_solov2_counts_its_masks_in_a_list():
    from ppdet.modeling.heads.solov2_head import SOLOv2Head

    head = SOLOv2Head(3, 8, 8, 1, num_grids=[4, 4], segm_strides=[8, 8], kernel_out_channels=8, norm_type="bn")
    head.mask_nms = lambda predictions, masks, labels, scores, sum_masks: (predictions, scores, labels)
    outputs = [paddle.zeros([1, 4, 4, 3])] * 2, [paddle.zeros([1, 8, 4, 4])] * 2, paddle.rand([1, 8, 16, 16])
    outputs += paddle.to_tensor([[64.0, 64.0]]), paddle.to_tensor([[1.0, 1.0]])
    count = head.get_prediction(*outputs)[3]
    if cured("count_solov2_masks_in_a_list"):
        assert count.shape == [1] and SOLOv2Head.ppdets_get_prediction(head, *outputs)[3].shape == []
    else:
        assert len(count) == 1


def test_what_ttfnet_finds_is_counted_in_a_tensor():
    from ppdet.modeling.layers import TTFBox

    maps = paddle.rand([1, 2, 4, 4]), paddle.rand([1, 4, 4, 4]), paddle.to_tensor([[16.0, 16.0]]), paddle.ones([1, 2])
    box = TTFBox(max_per_img=3)
    found, count = box._decode(*maps)
    assert count.tolist() == [found.shape[0]]
    if cured("count_detections_in_tensors"):
        assert isinstance(box.ppdets_decode(*maps)[1], list)


def test_shapes_in_the_place_of_counts_are_no_longer_there():
    """As the develop branch has them, on any host: the cure looks for them in the source and puts tensors there."""
    found = paddle.zeros([5, 6])
    boxes = SimpleNamespace(ppdets_decode=lambda *_: (found, found.shape[0:1]))
    masks = SimpleNamespace(ppdets_get_prediction=lambda *_: ("masks", found, "scores", found.shape[0:1]))
    assert zero_dim._counted_boxes(boxes)[1].tolist() == [5]
    assert zero_dim._counted_masks(masks)[3].tolist() == [5]


def test_only_these_modules_see_the_patch():
    if not cured("concat_numbers"):
        pytest.skip("mended")
    from ppdet.modeling.heads import bbox_head

    # Of the wheel all of them; of clones before 2.7 some are mended.
    joining = [importlib.import_module(name) for name in zero_dim._JOINED]
    joining = next(module for module in joining if module.paddle.concat is zero_dim._concat)
    number = paddle.to_tensor(3)
    assert joining.paddle.concat([number, paddle.to_tensor([4])]).tolist() == [3, 4]
    assert joining.paddle.zeros is paddle.zeros and bbox_head.paddle is paddle
    with pytest.raises(ValueError, match=AXIS):
        paddle.concat([number, number])

"""Each patch of compat/empty_batch.py is needed where it is applied: ppdet's own way does what its docstring says."""

import importlib
import sys
from inspect import unwrap

import numpy as np
import paddle
import pytest

from ppkd.bridge.compat import empty_batch
from ppkd.bridge.compat.looks import numbers_returned
from ppkd.bridge.workspace import import_ppdet
from tests.conftest import training_batch
from tests.helpers_hosts import cured, defect
from tests.helpers_training import first_images_with_boxes


@pytest.fixture(scope="module", autouse=True)
def _patched():
    import_ppdet()


def empty_assignment(name):
    """Arguments of an assigner's call for two images without a box: 4 anchors, 3 classes."""
    points, none = paddle.rand([4, 2]), paddle.zeros([2, 0, 4])
    labels, mask = paddle.zeros([2, 0, 1], dtype="int32"), paddle.zeros([2, 0, 1])
    if name == "ATSSAssigner":
        return [paddle.rand([4, 4]), [4], labels, none, mask, 3]
    return [paddle.rand([2, 4, 3]), paddle.rand([2, 4, 4]), points, [4], labels, none, mask, 3]


@pytest.mark.parametrize("name", ["ATSSAssigner", "TaskAlignedAssigner"])
def test_an_empty_batch_is_assigned_as_many_values_as_another(name):
    from ppdet.modeling import assigners

    cls = getattr(assigners, name)
    assigner, arguments = cls(num_classes=3) if name == "ATSSAssigner" else cls(), empty_assignment(name)
    without_boxes, *_, with_boxes = numbers_returned(cls.forward)
    assert len(unwrap(cls.forward)(assigner, *arguments)) == without_boxes
    assert (without_boxes != with_boxes) == cured("return_all_of_an_empty_assignment")
    labels, boxes, scores, *mask = assigner(*arguments)
    assert len(mask) == with_boxes - 3, "what heads take"
    assert (labels == 3).all() and boxes.shape == [2, 4, 4] and float(scores.sum()) == 0
    assert all(float(each.sum()) == 0 for each in mask)


@pytest.mark.parametrize("without_boxes, with_boxes", [(3, 4), (4, 3), (3, 3), (None, 3)])
def test_heads_get_as_many_values_as_their_assigner_gives_with_boxes(without_boxes, with_boxes, monkeypatch, tmp_path):
    """The wheel, release/2.6, later clones, and one without an early exit.

    Of release/2.6 neither PP-YOLOE nor PicoDet nor TOOD took a step.
    """
    from ppdet.modeling import assigners

    names = ["labels", "boxes", "scores", "mask"]
    code = "import paddle\n\n\nclass Assigner:\n    def forward(self, boxes):\n"
    code += "        labels, scores, mask = paddle.zeros([2, 5]), 0, 0\n"
    if without_boxes:
        code += f"        if not boxes:\n            return {', '.join(names[:without_boxes])}\n"
        code += "        if boxes == 7:\n            return labels, boxes, scores, mask, 0\n"
    code += f"        return {', '.join(names[:with_boxes])}\n"
    (tmp_path / "assigner_of_test.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "assigner_of_test", raising=False)
    kind = importlib.import_module("assigner_of_test").Assigner
    for name in ("ATSSAssigner", "TaskAlignedAssigner"):
        monkeypatch.setattr(assigners, name, kind)
    state = empty_batch.return_all_of_an_empty_assignment()
    assert (state is None) == (without_boxes not in (None, with_boxes))
    assert empty_batch.return_all_of_an_empty_assignment() == state
    assert [len(kind().forward(boxes)) for boxes in (0, 1)] == [with_boxes, with_boxes]


def test_no_boxes_are_encoded_as_no_deltas():
    from ppdet.modeling.heads import retina_head

    none, one = paddle.zeros([0, 4]), paddle.to_tensor([[0.0, 0.0, 4.0, 4.0]])
    with defect("encode_no_boxes", ValueError):
        unwrap(retina_head.bbox2delta)(none, none)
    assert retina_head.bbox2delta(none, none).shape == [0, 4]
    assert retina_head.bbox2delta(one, one).abs().sum() == 0


def test_a_batch_of_background_trains_retinanet(recipe, shapes, tmp_path):
    from ppdet.modeling.heads.retina_head import RetinaHead

    from ppkd.build import build_student

    loaded = recipe("retinanet", distil=False, overrides=first_images_with_boxes(shapes, tmp_path / "few", 0))
    batch, student = training_batch(loaded), build_student(loaded)
    outputs = [student.head.retina_cls, student.head.retina_reg]
    features = [paddle.rand([2, 16, size, size]) for size in (8, 4)]
    outputs = [[head(x) for x in features] for head in outputs]
    patched = RetinaHead.get_loss(student.head, outputs, batch)
    with defect("learn_from_background_alone", ValueError):
        unwrap(RetinaHead.get_loss)(student.head, outputs, batch)
    # What Paddle 3 computes is what the patch stands for.
    own = empty_batch._or_background(None)(student.head, outputs, batch)
    assert float(patched["loss"]) == pytest.approx(float(own["loss"]), rel=1e-5)
    assert float(patched["loss"]) > 0 == float(patched["loss_reg"])


def no_boxes(family, recipe, shapes, folder):
    """A recipe whose training images have no box."""
    return recipe(family, distil=False, overrides=first_images_with_boxes(shapes, folder / "few", 0))


def test_an_image_without_a_box_is_background_to_fcos(recipe, shapes, tmp_path):
    from ppdet.data.transform.batch_operators import Gt2FCOSTarget
    from ppdet.modeling.losses import FCOSLoss

    from ppkd.build import build_student

    loaded = no_boxes("fcos", recipe, shapes, tmp_path)
    sample = {"image": np.zeros([3, 64, 64]), "gt_bbox": np.zeros([0, 4]), "gt_class": np.zeros([0, 1], "int32")}
    with defect("make_fcos_targets_of_no_boxes", ValueError):
        unwrap(Gt2FCOSTarget.__call__)(Gt2FCOSTarget([16, 32, 64], 1.5, [8, 16, 32, 64]), [dict(sample)])
    batch, student = training_batch(loaded), build_student(loaded)
    student.train()
    losses = student(dict(batch))
    assert float(losses["loss"]) == float(losses["loss_cls"]) > 0
    losses["loss"].backward()
    assert all(x.weight.grad is not None for x in (student.fcos_head.fcos_head_reg, student.fcos_head.fcos_head_cls))
    maps = [[paddle.rand([1, channels, 2, 2])] for channels in (3, 4, 1)]
    targets = [[paddle.zeros([1, 2, 2, 1], dtype="int32")], [paddle.ones([1, 2, 2, 4])], [paddle.zeros([1, 2, 2, 1])]]
    own = float(unwrap(FCOSLoss.forward)(FCOSLoss(), *maps, *targets)["loss_cls"])
    assert np.isfinite(own) != cured("learn_fcos_background_alone")


def test_a_positive_location_keeps_fcos_loss_what_it_was():
    from ppdet.modeling.losses import FCOSLoss

    maps = [[paddle.rand([1, channels, 2, 2])] for channels in (3, 4, 1)]
    labels = paddle.to_tensor([[[[1], [0]], [[0], [2]]]], dtype="int32")
    targets = [[labels], [paddle.ones([1, 2, 2, 4])], [paddle.ones([1, 2, 2, 1])]]
    patched, own = FCOSLoss()(*maps, *targets), unwrap(FCOSLoss.forward)(FCOSLoss(), *maps, *targets)
    assert {k: float(v) for k, v in patched.items()} == {k: float(v) for k, v in own.items()}


def test_images_without_a_mask_train_solov2(recipe, shapes, tmp_path):
    from ppdet.data.transform.batch_operators import PadBatch
    from ppdet.modeling.losses import SOLOv2Loss

    from ppkd.build import build_student

    sample = {"image": np.zeros([3, 40, 64], "float32"), "gt_segm": np.zeros([0], "uint8")}
    with defect("pad_no_masks", ValueError):
        unwrap(PadBatch.__call__)(PadBatch(32), [dict(sample)])
    (padded,) = PadBatch(32)([dict(sample)])
    assert padded["gt_segm"].shape == (0, 64, 64)
    loaded = no_boxes("solov2", recipe, shapes, tmp_path)
    batch, student = training_batch(loaded), build_student(loaded)
    student.train()
    losses = student(batch)
    assert float(losses["loss_ins"]) == 0 < float(losses["loss_cate"])
    none = [[None], [paddle.zeros([1, 4, 4])], paddle.rand([9, 3]), paddle.zeros([9], dtype="int64"), paddle.zeros([1])]
    with defect("learn_solov2_background_alone", ValueError):
        unwrap(SOLOv2Loss.__call__)(SOLOv2Loss(), *none)


def test_a_mask_that_vanishes_when_made_smaller_is_no_nan_to_solov2():
    from ppdet.modeling.losses import SOLOv2Loss

    classes, labels, count = paddle.rand([9, 3]), paddle.zeros([9], dtype="int64"), paddle.ones([1])
    vanished = [[paddle.rand([1, 4, 4])], [paddle.zeros([1, 4, 4], dtype="uint8")], classes, labels, count]
    own = float(unwrap(SOLOv2Loss.__call__)(SOLOv2Loss(), *vanished)[0])
    assert np.isnan(own) == cured("learn_solov2_background_alone")
    assert float(SOLOv2Loss()(*vanished)[0]) == 0
    mask = [[paddle.rand([1, 4, 4])], [paddle.ones([1, 4, 4], dtype="uint8")], classes, labels, count]
    own = unwrap(SOLOv2Loss.__call__)(SOLOv2Loss(), *mask)
    assert [float(x) for x in SOLOv2Loss()(*mask)] == [float(x) for x in own]


def test_a_batch_of_background_trains_picodet(recipe, shapes, tmp_path):
    from ppdet.modeling.heads.pico_head import PicoHeadV2

    from ppkd.build import build_student

    loaded = no_boxes("picodet_v2", recipe, shapes, tmp_path)
    batch, student = training_batch(loaded), build_student(loaded)
    student.train()
    losses = student(dict(batch))
    assert float(losses["loss"]) == float(losses["loss_vfl"]) > 0
    losses["loss"].backward()
    assert student.head.head_reg0.weight.grad is not None
    outputs = student.head.forward_train(student.neck(student.backbone(batch)))
    own = unwrap(PicoHeadV2.get_loss)(student.head, outputs, batch)
    assert np.isfinite(float(own["loss_vfl"])) != cured("learn_picodet_background_alone")


def _of_masks(count):
    image = np.zeros([3, 8, 8], "float32")
    boxes = {"gt_bbox": np.ones([count, 4], "float32"), "gt_class": np.zeros([count, 1], "int32")}
    return {"image": image, "gt_segm": np.ones([count, 8, 8] if count else [0], "uint8")} | boxes


@pytest.mark.parametrize("name", ["PadBatch", "PadMaskBatch"])
def test_an_image_without_a_mask_is_padded_beside_another(name):
    """Of Mask-RT-DETR's reader neither an image beside others nor a batch was."""
    from ppdet.data.transform import batch_operators

    kind = getattr(batch_operators, name)
    with defect("pad_no_masks", ValueError, "could not broadcast"):
        unwrap(kind.__call__)(kind(), [_of_masks(0), _of_masks(2)])
    padded = kind()([_of_masks(0), _of_masks(2)])
    assert [sample["gt_segm"].shape for sample in padded] == [(0, 8, 8), (2, 8, 8)]


class _PadGT:
    """As that of clones, which pads masks as well."""

    def __call__(self, samples, context=None):
        most = max(len(sample["gt_bbox"]) for sample in samples)
        for sample in samples:
            number = len(sample["gt_bbox"])
            sample["pad_gt_mask"] = (np.arange(most) < number).astype("float32")[:, None]
            masks = np.zeros([most, *sample["gt_segm"].shape[-2:]], "uint8")
            if number:
                masks[:number] = sample["gt_segm"]
            sample["gt_segm"] = masks
            for key in ("gt_bbox", "gt_class"):
                sample[key] = np.concatenate([sample[key], np.zeros([most - number, *sample[key].shape[1:]])])
        return samples


def test_where_no_image_has_a_box_each_gets_one_that_does_not_count(monkeypatch):
    """PP-YOLOE-seg, of clones, ended with such a batch; beside others an image's masks had no size to be stacked."""
    from ppdet.data.transform import batch_operators
    from ppdet.modeling import heads

    kind = type("PadGT", (), {"__call__": _PadGT.__call__})
    monkeypatch.setattr(batch_operators, "PadGT", kind)
    monkeypatch.setattr(heads, "PPYOLOEInsHead", object, raising=False)
    # As of its assigner, which leaves one value out early; that of clones before it has not the defect.
    monkeypatch.setattr(empty_batch, "numbers_returned", lambda function: [3, 4])
    assert empty_batch.pad_no_masks() is None and empty_batch.pad_a_box_where_there_is_none() is None
    for counts, boxes in (((0, 0), 1), ((0, 2), 2)):
        samples = kind()([_of_masks(count) for count in counts])
        assert [sample["gt_segm"].shape for sample in samples] == [(boxes, 8, 8)] * 2
        assert [sample["gt_bbox"].shape for sample in samples] == [(boxes, 4)] * 2
        assert [int(sample["pad_gt_mask"].sum()) for sample in samples] == list(counts)


@pytest.mark.parametrize("family", ["ppyoloe_seg", "mask_rtdetr"])
def test_detectors_of_masks_that_clones_have_take_a_step_without_any_box(family, recipe, shapes, tmp_path):
    from ppdet.modeling import heads

    from ppkd.build import build_student

    if not hasattr(heads, "PPYOLOEInsHead" if family == "ppyoloe_seg" else "MaskDINOHead"):
        pytest.skip("not in this ppdet")
    loaded = recipe(family, distil=False, overrides=first_images_with_boxes(shapes, tmp_path / "few", 0))
    batch, student = training_batch(loaded), build_student(loaded)
    student.train()
    loss = student(dict(batch))["loss"]
    loss.backward()
    assert np.isfinite(float(loss))

"""``head.ltrb``: every detector's boxes as distances to their edges, against ppdet's own decoding."""

import pickle

import paddle
import pytest

from ppkd.build import build_student
from ppkd.detectors import detector_for
from ppkd.detectors.decoding import boxes_on_anchors
from ppkd.detectors.recorders import Recorder
from tests.conftest import enliven

# Case -> tiny config and overrides. Numbers that are 0 or 1 by default are set to others.
_YOLO_BOX = "name: YOLOBox, conf_thresh: 0.0, downsample_ratio: 32, clip_bbox: false"
_YOLO = [f"BBoxPostProcess.decode={{{_YOLO_BOX}}}"]
_WEIGHTED = ["RetinaHead.weights=[10.0, 5.0, 2.0, 3.0]", "RetinaHead.anchor_generator.offset=0.5"]
CASES = {
    "gfl": ("gfl", []),
    "gfl middle": ("gfl", ["GFLHead.cell_offset=0.5"]),
    "picodet": ("picodet", ["eval_size=null"]),
    "picodet apart": ("picodet", ["eval_size=null", "PicoHead.conv_feat.share_cls_reg=false"]),
    "picodet v2": ("picodet_v2", ["eval_size=null", "PicoHeadV2.cell_offset=0.25"]),
    "ppyoloe": ("ppyoloe", ["eval_size=null"]),
    "ppyoloe range": ("ppyoloe", ["eval_size=null", "PPYOLOEHead.reg_range=[-2, 10]"]),
    "fcos": ("fcos", []),
    "fcos times strides": ("fcos", ["FCOSHead.multiply_strides_reg_targets=true"]),
    "fcos pixels": ("fcos", ["FCOSHead.norm_reg_targets=false", "FCOSHead.num_shift=0.25"]),
    "retinanet": ("retinanet", []),
    "retinanet weighted": ("retinanet", [*_WEIGHTED, "RetinaHead.anchor_generator.scales_per_octave=2"]),
    "tood unaligned": ("tood", ["TOODHead.use_align_head=false"]),
    "yolox": ("yolox", []),
    "rtmdet": ("rtmdet", []),
    "rtmdet exponential": ("rtmdet", ["RTMDetHead.exp_on_reg=true"]),
    "yolov3": ("yolov3", _YOLO),
    "ppyolo": (
        "yolov3",
        [
            f"BBoxPostProcess.decode={{{_YOLO_BOX}, scale_x_y: 1.05}}", "YOLOv3Loss.scale_x_y=1.05",
            "YOLOv3Head.iou_aware=true", "YOLOv3Loss.iou_aware_loss={name: IouAwareLoss}",
        ],
    ),
}  # fmt: skip
_TWO_SIZES = "[[8, 24], [32, 40], [64, 80], [128, 90], [256, 70]]"
RCNNS = {
    "faster_rcnn": ("faster_rcnn", []),
    "cascade_rcnn middle": ("cascade_rcnn", ["RPNHead.anchor_generator.offset=0.5"]),
    "mask_rcnn sizes": ("mask_rcnn", [f"RPNHead.anchor_generator.anchor_sizes={_TWO_SIZES}"]),
}
SIZE = (64, 96)


@pytest.fixture
def detector(recipe):
    """Function from a case to the adapter around its lively tiny detector, in eval mode."""

    def build(case):
        family, overrides = {**CASES, **RCNNS}.get(case, (case, []))
        adapter = detector_for(enliven(build_student(recipe(family, distil=False, overrides=overrides))))
        adapter.model.eval()
        return adapter

    return build


def images():
    return {
        "image": paddle.rand([2, 3, *SIZE]),
        "im_shape": paddle.to_tensor([SIZE, SIZE], dtype="float32"),
        "scale_factor": paddle.ones([2, 2]),
    }


def record(adapter, batch, *sources):
    """Source -> list of its levels' tensors, and the levels of ``head.ltrb``."""
    levels = {source: adapter.levels(source) for source in ("head.ltrb", *sources)}
    paths = [level.tap.path for group in levels.values() for level in group]
    with Recorder(adapter.model, paths) as recorder:
        adapter.run(dict(batch), {adapter.head_name})
    return {s: [recorder.take(x.tap) for x in group] for s, group in levels.items()}, levels["head.ltrb"]


def as_boxes(adapter, ltrb, level):
    """(N, A, H, W, 4) corners in pixels, as the docstring of the source says to make them."""
    batch, channels, height, width = ltrb.shape
    left, top, right, bottom = ltrb.reshape([batch, channels // 4, 4, height, width]).unbind(axis=2)
    x, y = (paddle.arange(n, dtype="float32") + adapter.cell_offset for n in (width, height))
    x, y = x.reshape([1, 1, 1, -1]), y.reshape([1, 1, -1, 1])
    return paddle.stack([x - left, y - top, x + right, y + bottom], axis=-1) * level.stride


class Stop(Exception):
    """Carries what non-maximum suppression was given."""


def decoded(adapter, batch, monkeypatch):
    """(N, all places, 4): the boxes that ppdet's detector gives to its non-maximum suppression."""
    holder = getattr(adapter.model, "post_process", None)
    holder = adapter.head if hasattr(adapter.head, "nms") else holder

    def stop(boxes, *rest):
        raise Stop(boxes)

    monkeypatch.setattr(holder, "nms", stop)
    with pytest.raises(Stop) as stopped, paddle.no_grad():
        adapter.model(dict(batch))
    return stopped.value.args[0]


def close(ours, theirs):
    assert ours.shape == theirs.shape
    return bool(((ours - theirs).abs() <= 1e-4 * theirs.abs().clip(min=1.0)).all())


@pytest.mark.parametrize("case", CASES)
def test_the_edges_are_those_that_ppdet_decodes(case, detector, monkeypatch):
    adapter, batch = detector(case), images()
    tensors, levels = record(adapter, batch)
    boxes = [as_boxes(adapter, x, level) for x, level in zip(tensors["head.ltrb"], levels)]
    # YOLOv3's places go anchor by anchor, those of all others place by place.
    order = [0, 1, 2, 3, 4] if "yolo_output" in levels[0].tap.path else [0, 2, 3, 1, 4]
    ours = paddle.concat([x.transpose(order).flatten(1, 3) for x in boxes], axis=1)
    if case.startswith("tood"):
        ours = ours.clip(min=0).minimum(paddle.to_tensor([SIZE[1], SIZE[0]] * 2, dtype="float32"))
    theirs = decoded(adapter, batch, monkeypatch)
    assert close(ours, theirs)
    assert float((theirs - theirs.mean(axis=1, keepdim=True)).abs().max()) > 1, "all boxes are alike"


@pytest.mark.parametrize("case", RCNNS)
def test_the_edges_of_proposals_are_those_that_paddles_operator_decodes(case, detector):
    from ppdet.modeling.proposal_generator.proposal_generator import ProposalGenerator

    adapter, batch = detector(case), images()
    everything = ProposalGenerator(pre_nms_top_n=10000, post_nms_top_n=10000, nms_thresh=1.0)
    tensors, levels = record(adapter, batch, "head.box")
    anchors = adapter.head.anchor_generator(tensors["head.box"])
    for ltrb, deltas, anchor, level in zip(tensors["head.ltrb"], tensors["head.box"], anchors, levels):
        ours = as_boxes(adapter, ltrb, level).clip(min=0).minimum(paddle.to_tensor([96.0, 64.0, 96.0, 64.0]))
        # Each proposal's score is its place, by which it is found again among what the operator sorts.
        places = paddle.arange(ours[0].size // 4, dtype="float32")
        scores = places.reshape([1, *ours.shape[1:4]])
        rois, found, *_ = everything(scores, deltas[:1], anchor, batch["im_shape"][:1])
        # Proposals without an extent inside of the image are dropped.
        assert len(rois) > len(places) * 0.8
        assert close(ours[0].reshape([-1, 4])[found.flatten().astype("int64")], rois)


def test_deltas_are_weighted_and_log_sizes_limited_as_ppdet_does():
    from ppdet.modeling.bbox_utils import delta2bbox

    deltas, sizes, weights = 20 * paddle.randn([1, 8, 1, 1]), ((2.0, 3.0), (5.0, 1.0)), (10.0, 5.0, 2.0, 3.0)
    anchors = paddle.to_tensor([[-w / 2, -h / 2, w / 2, h / 2] for w, h in sizes])
    theirs = delta2bbox(deltas.reshape([2, 4]), anchors, weights).squeeze(1)
    ours = boxes_on_anchors(deltas, sizes, weights).reshape([2, 4]) * paddle.to_tensor([-1.0, -1.0, 1.0, 1.0])
    assert float(theirs.abs().max()) > 100, "no size that had to be limited"
    assert close(ours, theirs)


@pytest.mark.parametrize("case", [*CASES, *RCNNS])
def test_it_can_be_pickled_and_differentiated_and_has_all_levels(case, detector):
    adapter = detector(case)
    tensors, levels = record(adapter, images(), "neck")
    assert [level.source for level in levels] == [f"head.ltrb[{i}]" for i in range(len(tensors["neck"]))]
    assert [x.shape[2:] for x in tensors["head.ltrb"]] == [x.shape[2:] for x in tensors["neck"]]
    assert [level.channels % 4 for level in levels] == [0] * len(levels)
    for level in levels:
        assert pickle.loads(pickle.dumps(level)).tap.path == level.tap.path
    sum((x**2).sum() for x in tensors["head.ltrb"]).backward()
    gradients = [p.grad for p in adapter.head.parameters() if p.grad is not None]
    assert sum(float(g.abs().sum()) for g in gradients) > 0
    assert all(bool(paddle.isfinite(g).all()) for g in gradients)


@pytest.mark.parametrize("case", ["gfl", "fcos pixels", "retinanet", "yolox", "ppyolo", "rtmdet"])
def test_it_is_computed_in_float32(case, detector):
    (level, *_) = detector(case).levels("head.ltrb")
    channels = {"gfl": 36, "retinanet": 12, "ppyolo": 3 * (6 + 1)}.get(case, 4)
    x = 11 + paddle.rand([1, channels, 2, 3])
    half = level.tap.derive(x.astype("bfloat16"))
    assert half.dtype == paddle.float32
    assert half.shape[2:] == [2, 3]
    whole = level.tap.derive(x.astype("bfloat16").astype("float32"))
    assert float((half - whole).abs().max()) == 0


@pytest.mark.parametrize("case", ["tood", "solov2"])
def test_a_head_that_cannot_tell_does_not_offer_it(case, detector):
    assert not detector(case).offers("head.ltrb")


CLASSES = {
    "gfl": 1, "picodet": 1, "picodet apart": 1, "picodet v2": 1, "ppyoloe": 1, "fcos": 1, "tood": 1, "yolox": 1,
    "rtmdet": 1, "solov2": 1, "retinanet": 3, "retinanet weighted": 6, "yolov3": 3, "ppyolo": 3,
}  # fmt: skip


@pytest.mark.parametrize("case", CLASSES)
def test_class_logits_have_the_heads_number_of_classes_for_each_anchor(case, detector):
    adapter = detector(case)
    assert adapter.num_classes == 6
    assert {x.channels for x in adapter.levels("head.cls")} == {6 * CLASSES[case]}


def test_softmax_classes_count_the_background(recipe):
    loaded = recipe("gfl", distil=False, overrides=["GFLHead.loss_class.use_sigmoid=false"])
    adapter = detector_for(build_student(loaded))
    assert adapter.num_classes == adapter.levels("head.cls[0]")[0].channels == 7


def test_without_class_logits_there_are_no_classes(detector):
    assert detector("faster_rcnn").num_classes is None

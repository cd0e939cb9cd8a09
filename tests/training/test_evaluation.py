"""What an evaluation reports, by what the detector finds."""

import json
import pathlib
import sys

import paddle
import pytest

from ppkd import commands
from ppkd.bridge.workspace import scope
from ppkd.build import build_student
from ppkd.cli import eval_parser
from ppkd.errors import UserError
from ppkd.files.yaml_io import Tagged
from ppkd.recipe import load_recipe
from ppkd.training.evaluation import check_reader, evaluate, summary
from ppkd.training.inference import infer
from ppkd.training.trainer import Trainer
from tests.conftest import CONFIGS
from tests.helpers_training import fail


@pytest.mark.parametrize("what", ["evaluate", "infer"])
def test_ppdet_makes_no_average_and_no_lower_weights_of_its_own(what, recipe, monkeypatch, tmp_path, shapes):
    """Its trainer, made for every evaluation, would copy the whole student on the device, and decorate it for good."""
    loaded = recipe("ppyoloe", distil=False, overrides=["use_ema=true", "amp=true", "amp_level=O2"])
    model = build_student(loaded)
    import ppdet.engine.trainer as ppdet

    monkeypatch.setattr(ppdet, "ModelEMA", fail)
    monkeypatch.setattr(paddle.amp, "decorate", fail)
    with scope(loaded.student) as table:
        if what == "evaluate":
            assert list(evaluate(model, table)) == STATS
        else:
            images = sorted(str(path) for path in (pathlib.Path(shapes) / "val").iterdir())[:1]
            assert not infer(model, table, images, 0.5, str(tmp_path / "drawn"))


def test_classwise_leaves_no_curves_in_the_current_folder(recipe, monkeypatch, tmp_path):
    """As the configs of others have it, and as training evaluates; VOC's metric: tests/bridge/test_voc.py."""
    loaded = recipe("fcos", distil=False, overrides=["classwise=true"])
    monkeypatch.chdir(tmp_path)
    with scope(loaded.student) as table:
        evaluate(build_student(loaded), table)
    assert list(tmp_path.iterdir()) == []


STATS = ["AP", "AP50", "AP75", "APs", "APm", "APl"]
MASKS = [f"mask_{name}" for name in STATS]


@pytest.mark.parametrize(
    "family, expected", [("fcos", STATS), ("faster_rcnn", STATS), ("mask_rcnn", STATS + MASKS), ("solov2", MASKS)]
)
@pytest.mark.parametrize("detects", [True, False], ids=["detections", "none"])
def test_figures_are_of_boxes_masks_or_both_with_the_main_one_first(family, expected, detects, recipe):
    """The first figure chooses the best weights: a detector of masks alone must not be judged by boxes."""
    of_head = {"fcos": "FCOSHead.nms", "solov2": "SOLOv2Head"}.get(family, "BBoxPostProcess.nms")
    loaded = recipe(family, distil=False, overrides=[] if detects else [f"{of_head}.score_threshold=2.0"])
    with scope(loaded.student) as table:
        results = evaluate(build_student(loaded), table)
    assert list(results) == expected
    assert summary(results).startswith(expected[0] + " 0.")
    assert all(-1 <= value <= 1 for value in results.values())


@pytest.mark.parametrize("family", ["mask_rcnn", "solov2"])
def test_masks_of_several_images_a_batch_are_refused(family, recipe):
    loaded = recipe(family, distil=False, overrides=["EvalReader.batch_size=4"])
    message = "EvalReader.batch_size is 4, but ppdet evaluates masks of one image a batch only"
    with pytest.raises(UserError, match=message):
        check_reader(loaded.student)
    with pytest.raises(UserError, match=message), Trainer.open(loaded, validate=True):
        pass
    check_reader(recipe("faster_rcnn", distil=False, overrides=["EvalReader.batch_size=4"]).student)


@pytest.mark.parametrize("tag, file, metric, right", [
    ("COCODataSet", "a.json", "VOC", "COCO"), ("VOCDataSet", "a.txt", "COCO", "VOC"),
    ("COCODataSet", "a.json", "COCO", None), ("VOCDataSet", "a.txt", "VOC", None),
    ("COCODataSet", "a.json", "RBOX", None), ("COCODataSet", "a.json", "RBOX", "COCO"),
])  # fmt: skip
@pytest.mark.parametrize("by_tag", [True, False])
def test_a_metric_of_another_format_than_the_validation_set_is_refused(tag, file, metric, right, by_tag, monkeypatch):
    monkeypatch.setitem(sys.modules, "ext_op", sys)  # by which turned boxes are compared; any module will do
    fields = {"anno_path": file, "data_fields": ["image"] + ["gt_poly"] * (metric == "RBOX" and right is None)}
    section = Tagged(tag, fields) if by_tag else {"name": tag, **fields}
    given = {"metric": metric, "EvalDataset": section}
    if right is None:
        return check_reader(given)
    with pytest.raises(UserError, match=rf"metric: {metric} .* EvalDataset.*set -o metric={right}"):
        check_reader(given)


@pytest.mark.parametrize("left_out", [[2], [1, 2], [0]])
def test_classes_that_the_validation_set_does_not_list_are_not_evaluated(left_out, recipe, shapes, tmp_path):
    """ppdet failed on the first thing that was found of such a class, in some later epoch of a run."""
    data = json.loads(pathlib.Path(shapes, "annotations", "instances_val.json").read_text())
    gone = {data["categories"][place]["id"] for place in left_out}
    data["categories"] = [each for each in data["categories"] if each["id"] not in gone]
    data["annotations"] = [each for each in data["annotations"] if each["category_id"] not in gone]
    path = tmp_path / "fewer.json"
    path.write_text(json.dumps(data))
    loaded = recipe("fcos", distil=False, overrides=["FCOSHead.nms.score_threshold=0.0"])
    loaded.student["EvalDataset"]["anno_path"] = str(path)
    with scope(loaded.student) as table:
        results = evaluate(build_student(loaded), table, str(tmp_path / "found"))
    found = json.loads((tmp_path / "found" / "bbox.json").read_text())
    listed = {each["id"] for each in data["categories"]}
    assert {each["category_id"] for each in found} - listed, "nothing was found of these classes: the test says nothing"
    assert results["AP"] >= 0


@pytest.mark.parametrize("given", [[], ["--output_eval", "mine"]])
def test_classwise_draws_its_curves_where_it_is_said_or_into_output_eval(shapes, tmp_path, monkeypatch, capsys, given):
    config = str(CONFIGS / "retinanet_tiny.yml")
    model = build_student(load_recipe(config, overrides=[f"dataset_dir={shapes}"]))
    monkeypatch.chdir(tmp_path)
    paddle.save(model.state_dict(), "some.pdparams")
    options = ["-c", config, "--classwise", *given, "-o", f"dataset_dir={shapes}", "weights=some.pdparams"]
    commands.evaluate(eval_parser().parse_args(options))
    assert "bbox, AP by class" in capsys.readouterr().out
    curves = list((tmp_path / (given[-1] if given else "output/eval") / "bbox_pr_curve").iterdir())
    assert len(curves) == len(list(tmp_path.rglob("*curve.jpg"))) == 6

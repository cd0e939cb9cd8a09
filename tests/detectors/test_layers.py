"""``ppkd layers``: every line is true, and every name that it gives is a source."""

from unittest import mock

import pytest

from ppkd.build import build_student
from ppkd.detectors import detector_for
from ppkd.detectors.layers import layers_text, module_rows, source_rows
from ppkd.errors import UserError
from ppkd.recipe.recipe import load_recipe
from tests.conftest import CONFIGS
from tests.detectors.test_recorders import hooks_on
from tests.helpers_tools import call
from tests.helpers_training import differing, everything_in


@pytest.fixture(params=["retinanet", "ppyoloe", "faster_rcnn", "solov2", "yolox", "picodet"])
def model(request, shapes):
    return build_student(load_recipe(str(CONFIGS / f"{request.param}_tiny.yml"), overrides=[f"dataset_dir={shapes}"]))


def test_every_module_that_returns_one_tensor_is_a_source(model):
    detector = detector_for(model)
    rows = [[cell.strip() for cell in row] for row in module_rows(detector, 2)]
    single = [row for row in rows if row[2] != "-" and "," not in row[2] and "calls" not in row[2] and row[3] != "-"]
    assert len(single) > 4
    for path, _, shape, stride in single[:8]:
        (level,) = detector.levels(path)
        assert str(level.channels) == shape.split("x")[0] and str(level.stride) == stride


def test_every_named_source_is_one(model):
    detector = detector_for(model)
    rows = source_rows(detector)
    assert {row[0].partition("[")[0] for row in rows} >= {"backbone", "neck"}
    for name, path, channels, place in rows:
        (level,) = detector.levels(name)
        assert (level.tap.path, str(level.channels)) == (path, channels)
        assert place == (f"stride {level.stride:g}" if level.stride else "x".join(map(str, level.cells or "")) or "-")


def test_the_model_is_left_as_it_was(model):
    before, modes = everything_in(model), [layer.training for layer in model.sublayers()]
    layers_text(model, 3)
    assert not differing(before, everything_in(model)) and not hooks_on(model)
    assert [layer.training for layer in model.sublayers()] == modes


def test_one_run_of_the_model_is_enough(model):
    kind = type(detector_for(model))
    with mock.patch.object(kind, "run", autospec=True, side_effect=kind.run) as run:
        layers_text(model)
    assert run.call_count == 1


@pytest.mark.parametrize("family, part, head", [("ssd", "backbone", "ssd_head"), ("centernet", "neck", "head")])
def test_a_head_that_nobody_knows_to_run_is_told_and_the_rest_is_there(family, part, head, shapes):
    path = str(CONFIGS / f"{family}_tiny.yml")
    model = build_student(load_recipe(path, overrides=[f"dataset_dir={shapes}"]))
    text = layers_text(model)
    rows = {line.split()[0]: line.split() for line in text.splitlines() if line.strip()}
    assert "-" not in rows["neck[0]"] and "x" in rows[part][2] and rows[head][2:] == ["-", "-"]
    assert "is not known here" in text
    with pytest.raises(UserError, match=f"{type(model).__name__}.*head is run is not known"):
        detector_for(model).levels(head)


def test_the_command_prints_the_tree(shapes, capsys):
    given = ["layers", "-c", CONFIGS / "retinanet_tiny.yml", "-o", f"dataset_dir={shapes}"]
    assert call(*given)[0] == 0
    lines = capsys.readouterr().out.splitlines()
    rows = {line.split()[0]: line for line in lines if line.strip()}
    assert "16x32x32, 16x16x16, 16x8x8, 16x4x4, 16x2x2" in rows["neck"] and "8, 16, 32, 64, 128" in rows["neck"]
    assert rows["neck.fpn_res3_sum"].split() == ["neck.fpn_res3_sum", "Conv2D", "16x32x32", "8"]
    assert "5 calls: 18x32x32" in rows["head.retina_cls"]
    assert rows["head.cls[1]"].split() == ["head.cls[1]", "head.retina_cls", "18", "stride", "16"]
    assert "backbone.stages.0" in rows, "what only holds others does not count as a level"
    assert not any(name.startswith("backbone.stages.0.") for name in rows)
    assert call(*given, "--depth", 3)[0] == 0
    assert "backbone.stages.0.conv_down" in capsys.readouterr().out

"""Sizes of images: the grid of a head follows the images, and a size that contradicts them names both keys."""

import numpy as np
import paddle
import pytest

from ppkd.bridge.sizes import EVAL_SIZE, check_sizes, fitting, follow_images, reader_size
from ppkd.errors import UserError
from ppkd.exporting.static import for_size
from ppkd.recipe.recipe import Recipe
from tests.conftest import enliven


def plain(source="-o", shape=None, **values):
    reader = {"TestReader": {"inputs_def": {"image_shape": shape}}} if shape else {}
    return Recipe("r", values | reader, origin=dict.fromkeys(values, source))


@pytest.mark.parametrize("step, size", [
    ({"target_size": [256, 192], "keep_ratio": False}, (256, 192)),
    ({"target_size": 320, "keep_ratio": False}, (320, 320)),
    ({"target_size": [800, 1333], "keep_ratio": True}, None),
    ({"target_size": [800, 1333]}, None),
    ({"target_size": "large", "keep_ratio": False}, None),
])  # fmt: skip
def test_a_reader_says_its_size_or_that_it_has_none(step, size):
    assert reader_size({"EvalReader": {"sample_transforms": [{"Decode": {}}, {"Resize": step}]}}, "EvalReader") == size
    assert reader_size({"EvalReader": {"sample_transforms": [{"Decode": {}}]}}, "EvalReader") is None
    assert reader_size({}, "EvalReader") is None


@pytest.mark.parametrize("key, value", [("eval_size", [192, 256]), ("eval_size", [320, 320]), ("eval_height", 192),
                                        ("eval_width", 256)])  # fmt: skip
def test_a_given_size_that_the_images_do_not_have_names_both_keys(key, value):
    with pytest.raises(UserError, match=rf"-o {key}=.* does not go with X, which makes images 256 high and 192 wide"):
        check_sizes(plain(**{key: value}), (256, 192), "X")
    check_sizes(plain("a.yml", **{key: value}), (256, 192), "X")
    check_sizes(plain(**{key: value}), None, "X")


@pytest.mark.parametrize("value, size, moves", [([320, 320], (256, 256), True), ([320, 320], (256, 192), False),
                                                ([300, 300], (256, 256), False)])  # fmt: skip
def test_the_one_setting_that_moves_both_is_proposed_where_it_does(value, size, moves):
    with pytest.raises(UserError, match="-o eval_size=.* does not go with X") as told:
        check_sizes(plain(eval_size=value), size, "X")
    assert ("wide: --imgsz 320 moves both, or set X to" in str(told.value)) == moves


@pytest.mark.parametrize("key", ["eval_size=[96,64]", "eval_size=[32,32]"])
def test_a_size_that_does_not_fit_is_told_by_every_command(key, recipe, shapes):
    from ppkd.diagnosis.examination import examine
    from ppkd.training.trainer import Trainer

    resize = "[{Decode: {}},{Resize: {target_size: [64,96], keep_ratio: false}}]"
    more = [key, f"EvalReader.sample_transforms={resize}"]
    made = recipe("ppyoloe", distil=False, overrides=more)
    told = r"-o eval_size=.* does not go with Resize.target_size of EvalReader"
    with pytest.raises(UserError, match=told), Trainer.open(made):
        pass
    with pytest.raises(UserError, match=told):
        examine(made)
    made.student["TestReader"] = {"sample_transforms": made.student["EvalReader"]["sample_transforms"]}
    with pytest.raises(UserError, match="-o eval_size=.* does not go with Resize.target_size of TestReader"):
        for_size(made)


@pytest.mark.parametrize("value", [[192, 256], None])
def test_a_given_size_that_fits_is_taken(value):
    check_sizes(plain(eval_size=value), (192, 256), "X")


@pytest.mark.parametrize("value", [320, [320], "640", [0, 32], [True, 32], [1.5, 2]])
def test_what_is_no_size_is_told(value):
    with pytest.raises(UserError, match="eval_size has to be"):
        check_sizes(plain("a.yml", eval_size=value), None, "X")


def test_an_export_is_made_for_the_shape_of_its_images():
    assert for_size(plain("a.yml", [3, 64, 96], eval_size=[32, 32]))["eval_size"] == [64, 96]
    assert for_size(plain("a.yml", [3, -1, -1], eval_size=[32, 32]))["eval_size"] is None
    assert "eval_size" not in for_size(plain("a.yml", [3, 64, 96]))
    with pytest.raises(UserError, match="-o eval_size=.*TestReader.inputs_def.image_shape"):
        for_size(plain("-o", [3, 64, 96], eval_size=[96, 64]))


@pytest.mark.parametrize("size, told", [((100, 64), True), ((33, 33), True), ((96, 64), False), (None, False)])
def test_what_paddle_refuses_is_told_by_the_size_where_that_is_the_reason(size, told):
    error = ValueError("(InvalidArgument) Broadcast dimension mismatch")
    with pytest.raises(UserError if told else ValueError, match="multiples of 32" if told else "Broadcast"), \
            fitting(size, "X"):  # fmt: skip
        raise error


@pytest.mark.parametrize("side, told", [(33, True), (100, True), (64, False)])
def test_images_of_sizes_of_their_own_are_told_by_the_one_that_was_refused(side, told):
    line = f"^EvalReader: .* {side} high .*PadBatch" if told else "Broadcast"
    with pytest.raises(UserError if told else ValueError, match=line), \
            fitting(None, EVAL_SIZE, lambda: (side, 64)):  # fmt: skip
        raise ValueError("(InvalidArgument) Broadcast dimension mismatch")


@pytest.mark.parametrize("family", ["ppyoloe", "picodet"])
def test_heads_of_another_grid_find_what_those_of_the_right_one_find(family, recipe):
    from ppkd.bridge.workspace import build_detector

    image = paddle.to_tensor(np.random.rand(1, 3, 64, 96).astype("float32"))
    batch = {"image": image, "im_shape": paddle.to_tensor([[64.0, 96.0]]), "scale_factor": paddle.ones([1, 2])}
    found = []
    for size in ("[64,96]", "[96,64]", "[32,32]"):
        paddle.seed(1)
        model = build_detector(recipe(family, distil=False, overrides=[f"eval_size={size}"]).student)
        enliven(model)
        model.eval()
        follow_images(model, (64, 96))
        kept = [layer.eval_size for layer in model.sublayers() if getattr(layer, "eval_size", None)]
        assert bool(kept) == (size == "[64,96]")
        found.append(model(batch)["bbox"].numpy())
    assert len(found[0]) and all(np.array_equal(found[0], other) for other in found[1:])

"""A teacher sees images as its own reader would have made them."""

import numpy as np
import paddle
import pytest

from ppkd.bridge.normalisation import Normalisation, Translation, translation
from ppkd.bridge.workspace import import_ppdet
from ppkd.build import build_model
from tests.conftest import training_batch

IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "is_scale": True}
KINDS = {
    "imagenet": IMAGENET,
    "ppyoloe": {"mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0], "norm_type": "none"},
    "caffe": {"mean": [103.5, 116.3, 123.7], "std": [57.0, 57.0, 58.0], "is_scale": False},
    "default": {},
    "raw": None,
}


def reader(kind, where="sample_transforms"):
    steps = [{"Decode": {}}, *([] if KINDS[kind] is None else [{"NormalizeImage": KINDS[kind]}])]
    return {where: steps}


def as_read(kind, pixels):
    """What ppdet's own transform makes of pixels (H, W, 3)."""
    import_ppdet()
    from ppdet.data.transform.operators import NormalizeImage

    sample = {"image": pixels.astype("float32")}
    return (sample if KINDS[kind] is None else NormalizeImage(**KINDS[kind]).apply(sample))["image"].transpose(2, 0, 1)


@pytest.mark.parametrize("teacher", KINDS)
@pytest.mark.parametrize("student", KINDS)
def test_pixels_arrive_as_the_teachers_reader_would_give_them(student, teacher):
    pixels = np.random.RandomState(0).randint(0, 256, (6, 5, 3))
    found = translation({"TrainReader": reader(student, "batch_transforms")}, {"EvalReader": reader(teacher)})
    batch = {"image": paddle.to_tensor(as_read(student, pixels)[None]), "im_shape": paddle.to_tensor([[6, 5]])}
    if found is None:
        assert np.allclose(as_read(student, pixels), as_read(teacher, pixels))
    else:
        wanted = as_read(teacher, pixels)
        np.testing.assert_allclose(found(batch)["image"][0].numpy(), wanted, rtol=1e-4, atol=1e-4 * abs(wanted).max())


def test_padding_stays_zero_and_image_pixels_never_become_padding():
    to_imagenet = Translation(Normalisation(), Normalisation(1 / 255, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2)))
    image = paddle.zeros([2, 3, 4, 4])
    image[1, 0, 3, 3] = 255.0  # outside of what im_shape says, and yet something
    seen = to_imagenet({"image": image, "im_shape": paddle.to_tensor([[2.0, 3.0], [1.0, 1.0]])})["image"].numpy()
    black = np.float32(-2.5)
    assert np.allclose(seen[0, :, :2, :3], black) and (seen[0, :, 2:] == 0).all() and (seen[0, :, :, 3:] == 0).all()
    assert np.allclose(seen[1, :, 3, 3], [2.5, black, black]) and (seen[1, :, 1:3] == 0).all()


def test_the_teachers_training_reader_comes_first_and_no_reader_changes_nothing():
    both = {"EvalReader": reader("raw"), "TrainReader": reader("caffe")}
    assert Normalisation.of(both, ("TrainReader", "EvalReader")).mean == (103.5, 116.3, 123.7)
    assert Normalisation.of(both, ("TestReader", "EvalReader")) == Normalisation()
    assert translation({"TrainReader": reader("caffe")}, both) is None
    assert translation({"TrainReader": reader("raw")}, {"architecture": "GFL"}) is None
    assert translation({"TrainReader": reader("default")}, {"TestReader": reader("imagenet")}) is None


def test_a_teacher_of_another_family_is_run_on_its_own_kind_of_images(recipe):
    """PP-YOLOE's reader divides by 255, the teacher of this file is given pixels as they are."""
    loaded = recipe("ppyoloe")
    steps = loaded.teachers["teacher"].config["TrainReader"]["batch_transforms"]
    loaded.teachers["teacher"].config["TrainReader"]["batch_transforms"] = [s for s in steps if "Permute" in s]
    model = build_model(loaded)
    teacher, seen = model.teachers["teacher"], []
    teacher.backbone.register_forward_pre_hook(lambda layer, inputs: seen.append(inputs[0]["image"]))
    batch = training_batch(loaded)
    image = batch["image"].numpy().copy()
    model.train()
    model(batch)
    np.testing.assert_allclose(seen[0].numpy(), image * 255, rtol=1e-5)
    assert (batch["image"].numpy() == image).all()

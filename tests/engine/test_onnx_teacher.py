"""A model given as ONNX teaches: its outputs by name, its normalisation, fixed sizes; files that are none."""

import os

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest
import yaml

from ppkd.build import build_model
from ppkd.detectors import detector_for
from ppkd.detectors.onnx import plain_name
from ppkd.detectors.recorders import recording
from ppkd.engine.model import TEACHER
from ppkd.errors import UserError
from ppkd.models.onnx.session import Session
from ppkd.recipe.recipe import load_recipe
from ppkd.training.record import read_record
from tests.conftest import CONFIGS, training_batch
from tests.helpers_training import differing, fit, terms_of
from tests.models.onnx_file import convolutions, graph, model, node

pytest.importorskip("onnxruntime")

TERMS = {
    "features": {"student": "neck[s8]", "teacher": "level2", "student_connector": "linear", "loss": "cosine"},
    "all": {"student": "neck[*]", "teacher": "output[*]", "student_connector": "align", "loss": "mimic"},
}


def weights(*channels):
    drawn = np.random.RandomState(0)
    return [(drawn.standard_normal([b, a, 2, 2]) * 0.3).astype("float32") for a, b in zip((3, *channels), channels)]


@pytest.fixture
def given(tmp_path, shapes):
    """Function that loads a recipe whose teacher is an ONNX file of convolutions of strides 2, 4, 8, 16, 32."""

    def load(terms=TERMS, overrides=(), content=None, **teacher):
        path = tmp_path / "teacher.onnx"
        path.write_bytes(content or convolutions(weights(4, 5, 6, 7, 8)))
        slim = {"slim": "Distill", "teacher": {"onnx": str(path), **teacher}, "distill": {"terms": terms}}
        (tmp_path / "slim.yml").write_text(yaml.safe_dump(slim, sort_keys=False))
        rest = [f"dataset_dir={shapes}", f"save_dir={tmp_path / 'out'}", "TrainReader.batch_size=4", *overrides]
        return load_recipe(str(CONFIGS / "ppyoloe_tiny.yml"), str(tmp_path / "slim.yml"), rest)

    return load


def by_hand(image):
    levels, x = [], image
    for weight in weights(4, 5, 6, 7, 8):
        x = F.conv2d(x, paddle.to_tensor(weight), stride=2)
        levels.append(x)
    return levels


def recorded(model, batch, sources):
    adapter = detector_for(model)
    taps = [level.tap for source in sources for level in adapter.levels(source)]
    with paddle.no_grad(), recording(model, taps) as recorder:
        adapter.run(batch, {path for tap in taps for path in tap.paths})
    return [recorder.take(tap) for tap in taps]


def test_its_outputs_are_the_values_of_the_file_on_images_as_it_wants_them(given):
    loaded = given(mean=[0.5, 0.4, 0.3], std=[0.2, 0.3, 0.4])
    model = build_model(loaded)
    batch, teacher = training_batch(loaded), model.teachers[TEACHER]
    seen = model.preparations[TEACHER](batch)
    mean, std = np.array([0.5, 0.4, 0.3]), np.array([0.2, 0.3, 0.4])
    expected = (batch["image"].numpy() - mean[:, None, None]) / std[:, None, None]
    assert np.abs(seen["image"].numpy() - expected).max() < 1e-5
    for found, wanted in zip(recorded(teacher, seen, ["output[*]"]), by_hand(seen["image"])):
        assert np.allclose(found.numpy(), wanted.numpy(), atol=1e-4)
    levels = detector_for(teacher).levels("output[*]")
    assert [(level.channels, level.stride) for level in levels] == [(4, 2), (5, 4), (6, 8), (7, 16), (8, 32)]


def test_its_terms_train_the_student_and_a_run_goes_on_to_the_bit(given, tmp_path):
    loaded = given()
    model = build_model(loaded)
    losses = terms_of(model(training_batch(loaded)), model)
    assert set(losses) == {"features.s8", "all.s8", "all.s16", "all.s32"} and all(float(x) > 0 for x in losses.values())
    whole = fit(given(overrides=["epoch=2", f"save_dir={tmp_path / 'whole'}"]))
    fit(given(overrides=["epoch=2", f"save_dir={tmp_path / 'parted'}"]), max_steps=4)
    parted = fit(given(overrides=["epoch=2", f"save_dir={tmp_path / 'parted'}"]), resume="auto")
    assert differing(whole.student.state_dict(), parted.student.state_dict()) == []
    recipe, _ = read_record(tmp_path / "parted" / "ppyoloe_tiny")
    assert recipe.teachers[TEACHER].weights == str(tmp_path / "teacher.onnx")
    assert {term.label for term in build_model(recipe, load=False).terms} == set(losses)


def test_another_file_in_its_place_is_another_teacher(given, tmp_path):
    fit(given(overrides=["epoch=2"]), max_steps=2)
    other = convolutions([weight * 2 for weight in weights(4, 5, 6, 7, 8)])
    with pytest.raises(UserError, match=r"teacher.pretrain_weights"):
        fit(given(overrides=["epoch=2"], content=other), resume="auto")


@pytest.mark.parametrize("image", [(3, 3, "h", "w"), (1, 3, 64, 64), ("n", 3, 64, 128)])
def test_fixed_sizes_and_batches(given, image):
    loaded = given(content=convolutions(weights(4, 5, 6, 7, 8), image))
    model = build_model(loaded)
    batch = training_batch(loaded)
    (found,) = recorded(model.teachers[TEACHER], batch, ["level2"])
    size = [ours if isinstance(theirs, str) else theirs for ours, theirs in zip(batch["image"].shape[2:], image[2:])]
    resized = F.interpolate(batch["image"], size=size, mode="bilinear")
    assert np.allclose(found.numpy(), by_hand(resized)[2].numpy(), atol=1e-4)
    assert detector_for(model.teachers[TEACHER]).levels("level2")[0].stride == 8


def test_a_file_that_wants_sizes_beside_the_image_gets_them(tmp_path):
    path = tmp_path / "x.onnx"
    path.write_bytes(convolutions(weights(4), (2, 3, "h", "w"), more_inputs=["im_shape", "scale_factor"]))
    images = np.zeros([3, 3, 8, 8], "float32")
    sizes = {"im_shape": np.arange(6.0).reshape(3, 2), "scale_factor": np.ones([3, 2])}
    (found,) = Session(path, "x").maps(images, ["im_shape_out"], sizes)
    assert found.tolist() == [[0, 1], [2, 3], [4, 5]]


def test_names_of_outputs_as_sources():
    assert [plain_name(name) for name in ("/model.22/cv2/Conv_output_0", "p3", "0", "a b")] == [
        "model.22_cv2_Conv_output_0", "p3", "output", "a_b",
    ]  # fmt: skip


def pooled(axes):
    """A file whose output has no places any more: a row an image, or nothing but a number."""
    flat = node("Flatten", ["image"], ["flat"], axis=1)
    ends = node("Identity", ["flat"], ["level2"]) if axes else node("ReduceMean", ["flat"], ["level2"], keepdims=0)
    return model(graph([flat, ends], [("level2", ("n", "c")[: 2 * axes])], (), [("image", ("n", 3, "h", "w"))]))


def broken(content=b"no model", **more):
    return {"content": content, **more}


@pytest.mark.parametrize(
    "options, told",
    [
        (broken(), "no model of ONNX"),
        (broken(convolutions(weights(4))[:-40]), "ends too early"),
        (broken(bytes([0x3A, 0])), "ONNX Runtime does not open it"), ({"memory": 0}, "memory has to be a number of"),
        (broken(convolutions([np.ones([2, 4, 2, 2])], ("n", 4, "h", "w"))), "its images have 4 channels, not 3"),
        (broken(convolutions(weights(4), more_inputs=["mask"])), r"one input of images .* has image .*, mask"),
        ({"terms": {"x": TERMS["features"] | {"teacher": "found"}}}, "no source 'found': boxes .* with `detections`"),
        ({"terms": {"x": TERMS["features"] | {"teacher": "level9"}}}, r"has no source 'level9'.*named sources: output"),
        ({"mean": [1, 2]}, "teacher.mean: .* is none: mean and std have three numbers"),
        ({"std": [1, 0, 1]}, "teacher.std"), ({"is_scale": "yes"}, "teacher.is_scale"),
        (broken(pooled(1)), r"features: the student's neck.2. is a map .*, the teacher's level2\[0\] is not one"),
        (broken(pooled(0)), "the teacher's level2.* is not one: these are not compared"),
        ({"vit": "dinov3-vits16"}, "has vit or onnx, not both"),
        ({"pretrain_weights": "x"}, "has its weights in it"),
    ],
)  # fmt: skip
def test_what_is_no_teacher_is_refused_in_one_line(given, options, told):
    with pytest.raises(UserError, match=told):
        build_model(given(**options))


def test_a_pipe_is_not_waited_for(given, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match=r"a named pipe \(FIFO\)"):
        build_model(given(overrides=[f"teacher.onnx={tmp_path / 'pipe'}"]))

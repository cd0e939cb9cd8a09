"""Between log lines a step waits for the device nowhere but where the plain student's own step does."""

import collections
import contextlib
import traceback

import paddle
import pytest

from ppkd.build import build_model
from ppkd.losses import kernels
from tests.conftest import training_batch
from tests.helpers_training import first_images_with_boxes, pairs

# Reading a value makes the host wait for it; so do operators whose result has as many elements as the data says.
_READS = ("numpy", "item", "tolist", "__float__", "__int__", "__bool__", "__index__", "__array__")
_SELECTS = ("nonzero", "masked_select")
# So does a tensor made of what is not one: it is copied to the device.
_COPIES = ("to_tensor",)


@contextlib.contextmanager
def waits():
    """Count, inside the block, what waits for the device: `Counter` of (what, file, line)."""
    found, inside = collections.Counter(), []

    def counted(name, function):
        def wrapper(*args, **kwargs):
            copies = name not in _COPIES or not isinstance(args[0], paddle.Tensor)
            if not inside and copies:
                callers = [frame for frame in traceback.extract_stack()[:-1] if "/paddle/" not in frame.filename]
                found[name, callers[-1].filename, callers[-1].lineno] += 1
            inside.append(name)
            try:
                return function(*args, **kwargs)
            finally:
                inside.pop()

        return wrapper

    owners = [(paddle.Tensor, name) for name in _READS + _SELECTS] + [(paddle, name) for name in _SELECTS + _COPIES]
    before = [(owner, name, getattr(owner, name)) for owner, name in owners if hasattr(owner, name)]
    with pytest.MonkeyPatch.context() as patch:
        for owner, name, function in before:
            patch.setattr(owner, name, counted(name, function))
        # What is free on the CPU only is not to be counted.
        patch.setattr(kernels, "on_cpu", lambda _: False)
        yield found


def step(model, batch):
    """What waits in forward and backward of `model`."""
    with waits() as found:
        model(dict(batch))["loss"].backward()
    return found


def beyond_the_student(model, batch):
    """What waits in a distilled step and not in its student's own."""
    model.train()
    # The first steps of a process may look at things that later ones know, and a run's first batches match channels;
    # a magnitude looks once its first steps are over, and then each time that their number has doubled.
    for model.batch in (0, 1, 2):
        step(model, batch)
    return dict(step(model, batch) - step(model.student, batch))


@pairs
def test_a_distilled_step_waits_no_more_than_its_students(family, method, recipe):
    loaded = recipe(family, method)
    assert not beyond_the_student(build_model(loaded), training_batch(loaded))


@pytest.mark.parametrize("family", ["retinanet", "picodet"])
def test_nor_does_it_with_a_teacher_of_another_kind_of_images(family, recipe):
    loaded = recipe(family, "FGD")
    reader = loaded.teachers["teacher"].config["TrainReader"]
    for key in ("sample_transforms", "batch_transforms"):
        reader[key] = [x for x in reader.get(key) or [] if "NormalizeImage" not in x]
    model = build_model(loaded)
    assert model.preparations, "the teacher was meant to get the images in its own way"
    assert not beyond_the_student(model, training_batch(loaded))


@pytest.mark.parametrize("family", ["picodet_v2", "fcos", "solov2", "retinanet", "ppyoloe"])
@pytest.mark.parametrize("images", [12, 0])
def test_the_cures_for_batches_without_boxes_look_at_no_value(family, images, recipe, shapes, tmp_path):
    from ppkd.build import build_student

    few = first_images_with_boxes(shapes, tmp_path / "few", images)
    loaded = recipe(family, distil=False, overrides=few)
    batch, student = training_batch(loaded), build_student(loaded)
    student.train()
    ours = [key for key in step(student, batch) if "ppkd/bridge/compat" in key[1]]
    assert not ours


def test_a_value_that_is_read_is_counted(recipe):
    with waits() as found:
        float(paddle.ones([1]))
        if paddle.ones([1]) > 0:
            paddle.to_tensor(paddle.ones([2])).nonzero()
        paddle.to_tensor([1.0])
    assert sum(found.values()) == 4
    assert {name for name, *_ in found} == {"__float__", "__bool__", "nonzero", "to_tensor"}


def test_ppyoloes_blocks_would_ask_for_the_value_of_their_factor():
    from ppkd.bridge.workspace import import_ppdet

    import_ppdet()
    from ppdet.modeling.backbones.cspresnet import RepVggBlock

    block, x = RepVggBlock(3, 3, alpha=True), paddle.rand([2, 3, 8, 8])
    block.alpha.set_value(paddle.to_tensor([0.5]))
    block.eval()
    with waits() as found:
        ours = block(x)
    assert not found
    with waits() as found:
        theirs = RepVggBlock.forward.__wrapped__(block, x)
    assert found, "upstream has mended it: delete the patch"
    assert (ours == theirs).all()

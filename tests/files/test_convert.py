"""tools/convert.py on checkpoints that PaddleDetection's own models, callback and `save_model` wrote."""

import copy
import pickle
import shutil
from types import SimpleNamespace

import numpy as np
import paddle
import pytest

from ppkd.bridge.workspace import build_detector, create, import_ppdet, scope
from ppkd.files.convert import split
from ppkd.recipe.recipe import load_recipe
from tests.conftest import CONFIGS, enliven
from tests.engine.test_against_ppdet_slim import as_ld_student, as_twin
from tests.helpers_tools import call, the_error, write

import_ppdet()
from ppdet.core.workspace import AttrDict  # noqa: E402
from ppdet.engine.callbacks import Checkpointer  # noqa: E402
from ppdet.optimizer import ModelEMA  # noqa: E402
from ppdet.slim import build_slim_model  # noqa: E402
from ppdet.utils.checkpoint import load_weight, save_model  # noqa: E402

METHODS = {
    "FGD": ("picodet", "slim_method: FGD\ndistill_loss: FGDFeatureLoss\ndistill_loss_name: [a, b]\n"
            "FGDFeatureLoss: {student_channels: 16, teacher_channels: 24}\n"),
    "CWD": ("gfl", "slim_method: CWD\ndistill_loss: CWDFeatureLoss\ndistill_loss_name: [a]\n"
            "CWDFeatureLoss: {student_channels: 16, teacher_channels: 32}\n"),
    "LD": ("gfl", "slim_method: LD\n"),
    "PPYOLOEDistill": ("ppyoloe", "slim_method: PPYOLOEDistill\ndistill_loss: DistillPPYOLOELoss\n"
                       "DistillPPYOLOELoss: {student_width_mult: 0.125, teacher_width_mult: 0.25}\n"),
    "yolov3": ("yolov3", "distill_loss: DistillYOLOv3Loss\n"),
}  # fmt: skip
TWINS = {"LD": as_ld_student, "PPYOLOEDistill": as_twin}


CLASSES = "num_classes=3"


def student_config(family, classes=CLASSES):
    return load_recipe(str(CONFIGS / f"{family}_tiny.yml"), overrides=[classes]).student


def convert(family, checkpoint, output, *options):
    """Run the tool; returns what `call` does."""
    config = CONFIGS / (family if family.endswith("_wide") else f"{family}_tiny")
    given = "-c", f"{config}.yml", "--checkpoint", checkpoint, "--output", output
    return call("convert", *given, "-o", CLASSES, *options)


@pytest.fixture(scope="module")
def distillation(tmp_path_factory):
    """Function that builds PaddleDetection's distillation model for a method, as its trainer would, once each."""
    made = {}

    def build(method):
        if method not in made:
            made[method] = _distillation(method, tmp_path_factory.mktemp(method))
        return made[method]

    return build


def _distillation(method, folder):
    family, lines = METHODS[method]
    config = student_config(family)
    config |= TWINS.get(method, lambda config: {})(config)
    base = f"_BASE_: [{CONFIGS / family}_wide.yml]\n{CLASSES.replace('=', ': ')}\n"
    if method == "PPYOLOEDistill":
        base += "architecture: PPYOLOE\nPPYOLOE: {backbone: CSPResNet, neck: CustomCSPPAN, yolo_head: PPYOLOEHead}\n"
    slim = write(folder / "slim.yml", f"{base}slim: Distill\npretrain_weights: null\n{lines}")
    with scope(config) as table:
        model = build_slim_model(table, slim)["model"]
    enliven(model.student_model)
    return model


def averaged(model):
    """PaddleDetection's moving average of a model over two steps; the model's tensors are others."""
    ema = ModelEMA(model, decay=0.9)
    for _ in range(2):
        ema.update()
        for parameter in model.student_model.parameters():
            parameter.set_value(parameter * 0.95)
    return ema.apply()


def adam(model):
    return paddle.optimizer.Adam(parameters=model.student_model.parameters())


def as_trainer_saves(model, folder, averages=None):
    """What the callback of PaddleDetection's trainer leaves after the last epoch: ``run/model_final.*``."""
    cfg = AttrDict(save_dir=str(folder), filename="run", epoch=1, snapshot_epoch=1)
    run = SimpleNamespace(model=model, cfg=cfg, use_ema=averages is not None, optimizer=adam(model))
    status, former = {"mode": "train", "epoch_id": 0}, copy.deepcopy(model.state_dict())
    if averages is not None:
        status["weight"] = former
        model.set_dict(averages)
    Checkpointer(run).on_epoch_end(status)
    model.set_dict(former)
    # The wheel makes a folder of the file's name; clones take the one that they are given.
    return next(iter(folder.rglob("model_final.pdparams")))


def detect(model):
    """Detections of a model on one fixed image of 64 pixels, as arrays."""
    image = paddle.to_tensor(np.random.RandomState(0).rand(1, 3, 64, 64).astype("float32"))
    shape, scale = paddle.full([1, 2], 64.0), paddle.ones([1, 2])
    model.eval()
    with paddle.no_grad():
        found = model({"image": image, "im_shape": shape, "scale_factor": scale, "im_id": paddle.zeros([1, 1])})
    return {name: value.numpy() for name, value in found.items()}


def same_detections(path, family, model):
    """Whether plain ppdet with the converted weights finds to the bit what `model` finds."""
    config = student_config(family)
    with scope(config):
        plain = create(config["architecture"])
    missing, unexpected = plain.set_state_dict(paddle.load(str(path)))
    assert not missing and not unexpected
    ours, theirs = detect(plain), detect(model.student_model)
    assert len(ours["bbox"]) > 1 and set(ours) == set(theirs)
    return all(np.array_equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("method", METHODS)
def test_a_whole_models_checkpoint_gives_the_student_that_detects_the_same(distillation, tmp_path, method):
    model, family = distillation(method), METHODS[method][0]
    save_model(model.state_dict(), adam(model), str(tmp_path), "ours", 1)
    assert any(name.startswith("teacher_model.") for name in paddle.load(str(tmp_path / "ours.pdparams")))
    output = tmp_path / "new" / "student.pdparams"
    assert convert(family, tmp_path / "ours", output)[0] == 0
    assert list(paddle.load(str(output))) == list(model.student_model.state_dict())
    assert same_detections(output, family, model)
    load_weight(build_detector(student_config(family)), str(output))


@pytest.mark.parametrize("prefixed", [False, True], ids=["trainer", "whole model"])
def test_with_ema_pdparams_are_the_averages_and_pdema_the_weights_before(distillation, tmp_path, caplog, prefixed):
    model = distillation("LD")
    averages = averaged(model)
    if prefixed:
        save_model(model.state_dict(), adam(model), str(tmp_path / "run"), "model_final", 1, ema_model=averages)
    else:
        as_trainer_saves(model, tmp_path, averages)
    saved = {suffix: next(iter(tmp_path.rglob(f"model_final.{suffix}"))) for suffix in ("pdparams", "pdema")}
    names = {suffix: list(paddle.load(str(path))) for suffix, path in saved.items()}
    assert any(name.startswith("student_model.") for name in names["pdparams"]) is prefixed
    assert {name.split(".")[0] for name in names["pdema"]} == {"student_model", "teacher_model"}, "no loss's own"
    raw = copy.deepcopy(model.state_dict())
    said = {}
    for suffix in names:
        caplog.clear()
        assert convert("gfl", saved[suffix], tmp_path / f"{suffix}.pdparams")[0] == 0
        said[suffix] = caplog.text
    assert same_detections(tmp_path / "pdema.pdparams", "gfl", model)
    model.set_dict(averages)
    assert same_detections(tmp_path / "pdparams.pdparams", "gfl", model)
    assert not same_detections(tmp_path / "pdema.pdparams", "gfl", model)
    model.set_dict(raw)
    assert "the averages (EMA), which PaddleDetection evaluates" in said["pdparams"]
    assert "the weights before averaging; PaddleDetection evaluates those of" in said["pdema"]
    assert ("a plain detector's already" in said["pdparams"]) is not prefixed


def test_without_ema_the_trainers_file_is_a_plain_detectors_already(distillation, tmp_path, caplog):
    model = distillation("LD")
    path = as_trainer_saves(model, tmp_path)
    assert not path.with_suffix(".pdema").exists()
    output = tmp_path / "student.pdparams"
    assert convert("gfl", path, output)[0] == 0
    assert "no student_model.* in it: it is a plain detector's already, taken whole" in caplog.text
    assert "EMA" not in caplog.text
    assert same_detections(output, "gfl", model)


def test_what_is_left_out_is_counted(distillation, tmp_path, caplog):
    model, one = distillation("LD"), paddle.ones([1])
    extra = {"distill_loss.a": one, "distill_loss.b": one, "epoch": 3}
    paddle.save({**model.state_dict(), **extra}, str(tmp_path / "whole.pdparams"))
    assert convert("gfl", tmp_path / "whole", tmp_path / "student.pdparams")[0] == 0
    assert f"left out: {len(model.teacher_model.state_dict())} of teacher_model, 2 of distill_loss\n" in caplog.text
    assert same_detections(tmp_path / "student.pdparams", "gfl", model)


def test_the_prefix_of_data_parallel_is_dropped_before_and_after_the_parts_name():
    names = ["_layers.student_model.a.b", "student_model._layers.c", "_layers.teacher_model.a.b", "_layers.loss.d", "e"]
    parts = split({name: name for name in names})
    assert parts == {
        "student_model": {"a.b": names[0], "c": names[1]},
        "teacher_model": {"a.b": names[2]},
        "": {"loss.d": names[3], "e": names[4]},
    }


# --- what cannot be converted ---------------------------------------------------------------------


SAME = "depth, width and kind have to be the same"


@pytest.fixture
def refused(distillation, tmp_path):
    """Function that converts what `change` makes of a checkpoint (name -> array); returns the one line of the error."""

    def run(change=dict, *options, family="gfl", name="ours.pdparams", output="student.pdparams"):
        state = {k: v.numpy() for k, v in distillation("LD").state_dict().items()}
        paddle.save(change(state), str(tmp_path / name))
        before = sorted(tmp_path.rglob("*"))
        message = the_error(*convert(family, tmp_path / name, tmp_path / output, *options))
        assert sorted(tmp_path.rglob("*")) == before, "nothing is left behind"
        return message.replace(f"{tmp_path}/", "")

    return run


def of(part, strip=False):
    return lambda state: {k.removeprefix(part) if strip else k: v for k, v in state.items() if k.startswith(part)}


def test_another_number_of_classes_is_guessed_from_the_shapes(refused):
    message = refused(of("student_model."), "num_classes=20")
    assert message.startswith("ours.pdparams: its student does not fit the detector of -c: ")
    assert "2 of another shape: head.gfl_head_cls.weight: [3, 16, 3, 3], model [20, 16, 3, 3], head." in message
    assert message.endswith("(of another num_classes? it seems to have 3, -c has 20)")
    assert "missing" not in message and "unexpected" not in message


@pytest.mark.parametrize("classes", [1, 80])
@pytest.mark.parametrize("family", ["faster_rcnn", "yolov3", "ppyoloe", "gfl"])
def test_the_number_is_guessed_for_every_kind_of_head(tmp_path, family, classes):
    paddle.save(build_detector(student_config(family, "num_classes=7")).state_dict(), str(tmp_path / "seven.pdparams"))
    files = tmp_path / "seven", tmp_path / "student.pdparams"
    message = the_error(*convert(family, *files, f"num_classes={classes}"))
    # YOLOv3's 18 outputs of one class may be too many things.
    seems = "" if (family, classes) == ("yolov3", 1) else "it seems to have 7, "
    assert message.endswith(f"(of another num_classes? {seems}-c has {classes})")


def test_the_teachers_file_for_the_students(refused):
    message = refused(family="gfl_wide")
    assert "its student does not fit" in message and message.endswith("(its teacher does: is -c the teacher's file?)")


def test_another_width(refused):
    message = refused(of("student_model."), family="gfl_wide")
    assert message.endswith(f"(another head and neck than in -c? {SAME})")


def test_another_depth(refused):
    message = refused(of("student_model."), "CSPResNet.layers=[1,1,1,2]")
    assert " missing: backbone.stages.3.blocks.1." in message and "another backbone than in -c?" in message


def test_another_architecture(refused):
    message = refused(of("student_model."), family="yolox")
    assert "0 of " in message and "not one name in common: another architecture?" in message


def without(state, name):
    assert name in state
    return {k: v for k, v in state.items() if k != name}


NECK, EDGES = "student_model.neck.fpn_res3_sum.weight", "student_model.head.gfl_head_reg.weight"
EDITS = {
    "1 missing: neck.": lambda state: without(state, NECK),
    "1 unexpected: neck.other": lambda state: state | {"student_model.neck.other": state[NECK]},
    "1 of another shape: head.gfl_head_reg.weight: [36, 8, 3, 3], model [36, 16, 3, 3]": (
        lambda state: state | {EDGES: state[EDGES][:, :8]}
    ),
}


@pytest.mark.parametrize("told", EDITS)
def test_one_tensor_too_few_too_many_or_too_narrow(refused, told):
    message = refused(EDITS[told])
    part = "head" if "head" in told else "neck"
    assert f"; {told}" in message and message.endswith(f"(another {part} than in -c? {SAME})")


def test_a_missing_tensor_is_not_put_down_to_the_number_of_classes(refused):
    message = refused(lambda state: without(state, NECK), "num_classes=20")
    assert "1 missing: " in message and message.endswith(f"(another head and neck than in -c? {SAME})")


def test_a_file_of_the_teacher_alone(refused):
    message = refused(of("teacher_model."))
    assert message.startswith("ours.pdparams: no student_model.* in it, only the teacher's tensors (")
    assert message.endswith(")")


def test_a_plain_detectors_weights_that_are_not_the_students(refused):
    message = refused(of("teacher_model.", strip=True))
    told = "ours.pdparams: no student_model.* in it, and as a plain detector's its tensors do not fit the detector"
    assert message.startswith(told)


def test_the_optimizers_file(refused):
    message = refused(name="ours.pdopt")
    assert "the optimizer's state, in which there are no weights; they stand in ours.pdparams" in message


def test_the_output_has_to_be_another_file_that_ppdet_finds(refused):
    assert "is the checkpoint itself" in refused(output="ours.pdparams")
    assert "--output student.pdema: has to end in .pdparams" in refused(output="student.pdema")
    assert "ours.pdparams is a file, so there can be no folder" in refused(output="ours.pdparams/student.pdparams")


def test_files_that_are_none(tmp_path):
    def error(name):
        return the_error(*convert("gfl", tmp_path / name, tmp_path / "student.pdparams"))

    assert error("no").startswith(f"--checkpoint: no file {tmp_path}/no or ")
    bad = tmp_path / "bad.pdparams"
    bad.write_bytes(b"no weights")
    assert f"{bad}: not a Paddle file" in error("bad")

    class Touch:
        def __reduce__(self):
            return shutil.copy, (str(bad), str(tmp_path / "canary"))

    bad.write_bytes(pickle.dumps({"student_model.a": np.ones(2), "b": Touch()}, protocol=2))
    assert "it calls shutil.copy, which tensors do not need" in error("bad")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.pdparams"]


def test_a_full_disk_leaves_the_former_file(distillation, tmp_path, monkeypatch):
    paddle.save(distillation("LD").state_dict(), str(tmp_path / "ours.pdparams"))
    (tmp_path / "student.pdparams").write_text("former")

    def half(content, path, **_):
        write(path, "half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("paddle.save", half)
    message = the_error(*convert("gfl", tmp_path / "ours", tmp_path / "student.pdparams"))
    assert "cannot be written: No space left on device" in message
    assert (tmp_path / "student.pdparams").read_text() == "former"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ours.pdparams", "student.pdparams"]

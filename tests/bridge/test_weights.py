"""Loading weights: what fits and what does not."""

import os
import pickle

import numpy as np
import paddle
import pytest
from paddle import nn

from ppkd.bridge.weights import inherit, load_exactly, load_into, load_teacher
from ppkd.errors import UserError
from ppkd.files.tensor_files import read_weights
from ppkd.terminal.log import logger


def net(channels=4, classes=3):
    """A model with the parts of a detector."""
    paddle.seed(channels)

    class Net(nn.Layer):
        def __init__(self):
            super().__init__()
            self.backbone = nn.Sequential(nn.Conv2D(3, channels, 1), nn.BatchNorm2D(channels))
            self.neck = nn.Conv2D(channels, 4, 1)
            self.yolo_head = nn.Conv2D(4, classes, 1)

    return Net()


@pytest.fixture
def save(tmp_path):
    """Function that saves an object with Paddle and returns the path."""

    def put(content, name="w.pdparams"):
        paddle.save(content, str(tmp_path / name))
        return str(tmp_path / name)

    return put


def same(a, b):
    return all(np.array_equal(a[k], b[k]) for k in b)


def test_a_whole_model_loads_exactly(save):
    source, target = net(), net()
    target.set_state_dict({k: v + 1 for k, v in target.state_dict().items()})
    match = load_exactly(target, save(source.state_dict()), "weights")
    assert match.complete and match.total == 10 and not match.missing and not match.unfit
    assert same(target.state_dict(), source.state_dict())
    assert str(match).startswith("10 of 10 tensors taken from ") and ";" not in str(match)


def test_a_bare_backbone_fits_by_its_suffix(save):
    """The published backbones' names lack `backbone.`."""
    source, target = net(), net()
    head = target.yolo_head.weight.numpy()
    match = load_into(target, save({f"{k}": v + 2 for k, v in source.backbone.state_dict().items()}), "student weights")
    assert sorted(match.taken) == sorted(k for k in target.state_dict() if k.startswith("backbone."))
    assert np.array_equal(target.backbone[0].weight, source.backbone[0].weight + 2)
    assert np.array_equal(target.yolo_head.weight, head)
    assert len(match.missing) == 4 and "4 not in the file: neck.weight" in str(match)


def test_another_number_of_classes_is_loaded_around_and_named(save):
    match = load_into(net(), save(net(classes=80).state_dict()), "student weights")
    assert match.unfit == [
        "yolo_head.weight: [80, 4, 1, 1], model [3, 4, 1, 1]", "yolo_head.bias: [80], model [3]",
    ]  # fmt: skip
    assert len(match.taken) == 8 and not match.complete


def test_load_exactly_refuses_another_number_of_classes(save):
    with pytest.raises(UserError, match=r"weights do not fit.*8 of 10 tensors.*\(of another num_classes\? -c has 3\)$"):
        load_exactly(net(), save(net(classes=80).state_dict()), "weights", 3)
    with pytest.raises(UserError, match=r"weights do not fit the detector of --teacher: .*--teacher has 3\)$"):
        load_exactly(net(), save(net(classes=80).state_dict()), "weights", 3, "--teacher")


def test_load_exactly_refuses_a_part(save):
    with pytest.raises(UserError, match=r"6 of 10 tensors taken.*4 not in the file: [\w., ]*$"):
        load_exactly(net(), save(net().backbone.state_dict()), "weights", 3)


def test_weights_of_which_nothing_fits(save):
    with pytest.raises(UserError, match="teacher weights: they do not fit Net: 0 of 10 tensors taken from"):
        load_into(net(), save({"other": paddle.ones([2])}), "teacher weights")


def test_a_teacher_needs_only_the_parts_that_run(save, caplog, monkeypatch):
    monkeypatch.setattr(logger(), "propagate", True)
    load_teacher(net(), save(net().backbone.state_dict()), {"backbone"})
    warned = [r.message for r in caplog.records if r.levelname == "WARNING"]
    assert not warned, "a backbone alone is what it is"
    path = save(net(classes=80).state_dict())
    assert len(load_teacher(net(), path, {"backbone", "neck"}).unfit) == 2
    warned = {r.message for r in caplog.records if r.levelname == "WARNING"}  # once a handler, if others have left it
    assert len(warned) == 1
    assert "as where they are of other classes" in warned.pop()
    with pytest.raises(UserError, match=r"do not fit the teacher.*8 of 10 tensors.*2 of another shape: yolo_head\."):
        load_teacher(net(), path, {"backbone", "neck", "yolo_head"})
    with pytest.raises(UserError, match="2 not in the file: neck.weight, neck.bias"):
        state = {k: v for k, v in net().state_dict().items() if not k.startswith("neck")}
        load_teacher(net(), save(state), {"backbone", "neck"})


def test_weights_take_the_models_precision(save):
    target = net()
    load_into(target, save({k: v.astype("float64") for k, v in net().state_dict().items()}), "weights")
    assert {v.dtype for v in target.state_dict().values()} == {paddle.float32}


def test_inherit_copies_neck_and_head_where_shapes_agree_and_never_the_backbone():
    student, teacher = net(), net(classes=80)
    teacher.set_state_dict({k: v + 1 for k, v in teacher.state_dict().items()})
    before = {k: v.numpy() for k, v in student.state_dict().items()}
    assert inherit(student, teacher, ("neck", "head")) == ["neck.weight", "neck.bias"]
    after = student.state_dict()
    for key in before:
        assert np.array_equal(after[key], teacher.state_dict()[key] if key.startswith("neck") else before[key]), key
    same_classes = net()
    assert set(inherit(student, same_classes, ("neck", "head"))) == {
        "neck.weight", "neck.bias", "yolo_head.weight", "yolo_head.bias",
    }  # fmt: skip
    assert inherit(student, net(channels=8), ("head",)) == ["yolo_head.weight", "yolo_head.bias"]
    assert inherit(student, net(), ("backbone",)) == []


@pytest.mark.parametrize("content", [b"", b"just text\n" * 20, b"\x80\x04", pickle.dumps({}), pickle.dumps({"a": 1})])
def test_a_file_that_holds_no_tensors(tmp_path, content):
    (tmp_path / "w.pdparams").write_bytes(content)
    with pytest.raises(UserError, match=r"w\.pdparams: not a Paddle (weight )?file"):
        read_weights(str(tmp_path / "w.pdparams"))


def test_a_damaged_file(save):
    path = save(net().state_dict())
    os.truncate(path, os.path.getsize(path) // 2)
    with pytest.raises(UserError, match="not a Paddle file, or a damaged one"):
        read_weights(path)

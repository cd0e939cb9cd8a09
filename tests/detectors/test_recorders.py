"""Recording by forward hooks, and the invariant that they live only while a step runs."""

import copy
import operator
import pickle

import paddle
import pytest
from paddle import nn

from ppkd.build import build_model
from ppkd.detectors import Tap, recorders
from ppkd.detectors.recorders import Recorder, find_module, recording
from ppkd.engine.model import TEACHER
from ppkd.errors import UserError
from tests.conftest import training_batch
from tests.helpers_training import fail, head_of, pairs


class Toy(nn.Layer):
    """A body that returns two tensors, and a head that is shared by both."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
        self.split = Split()
        self.head = nn.Linear(3, 1)

    def forward(self, x):
        return [self.head(level) for level in self.split(self.body(x))]


class Split(nn.Layer):
    def forward(self, x):
        return x, x + 1


def hooks_on(*models):
    """Number of forward hooks on models and all their layers."""
    layers = [layer for model in models for layer in model.sublayers(include_self=True)]
    return sum(len(layer._forward_post_hooks) + len(layer._forward_pre_hooks) for layer in layers)


def test_takes_an_item_of_a_call():
    toy, x = Toy(), paddle.rand([4, 2])
    with Recorder(toy, ["split", "head", "body.0"]) as recorder:
        outputs = toy(x)
    assert recorder.take(Tap("body.0")).shape == [4, 3]
    first, second = recorder.take(Tap("split")), recorder.take(Tap("split", item=1))
    assert (second - first == 1).all()
    for call, output in enumerate(outputs):
        assert recorder.take(Tap("head", call=call)) is output


def test_takes_what_a_module_is_given():
    toy, x = Toy(), paddle.rand([4, 2])
    with Recorder(toy, ["split", "head"]) as recorder:
        toy(x)
    first, second = recorder.take(Tap("head", argument=0)), recorder.take(Tap("head", call=1, argument=0))
    assert first is recorder.take(Tap("split")) and (second - first == 1).all()


def test_output_and_gradient_pass_through():
    toy, x = Toy(), paddle.rand([4, 2])
    plain = [y.numpy() for y in toy(x)]
    with Recorder(toy, ["split", "head"]) as recorder:
        recorded = toy(x)
    assert all((a == b.numpy()).all() for a, b in zip(plain, recorded))
    recorder.take(Tap("split")).sum().backward()
    assert toy.body[0].weight.grad is not None and toy.head.weight.grad is None


def test_every_block_starts_afresh_and_a_path_twice_is_one_hook():
    toy, x = Toy(), paddle.rand([4, 2])
    recorder = Recorder(toy, ["head", "head"])
    for _ in range(2):
        with recorder:
            assert hooks_on(toy) == 1
            toy(x)
        assert len(recorder.outputs["head"]) == 2
    toy(x)
    assert len(recorder.outputs["head"]) == 2, "recorded outside of the block"


def test_nested_recorders_do_not_disturb_each_other():
    toy, x = Toy(), paddle.rand([4, 2])
    with Recorder(toy, ["body"]) as outer:
        with Recorder(toy, ["body"]) as inner:
            toy(x)
        toy(x)
    assert (len(outer.outputs["body"]), len(inner.outputs["body"])) == (2, 1)


@pytest.mark.parametrize(
    "tap, message",
    [
        (Tap("head", call=2), "head was called 2 times in this step; call 2 does not exist"),
        (Tap("split", item=2), r"split returns 2 tensors; split\[2\] does not exist"),
    ],
)
def test_what_was_not_recorded_is_a_users_error(tap, message):
    with Recorder(toy := Toy(), ["head", "split"]) as recorder:
        toy(paddle.rand([4, 2]))
    with pytest.raises(UserError, match=message):
        recorder.take(tap)


def test_unknown_path_names_the_nearest():
    with pytest.raises(UserError, match=r"Toy has no module 'boddy\.0'; nearest: body\.0"):
        Recorder(Toy(), ["boddy.0"])
    with pytest.raises(UserError, match=r"'body\.0\.1'"):
        find_module(Toy(), "body.0.1")
    toy = Toy()
    assert find_module(toy, "body.1") is toy.body[1]


def test_hooks_are_gone_after_an_exception(monkeypatch):
    toy = Toy()
    monkeypatch.setattr(toy.split, "forward", fail, raising=False)
    with pytest.raises(ZeroDivisionError), Recorder(toy, ["body", "split"]):
        toy(paddle.rand([4, 2]))
    assert hooks_on(toy) == 0


def test_model_can_be_copied_and_hooks_pickled():
    toy = Toy()
    with Recorder(toy, ["body"]) as recorder:
        (hook,) = toy.body._forward_post_hooks.values()
        assert pickle.loads(pickle.dumps(hook)).func is recorders._record
        toy(paddle.rand([4, 2]))
    twin = copy.deepcopy(toy)
    twin(paddle.rand([4, 2]))
    assert hooks_on(toy, twin) == 0
    assert len(recorder.outputs["body"]) == 1


# How often the hooks of the student's side fire in a step, and those of the teacher's: the neck once; a head's
# convolution once a level, also where one call gives two sources; the assigner that made the student's targets.
FIRED = {
    ("retinanet", "fgd"): (1, 1), ("ppyoloe", "fgd"): (1, 1), ("retinanet", "cwd"): (1, 1), ("gfl", "cwd"): (5, 5),
    ("gfl", "ld"): (8, 8), ("picodet", "ld"): (3, 6), ("ppyoloe", "ld"): (6, 6), ("ppyoloe", "ppyoloe"): (8, 7),
    ("yolov3", "yolov3"): (3, 3), ("gfl", "heads"): (17, 8), ("ppyoloe", "maps"): (5, 5),
    ("rtmdet", "neck"): (3, 3),
    ("resnet", "matching"): (5, 5),
}  # fmt: skip


@pairs
@pytest.mark.parametrize("wrap", [lambda model: model, paddle.DataParallel], ids=["plain", "DataParallel"])
def test_10_hooks_fire_once_a_step_and_are_gone(family, method, wrap, recipe, monkeypatch):
    loaded = recipe(family, method)
    model = build_model(loaded)
    batch, runner, both = training_batch(loaded), wrap(model), (model.student, model.teachers[TEACHER])
    runner.train()
    fired, original = [], recorders._record

    def record(outputs, inputs, layer, *args):
        # The student's hooks are not there yet while the teacher's are.
        assert [hooks_on(one) > 0 for one in both].count(True) == 1
        fired.append(next(i for i, one in enumerate(both) if any(layer is x for x in one.sublayers())))
        return original(outputs, inputs, layer, *args)

    monkeypatch.setattr(recorders, "_record", record)
    student, teacher = FIRED[family, method]
    for _ in range(2):
        fired.clear()
        runner(dict(batch))["loss"].backward()
        assert fired == [1] * teacher + [0] * student
        assert hooks_on(*both) == 0
    head, teacher = head_of(model), model.teachers[TEACHER]
    # Where features of the backbone are enough, no more of the teacher is run.
    last = teacher.neck if method != "matching" else teacher.backbone
    places = [(x, "forward") for x in (model.student.backbone, model.student.neck, last)]
    for broken, function in [*places, (head, "get_loss") if hasattr(head, "get_loss") else (head.loss, "forward")]:
        with monkeypatch.context() as patch:
            patch.setattr(broken, function, fail, raising=False)
            with pytest.raises(ZeroDivisionError):
                runner(dict(batch))
        assert hooks_on(*both) == 0


def test_an_input_is_kept_only_where_it_is_asked_for():
    toy = Toy()
    with recording(toy, [Tap("body.0"), Tap("head", argument=0)], ["split"]) as recorder:
        toy(paddle.rand([4, 2]))
    assert set(recorder.inputs) == {"head"} and recorder.inputs["head"][0] is not None
    assert set(recorder.outputs) == {"body.0", "head", "split"}
    nested = Tap("split", plus=Tap("body.0", argument=0))
    assert recording(toy, [nested])._inputs_of == {"body.0"}


def test_what_derive_picks_of_a_list_is_what_the_model_made():
    """As of Mask-RT-DETR's neck, which returns its maps in a list beside what masks are made of."""

    class Neck(paddle.nn.Layer):
        def forward(self, x):
            return [x, x * 2], x * 3

    class Whole(paddle.nn.Layer):
        def __init__(self):
            super().__init__()
            self.neck = Neck()

        def forward(self, x):
            return self.neck(x)

    model, tap = Whole(), Tap("neck", derive=operator.itemgetter(1))
    with recording(model, [tap]) as recorder:
        (maps, _) = model(paddle.ones([1]))
    assert recorder.made_by_the_model(tap)[0] is recorder.take(tap) is maps[1]

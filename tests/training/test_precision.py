"""Mixed precision: what is handed to Paddle, which mixes on a GPU only."""

import glob

import paddle
import pytest

from ppkd.build import build_model
from ppkd.errors import UserError
from ppkd.training.averaging import Averaging
from ppkd.training.precision import Precision
from ppkd.training.trainer import Trainer
from tests.conftest import training_batch
from tests.helpers_precision import imitate
from tests.helpers_training import FOUR, QUICK, differing, everything_in, fail, fit, terms_of


class Gpu:
    """Stands for Paddle's mixed precision on a device that has it; keeps what it was called with."""

    def __init__(self, bfloat16=True):
        self.calls, self._bfloat16 = [], bfloat16

    def is_bfloat16_supported(self):
        return self._bfloat16

    def auto_cast(self, **options):
        self.calls.append(("cast", options))
        return _Nothing()

    def decorate(self, **options):
        self.calls.append(("decorate", options))

    class GradScaler:
        def __init__(self, enable, init_loss_scaling):
            self.enabled, self.scale_by = enable, init_loss_scaling

        def is_enable(self):
            return self.enabled

        def scale(self, loss):
            return loss * 1.0

        def step(self, optimizer):
            optimizer.step()

        def update(self):
            self.scale_by *= 2

        def state_dict(self):
            return {"scale": self.scale_by}

        def load_state_dict(self, state):
            self.scale_by = state["scale"]


class _Nothing:
    def __enter__(self):
        return self

    def __exit__(self, *exception):
        pass


@pytest.fixture
def gpu(monkeypatch):
    fake = Gpu()
    monkeypatch.setattr(paddle, "amp", fake)
    monkeypatch.setattr("ppkd.training.precision.paddle.get_device", lambda: "gpu:0")
    return fake


def test_without_it_nothing_is_mixed(gpu):
    precision = Precision({}, wanted=False)
    with precision.context():
        pass
    precision.prepare("student", "optimizer", ["teacher"])
    assert gpu.calls == [] and precision.state() is None


NO_LISTS = {"custom_white_list": None, "custom_black_list": None}


def test_the_cpu_goes_on_in_float32():
    assert not Precision({}, wanted=True).on


def test_o1_casts_operators(gpu):
    precision = Precision({"custom_white_list": ["conv2d"], "custom_black_list": ["exp"]}, wanted=True)
    precision.prepare("student", "optimizer", ["teacher"])
    with precision.context():
        pass
    lists = {"custom_white_list": ["conv2d"], "custom_black_list": ["exp"]}
    assert gpu.calls == [("cast", {"enable": True, "level": "O1", "dtype": "float16", **lists})]


O2 = [
    FOUR, "amp_level=O2", "CSPResNet.use_alpha=false", "OptimizerBuilder.regularizer=null",
    "OptimizerBuilder.clip_grad_by_norm=null", "distill.loss_weight=0.01",
]  # fmt: skip


def test_o2_trains_averages_saves_and_goes_on(recipe, monkeypatch, dtype="float16"):
    """By Paddle's own `decorate`; its `save_dtype` would make `state_dict` give copies that nobody keeps."""
    monkeypatch.setattr(paddle.amp, "GradScaler", Gpu.GradScaler)
    blocks = imitate(monkeypatch)
    loaded = recipe(QUICK, overrides=[*O2, f"amp_dtype={dtype}", "epoch=2", "keep_resume=9"])
    trainer = fit(loaded, amp=True, validate=True)
    low = [p for p in trainer.student.parameters() if p.dtype == getattr(paddle, dtype)]
    assert len(low) > 20 and ("O2", dtype) in blocks
    masters = trainer.precision.masters()
    assert all((masters[p.name].astype(dtype) == p).all() for p in low if not p.stop_gradient)
    (teacher,) = trainer.distill.teachers.values()
    assert any(p.dtype == getattr(paddle, dtype) for p in teacher.parameters())
    assert all(not hasattr(x, "dtype") or "float16" not in str(x.dtype) for x in _tensors(trainer.averaging.state()))
    for path in glob.glob(f"{loaded.output_dir}/*.pdparams"):
        state = paddle.load(path)
        assert state and {x.dtype for x in state.values() if x.is_floating_point()} == {paddle.float32}, path
    resumed = fit(loaded, amp=True, validate=True, resume=f"{loaded.output_dir}/0")
    assert differing(_whole(trainer), _whole(resumed)) == []


def _whole(trainer):
    with trainer.precision.whole():
        return {k: v for k, v in trainer.state().items() if k != "digest"}


def _tensors(state):
    return [x for each in state.values() for x in (_tensors(each) if isinstance(each, dict) else [each])]


def test_what_is_put_into_the_weights_while_they_are_whole_is_gone_on_from(monkeypatch):
    imitate(monkeypatch)
    layer = paddle.nn.Conv2D(2, 2, 1)
    optimizer = paddle.optimizer.Momentum(0.1, parameters=layer.parameters())
    precision = Precision({"amp_level": "O2", "amp_dtype": "bfloat16"}, wanted=True)
    precision.prepare(layer, optimizer, [])
    weight = layer.weight
    weight.grad = paddle.ones_like(weight)
    optimizer.step()
    fine = paddle.full(weight.shape, 1.001)  # in bfloat16 it would be 1
    with precision.whole(), precision.whole():
        layer.set_state_dict({**layer.state_dict(), "weight": fine})
    assert layer.weight is weight and weight.dtype == paddle.bfloat16 and (weight.astype("float32") == 1).all()
    assert (precision.masters()[weight.name] == fine).all()
    with precision.whole():
        assert (layer.state_dict()["weight"] == fine).all()


def test_an_average_is_of_float32_also_where_the_optimizer_has_no_such_weights_yet(monkeypatch):
    """A frozen weight never has one; and a loss scaler skips the first steps as a rule."""
    imitate(monkeypatch)
    monkeypatch.setattr(paddle.amp, "GradScaler", Gpu.GradScaler)
    student = paddle.nn.Sequential(paddle.nn.Conv2D(2, 2, 1), paddle.nn.Conv2D(2, 2, 1))
    student[0].weight.stop_gradient = True
    optimizer = paddle.optimizer.Momentum(0.1, parameters=student.parameters())
    precision = Precision({"amp_level": "O2"}, wanted=True)
    precision.prepare(student, optimizer, [])
    averaging = Averaging(student, {"use_ema": True, "ema_decay_type": "normal", "ema_decay": 0.5}, precision)
    averaging.update()
    student[1].weight.grad = paddle.ones_like(student[1].weight)
    optimizer.step()
    averaging.update()
    tensors = averaging.state()["tensors"]
    assert {x.dtype for x in tensors.values()} == {paddle.float32} and precision.masters()
    moved, frozen = precision.masters()[student[1].weight.name], student[0].weight.astype("float32")
    assert float((tensors["0.weight"] - frozen * 0.75).abs().max()) < 1e-6
    assert float((tensors["1.weight"] - (moved * 0.5 + (moved + 0.1) * 0.25)).abs().max()) < 1e-6


def test_without_mixed_precision_no_block_of_it_is_entered(recipe, monkeypatch):
    """Entering one costs the host time in every step."""
    loaded = recipe(QUICK)
    model, precision = build_model(loaded), Precision({}, wanted=False)
    model.compute_teachers(precision.of_teachers)
    model.train()
    model.watched = True
    monkeypatch.setattr(paddle.amp, "auto_cast", fail)
    with precision.context():
        losses = model(training_batch(loaded))
    precision.backward(losses["loss"])
    assert model.take_pulls()


@pytest.mark.parametrize("dtype, most", [("bfloat16", 0.05), ("float16", 0.01)])
def test_the_teacher_alone_in_a_lower_type(recipe, monkeypatch, dtype, most):
    """The student's own loss is that of float32, to the bit; what the teacher says is rounded, and no more."""
    loaded = recipe(QUICK)
    batch = training_batch(loaded)
    model = build_model(loaded)
    model.train()
    expected = {k: float(v) for k, v in model(dict(batch)).items()}
    blocks = imitate(monkeypatch)
    precision = Precision({"teacher_dtype": dtype}, wanted=True)
    assert not precision.scales and precision.level is None
    precision.prepare(model.student, "optimizer", model.teachers.values())
    model.compute_teachers(precision.of_teachers)
    with precision.context():
        found = {k: float(v) for k, v in model(dict(batch)).items()}
    assert ("O2", dtype) in blocks and all(p.dtype == paddle.float32 for p in model.student.parameters())
    (teacher,) = model.teachers.values()
    assert any(p.dtype == getattr(paddle, dtype) for p in teacher.parameters())
    terms = terms_of(expected, model)
    assert terms and all(found[k] == pytest.approx(terms[k], rel=most) for k in terms)
    assert any(found[k] != terms[k] for k in terms), "nothing was rounded"
    own = [k for k in expected if k not in terms and k != "loss"]
    assert own and all(found[k] == expected[k] for k in own)


BFLOAT = ("O1", "bfloat16")


@pytest.mark.parametrize(
    "config, student, teachers",
    [
        ({}, ("O1", "float16"), None),
        ({"amp_level": "O2"}, ("O2", "float16"), ("O2", "float16")),
        ({"teacher_dtype": "bfloat16"}, None, ("O2", "bfloat16")),
        ({"teacher_dtype": "float16", "amp_level": "O1"}, ("O1", "float16"), ("O2", "float16")),
        ({"teacher_dtype": "float16", "amp_level": "O1", "amp_dtype": "bfloat16"}, BFLOAT, ("O2", "float16")),
        ({"teacher_dtype": "float32", "amp_level": "O2"}, ("O2", "float16"), "float32"),
    ],
)  # fmt: skip
def test_who_computes_in_what(monkeypatch, config, student, teachers):
    blocks = imitate(monkeypatch)
    monkeypatch.setattr(paddle.amp, "GradScaler", Gpu.GradScaler)
    layers = [paddle.nn.Conv2D(2, 2, 1), paddle.nn.Conv2D(2, 2, 1)]
    precision = Precision(config, wanted=True)
    precision.prepare(layers[0], paddle.optimizer.SGD(0.1, parameters=layers[0].parameters()), [layers[1]])
    with precision.context():
        assert blocks.pop() == student
        with precision.of_teachers():
            assert blocks == ([None] if teachers == "float32" else [] if teachers is None else [teachers])
    low = [student and student[0] == "O2" and student[1], isinstance(teachers, tuple) and teachers[1]]
    assert [str(x.weight.dtype).split(".")[-1] for x in layers] == [x or "float32" for x in low]


def test_a_teachers_type_without_mixed_precision_is_told(caplog):
    assert not Precision({"teacher_dtype": "bfloat16"}, wanted=False).on
    assert "teacher_dtype: bfloat16 changes nothing without --amp" in caplog.text


def test_bfloat16_needs_no_scale(gpu):
    assert Precision({}, wanted=True).scaler.enabled
    assert not Precision({"amp_dtype": "bfloat16"}, wanted=True).scaler.enabled


@pytest.mark.parametrize(
    "config, message",
    [
        ({"amp_level": "O3"}, "amp_level has to be one of O1, O2, found 'O3'"),
        ({"amp_dtype": "half"}, "amp_dtype has to be one of float16, bfloat16, found 'half'"),
        ({"teacher_dtype": "int8"}, "teacher_dtype has to be one of float32, float16, bfloat16, found 'int8'"),
    ],
)
def test_wrong_values_are_told(config, message):
    with pytest.raises(UserError, match=message):
        Precision(config, wanted=False)


def test_a_device_without_bfloat16_is_told(gpu):
    gpu._bfloat16 = False
    for key in ("amp_dtype", "teacher_dtype"):
        with pytest.raises(UserError, match=f"{key}: this device has no bfloat16; float16 would do"):
            Precision({key: "bfloat16"}, wanted=True)


def test_the_scale_is_kept_for_resuming(recipe, monkeypatch):
    monkeypatch.setattr(paddle.amp, "GradScaler", Gpu.GradScaler)
    monkeypatch.setattr(Precision, "_possible", lambda self: True)
    loaded = recipe(QUICK, distil=False, overrides=[FOUR])
    assert fit(loaded, amp=True, max_steps=2).precision.scaler.scale_by == 1024 * 4
    resumed = fit(loaded, amp=True, max_steps=3, resume=f"{loaded.output_dir}/model_final")
    assert resumed.precision.scaler.scale_by == 1024 * 8


class Careful(Gpu.GradScaler):
    """As Paddle's: takes no step with gradients that are not finite, and halves the scale."""

    def step(self, optimizer):
        gradients = [p.grad for p in optimizer._parameter_list if p.grad is not None]
        self.found = not all(bool(paddle.isfinite(g).all()) for g in gradients)
        if not self.found:
            optimizer.step()

    def update(self):
        self.scale_by *= 0.5 if self.found else 1.0


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_a_scaler_sees_what_is_skipped(recipe, monkeypatch, what):
    """A loss that is not finite is counted and told; gradients beyond the range are the scaler's business."""
    monkeypatch.setattr(paddle.amp, "GradScaler", Careful)
    monkeypatch.setattr(Precision, "_possible", lambda self: True)
    loaded = recipe(QUICK, overrides=[FOUR, "on_nonfinite=skip", "epoch=1"])
    with Trainer.open(loaded, amp=True) as trainer:
        seen, step = [], trainer._train_batch

        def watched(batch):
            before = everything_in(trainer.student)
            step(batch)
            seen.append(bool(differing(before, everything_in(trainer.student))))

        def scale(loss):
            now = what == "gradient" and trainer.batch == 1
            return loss * float("inf") if now else loss * 1.0

        def broken(layer, given, maps):
            return [x * float("nan") for x in maps] if what == "loss" and trainer.batch == 1 else maps

        trainer._train_batch = lambda batch: watched(batch) or []
        trainer.precision.scaler.scale = scale
        trainer.distill.teachers["teacher"].neck.register_forward_post_hook(broken)
        trainer.run()
    # Running means and variances of a step that the scaler skips are as the forward left them.
    assert seen == [True, what == "gradient", True]
    assert trainer.numerics.skipped == (what == "loss") and trainer.precision.scaler.scale_by == 512

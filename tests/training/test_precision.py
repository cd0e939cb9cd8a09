"""Mixed precision: what is handed to Paddle, which mixes on a GPU only."""

import paddle
import pytest

from ppkd.errors import UserError
from ppkd.training.precision import Precision
from ppkd.training.trainer import Trainer
from tests.helpers_training import FOUR, QUICK, differing, everything_in, fit


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
    assert gpu.calls == [("cast", {"enable": False, "level": "O1", "dtype": "float16", **NO_LISTS})]
    assert precision.state() is None


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


def test_o2_gives_both_models_low_weights_and_saves_float32(gpu):
    Precision({"amp_level": "O2", "amp_dtype": "bfloat16"}, wanted=True).prepare("student", "optimizer", ["teacher"])
    (_, student), (_, teacher) = gpu.calls
    assert (student["models"], student["optimizers"], student["save_dtype"]) == ("student", "optimizer", "float32")
    assert student["master_weight"] and teacher["models"] == "teacher" and "optimizers" not in teacher
    assert student["dtype"] == teacher["dtype"] == "bfloat16"


def test_bfloat16_needs_no_scale(gpu):
    assert Precision({}, wanted=True).scaler.enabled
    assert not Precision({"amp_dtype": "bfloat16"}, wanted=True).scaler.enabled


@pytest.mark.parametrize(
    "config, message",
    [
        ({"amp_level": "O3"}, "amp_level has to be one of O1, O2, found 'O3'"),
        ({"amp_dtype": "half"}, "amp_dtype has to be one of float16, bfloat16, found 'half'"),
    ],
)
def test_wrong_values_are_told(config, message):
    with pytest.raises(UserError, match=message):
        Precision(config, wanted=False)


def test_a_device_without_bfloat16_is_told(gpu):
    gpu._bfloat16 = False
    with pytest.raises(UserError, match="no bfloat16; float16 would do"):
        Precision({"amp_dtype": "bfloat16"}, wanted=True)


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

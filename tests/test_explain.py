"""Any method is a block of terms: written by hand or printed by ``ppkd explain``, it gives the same to the bit."""

import re

import paddle
import pytest
import yaml

from ppkd.build import build_model
from ppkd.explain import explained
from ppkd.recipe.recipe import load_recipe
from tests.conftest import CONFIGS, enliven, training_batch
from tests.helpers_tools import call, the_error, write
from tests.helpers_training import pairs

BY_HAND = ("retinanet", "fgd"), ("gfl", "cwd"), ("gfl", "ld"), ("ppyoloe", "ppyoloe"), ("yolov3", "yolov3")


def step(loaded, epoch):
    """Losses and gradients of one training step, by name."""
    paddle.seed(3)
    model = build_model(loaded)
    enliven(model.student)
    for index, parameter in enumerate(model.distillation.parameters()):
        paddle.seed(100 + index)
        parameter.set_value(paddle.rand(parameter.shape) - 0.5)
    losses = model(training_batch(loaded, epoch))
    losses["loss"].backward()
    gradients = {name: p.grad.numpy() for name, p in model.student.named_parameters() if p.grad is not None}
    own = [p.grad.numpy() for p in model.distillation.parameters() if p.grad is not None]
    return {key: float(value) for key, value in losses.items()}, gradients, own


def assert_same(a, b):
    assert a[0] == b[0]
    assert a[1].keys() == b[1].keys() and all((a[1][name] == b[1][name]).all() for name in a[1])
    assert len(a[2]) == len(b[2]) and all((x == y).all() for x, y in zip(a[2], b[2]))


@pytest.mark.parametrize("family, method", BY_HAND)
def test_a_method_written_out_by_hand_gives_the_same_to_the_bit(family, method, recipe):
    epoch = 1 if family == "ppyoloe" else 0  # the teacher's predictions assign from epoch 1 on
    named, by_hand = (step(recipe(family, name), epoch) for name in (method, f"{method}_by_hand"))
    assert len(named[0]) > 3
    assert_same(named, by_hand)


@pairs
def test_what_is_printed_is_a_slim_file_that_gives_the_same(family, method, recipe, shapes, teacher_weights, tmp_path):
    overrides = ["distill.decay=cosine", "distill.warmup_epochs=1", "epoch=3"]
    loaded = recipe(family, method, overrides=overrides)
    given = [f"dataset_dir={shapes}", f"save_dir={tmp_path}", f"teacher.pretrain_weights={teacher_weights[family]}"]
    text = explained(loaded, [*given, *overrides], str(tmp_path))
    path = write(tmp_path / "explained.yml", text)
    assert "slim_method" not in yaml.safe_load(text)
    again = load_recipe(str(CONFIGS / f"{family}_tiny.yml"), path, [])
    assert again.student == loaded.student
    assert_same(step(loaded, 0), step(again, 0))


def test_the_parameters_of_a_connector_are_whose_they_are(recipe, tmp_path):
    text = explained(recipe("resnet", "matching", overrides=["distill.groups=16"]), [], str(tmp_path))
    told = [line.split(" # ")[1] for line in text.splitlines() if "_connector: " in line]
    assert told[0] == "-o distill.groups" and "resnet_matching.yml (track)" in told[1]
    assert set(told[2:]) == {"resnet_matching.yml"} and len(told) == 8


def test_it_tells_who_set_what(recipe, tmp_path):
    overrides = ["distill.beta_fgd=2", "distill.terms.fgd.magnitude=20%", "distill.stop_epoch=4", "epoch=5"]
    overrides.append("distill.hand_over=[average, first_moment]")
    lines = explained(recipe("retinanet", "fgd", overrides=overrides), overrides, str(tmp_path)).splitlines()

    def who(key):
        (line,) = (line.strip() for line in lines if line.strip().startswith(f"{key}:"))
        return re.fullmatch(r"\w+: (.*?) +# (.*)", line).groups()

    assert who("alpha") == ("0.001", "retinanet_fgd.yml (alpha_fgd)")
    assert who("temp") == ("0.5", "retinanet_fgd.yml (temp)"), "also where it is what the default would be"
    assert who("beta") == ("2", "-o distill.beta_fgd")
    assert who("zero_context") == ("false", "FGD's default")
    assert who("student_connector") == ("align", "FGD's default")
    assert who("magnitude") == ("20%", "-o")
    assert who("stop_epoch") == ("4", "-o distill.stop_epoch")
    assert who("epoch") == ("5", "-o")
    assert who("hand_over") == ("[first_moment, average]", "-o distill.hand_over")
    assert any(re.fullmatch(r"# fgd\.s8 +neck\[0\] +\d+ +stride 8 +neck\[0\] +\d+ +stride 8", line) for line in lines)


def test_terms_of_the_users_own_name_their_file_and_what_is_a_default(recipe, tmp_path):
    overrides = ["distill.terms.cwd_cls.weight=3"]
    text = explained(recipe("gfl", "cwd_by_hand", overrides=overrides), overrides, str(tmp_path))
    cls = text[text.index("cwd_cls:") :]
    assert re.search(r"weight: 3 +# -o\n", cls)
    assert re.search(r"tau: 1.0 +# gfl_cwd_by_hand.yml\n", cls)
    assert re.search(r"norm: channel +# the default\n", cls)


def test_what_no_slim_file_can_say_is_left_to_the_command_line(recipe, tmp_path):
    """A reader among the slim file's own keys would be the run's, not the teacher's."""
    overrides = ["teacher.TrainReader.batch_transforms=[{NormalizeImage: {}}]", "depth_mult=0.5", "teacher.act=relu"]
    printed = explained(recipe("ppyoloe", "fgd", overrides=overrides), overrides, str(tmp_path))
    assert f"as before, since no slim file can say it: -o {overrides[0]} {overrides[1]}\n" in printed
    values = yaml.safe_load(printed)
    assert "TrainReader" not in values and values["act"] == "relu"


def test_what_stands_in_the_class_of_the_students_head_is_told_too(shapes, tmp_path):
    """PaddleDetection's LD has its parameters there, in the student's file or in the slim file."""
    student = write(tmp_path / "s.yml", f"_BASE_: [{CONFIGS}/gfl_tiny.yml]\nLDGFLHead: {{loss_kd: {{T: 3}}}}\n")
    text = f"_BASE_: [{CONFIGS}/gfl_wide.yml]\nslim: Distill\nslim_method: LD\nLDGFLHead: {{loss_ld: {{T: 5}}}}\n"
    slim = write(tmp_path / "slim.yml", text)
    printed = explained(load_recipe(student, slim, [f"dataset_dir={shapes}"]), [], str(tmp_path))
    assert re.search(r"ld_temp: 5 +# slim\.yml \(loss_ld\.T\)\n", printed)
    assert re.search(r"kd_temp: 3 +# the student's file \(loss_kd\.T\)\n", printed)
    assert re.search(r"vlr_temp: 10 +# LD's default\n", printed)
    assert "LDGFLHead" not in printed


def test_the_command_prints_it_or_writes_it(shapes, tmp_path, capsys):
    given = ["-c", CONFIGS / "gfl_tiny.yml", "--slim_config", CONFIGS / "gfl_cwd.yml", "-o", f"dataset_dir={shapes}"]
    assert call("explain", *given)[0] == 0
    assert yaml.safe_load(capsys.readouterr().out)["slim"] == "Distill"
    file = tmp_path / "made" / "slim.yml"
    assert call("explain", *given, "--output", file)[0] == 0
    base = yaml.safe_load(file.read_text())["_BASE_"][0]
    assert (file.parent / base).resolve() == CONFIGS / "gfl_wide.yml"


def test_what_would_stop_the_run_stops_it_too(shapes):
    given = ["-c", CONFIGS / "retinanet_tiny.yml", "--slim_config", CONFIGS / "retinanet_fgd.yml"]
    message = the_error(*call("explain", *given, "-o", f"dataset_dir={shapes}", "distill.terms.fgd.student=nek[*]"))
    assert "no source 'nek[*]'; nearest: neck" in message

"""A user's own losses and connectors, from a file or an installed package."""

import importlib.metadata
import re
import shutil
import textwrap
import types

import paddle
import pytest

from ppkd.build import build_model
from ppkd.engine import plugin_files
from ppkd.engine.connectors import CONNECTORS
from ppkd.errors import UserError
from ppkd.losses import LOSSES
from ppkd.recipe.recipe import load_recipe
from ppkd.training.trainer import Trainer
from tests.conftest import CONFIGS, ROOT, training_batch
from tests.helpers_tools import call, the_error, write

EXAMPLE = ROOT / "docs" / "examples" / "my_losses.py"
DOUBLE = """
from paddle import nn
from ppkd.plugins import register_loss

@register_loss("double")
class Double(nn.Layer):
    def __init__(self, factor=2.0):
        super().__init__()
        self.factor = factor

    def forward(self, student, teacher):
        return (student - teacher).square().mean() * self.factor
"""


@pytest.fixture(autouse=True)
def _forgotten():
    """What a test registers is gone after it. Plugins are allowed, as by --allow-plugins."""
    plugin_files.permit()
    registries = (LOSSES, CONNECTORS)
    before = [dict(registry) for registry in registries]
    yield
    plugin_files._loaded.clear()
    for registry, content in zip(registries, before):
        registry.clear()
        registry.update(content)
    plugin_files._installed = plugin_files._permitted = False


@pytest.fixture
def slim(shapes, teacher_weights, tmp_path):
    """Function that writes a slim file beside the plugin ``mine.py``; the arguments of a command for it."""

    def make(code, term="student: 'neck[*]', student_connector: align, loss: double"):
        write(tmp_path / "mine.py", code)
        text = (
            f"_BASE_: [{CONFIGS}/ppyoloe_wide.yml]\nslim: Distill\n"
            f"distill:\n  plugins: [mine.py]\n  terms: {{mine: {{{term}}}}}\n"
        )
        path = write(tmp_path / "slim.yml", text)
        given = [f"dataset_dir={shapes}", f"teacher.pretrain_weights={teacher_weights['ppyoloe']}"]
        return str(CONFIGS / "ppyoloe_tiny.yml"), path, [*given, f"save_dir={tmp_path / 'out'}"]

    return make


def train(config, path, overrides):
    return the_error(*call("train", "-c", config, "--slim_config", path, "-o", *overrides))


def test_a_loss_of_a_file_beside_the_slim_file_is_used(slim, monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)  # the path is relative to the slim file, not to where one stands
    loaded = load_recipe(*slim(DOUBLE))
    model = build_model(loaded)
    term = model.terms[0]
    x, y = paddle.rand([2, 24, 4, 4]), paddle.rand([2, 24, 4, 4])
    assert float(term.loss(x, y)) == pytest.approx(2 * float(((x - y) ** 2).mean()), rel=1e-6)
    losses = model(training_batch(loaded))
    assert {key for key in losses if key.startswith("mine")} == {"mine.s8", "mine.s16", "mine.s32"}


def test_its_parameters_are_read_and_checked(slim):
    term = "student: 'neck[*]', student_connector: align, loss: {name: double, factor: 5}"
    assert build_model(load_recipe(*slim(DOUBLE, term))).terms[0].loss.factor == 5
    message = train(*slim(DOUBLE, term.replace("factor", "facto")))
    assert "loss double has no parameter 'facto'; nearest: factor; it has: factor" in message


def test_the_example_of_the_documentation_trains(shapes, teacher_weights, tmp_path):
    shutil.copy(EXAMPLE, tmp_path / "my_losses.py")
    text = (ROOT / "docs" / "terms.md").read_text()
    block = textwrap.dedent("    " + text[text.index("distill:\n      plugins:") :].split("\n\n")[0])
    slim = write(tmp_path / "slim.yml", f"_BASE_: [{CONFIGS}/ppyoloe_wide.yml]\nslim: Distill\n{block}\n")
    given = [f"dataset_dir={shapes}", f"teacher.pretrain_weights={teacher_weights['ppyoloe']}"]
    loaded = load_recipe(str(CONFIGS / "ppyoloe_tiny.yml"), slim, [*given, f"save_dir={tmp_path / 'out'}"])
    with Trainer.open(loaded, max_steps=1) as trainer:
        before = {name: p.numpy().copy() for name, p in trainer.distillation.named_parameters()}
        trainer.run()
        assert before and all((before[name] != p.numpy()).any() for name, p in trainer.distillation.named_parameters())
        assert not [key for key in trainer.student.state_dict() if "spatial" in key]


def test_the_examples_loss_looks_into_boxes_only():
    plugin_files.load_plugins([str(EXAMPLE)], "x.yml")
    loss = LOSSES["charbonnier_in_boxes"](eps=1e-9)
    student, teacher = paddle.zeros([1, 2, 4, 4]), paddle.zeros([1, 2, 4, 4])
    teacher[:, :, 1, 2] = 3.0
    teacher[:, :, 3, 3] = 100.0
    boxes = paddle.to_tensor([[[16.0, 8.0, 32.0, 16.0], [0.0, 0.0, 32.0, 32.0]]])
    valid = paddle.to_tensor([[1.0, 0.0]])
    assert float(loss(student, teacher, boxes, valid, (32, 32))) == pytest.approx(1.5)
    assert float(loss(student, teacher, paddle.zeros([1, 1, 4]), paddle.zeros([1, 1]), (32, 32))) == 0


@pytest.mark.parametrize(
    "code, message",
    [
        ("import nowhere_to_be_found", r"mine.py:1: ModuleNotFoundError: No module named 'nowhere_to_be_found'"),
        ("x = (", r"SyntaxError"),
        ("x = 1", r"mine.py registers neither a loss nor a connector"),
        (DOUBLE.replace('"double"', '"cwd"'), r"loss cwd: there is one of this name already"),
        (DOUBLE.replace("nn.Layer", "object"), r"loss double: has to be a class that inherits from paddle.nn.Layer"),
        (DOUBLE.replace("student, teacher)", "student)"),
         r"loss double: its forward takes \(student\); it has to take the student's and the teacher's tensor"),
        (DOUBLE.replace("student, teacher)", "student, teacher, weather)"),
         r"loss double asks for 'weather'; a loss can ask for boxes, "),
        (DOUBLE.replace("factor=2.0", "factor"), r"loss double needs factor: write {name: double, factor: \.\.\.}"),
        (DOUBLE.replace("register_loss", "register_connector"),
         r"connector double: its constructor lacks channels and target"),
    ],
)  # fmt: skip
def test_a_wrong_plugin_is_told_in_one_line(code, message, slim):
    assert re.search(message, train(*slim(code)))


def test_a_plugin_that_fails_half_way_leaves_nothing(slim):
    assert "mine.py:14: ValueError: later" in train(*slim(DOUBLE + "\nraise ValueError('later')\n"))
    assert "double" not in LOSSES


def test_a_plugin_that_is_not_there(slim, tmp_path):
    arguments = slim(DOUBLE)
    (tmp_path / "mine.py").unlink()
    assert f"distill.plugins: no such file: {tmp_path / 'mine.py'}" in train(*arguments)


def test_a_changed_plugin_is_another_run(slim, tmp_path):
    config, path, given = slim(DOUBLE)
    with Trainer.open(load_recipe(config, path, given), max_steps=1) as trainer:
        trainer.run()
    write(tmp_path / "mine.py", DOUBLE.replace("2.0", "3.0"))
    resume = str(tmp_path / "out" / "ppyoloe_tiny" / "model_final")
    with pytest.raises(UserError, match=r"another recipe: .*mine\.py"), Trainer.open(
        load_recipe(config, path, given), resume=resume
    ):
        pass


def test_an_installed_package_is_found_by_its_entry_point(slim, monkeypatch):
    module = types.ModuleType("installed")

    class Entry:
        name, value = "installed", "installed"

        @staticmethod
        def load():
            exec(DOUBLE.replace('"double"', '"installed"'), module.__dict__)

    seen = []
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: seen.append(group) or [Entry])
    term = "student: 'neck[*]', student_connector: align, loss: installed"
    assert build_model(load_recipe(*slim(DOUBLE, term))).terms[0].loss.factor == 2.0
    assert seen == ["ppkd.plugins"]


def test_a_plugin_runs_once_in_a_process(tmp_path):
    code = DOUBLE + "\nimport pathlib\npathlib.Path(__file__).with_name('runs').open('a').write('x')\n"
    path = write(tmp_path / "mine.py", code)
    for _ in range(2):
        plugin_files.load_plugins([path], "x.yml")
    assert (tmp_path / "runs").read_text() == "x"


CANARY = "import pathlib, sys\npathlib.Path(__file__).with_name('ran').touch()\nprint('it runs', file=sys.stderr)\n"
HIDDEN = {
    "plainly": "distill:\n  plugins: [mine.py]\n",
    "escaped": 'distill:\n  "plu\\x67ins": mine.py\n',
    "in another's words": '"dis\\u0074ill": {"\\x70lugins": ["mine.py"], terms: {mine: {student: neck}}}\n',
    "by an anchor": "x-anything: &a {? !!str plugins : [mine.py]}\ndistill:\n  <<: *a\n",
}


@pytest.mark.parametrize("hidden", HIDDEN)
def test_a_plugin_that_the_command_line_does_not_allow_is_not_run(slim, tmp_path, hidden):
    """However a slim file, or one that it inherits from, writes it, and whatever command reads it."""
    plugin_files._permitted = False
    config, _, given = slim(CANARY + DOUBLE)
    text = HIDDEN[hidden].replace("x-anything", "distill_loss_name: []\nFGDFeatureLoss")
    write(tmp_path / "base.yml", f"_BASE_: [{CONFIGS}/ppyoloe_fgd.yml]\n{text}")
    path = write(tmp_path / "slim.yml", "_BASE_: [base.yml]\nslim: Distill\n")
    for command in ("train", "explain", "doctor"):
        code, errors = call(command, "-c", config, "--slim_config", path, "-o", *given)
        message = the_error(code, errors)
        assert not (tmp_path / "ran").exists(), command
        if command != "doctor":  # which lists it among what it has found
            assert re.search("distill.plugins names Python files, .*mine.py.*allow it with --allow-plugins", message)


@pytest.mark.parametrize("way", ["--allow-plugins", "named"])
def test_it_is_told_before_a_plugin_runs(slim, tmp_path, way):
    """On the error's stream where the log is quiet; a file that -o names is named by the command line itself."""
    plugin_files._permitted = False
    config, path, given = slim(CANARY + DOUBLE)
    more = [way] if way != "named" else ["-o", f"distill.plugins={tmp_path / 'mine.py'}"]
    code, errors = call("explain", "-c", config, "--slim_config", path, "-o", *given, *more)
    assert code == 0, errors
    told, ran = errors.splitlines()[:2]
    assert told == f"ppkd: {path}: distill.plugins: running {tmp_path / 'mine.py'}" and ran == "it runs"


def test_what_a_run_folder_names_is_not_run(slim, tmp_path):
    """A report and a comparison of somebody's run: only with --allow-plugins."""
    from ppkd.methods import plan
    from ppkd.study.runs import Run

    loaded = load_recipe(*slim(CANARY + DOUBLE))
    from ppkd.training.record import record

    write(tmp_path / "theirs" / "recipe.yml", record(loaded).replace("plugins:", '"plu\\x67ins":'))
    write(tmp_path / "theirs" / "model_final.pdparams", "")
    plugin_files._permitted = False
    run = Run(str(tmp_path / "theirs"))
    with pytest.raises(UserError, match="allow it with --allow-plugins"):
        plan(run.recipe.method)
    assert not (tmp_path / "ran").exists()
    plugin_files.permit()
    assert [term.name for term in plan(run.recipe.method).terms] == ["mine"]

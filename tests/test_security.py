"""Files of others run nothing: whatever command reads them, a canary file is never made."""

import os
import pathlib
import pickle
import shutil
import sys

import numpy as np
import paddle
import pytest

from ppkd.bridge.workspace import create, scope
from ppkd.errors import UserError
from ppkd.files.tensor_files import read_tensors
from ppkd.training.checkpoint import RESUME_SUFFIX
from tests import helpers_malicious
from tests.conftest import CONFIGS
from tests.helpers_runs import train
from tests.helpers_tools import call, the_error, write
from tests.helpers_torch import Call, save_torch

STUDENT, SLIM, WIDE = (CONFIGS / f"retinanet_{name}.yml" for name in ("tiny", "fgd", "wide"))
EVIL = ("os.system", "eval with data", "in an object array", "flags that make bytes addresses", "slots of a known name")
SUFFIXES = (".pdparams", ".safetensors")


@pytest.fixture
def canary(tmp_path, monkeypatch):
    """A path at which nothing is, also when the test is over."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "canary"
    yield path
    assert not path.exists()


@pytest.fixture
def run(shapes, teacher_weights, tmp_path):
    """Function that runs a command on the tiny student and returns its one line of error."""
    image = next((pathlib.Path(shapes) / "val").glob("*.jpg"))
    more = {"infer": ["--infer_img", image], "train": ["--max_steps", 1, "--eval"]}

    def one(name, *overrides, config=STUDENT, slim=None, options=()):
        given = [f"dataset_dir={shapes}", *overrides]
        if slim is not None:
            options = ["--slim_config", slim, *options]
            given.insert(1, f"teacher.pretrain_weights={teacher_weights['retinanet']}")
        return the_error(*call(name, "-c", config, *more.get(name, ()), *options, "-o", *given))

    return one


# Weights


LOADS = {
    "train, student": lambda run, path: run("train", f"pretrain_weights={path}"),
    "train, teacher": lambda run, path: run("train", f"teacher.pretrain_weights={path}", slim=SLIM),
    "train, one of several teachers": lambda run, path: run("train", slim=_two_teachers(path)),
    "eval": lambda run, path: run("eval", f"weights={path}"),
    "infer": lambda run, path: run("infer", f"weights={path}"),
    "export": lambda run, path: run("export_model", f"weights={path}"),
    "convert": lambda run, path: run("convert", options=["--checkpoint", path, "--output", "out.pdparams"]),
    "train, backbone": lambda run, path: run("train", config=_swin(path)),
    "eval, backbone": lambda run, path: run("eval", "weights=none", config=_swin(path)),
    "explain, backbone": lambda run, path: run("explain", config=_swin(path), slim=SLIM),
    "explain, teacher's backbone": lambda run, path: run("explain", slim=_of_swin(path)),
}


def _swin(path):
    return write("swin.yml", f"_BASE_: [{STUDENT}]\nRetinaNet: {{backbone: SwinTransformer}}\n" + _SWIN.format(path))


def _of_swin(path):
    wide = f"_BASE_: [{WIDE}]\nRetinaNet: {{backbone: SwinTransformer}}\n" + _SWIN.format(path)
    return write("slim.yml", f"_BASE_: [{write('wide.yml', wide)}]\nslim: Distill\nslim_method: FGD\n")


_SWIN = (
    "SwinTransformer: {{embed_dim: 8, depths: [1, 1, 1, 1], num_heads: [1, 1, 1, 1], out_indices: [1, 2, 3], "
    "pretrained: {}}}\n"
)


def _two_teachers(path):
    return write(
        "slim.yml",
        f"_BASE_: [{WIDE}]\nslim: Distill\nslim_method: FGD\ndistill:\n  teachers:\n"
        f"    second: {{config: {WIDE}, pretrain_weights: {path}}}\n",
    )


@pytest.mark.parametrize("evil", EVIL[:2])
@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("load", LOADS)
def test_weights_that_would_run_code(run, canary, load, suffix, evil):
    path = canary.parent / ("evil" + suffix)
    path.write_bytes(helpers_malicious.weights(canary)[evil])
    message = LOADS[load](run, path)
    if suffix == ".safetensors":
        assert message.startswith(f"{path}: not a safetensors file, or a damaged one (")
    else:
        called = {"os.system": "posix.system", "eval with data": "builtins.eval"}[evil]
        assert message == f"{path}: it calls {called}, which tensors do not need, so it is not opened"


@pytest.mark.parametrize("evil", EVIL)
@pytest.mark.parametrize("name", ["evil.pdema", "evil.pdparams"])
def test_convert_reads_every_kind_the_same_way(run, canary, name, evil):
    (canary.parent / name).write_bytes(helpers_malicious.weights(canary)[evil])
    message = run("convert", options=["--checkpoint", name, "--output", "out.safetensors"])
    assert message.startswith(f"{name}: it ") and not os.path.exists("out.safetensors")


def test_an_optimizers_state_is_not_opened_at_all(run, canary):
    (canary.parent / "evil.pdopt").write_bytes(helpers_malicious.weights(canary)["os.system"])
    message = run("convert", options=["--checkpoint", "evil.pdopt", "--output", "out.pdparams"])
    assert message.startswith("evil.pdopt: the optimizer's state, in which there are no weights")
    with pytest.raises(UserError, match=r"it calls posix\.system"):
        read_tensors("evil.pdopt")


@pytest.mark.parametrize("evil", EVIL)
@pytest.mark.parametrize("way", ["evil", "evil.resume", "evil.pdparams", "auto"])
def test_resume_files_that_would_run_code(run, canary, way, evil):
    folder = canary.parent / ("output/retinanet_tiny" if way == "auto" else ".")
    os.makedirs(folder, exist_ok=True)
    (folder / f"evil{RESUME_SUFFIX}").write_bytes(helpers_malicious.weights(canary)[evil])
    message = run("train", options=["-r", way])
    told = "--resume auto: no resume file of output/retinanet_tiny can be read" if way == "auto" else "evil.resume: it "
    assert message.startswith(told)


def test_resume_files_by_themselves(canary):
    """As a program of one's own reads them, outside of the scope in which Paddle's loading is restricted."""
    from ppkd.training import checkpoint

    (canary.parent / "evil.resume").write_bytes(helpers_malicious.weights(canary)["os.system"])
    with pytest.raises(UserError, match=r"evil\.resume: it calls posix\.system"):
        checkpoint.load("evil")


def test_something_bad_deep_in_a_real_resume_file(run, shapes, canary):
    """Its optimizer's state, nested in what a run has written."""
    arguments = ["-c", STUDENT, "--max_steps", 1, "-o", f"dataset_dir={shapes}"]
    assert call("train", *arguments)[0] == 0
    path = "output/retinanet_tiny/model_final.resume"
    state = read_tensors(path)
    evil = helpers_malicious.payloads(canary)["os.system"]
    state["optimizer"]["LR_Scheduler"]["last_lr"] = evil
    with open(path, "wb") as file:
        pickle.dump(state, file, 4)
    message = run("train", options=["-r", path, "--force"])
    assert message == f"{path}: it calls posix.system, which tensors do not need, so it is not opened"


def test_halving_weights(canary):
    from ppkd import cli, commands

    (canary.parent / "evil.pdparams").write_bytes(helpers_malicious.weights(canary)["os.system"])
    with pytest.raises(SystemExit):
        cli.run(cli.halve_parser(), commands.halve, ["evil.pdparams", "out.pdparams"])
    assert not os.path.exists("out.pdparams")


@pytest.mark.parametrize("key", ["pretrain_weights", "teacher.pretrain_weights"])
def test_the_doctor_tells_what_is_wrong_with_weights_and_runs_nothing(shapes, canary, capsys, key):
    (canary.parent / "evil.pdparams").write_bytes(helpers_malicious.weights(canary)["os.system"])
    given = [f"dataset_dir={shapes}", "teacher.pretrain_weights=null", f"{key}=evil.pdparams"]
    code, errors = call("doctor", "-c", STUDENT, "--slim_config", SLIM, "-o", *given)
    assert code
    assert "evil.pdparams: it calls posix.system" in " ".join((capsys.readouterr().out + errors).split())


@pytest.fixture(scope="module")
def trained(tmp_path_factory, shapes, teacher_weights):
    """Folder of a distilled run of three steps."""
    return train(tmp_path_factory.mktemp("trained"), shapes, teacher_weights["ppyoloe"])[0]


@pytest.mark.parametrize("file", ["model_final.pdparams", "model_final.resume", "recipe.yml"])
@pytest.mark.parametrize("command", ["report", "compare"])
def test_runs_of_others_run_nothing(trained, canary, command, file):
    """A report goes on without the connectors, which stand in the resume file, and says why."""
    folder = canary.parent / "theirs"
    shutil.copytree(trained, folder)
    if file == "recipe.yml":
        text = (folder / file).read_text()
        (folder / file).write_text(text + f"mine: !!python/object/apply:os.system ['touch {canary}']\n")
    else:
        (folder / file).write_bytes(helpers_malicious.weights(canary)["os.system"])
    options = ["--output", "report"] if command == "report" else ["--against", "ppyoloe_fgd"]
    code, errors = call(command, folder, *options)
    told = f"{folder}/recipe.yml:" if file == "recipe.yml" else "it calls posix.system"
    if file == "model_final.resume":
        assert code == 0, errors
        assert command == "compare" or told in (canary.parent / "report" / "report.html").read_text()
    else:
        assert told in the_error(code, errors)


def test_torchs_files_run_nothing(run, canary):
    save_torch({"state_dict": Call("posix", "system", f"touch {canary}")}, "evil.pth")
    message = run("convert", options=["--checkpoint", "evil.pth", "--output", "out.pdparams"])
    assert message.startswith("evil.pth: it calls posix.system") and not os.path.exists("out.pdparams")


# What ppdet itself loads


def test_backbones_load_what_is_good(canary):
    """From Paddle's files and from safetensors, by a path with a checksum too."""
    from ppdet.modeling.backbones import swin_transformer

    from ppkd.files.download import sha256
    from ppkd.files.tensor_files import write_tensors

    width = 96 if hasattr(swin_transformer, "MODEL_cfg") else 8  # clones know sizes by name alone
    content = {"patch_embed.proj.bias": np.arange(width, dtype="float32")}
    for suffix in SUFFIXES:
        write_tensors("b" + suffix, content, suffix)
        path = f"b{suffix}#sha256={sha256('b' + suffix)}"
        keys = {"embed_dim": 8, "depths": [1] * 4, "num_heads": [1] * 4, "pretrained": path}
        with scope({"SwinTransformer": keys}):
            assert create("SwinTransformer").patch_embed.proj.bias.tolist() == list(range(width))


def test_paddles_own_loading_is_restricted_in_a_scope_only(canary):
    from paddle.utils import download

    former = paddle.load, download.get_weights_path_from_url
    with scope({}), scope({}):
        assert paddle.load is not former[0]
        with pytest.raises(UserError, match="pretrained weights: no file none"):
            paddle.load("none")
        with pytest.raises(UserError, match="https only"):
            download.get_weights_path_from_url("http://localhost/w.pdparams")
        with pytest.raises(UserError, match="has no keep_name_table"):
            paddle.load("none", keep_name_table=True)
    assert (paddle.load, download.get_weights_path_from_url) == former


def test_the_cache_of_decoded_images_runs_nothing(canary):
    from ppdet.data.transform.operators import DecodeCache

    image = np.arange(12, dtype="uint8").reshape(2, 2, 3)
    DecodeCache.dump(image, "x.pkl")
    assert np.array_equal(DecodeCache.load("x.pkl"), image)
    (canary.parent / "x.pkl").write_bytes(helpers_malicious.weights(canary)["os.system"])
    with pytest.raises(UserError, match=r"posix\.system"):
        DecodeCache.load("x.pkl")


# Config files


PYTHON = ("!!python/object/apply:os.system ['touch {}']", "!!python/object/new:os.system ['touch {}']",
          "!<tag:yaml.org,2002:python/object/apply:os.system> ['touch {}']", "!!python/name:os.system",
          "!!python/module:os")  # fmt: skip


@pytest.mark.parametrize("text", PYTHON)
@pytest.mark.parametrize("name", ["train", "eval", "infer", "export_model", "convert", "explain", "layers", "doctor"])
def test_python_tags_in_a_config_and_its_bases(run, canary, name, text):
    text = text.format(canary)
    slim = SLIM if name in ("explain", "doctor") else None
    options = ["--checkpoint", "none", "--output", "out.pdparams"] if name == "convert" else []
    base = write("base.yml", f"a: 1\nepoch: {text}\n")
    for config in (base, write("top.yml", f"_BASE_: [{STUDENT}, base.yml]\n")):
        message = run(name, config=config, slim=slim, options=options)
        assert message.startswith((f"{base}:2: the tag !!python/", "base.yml:2: the tag !!python/")), message


@pytest.mark.parametrize("text", PYTHON)
def test_python_tags_in_a_slim_file_a_teachers_and_an_override(run, canary, text):
    text = text.format(canary)
    slim = write("slim.yml", f"_BASE_: [{SLIM}]\nFGDFeatureLoss: {text}\n")
    assert run("train", slim=slim).startswith("slim.yml:2: the tag !!python/")
    write("teacher.yml", f"_BASE_: [{WIDE}]\nepoch: {text}\n")
    teachers = "slim: Distill\nslim_method: FGD\ndistill:\n  teachers: {a: {config: teacher.yml}}\n"
    slim = write("slim.yml", f"_BASE_: [{WIDE}]\n{teachers}")
    assert run("explain", slim=slim).startswith("teacher.yml:2: the tag !!python/")
    assert run("train", f"epoch={text}").startswith("-o:1: the tag !!python/")


def test_ppdets_tag_that_calls_any_function(run, canary):
    for text in (f"[os.system, ['touch {canary}']]", f"{{full_type: os.system, args: ['touch {canary}']}}"):
        path = write("mine.yml", f"_BASE_: [{STUDENT}]\nRetinaNet: {{backbone: !Callable {text}}}\n")
        for name in ("train", "eval"):
            assert run(name, config=path).startswith("mine.yml:2: a config may not name Callable: it calls ")


def test_tags_that_other_packages_have_registered_are_unknown(run, canary):
    import yaml

    yaml.add_constructor("!Evil", lambda loader, node: canary.write_text("x"))
    try:
        path = write("mine.yml", f"_BASE_: [{STUDENT}]\nRetinaNet: {{backbone: !Evil {{}}}}\n")
        assert run("eval", config=path).startswith("mine.yml:2: unknown tag !Evil")
    finally:
        for loader in (yaml.loader.Loader, yaml.loader.FullLoader, yaml.loader.UnsafeLoader):
            del loader.yaml_constructors["!Evil"]


_PAN = "ppdet.modeling.necks.custom_pan"


@pytest.mark.parametrize("key", ["stage_fn", "block_fn"])
def test_a_text_that_ppdet_would_evaluate_is_a_name_or_refused(run, canary, key):
    code, config = f'__import__("os").system("touch {canary}")', CONFIGS / "ppyoloe_tiny.yml"
    acting = ("paddle.jit.load", "paddle.save", "paddle.hub.load", "paddle.utils.cpp_extension.setup", "create")
    for text in (code, f"[{code}]", "paddle.os.abort", "nn.functional.os", "print", *acting):
        path = write("mine.yml", f"_BASE_: [{config}]\nCustomCSPPAN: {{{key}: '{text}'}}\n")
        message = run("eval", "weights=none", config=path)
        assert message == f"{text!r} is no name of a part of a model in {_PAN}; it is not evaluated"


def test_every_eval_of_ppdet_looks_names_up():
    """Of all of its modules that are there, the ones that evaluate a config's text and those that may come to."""
    import ppdet.engine  # noqa: F401

    modules = [module for name, module in sys.modules.items() if name.split(".")[0] == "ppdet"]
    assert len(modules) > 200
    for module in modules:
        for text in ("1 + 1", 5, "__import__('os')"):
            with pytest.raises(UserError, match="is no name of a part of a model"):
                module.eval(text)
        with pytest.raises(UserError, match="would run a text as code"):
            module.exec("x = 1")


# As PaddleDetection's newer modules do it, and as one may that nobody has seen yet.
EVALUATES = {
    "hgnet_v2": "def build(text):\n    return eval(text)(1)\n",
    "in a class": "class A:\n def __init__(self, text):\n  self.act = eval(text)()\ndef build(text): A(text)\n",
    "in a function inside": "def build(text):\n def inner():\n  return eval(text, globals(), {})\n inner()\n",
    "by exec": "def build(text):\n    exec('x = ' + text)\n",
    "when imported": "import os\neval(os.environ['TEXT'])\n",
}


@pytest.mark.parametrize("name", EVALUATES)
@pytest.mark.parametrize("package", ["ppdet.modeling.backbones", "ppdet"])
def test_modules_of_ppdet_that_come_later_evaluate_nothing(tmp_path, canary, monkeypatch, name, package):
    import importlib

    parent = importlib.import_module(package)
    (tmp_path / "later_one.py").write_text(EVALUATES[name])
    monkeypatch.setattr(parent, "__path__", [*parent.__path__, str(tmp_path)])
    monkeypatch.setenv("TEXT", f"__import__('os').system('touch {canary}')")
    try:
        with pytest.raises(UserError, match="it is not (evaluated|run)"):
            importlib.import_module(f"{package}.later_one").build(os.environ["TEXT"])
    finally:
        sys.modules.pop(f"{package}.later_one", None)
        vars(parent).pop("later_one", None)


def test_names_that_ppdet_means_are_found():
    from paddle import nn
    from ppdet.modeling.backbones import vision_transformer
    from ppdet.modeling.necks import custom_pan
    from ppdet.optimizer import adamw

    assert vision_transformer.eval("nn.LayerNorm") is nn.LayerNorm
    assert custom_pan.eval("CSPStage") is custom_pan.CSPStage
    assert adamw.eval("layerwise_lr_decay") is adamw.layerwise_lr_decay


def test_ppdet_evaluates_texts_of_a_config():
    """So the cure is needed: as ppdet has it, its text runs."""
    import inspect

    from ppdet.modeling.necks import custom_pan

    assert "eval(stage_fn)" in inspect.getsource(custom_pan.CustomCSPPAN)


# safetensors in every command


def test_weights_go_to_safetensors_and_back_and_are_used_as_they_are(shapes, canary, teacher_weights):
    """Converted, evaluated, and as pretrained weights of student and teacher: the same numbers throughout."""
    given = ["-o", f"dataset_dir={shapes}"]
    source = teacher_weights["retinanet"]
    for checkpoint, output in ((source, "a.safetensors"), ("a.safetensors", "b.pdparams")):
        done = call("convert", "-c", WIDE, "--checkpoint", checkpoint, "--output", output, *given)
        assert done == (0, "")
    first, last = read_tensors(source), read_tensors("b.pdparams")
    assert list(first) == list(last) and all(np.array_equal(first[name], last[name]) for name in first)
    for name in ("b.pdparams", "a.safetensors", "a"):
        assert call("eval", "-c", WIDE, "--json", f"{name}.json", *given, f"weights={name}") == (0, "")
    texts = [pathlib.Path(f"{name}.json").read_text() for name in ("b.pdparams", "a.safetensors", "a")]
    assert texts[0] == texts[1] == texts[2] and "AP" in texts[0]
    arguments = ["-c", STUDENT, "--slim_config", SLIM, "--max_steps", 1, *given]
    overrides = ["teacher.pretrain_weights=a.safetensors", "pretrain_weights=a.safetensors"]
    assert call("train", *arguments, *overrides) == (0, "")

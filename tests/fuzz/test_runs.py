"""What a run leaves, of any content: its recipe, its records and its resume files."""

import json

import numpy as np
import paddle
import pytest
from hypothesis import strategies as st

from ppkd.engine.plugin_files import load_installed
from ppkd.errors import UserError
from ppkd.files.yaml_io import clone, dump, read_yaml
from ppkd.methods import plan
from ppkd.recipe.recipe import load_recipe
from ppkd.study.runs import Run
from ppkd.training import checkpoint
from ppkd.training.record import FILE, record
from ppkd.training.records import read_records
from ppkd.training.trainer import Trainer
from tests.conftest import CONFIGS
from tests.fuzz.changes import OUT, changed, changes_of
from tests.fuzz.inputs import inputs
from tests.fuzz.test_grammars import ANYTHING
from tests.fuzz.test_recipe import STUDENT

ODD = ANYTHING | st.sampled_from([10**400, -1, "", "\x00", "a\nb", [], {}, [[]], {1: 2}, {"name": []}, "../x", [None]])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("run")


def test_recorded_recipes(folder, quiet, shapes):
    given_ = ["teacher.pretrain_weights=none.pdparams", f"dataset_dir={shapes}"]
    loaded = load_recipe(STUDENT, str(CONFIGS / "retinanet_fgd.yml"), given_)
    (folder / FILE).write_text(record(loaded))
    (folder / "model_final.pdparams").write_bytes(b"")
    sound = read_yaml(str(folder / FILE))
    for config in (sound["run"], sound["teacher"]):  # what is not looked at here would only take time
        for key in [key for key, value in config.items() if isinstance(value, dict) and key != "RetinaNet"]:
            del config[key]
    (folder / FILE).write_text(dump(sound))
    load_installed()  # whose code may run
    top = {key: value if key in ("versions", "distill") else {"architecture": 1, "seed": 0, "save_dir": "", "x": 1}
           for key, value in sound.items()}  # fmt: skip

    overrides_ = st.sampled_from([[], ["epoch=3"], ["teacher.a=1"]])

    @inputs(st.one_of(changes_of(sound, ODD), changes_of(top, ODD)), overrides_)
    def run(changes, overrides):
        (folder / FILE).write_text(dump(changed(sound, changes)), encoding="utf-8", errors="replace")
        try:
            with quiet():
                found = Run(str(folder), overrides)
                found.identity(), found.seed, found.steps, found.distilled
                if found.distilled:
                    plan(found.recipe.method)
        except UserError as error:
            assert "\n" not in str(error).strip()

    assert Run(str(folder)).distilled
    run()


RECORDS = [
    {"kind": "train", "epoch": 0, "step": 3, "lr": 0.01, "loss": 1.5, "fgd.s8": 0.2, "seconds": 1.0},
    {"kind": "eval", "epoch": 1, "step": 4, "AP": 0.1, "AP50": 0.2},
]
PIECES = st.sampled_from(list('[]{},:"') + ["NaN", "null", "-", "1e999", "\\ud800", "\0", "[" * 9999, "9" * 5000, "é"])


def test_records_of_training(folder, quiet):
    path = folder / "metrics.jsonl"

    @inputs(
        st.one_of(
            changes_of(RECORDS, ODD).map(lambda changes: [json.dumps(item) for item in changed(RECORDS, changes)]),
            st.lists(st.tuples(st.integers(0, 90), PIECES, st.integers(0, 9)), max_size=3).map(_edited),
            st.lists(st.binary(max_size=20), max_size=3),
        )
    )
    def run(lines):
        lines = [line if isinstance(line, bytes) else line.encode("utf-8", "surrogatepass") for line in lines]
        lines.append(json.dumps(RECORDS[0]).encode())
        path.write_bytes(b"".join(line.replace(b"\n", b" ") + b"\n" for line in lines))
        with quiet():
            found = read_records(str(path))
        assert found[-1] == RECORDS[0] and len(found) <= len(lines)
        for item in found:
            numbers = [float(value) for key, value in item.items() if key != "kind"]
            assert item["step"] >= 0 and len(numbers) == len(item) - 1

    run()
    path.unlink()


def _edited(edits):
    text = json.dumps(RECORDS[0])
    for at, piece, cut in edits:
        text = text[:at] + piece + text[at + cut :]
    return [text]


TENSORS = st.sampled_from([np.zeros(0, "f4"), np.ones([2, 3], "f4"), np.array(3), np.array(True), np.array([1e30])])


@pytest.fixture(scope="module")
def trained(shapes, tmp_path_factory):
    """A trainer that has taken a step, and its state."""
    given_ = [f"dataset_dir={shapes}", f"save_dir={tmp_path_factory.mktemp('out')}", "epoch=1"]
    with Trainer.open(load_recipe(STUDENT, overrides=given_), max_steps=1) as trainer:
        trainer.run()
        yield trainer, checkpoint.load(f"{trainer.output_dir}/model_final")


def _few(value):
    return dict(list(value.items())[:2]) if isinstance(value, dict) else value


def test_resume_files(folder, trained, quiet):
    path, plain = str(folder / "x.resume"), {key: _few(value) for key, value in _arrays(trained[1]).items()}

    @inputs(changes_of(plain, ODD | TENSORS))
    def run(changes):
        paddle.save(changed(plain, changes), path)
        _told(lambda: checkpoint.admitted(checkpoint.load(path), path), quiet)

    run()


def test_states_of_a_run(trained, quiet):
    """A run goes on with a state, or says in a line why not."""
    trainer, sound = trained
    # Each part, and a few values in it: most of a state are tensors, of which one is like another.
    parts = {key: dict.fromkeys(_few(value), 0) if isinstance(value, dict) else value for key, value in sound.items()}
    parts = {key: list(value[:2]) if isinstance(value, list) else value for key, value in parts.items()}

    @inputs(changes_of(parts, ODD | TENSORS.map(paddle.to_tensor)))
    def run(changes):
        state = {key: dict(value) if isinstance(value, dict) else value for key, value in sound.items()}
        for path, value in changes:
            here = state if len(path) == 1 else state.get(path[0])
            if isinstance(here, dict) and path[-1] in here:
                here.pop(path[-1]) if value is OUT else here.update({path[-1]: value})
        _told(lambda: trainer.saving.restore(checkpoint.admitted(state, "x.resume")), quiet)

    trainer.saving.restore(sound)
    run()


def _told(work, quiet):
    try:
        with quiet():
            work()
    except UserError as error:
        assert "\n" not in str(error).strip()


def _arrays(value):
    """Tensors as arrays, so that a file of them can be changed and written anew."""
    if isinstance(value, dict):
        return {key: _arrays(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_arrays(part) for part in value]
    return value.numpy() if isinstance(value, paddle.Tensor) else clone(value)

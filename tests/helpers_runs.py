"""Folders of runs for the tests of reports and comparisons: trained for three steps, or made by hand."""

import json

import paddle

from ppkd.build import build_student
from ppkd.recipe.recipe import load_recipe
from ppkd.training.record import record
from tests.conftest import CONFIGS, ROOT
from tests.helpers_training import fit

SHIPPED = ROOT / "ppkd" / "data" / "teacher_shapes.pdparams"
DEMO = ROOT / "configs" / "demo" / "ppyoloe_plus_teacher_shapes.yml"
# Both kinds of maps that a report shows, and a term that is one number.
TERMS = [
    'distill.terms.cwd={student: "neck[*]", student_connector: align, loss: {name: cwd, tau: 2.0}}',
    'distill.terms.cls={student: "head.cls[*]", loss: {name: dist, tau: 1.0}, magnitude: 30%}',
]


def train(folder, shapes, teacher=None, seed=0, more=(), slim="ppyoloe_fgd.yml", terms=TERMS):
    """Train the tiny PP-YOLOE for an epoch of three steps and return its output folder and its recipe."""
    given = [f"dataset_dir={shapes}", f"save_dir={folder}", f"seed={seed}", "TrainReader.batch_size=4", "epoch=1"]
    given += ["log_iter=1", *more]
    if teacher:
        given += [f"teacher.pretrain_weights={teacher}", *terms]
    loaded = load_recipe(str(CONFIGS / "ppyoloe_tiny.yml"), str(CONFIGS / slim) if teacher else None, given)
    fit(loaded, validate=True)
    return loaded.output_dir, loaded


def by_hand(folder, shapes, seed=0, noise=0.0, more=(), slim=None):
    """A folder as a run of the shipped detector would have left it, its weights blurred by noise."""
    given = [f"dataset_dir={shapes}", f"seed={seed}", f"save_dir={folder}", *more]
    loaded = load_recipe(str(DEMO), slim, given)
    model = build_student(loaded, load=False)
    state = paddle.load(str(SHIPPED))
    paddle.seed(seed)
    own = model.state_dict()
    moved = {
        k: paddle.to_tensor(v).astype("float32") * (1 + noise * paddle.randn(v.shape))
        if k.endswith("conv.weight") else paddle.to_tensor(v).astype(own[k].dtype)
        for k, v in state.items()
    }  # fmt: skip
    folder.mkdir(parents=True)
    paddle.save(moved, str(folder / "model_final.pdparams"))
    (folder / "recipe.yml").write_text(record(loaded))
    trained = {"kind": "train", "epoch": 0, "step": 8, "lr": 0.1, "loss": 1.0}
    (folder / "metrics.jsonl").write_text(json.dumps(trained) + "\n")
    return str(folder)

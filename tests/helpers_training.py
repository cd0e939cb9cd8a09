"""What the training tests share: families, runs of a few steps, and comparisons to the bit."""

import json
import pathlib

import paddle
import pytest
from paddle import nn

from ppkd.detectors import detector_for
from tests.conftest import FAMILIES

PADDLE = int(paddle.__version__.split(".")[0])
# For what does not depend on the detector: the cheapest.
QUICK = "ppyoloe"
families = pytest.mark.parametrize("family", FAMILIES)

# Detector and method; the methods are named as the slim files of tests/configs are.
PAIRS = (
    ("retinanet", "fgd"), ("ppyoloe", "fgd"), ("retinanet", "cwd"), ("gfl", "cwd"), ("gfl", "ld"), ("picodet", "ld"),
    ("ppyoloe", "ld"), ("ppyoloe", "ppyoloe"), ("yolov3", "yolov3"), ("gfl", "heads"), ("ppyoloe", "maps"),
    ("rtmdet", "neck"),
    ("resnet", "matching"),
)  # fmt: skip


pairs = pytest.mark.parametrize("family, method", PAIRS)
# For what takes whole runs: RetinaNet is the slowest by far, and CWD has GFL beside it.
RUN_PAIRS = [pair for pair in PAIRS if pair != ("retinanet", "cwd")]
run_pairs = pytest.mark.parametrize("family, method", RUN_PAIRS)

# Four images a step: three steps an epoch of the twelve images.
FOUR = "TrainReader.batch_size=4"
# Terms as strong as the detection loss, so that a slip in any of them shows in the weights; and no weight decay,
# which would move a parameter that gets no gradient at all.
_FGD = {"alpha_fgd": 0.1, "beta_fgd": 0.05, "gamma_fgd": 0.05, "lambda_fgd": 1.0}
_STRONG = {
    "fgd": [f"distill.{key}={value}" for key, value in _FGD.items()],
    "cwd": ["distill.weight=20"],
    "ld": ["distill.loss_weight=5"],
    "ppyoloe": [f"distill.feat_distill_params.{key}={value}" for key, value in _FGD.items()],
    "yolov3": ["distill.weight=10"],
    "heads": ["distill.terms.dkd.weight=10", "distill.terms.cross_box.weight=10"],
    "maps": [],
    "neck": [],
    "matching": ["distill.loss_weight=10"],
}


def strong(method):
    """The overrides described above, for a method."""
    return [FOUR, "OptimizerBuilder.regularizer=null", *_STRONG[method]]


STRONG = tuple(strong("fgd"))


def terms_of(losses, model):
    """The distillation terms among a DistillModel's losses."""
    labels = tuple(term.label for term in model.terms)
    return {key: value for key, value in losses.items() if key.startswith(labels)}


def settle(model):
    """Put the normalisation layers alone into eval mode.

    A student in training normalises with the batch's statistics, its frozen teacher with the running ones: the same
    weights then give different maps, and rightly so. The detector itself stays in train mode, so that its step is the
    one that training takes.
    """
    for layer in model.sublayers():
        if isinstance(layer, nn.layer.norm._BatchNormBase):
            layer.eval()
    return model


def fit(loaded, **options):
    """Train a recipe to its end and return the trainer."""
    from ppkd.training.trainer import Trainer

    with Trainer.open(loaded, **options) as trainer:
        trainer.run()
    return trainer


def everything_in(model):
    """All parameters and all buffers of a model, also those that ``state_dict`` leaves out, as copied arrays."""
    return {name: tensor.numpy().copy() for name, tensor in [*model.named_parameters(), *model.named_buffers()]}


def flat(state, prefix=""):
    """A nested state as one dict from path to bytes or plain value."""
    if isinstance(state, dict):
        pairs = state.items()
    elif isinstance(state, (list, tuple)):
        pairs = enumerate(state)
    elif hasattr(state, "numpy"):
        return {prefix: (tuple(state.shape), state.numpy().tobytes())}
    elif hasattr(state, "tobytes"):
        return {prefix: (tuple(state.shape), state.tobytes())}
    else:
        return {prefix: state}
    return {path: leaf for key, value in pairs for path, leaf in flat(value, f"{prefix}/{key}").items()}


def differing(first, second):
    """Paths at which two nested states are not equal to the bit, or of which only one has them."""
    first, second = flat(first), flat(second)
    assert first and second, "nothing to compare"
    return sorted(path for path in first.keys() | second.keys() if first.get(path) != second.get(path))


def count_calls(layer):
    """A list that grows by one entry with every call of `layer`."""
    calls = []
    layer.register_forward_post_hook(lambda *_: calls.append(1))
    return calls


def train_plain_ppdet(loaded, steps):
    """A bare loop over ppdet's own objects; returns the student's tensors and, if the config has it, its EMA's."""
    from ppdet.core import workspace
    from ppdet.optimizer import ModelEMA

    from ppkd.bridge.datasets import open_dataset
    from ppkd.bridge.workspace import scope
    from ppkd.training.loader import TrainLoader
    from ppkd.training.seeds import seed_everything

    config = loaded.student
    with scope(config):
        dataset = open_dataset("TrainDataset", config)
        loader = TrainLoader(workspace.create("TrainReader"), dataset, 0, seed=0)
        seed_everything(0)
        model = workspace.create(config["architecture"])
        lr = workspace.create("LearningRate")(len(loader))
        optimizer = workspace.create("OptimizerBuilder")(lr, model)
        ema = None
        if config.get("use_ema"):
            ema = ModelEMA(model, decay=config["ema_decay"], ema_black_list=config["ema_black_list"])
        model.train()
        for _, batch in zip(range(steps), loader.epoch(0)):
            batch["epoch_id"] = 0
            model(batch)["loss"].backward()
            optimizer.step()
            optimizer.clear_grad()
            lr.step()
            if ema is not None:
                ema.update()
    return model.state_dict(), ema.apply() if ema is not None else model.state_dict()


def first_images_with_boxes(shapes, folder, number):
    """Overrides for a copy of the data set in which only the first `number` images have boxes; for none, the last one
    alone, which no first batch has: a set without any box is refused."""
    (folder / "annotations").mkdir(parents=True)
    shapes = pathlib.Path(shapes)
    content = json.loads((shapes / "annotations" / "instances_train.json").read_text())
    images = [image["id"] for image in content["images"]]
    kept = images[:number] or images[-1:]
    content["annotations"] = [box for box in content["annotations"] if box["image_id"] in kept]
    (folder / "annotations" / "instances_train.json").write_text(json.dumps(content))
    (folder / "train").symlink_to(shapes / "train")
    # ppdet puts images without boxes behind the others; shuffled, the one with a box is in no first batch.
    return [f"dataset_dir={folder}", f"TrainReader.shuffle={str(not number).lower()}"]


def shown(value):
    """A copy of nested mappings and lists, in order, that later changes in place cannot reach."""
    if isinstance(value, dict):
        return (type(value).__name__, [(key, shown(item)) for key, item in value.items()])
    if isinstance(value, (list, tuple)):
        return [shown(item) for item in value]
    return repr(value)


def head_of(model):
    """The head of a DistillModel's student."""
    return detector_for(model.student).head


def fail(*args, **kwargs):
    """In place of something that fails half way."""
    raise ZeroDivisionError

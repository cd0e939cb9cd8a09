"""What the training tests share: families, runs of a few steps, and comparisons to the bit."""

import paddle
import pytest

from tests.conftest import FAMILIES

PADDLE = int(paddle.__version__.split(".")[0])
# ppdet 2.6.0's PP-YOLOE multiplies int64 by int32 in its assigner, which Paddle 3 refuses.
TRAINS = {"ppyoloe": PADDLE < 3}
families = pytest.mark.parametrize(
    "family",
    [
        pytest.param(
            name,
            marks=pytest.mark.skipif(not TRAINS.get(name, True), reason="ppdet 2.6.0 cannot train it on Paddle 3"),
        )
        for name in FAMILIES
    ],
)

# Four images a step: three steps an epoch of the twelve images.
FOUR = "TrainReader.batch_size=4"
# Terms as strong as the detection loss, so that a slip in any of them shows in the weights; and no weight decay,
# which would move a parameter that gets no gradient at all.
STRONG = (
    FOUR, "OptimizerBuilder.regularizer=null", "distill.alpha_fgd=0.1", "distill.beta_fgd=0.05",
    "distill.gamma_fgd=0.05", "distill.lambda_fgd=1.0",
)  # fmt: skip


def fit(loaded, **options):
    """Train a recipe to its end and return the trainer."""
    from ppkd.trainer import Trainer

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

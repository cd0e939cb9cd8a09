"""What a detector costs: parameters, multiply-adds, latency."""

import statistics
import time

import paddle
from paddle import nn

from ppkd.detectors.recorders import Recorder


def parameters(model):
    """Number of trained scalars; running statistics are not counted."""
    return int(sum(p.size for p in model.parameters() if not p.stop_gradient))


def example_batch(size):
    """A ppdet batch of one empty image of `size` (height, width) pixels."""
    height, width = size
    return {
        "image": paddle.zeros([1, 3, height, width]),
        "im_shape": paddle.to_tensor([[float(height), float(width)]]),
        "scale_factor": paddle.ones([1, 2]),
        "im_id": paddle.zeros([1, 1], dtype="int64"),
    }


def gflops(model, size):
    """10^9 floating-point operations of one image, counting convolutions and linear layers, a multiply-add as two.

    Args:
        model: ppdet detector.
        size: ``(height, width)`` in pixels.
    """
    return gflops_of(model, lambda: model(example_batch(size)))


def gflops_of(model, run):
    """10^9 operations of the convolutions and linear layers of `model` while ``run()`` runs, in eval mode."""
    counted = {n: layer for n, layer in model.named_sublayers() if isinstance(layer, (nn.Conv2D, nn.Linear))}
    with _evaluating(model), Recorder(model, counted) as recorder:
        run()
    total = 0
    for name, layer in counted.items():
        per_output = layer.weight.size / layer.weight.shape[0 if isinstance(layer, nn.Conv2D) else 1]
        total += sum(2 * per_output * output.size for output in recorder.outputs.get(name, ()))
    return float(total) / 1e9


def milliseconds(models, size, repeats=20):
    """Median latency of one image in milliseconds, post-processing included.

    Args:
        models: name -> detector; they are run in turn, so that a slow moment of the machine hits all.
        size: ``(height, width)`` in pixels.

    Returns:
        Name -> milliseconds.
    """
    times = {name: [] for name in models}
    batch = example_batch(size)
    for _ in range(repeats + 3):
        for name, model in models.items():
            with _evaluating(model):
                begin = time.perf_counter()
                float(model(dict(batch))["bbox_num"].sum())  # reading a value waits for the device
                times[name].append(1e3 * (time.perf_counter() - begin))
    return {name: statistics.median(values[3:]) for name, values in times.items()}


class _evaluating:
    """Eval mode without gradients for the block; the model's mode is put back."""

    def __init__(self, model):
        self._model, self._training = model, model.training
        self._no_grad = paddle.no_grad()

    def __enter__(self):
        self._model.eval()
        self._no_grad.__enter__()

    def __exit__(self, *exception):
        self._no_grad.__exit__(*exception)
        if self._training:
            self._model.train()

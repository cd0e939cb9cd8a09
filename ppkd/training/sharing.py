"""An evaluation that several processes share: each detects on its part of the images, the first one counts it all.

Every batch is one that a single process would have made, and batches count in their order, so the result is the same to
the last digit.
"""

import contextlib
import itertools

import numpy as np
import paddle
from paddle import distributed as dist

from ppkd.bridge.readers import begun_by
from ppkd.losses.ranks import of_first_rank


@contextlib.contextmanager
def parts_of_readers():
    """A block in which ppdet's readers begin to load this process's part of the batches that they are given.

    With R processes it is every R-th batch.
    """

    def of_this_rank(load, reader, dataset, worker_num, batch_sampler=None, **options):
        part = _Part(batch_sampler, dist.get_rank(), dist.get_world_size())
        return load(reader, dataset, worker_num, part, **options)

    with begun_by(of_this_rank):
        yield


class _Part:
    """Every ``ranks``-th batch of a sampler, from number `rank` on."""

    def __init__(self, sampler, rank, ranks):
        self._sampler, self._rank, self._ranks = sampler, rank, ranks

    def __iter__(self):
        return itertools.islice(self._sampler, self._rank, None, self._ranks)

    def __len__(self):
        return len(range(self._rank, len(self._sampler), self._ranks))


@contextlib.contextmanager
def as_first_rank(model):
    """A block in which a model has, on every process, the tensors that it has on the first.

    Statistics of batch norms are those of the images that a process has seen.
    """
    state = {name: tensor for name, tensor in model.state_dict().items() if tensor.size}
    own = {name: tensor.clone() for name, tensor in state.items()} if dist.get_rank() else {}
    with paddle.no_grad():
        for tensor in state.values():
            of_first_rank(tensor)
    try:
        yield
    finally:
        with paddle.no_grad():
            for name, tensor in own.items():
                paddle.assign(tensor, state[name])


def gathered(value):
    """`value`, plain or of arrays, of every process, in their order."""
    every = []
    dist.all_gather_object(every, value)
    return every


class SharedMetric:
    """ppdet's metric, which counts on the first process what all have found; on the others it counts nothing.

    Args:
        metric: ppdet's.
    """

    def __init__(self, metric):
        self._metric, self._batches = metric, []
        self._first = dist.get_rank() == 0
        # COCO's makes of a batch what can be put together; masks are as large as their images before that.
        self._in_lists = hasattr(metric, "clsid2catid") and isinstance(getattr(metric, "results", None), dict)

    def update(self, inputs, outputs):
        """A batch is done."""
        if self._in_lists:
            self._metric.reset()
            self._metric.update(inputs, outputs)
            self._batches.append(self._metric.results)
        else:
            inputs = {key: value for key, value in inputs.items() if key != "image"}
            self._batches.append((_packed(inputs), _packed(outputs)))

    def accumulate(self):
        """All batches are done: count them."""
        every, self._batches = gathered(self._batches), []
        if not self._first:
            return
        self._metric.reset()
        for batch in (batch for batches in itertools.zip_longest(*every) for batch in batches if batch is not None):
            if self._in_lists:
                for kind, found in batch.items():
                    self._metric.results[kind] += found
            else:
                self._metric.update(*map(_unpacked, batch))
        self._metric.accumulate()

    def log(self):
        """Tell the result."""
        if self._first:
            self._metric.log()

    def get_results(self):
        """The result; None on the other processes."""
        return self._metric.get_results() if self._first else None

    def reset(self):
        """Begin anew."""
        self._batches = []
        self._metric.reset()


class _Tensor:
    """A tensor on its way to another process."""

    def __init__(self, array):
        self.array = array


def _packed(value):
    if isinstance(value, dict):
        return {key: _packed(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_packed(each) for each in value]
    return _Tensor(np.ascontiguousarray(value.numpy())) if isinstance(value, paddle.Tensor) else value


def _unpacked(value):
    if isinstance(value, dict):
        return {key: _unpacked(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_unpacked(each) for each in value]
    return paddle.to_tensor(value.array) if isinstance(value, _Tensor) else value

"""FGD's parts, put together of what levels come to: of all levels at once, for a device that wants few operations."""

import functools
from typing import NamedTuple

import paddle

from .kernels import numbers


class LevelSums(NamedTuple):
    """What K levels of equal channels come to.

    Attributes:
        masked: (N, 1, 2 * K), for each level the sum over the foreground and that over the background, by attention
            that adds up to 1.
        rest: list of sums, each (K,), or of one level a scalar: how far such attention is apart, of channels and of
            positions; ``relation``, and if it comes in two what else belongs to it times the number of positions.
        channels: C.
        counts: positions of each level.
    """

    masked: object
    rest: list
    channels: int
    counts: list


def parts_of(found, weights, batch):
    """The parts of all levels.

    Args:
        found: list of `LevelSums`.
        weights: the parts' weights by name.
        batch: N.

    Returns:
        List of dicts of scalars, one a level, in the order of ``found``.
    """
    masked, rest = [x.masked for x in found], [x for each in found for x in each.rest]
    masked = paddle.concat(masked, axis=2) if len(masked) > 1 else masked[0]
    sums = paddle.concat([masked.sum(axis=[0, 1]), _as_one(rest)])
    of_levels = tuple((x.channels, tuple(x.counts), len(x.rest)) for x in found)
    index, factors = _made_of(tuple(x / batch for x in weights.values()), of_levels)
    # Each part picks its own sums: what is not finite in one is not for that in another, nor at another level.
    parts = paddle.gather_nd(sums, numbers(index, sums, "int64")) * numbers(factors, sums, sums.dtype)
    parts = parts.sum(axis=0).unbind()
    return [dict(zip(weights, parts[i : i + len(weights)])) for i in range(0, len(parts), len(weights))]


def _as_one(values):
    if all(x.ndim == 0 for x in values):
        return paddle.stack(values)
    return paddle.concat([x if x.ndim else x.reshape([1]) for x in values])


@functools.lru_cache(maxsize=64)
def _made_of(weights, of_levels):
    """Which two of the sums each part is made of, part by part and level by level, (2, parts, 1), and by what factors,
    (2, parts); what is made of one has nothing of the second."""
    fg, bg, attention, relation = weights
    pairs, first = [], 2 * sum(len(counts) for _, counts, _ in of_levels)
    for channels, counts, number in of_levels:
        for k, positions in enumerate(counts):
            at = len(pairs) // 2
            of_channels, of_positions, *of_relation = (first + i * len(counts) + k for i in range(number))
            pairs += [
                ((at, fg * channels * positions), (at, 0.0)),
                ((at + 1, bg * channels * positions), (at + 1, 0.0)),
                ((of_channels, attention * channels), (of_positions, attention * positions)),
                ((of_relation[0], relation), (of_relation[-1], relation * positions * (len(of_relation) - 1))),
            ]
        first += number * len(counts)
    index = tuple(tuple((pair[row][0],) for pair in pairs) for row in range(2))
    return index, tuple(tuple(pair[row][1] for pair in pairs) for row in range(2))

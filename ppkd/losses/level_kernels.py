"""Localisation Distillation over the levels of a pyramid, in the way that suits the device.

On the CPU a level after the other, of which only the positions that count are computed; a device that wants few
operations gets all levels as one. The formulas stand in :func:`ld.ld_parts`.
"""

import functools

import paddle
import paddle.nn.functional as F

from . import kernels
from .common import check_levels, up
from .softmax_kernels import log_shares, rows_of_logs


def parts_of_levels(formula, student, teacher, positive, region, counts, most, **options):
    """The parts of all levels.

    Args:
        formula: :func:`ld.ld_parts`, which gives those of one.
        student, teacher: pairs of lists, one entry a level: class logits (N, K, H, W) and edge logits
            (N, 4 * bins, H, W).
        positive, region: (N, A), all levels one after the other.
        counts: positions of each level.
        most: how many positions of an image can be positive, whatever the data.
        options: temperatures and ``batch_average`` of the formula.

    Returns:
        List of dicts, whose sum they are.

    Raises:
        ValueError: unequal shapes.
    """
    if kernels.on_cpu(student[0][0]):
        levels = zip(*student, *teacher, *(paddle.split(x, counts, axis=1) for x in (positive, region)))
        return [formula((s, e), (t, d), a, paddle.ones_like(a), r, **options) for s, e, t, d, a, r in levels]
    for side in zip(student, teacher):
        check_levels("ld", *side)
    return [_at_once(student, teacher, positive, region, counts, most, **options)]


def edges(x):
    """Logits of edges (R, 4 * bins, ...) as (R, 4, bins, ...)."""
    return x.reshape([x.shape[0], 4, -1, *x.shape[2:]])


def _at_once(student, teacher, positive, region, counts, most, ld_temp, vlr_temp, kd_temp, batch_average):
    """The sums over the levels of :func:`ld.ld_parts`, for a device that wants few operations, of all levels as one.

    A map of all levels is a copy, and the largest that there are here: it is let go as soon as it has been used.
    """
    (s_cls, s_box), (t_cls, t_box) = student, teacher
    classes = _as_one(s_cls)
    score = F.sigmoid(classes.detach().max(axis=1))
    weights, index = _where_positive(positive * _by_level(positive, counts), most)
    log_t = log_shares(_at(_as_one(t_cls).detach(), index), kd_temp, 1)
    kd = _dot(rows_of_logs(_at(classes, index), log_t, kd_temp, 1), weights)
    kd, bins = kd * (kd_temp**2 / classes.shape[1]), s_box[0].shape[1] // 4
    del classes, log_t
    temps, weights = [ld_temp, vlr_temp], [score * positive, region]
    rows = [_edge_rows(s_box, t_box, temp) for temp in dict.fromkeys(temps)]
    share = 1 / (bins * (positive.shape[0] if batch_average else 1))
    sums = [_dot(r, w) * (temp**2 * share / n) for r, w, temp, n in zip((*rows, *rows), weights, temps, (4, 16))]
    return {"ld": sums[0], "ld_vlr": sums[1], "kd": kd}


def _edge_rows(student, teacher, temp):
    """The divergences of the four edges at all positions, their sum (N, A)."""
    log_t = log_shares(edges(_as_one(teacher).detach()), temp, 2)
    return rows_of_logs(edges(_as_one(student)), log_t, temp, 2).sum(axis=1)


def _as_one(levels):
    """Maps (N, C, H, W) of all levels as one of (N, C, A)."""
    return paddle.concat([up(x).flatten(2) for x in levels], axis=2)


def _dot(values, weights):
    return (values * weights).sum()


def _where_positive(weights, most):
    """What counts of ``weights`` (N, A), none of them below 0: (N, K), and the positions; all of them, and None, if
    ``most``, which cannot be more in an image, are not fewer. Nothing is waited for."""
    return paddle.topk(weights, most, axis=1, sorted=False) if most < weights.shape[1] else (weights, None)


def _at(x, index):
    """``x`` (N, C, A) at the positions ``index`` (N, K); its graph does not hold ``x``."""
    if index is None:
        return x
    index = index.unsqueeze(1) + _rows(*x.shape, str(x.place))
    return paddle.gather(x.flatten(), index.flatten()).reshape(index.shape)


@functools.lru_cache(maxsize=64)
def _rows(batch, channels, positions, place):
    """(N, C, 1): where each row of a map (N, C, A) begins."""
    return (paddle.arange(batch * channels) * positions).reshape([batch, channels, 1])


def _by_level(positive, counts):
    """The weights (A,) by which a sum over the positives of all levels is the sum of the means of each level."""
    members = _members(tuple(counts), str(positive.place))
    return paddle.matmul(members, 1 / paddle.matmul(positive.sum(axis=0), members).clip(min=1.0))


@functools.lru_cache(maxsize=64)
def _members(counts, place):
    """(A, levels): 1 where a position is of a level."""
    return paddle.concat([paddle.eye(len(counts))[i : i + 1].expand([n, -1]) for i, n in enumerate(counts)])

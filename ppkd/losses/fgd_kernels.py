"""The sums over maps that FGD's parts are made of, with their gradient: in pieces on the CPU, elsewhere at once."""

import paddle
from paddle.autograd import PyLayer

from .common import full_precision
from .kernels import constant, map_of, sums_both_ways, sums_over_channels, whole


def means(feature, temp):
    """What sums over channels and over positions are multiplied with to be means over ``temp``."""
    return 1 / (feature.shape[1] * temp), 1 / (feature.shape[2] * temp)


def summed_over_places(feature, weights):
    """``sum_p feature * weights`` (N, 1, C) of ``feature`` (N, C, P) and ``weights`` (N, 1, P)."""
    # This way round; the other product of the same numbers takes Paddle eight times as long on the CPU.
    return paddle.matmul(weights, feature, transpose_y=True)


class Sums(PyLayer):
    """The few sums over the student's map that all parts are made of, with the gradient of the map in one go.

    With S and T (N, C, P), d = S - T, q (N, 1, C) and a (N, 1, P), each of the following (N, 1, ..):

        mean_c |S| / temp, mean_p |S| / temp, 0 (P), 0 (C), 2/P * sum_p d, sum_c B / C d^2, sum_c d^2

    The two zeros have the gradients of ``q S`` and of ``S a``, whose values are known already. Left to autograd each
    would make maps of its own and a gradient of its own. Here nothing but S and T is kept, and the gradient is
    ``2 d * (B / C x g5 + g6) + sign(S) * (g0 / C + g1 / P) / temp + q x g2 + g3 x a + 2/P * g4``, g being the gradients
    of the seven: outer products of vectors, made piece by piece.

    All are one tensor, and S alone gets a gradient: with more outputs or inputs ``paddle.grad`` of some inputs, or of
    one part after the other, raises, crashes or is wrong.
    """

    @staticmethod
    def forward(ctx, student, teacher, channel_t, query, spread, temp):
        batch, channels, positions = student.shape
        sizes = sums_both_ways(paddle.abs, student, means(student, temp))
        # One product for both: of the squared error weighted by B(T) / C, and as it is.
        weights = paddle.concat([channel_t, constant(channel_t.shape, channel_t)], axis=1)
        share = constant(spread.shape, student, 2 / positions)
        if whole(student):
            gap = student - teacher
            gap_sum = summed_over_places(gap, share)
            squares = paddle.matmul(weights, gap.multiply_(gap))
        else:
            gap_sum = summed_over_places(student, share) - summed_over_places(teacher, share)
            squares = sums_over_channels(_squared_gap, [student, teacher], weights)
        ctx.save_for_backward(student, teacher, weights, query, spread, share)
        ctx.means = means(student, temp)
        known = [constant([batch, 1, n], student, 0.0) for n in (positions, channels)]
        return paddle.concat([*sizes, *known, gap_sum, squares.reshape([batch, 1, -1])], axis=2)

    @staticmethod
    @full_precision
    def backward(ctx, gradient):
        student, teacher, weights, query, spread, share = ctx.saved_tensor()
        batch, channels, positions = student.shape
        g_position, g_channel, g_logits, g_pooled, g_gap, g_squares = apart(gradient, channels, positions, 2)
        g_position, g_channel = g_position * ctx.means[0], g_channel * ctx.means[1]
        g_squares = (2 * g_squares).reshape([batch, 2, positions])
        of_rest = paddle.concat([spread, g_logits, share], axis=1)
        by_rest = paddle.concat([g_pooled, query, g_gap], axis=1)
        if whole(student):
            slope = paddle.matmul(weights, g_squares, transpose_x=True)
            slope.multiply_(student - teacher)
            for of_sign in (g_position, g_channel.reshape([batch, channels, 1])):  # their sum would be one more map
                slope.add_(student.sign().multiply_(of_sign))
            return slope.add_(paddle.matmul(by_rest, of_rest, transpose_x=True)), None, None, None, None
        of_sign = paddle.concat([g_position, constant(spread.shape, spread)], axis=1)
        by_sign = paddle.concat([constant(g_channel.shape, g_channel), g_channel], axis=1)
        products = [(weights, g_squares), (by_sign, of_sign), (by_rest, of_rest)]
        products = [(by.transpose([0, 2, 1]), of) for by, of in products]
        return map_of(_gradient, [student, teacher], products=products), None, None, None, None


def _squared_gap(student, teacher):
    gap = student - teacher
    return gap.multiply_(gap)


def _gradient(student, teacher, of_gap, of_sign, rest):
    return (student - teacher).multiply_(of_gap).add_(student.sign().multiply_(of_sign)).add_(rest)


def apart(sums, channels, positions, last=1):
    """What `Sums` puts together, its last two as one if `last` is 2."""
    sizes = [positions, channels, positions, channels, channels, *[last * positions] * (3 - last)]
    return sums.split(sizes, axis=2)

"""How a loss goes over its maps: what a formula is computed on at once, and what is left out.

A formula in a loss's file is a function of whole maps. The functions here evaluate it: on a GPU, which wants few large
operations, at once; on the CPU in pieces that stay in the processor's cache, and without the positions that count
nothing. What comes out is the same but for the order of sums.

Maps are (N, C, P), with P positions. Beside them a formula may take values of channels (1, C, 1), of which it gets
those of its piece, to be used by `minus`, `minus_` and `times_`.
"""

import functools

import paddle
import paddle.nn.functional as F

from .common import rows, up

# Values of a piece of a map on the CPU: half a megabyte of float32. What is computed of it stays in the processor's
# cache and in memory that is used again, where a whole map's temporaries cost a page fault every 4 KB: a difference
# of two maps of 33 MB takes 18 ms at once and 3 ms in pieces.
_PIECE = 2**17


def on_cpu(x):
    """Whether ``x`` is computed by the processor: memory in small pieces pays, and looking at values costs nothing."""
    return x.place.is_cpu_place()


def map_of(formula, maps, by_channel=(), products=()):
    """The map that ``formula`` makes of others, piece by piece.

    Args:
        formula: function of the pieces of ``maps``, then of those of ``by_channel``, then of those of ``products``.
        maps: of equal shape (N, C, P).
        by_channel: each (1, C, 1).
        products: maps that are known by their factors, ``(N, C, K)`` and ``(N, K, P)``.

    Returns:
        (N, C, P).
    """

    def make(images, channels):
        parts = (paddle.matmul(left[images, channels], right[images]) for left, right in products)
        return formula(*_cut(images, channels, maps, by_channel), *parts)

    return _assembled(maps[0], make)


def map_and_rows(formula, *maps, size=_PIECE):
    """What a ``formula`` makes that computes every channel of every image by itself.

    Args:
        formula: takes the pieces of the maps and returns a tuple: first a map like them, and then what has no more than
            one value a channel, (N, C).
        maps: (N, C, ...); the first says how to cut.
        size: of a piece in values; the more temporaries, the smaller the better.

    Returns:
        A list, put together again.
    """
    found = []

    def make(images, channels):
        first, *rest = formula(*_cut(images, channels, maps))
        found.append(rest)
        return first

    whole = _assembled(maps[0], make, size)
    return [whole, *(paddle.concat([x.flatten() for x in parts]).reshape(whole.shape[:2]) for parts in zip(*found))]


def channel_sums(formula, maps, by_channel=()):
    """The sums over images and positions, each (1, C, 1), of the maps in the tuple that ``formula`` returns."""
    found = []
    for images, cut in pieces(maps[0]):
        # One at a time: held together they would be maps again.
        made = (formula(*_cut(images, channels, maps, by_channel)) for channels in cut)
        parts = [[over_positions(y).sum(axis=0, keepdim=True) for y in each] for each in made]
        found.append([paddle.concat(column, axis=1) for column in zip(*parts)])
    return [sum(column) for column in zip(*found)]


def sums_over_channels(formula, maps, weights):
    """The sums over the channels (N, K, P) of what ``formula`` makes of the maps, weighted by ``weights`` (N, K, C)."""
    if whole(maps[0]):
        return paddle.matmul(weights, formula(*maps))
    sums = []
    for images, cut in pieces(maps[0]):
        parts = (paddle.matmul(weights[images, :, some], formula(*_cut(images, some, maps))) for some in cut)
        sums.append(_total(parts))
    return paddle.concat(sums)


def sums_both_ways(formula, feature, factors):
    """Two sums of what ``formula`` makes of a map, each times its factor: over the channels (N, 1, P) and over the
    positions (N, 1, C)."""
    over_channels, over_places = (constant([1, n], feature, x) for n, x in zip(feature.shape[1:], factors))
    if whole(feature):
        made = formula(feature)
        return paddle.matmul(over_channels, made), paddle.matmul(over_places, made, transpose_y=True)
    by_position, by_channel = [], []
    over_channels, over_places = over_channels.flatten(), over_places.flatten()
    for images, cut in pieces(feature):
        made = (formula(cut_out(feature, images, some)) for some in cut)
        each = [(paddle.matmul(over_channels[: x.shape[1]], x), paddle.matmul(x, over_places)) for x in made]
        by_position.append(_total(positions for positions, _ in each))
        by_channel.append(paddle.concat([channels for _, channels in each], axis=1))
    return paddle.concat(by_position).unsqueeze(1), paddle.concat(by_channel).unsqueeze(1)


def reduced(formula, combine, first, *more, shape):
    """What ``formula`` makes of some of M things an image at a time, combined to what all of them give.

    Args:
        formula: function of the first of the things, counted from 0, and of the pieces of the tensors.
        combine: function of two of its results that gives that of both, in the order of the things.
        first, more: each (N, M, ...).
        shape: (N, M, values of one of the things), by which pieces are cut.

    Returns:
        The result, a tensor (N, ...) or a tuple of them.
    """
    found = []
    for images, cut in pieces(first, shape=shape):
        parts = (formula(some.start, *(x[images, some] for x in (first, *more))) for some in cut)
        found.append(functools.reduce(combine, parts))
    if isinstance(found[0], tuple):
        return tuple(paddle.concat(x) for x in zip(*found))
    return paddle.concat(found)


def weighted_sums(formula, maps, weights):
    """Sums over all positions of ``formula``, each with other weights: most of a detector's count nothing.

    Args:
        formula: function of the maps, as rows (R, C), a row a position, that gives (R,), and as they are, (N, C, P),
            that gives (N, P).
        maps: (N, C, H, W).
        weights: each (N * H * W,), without a gradient.

    Returns:
        List of one scalar for each of ``weights``.
    """
    index = where_wanted(functools.reduce(paddle.add, weights))
    if index is None:
        values = formula(*(up(x).flatten(2) for x in maps)).flatten()
    else:
        values = formula(*(rows_at(x, index) for x in maps))
    return [(values * (weight if index is None else paddle.gather(weight, index))).sum() for weight in weights]


def where_wanted(weights):
    """Which of the positions of ``weights`` (n,), none below 0, are worth computing: the others count 0.

    Returns:
        On the CPU the indices of what is not 0, and the first, so that there is one. Elsewhere None, for all of them:
        how many there are is for the device to know, and the host would have to wait for it.
    """
    if not on_cpu(weights):
        return None
    wanted = weights != 0
    wanted[0] = True
    return wanted.nonzero().flatten()


def rows_at(x, index):
    """``x`` (N, C, H, W) as (R, C), a row a position, those of ``index`` (R,) in N * H * W or all if it is None."""
    if index is None:
        return rows(x, 1)
    _, channels, height, width = x.shape
    positions = height * width
    first = index // positions * (channels * positions) + index % positions
    each = paddle.arange(channels) * positions
    # In float32: Paddle gathers no half precision on the CPU.
    return paddle.gather(up(x).flatten(), (first.unsqueeze(1) + each).flatten()).reshape([-1, channels])


def over_positions(feature, weight=1.0):
    """``weight * sum over positions`` of ``feature`` (N, C, P), as (N, C, 1).

    A product with a constant vector: Paddle's own sum over an axis is many times slower,
    backward above all.
    """
    batch, _, positions = feature.shape
    return paddle.bmm(feature, paddle.full([batch, positions, 1], weight, feature.dtype))


def minus(x, values):
    """``x`` (N, C, P) less ``values`` (1, C, 1)."""
    return x - (values.expand(x.shape) if on_cpu(x) else values)


# What is not needed any more is used up where a piece is the whole. On the CPU Paddle takes longer for that.
def minus_(x, values):
    """`minus` that uses up ``x``."""
    return x - values.expand(x.shape) if on_cpu(x) else x.subtract_(values)


def times_(x, values):
    """``x`` (N, C, P), which is used up, times ``values`` (1, C, 1)."""
    return x * values.expand(x.shape) if on_cpu(x) else x.multiply_(values)


def difference_(x, y):
    """``x``, which is used up, less ``y`` of its shape."""
    return x - y if on_cpu(x) else x.subtract_(y)


def product_(x, y):
    """``x``, which is used up, times ``y`` of its shape."""
    return x * y if on_cpu(x) else x.multiply_(y)


def square_(x):
    """The squares of ``x``, which is used up."""
    return x.square() if on_cpu(x) else x.multiply_(x)


def for_each_image(x, feature):
    """``x`` (1, ...) for a product with ``feature`` (N, ...): on the CPU once for each image, elsewhere as it is."""
    return x.expand([feature.shape[0], *x.shape[1:]]) if on_cpu(feature) else x


def layer_norm(x, scale, shift, epsilon):
    """Layer norm over the last axis of ``x`` (..., C), with ``scale`` and ``shift`` (C,)."""
    if not on_cpu(x):
        return F.layer_norm(x, x.shape[-1:], scale, shift, epsilon)
    # Scale and shift by ourselves: where the scale's own gradient is not asked for (a term that is not trained, or
    # paddle.grad of other tensors), Paddle's layer_norm on the CPU leaves the scale out of its input's gradient.
    return F.layer_norm(x, x.shape[-1:], epsilon=epsilon) * scale + shift


def of_one_shape(*tensors):
    """Tensors that broadcast against each other, for a chain of operations.

    On the CPU all get the whole shape: spreading a tensor takes Paddle 0.1 ns a value there, and an operation of
    tensors of unequal shapes 3 to 5 ns instead of 0.2. On a GPU they stay as they are.
    """
    if not on_cpu(tensors[0]):
        return list(tensors)
    shape = functools.reduce(paddle.broadcast_shape, (x.shape for x in tensors))
    return [x.expand(shape) for x in tensors]


def pieces(x, size=_PIECE, shape=None):
    """How to go over ``x`` (N, C, P) piece by piece.

    Args:
        x: the map, or what a map of ``shape`` will be made of.
        size: of a piece, in values.
        shape: of the map, if it is not that of ``x``.

    Returns:
        List of ``(images, list of channels)``, both slices, for :func:`cut_out`. On a GPU one piece is everything; on
        the CPU it has at most ``size`` values (but a whole channel).
    """
    batch, channels, positions = shape or x.shape
    if batch * channels * positions <= size or not on_cpu(x) or not _views_share_memory():
        return [(slice(0, batch), [slice(0, channels)])]
    step = max(1, size // positions)
    cut = [slice(begin, min(begin + step, channels)) for begin in range(0, channels, step)]
    return [(slice(image, image + 1), cut) for image in range(batch)]


def whole(x):
    """Whether :func:`pieces` leaves ``x`` as it is."""
    cut = pieces(x)
    return len(cut) == len(cut[0][1]) == 1


def cut_out(x, images, channels):
    """``x[images, channels]`` of ``x`` (N, C, P) as a view that Paddle takes for contiguous, whatever the slices."""
    batch, count, positions = x.shape
    if images.stop - images.start == batch and channels.stop - channels.start == count:
        return x
    if images.stop - images.start > 1:
        return x[images, channels]
    rows = slice(images.start * count + channels.start, images.start * count + channels.stop)
    return x.reshape([-1, positions])[rows].reshape([1, -1, positions])


def constant(shape, like, value=1.0):
    """A tensor of equal values, of the type of ``like`` and where that is; made once, and not to be changed."""
    return _constant(tuple(shape), value, like.dtype, str(like.place))


def numbers(values, like, dtype="float32"):
    """A tensor of a sequence of numbers where ``like`` is; made once, and not to be changed.

    Whatever comes from the host is waited for, so it must not come in every step.
    """
    return _numbers(tuple(values), dtype, str(like.place))


@functools.lru_cache(maxsize=256)
def _numbers(values, dtype, place):
    return paddle.to_tensor(values, dtype=dtype)


@functools.lru_cache(maxsize=256)
def _constant(shape, value, dtype, place):
    return paddle.full(shape, value, dtype)


def _cut(images, channels, maps, by_channel=()):
    """The pieces of what a formula takes."""
    count = maps[0].shape[1]
    values = by_channel if channels.stop - channels.start == count else (x[:, channels] for x in by_channel)
    return [*(cut_out(x, images, channels) for x in maps), *values]


def _assembled(like, make, size=_PIECE):
    """A map of the shape of ``like`` (N, C, P) put together from ``make(images, channels)``, one of its `pieces`."""
    cut = pieces(like, size)
    if len(cut) == len(cut[0][1]) == 1:
        return make(cut[0][0], cut[0][1][0])
    whole = paddle.empty(like.shape, like.dtype)
    for images, channels in cut:
        for some in channels:
            paddle.assign(make(images, some), cut_out(whole, images, some))
    return whole


def _total(parts):
    """The sum, the first part first, with none of them held longer than needed."""
    return functools.reduce(paddle.add, parts)


@functools.cache
def _views_share_memory():
    """Whether writing into a view writes into the tensor, as it does unless FLAGS_use_stride_kernel is off."""
    x, one = (paddle.to_tensor(values, place=paddle.CPUPlace()) for values in ([[[0.0], [0.0]]] * 2, [[[1.0]]]))
    paddle.assign(one, cut_out(x, slice(1, 2), slice(0, 1)))
    return x.flatten().tolist() == [0.0, 0.0, 1.0, 0.0]

"""What every loss needs: full precision whatever comes in, and a teacher without gradient."""

import functools

import paddle

# The number of classes for which weights of class divergences that are means over the classes were chosen.
COCO_CLASSES = 80

_HALF_TYPES = (paddle.float16, paddle.bfloat16)


def up(x):
    """``x`` in float32 if it is float16 or bfloat16, otherwise ``x`` itself."""
    return x.astype("float32") if x.dtype in _HALF_TYPES else x


def frozen(x):
    """The teacher's side of a loss: :func:`up` of ``x``, cut off from its graph."""
    return up(x.detach())


def full_precision(function):
    """Run ``function`` outside of automatic mixed precision.

    Casting the inputs up is not enough: under ``paddle.amp.auto_cast`` matrix products and
    convolutions of float32 tensors are cast down again.
    """

    @functools.wraps(function)
    def wrapped(*args, **kwargs):
        with paddle.amp.auto_cast(enable=False):
            return function(*args, **kwargs)

    return wrapped


def safe_sqrt(x):
    """Square root of ``x`` >= 0 whose gradient at 0 is 0, where the true one is infinite."""
    positive = x > 0
    root = paddle.where(positive, x, paddle.ones_like(x)).sqrt()
    return paddle.where(positive, root, paddle.zeros_like(x))


def over_positions(feature, weight=1.0):
    """``weight * sum over positions`` of ``feature`` (N, C, P), as (N, C, 1).

    A product with a constant vector: Paddle's own sum over an axis is many times slower,
    backward above all.
    """
    batch, _, positions = feature.shape
    return paddle.bmm(feature, paddle.full([batch, positions, 1], weight, feature.dtype))


def rows(x, per_position):
    """(N, per_position * K, H, W) as (N * H * W * per_position, K)."""
    x = x.transpose([0, 2, 3, 1])
    return x.reshape([-1, x.shape[3] // per_position])


def where_wanted(weights):
    """Which of the positions of ``weights`` (n,) are worth computing: a loss of most of them is multiplied by 0.

    Returns:
        On the CPU the indices of what is not 0, and the first, so that there is one. Elsewhere None, for all of them:
        how many there are is for the device to know, and the host would have to wait for it.
    """
    if not on_cpu(weights):
        return None
    wanted = weights != 0
    wanted[0] = True
    return wanted.nonzero().flatten()


def of_index(x, index):
    """``x[index]``, or ``x`` if the index is None, as by :func:`where_wanted`."""
    return x if index is None else paddle.gather(x, index)


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


def on_cpu(x):
    """Whether ``x`` is computed by the processor: memory in small pieces pays, and looking at values costs nothing."""
    return x.place.is_cpu_place()


def of_one_shape(*tensors):
    """Tensors that broadcast against each other, for a chain of operations.

    On the CPU all get the whole shape: spreading a tensor takes Paddle 0.1 ns a value there, and an operation of
    tensors of unequal shapes 3 to 5 ns instead of 0.2. On a GPU they stay as they are.
    """
    if not on_cpu(tensors[0]):
        return list(tensors)
    shape = functools.reduce(paddle.broadcast_shape, (x.shape for x in tensors))
    return [x.expand(shape) for x in tensors]


# Values of a piece of a map on the CPU: half a megabyte of float32. What is computed of it stays in the processor's
# cache and in memory that is used again, where a whole map's temporaries cost a page fault every 4 KB: a difference
# of two maps of 33 MB takes 18 ms at once and 3 ms in pieces.
_PIECE = 2**17


def pieces(x, size=_PIECE, shape=None):
    """How to go over ``x`` (N, C, P) piece by piece.

    Args:
        x: the map, or what a map of ``shape`` will be made of.
        size: of a piece, in values.
        shape: of the map, if it is not that of ``x``.

    Returns:
        List of ``(images, list of channels)``, both slices, for :func:`cut_out`. On a GPU, which wants few large
        operations, one piece is everything; on the CPU it has at most ``size`` values (but a whole channel).
    """
    batch, channels, positions = shape or x.shape
    if batch * channels * positions <= size or not on_cpu(x) or not _views_share_memory():
        return [(slice(0, batch), [slice(0, channels)])]
    step = max(1, size // positions)
    cut = [slice(begin, min(begin + step, channels)) for begin in range(0, channels, step)]
    return [(slice(image, image + 1), cut) for image in range(batch)]


def cut_out(x, images, channels):
    """``x[images, channels]`` of ``x`` (N, C, P) as a view that Paddle takes for contiguous, whatever the slices."""
    batch, count, positions = x.shape
    if images.stop - images.start == batch and channels.stop - channels.start == count:
        return x
    if images.stop - images.start > 1:
        return x[images, channels]
    rows = slice(images.start * count + channels.start, images.start * count + channels.stop)
    return x.reshape([-1, positions])[rows].reshape([1, -1, positions])


def assembled(like, make, size=_PIECE):
    """A map of the shape of ``like`` (N, C, P) put together from ``make(images, channels)``, one of its `pieces`."""
    cut = pieces(like, size)
    if len(cut) == len(cut[0][1]) == 1:
        return make(cut[0][0], cut[0][1][0])
    whole = paddle.empty(like.shape, like.dtype)
    for images, channels in cut:
        for some in channels:
            paddle.assign(make(images, some), cut_out(whole, images, some))
    return whole


def by_pieces(function, *maps, size=_PIECE):
    """``function`` of maps (N, C, ...) that computes every channel of every image by itself, piece by piece.

    Args:
        function: takes the pieces and returns a tuple: first a map like them, and then what has no more than one value
            a channel, (N, C).
        maps: the first says how to cut.
        size: of a piece; the more temporaries, the smaller the better.

    Returns:
        A list, put together again.
    """
    found = []

    def make(images, channels):
        first, *rest = function(*(cut_out(x, images, channels) for x in maps))
        found.append(rest)
        return first

    whole = assembled(maps[0], make, size)
    return [whole, *(paddle.concat([x.flatten() for x in parts]).reshape(whole.shape[:2]) for parts in zip(*found))]


@functools.cache
def _views_share_memory():
    """Whether writing into a view writes into the tensor, as it does unless FLAGS_use_stride_kernel is off."""
    x, one = (paddle.to_tensor(values, place=paddle.CPUPlace()) for values in ([[[0.0], [0.0]]] * 2, [[[1.0]]]))
    paddle.assign(one, cut_out(x, slice(1, 2), slice(0, 1)))
    return x.flatten().tolist() == [0.0, 0.0, 1.0, 0.0]


def at_least_one_box(boxes, boxes_valid):
    """``boxes`` (N, M, 4) and ``boxes_valid`` (N, M) in float32, with one row of padding if M is 0.

    Reductions over an axis of length zero raise; a row that is not valid changes nothing.
    """
    if boxes.shape[1] == 0:
        boxes = paddle.zeros([boxes.shape[0], 1, 4])
        boxes_valid = paddle.zeros([boxes.shape[0], 1])
    return boxes.astype("float32"), boxes_valid.astype("float32")


def check_same_shape(name, student, teacher):
    """Raise ``ValueError`` naming both shapes unless the two tensors have the same one."""
    if list(student.shape) != list(teacher.shape):
        raise ValueError(
            f"{name}: student {list(student.shape)} and teacher {list(teacher.shape)} must have "
            "the same shape; put a connector between them"
        )


def check_levels(name, student, teacher):
    """:func:`check_same_shape` of each level of two lists; unequal lengths are a ``ValueError`` as well."""
    if len(student) != len(teacher):
        raise ValueError(f"{name}: {len(student)} levels of the student and {len(teacher)} of the teacher")
    for ours, theirs in zip(student, teacher):
        check_same_shape(name, ours, theirs)


def check_choice(name, option, value, choices):
    """Raise ``ValueError`` listing ``choices`` unless ``value`` is one of them."""
    if value not in choices:
        raise ValueError(f"{name}: {option} is {value!r}, expected one of {', '.join(choices)}")

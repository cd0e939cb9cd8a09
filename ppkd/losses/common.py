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
        if not _casts():
            return function(*args, **kwargs)
        with paddle.amp.auto_cast(enable=False):
            return function(*args, **kwargs)

    return wrapped


def _casts():
    return paddle.base.framework._dygraph_tracer()._amp_level != paddle.base.core.AmpLevel.O0


def safe_sqrt(x):
    """Square root of ``x`` >= 0 whose gradient at 0 is 0, where the true one is infinite."""
    positive = x > 0
    root = paddle.where(positive, x, paddle.ones_like(x)).sqrt()
    return paddle.where(positive, root, paddle.zeros_like(x))


def as_float(x):
    """``x`` in float32, itself if it is."""
    return as_type(x, paddle.float32)


def as_type(x, dtype):
    """``x`` in a type, itself if it is; Paddle makes a copy in any case."""
    return x if x.dtype == dtype else x.astype(dtype)


def rows(x, per_position):
    """(N, per_position * K, H, W) as (N * H * W * per_position, K)."""
    x = x.transpose([0, 2, 3, 1])
    return x.reshape([-1, x.shape[3] // per_position])


def at_least_one_box(boxes, boxes_valid):
    """``boxes`` (N, M, 4) and ``boxes_valid`` (N, M) in float32, with one row of padding if M is 0.

    Reductions over an axis of length zero raise; a row that is not valid changes nothing.
    """
    if boxes.shape[1] == 0:
        boxes = paddle.zeros([boxes.shape[0], 1, 4])
        boxes_valid = paddle.zeros([boxes.shape[0], 1])
    return as_float(boxes), as_float(boxes_valid)


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

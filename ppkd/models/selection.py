"""Which scores of a detector go into its NMS."""

import paddle


def best(scores, count):
    """Scores (N, C, P) of which all but the `count` largest of an image are set to zero."""
    flat = scores.flatten(1)
    there = length(flat)
    known = isinstance(there, int)
    count = min(there, count) if known else paddle.minimum(there, paddle.full_like(there, count))
    least = paddle.topk(flat, count, axis=1)[0][:, -1:].unsqueeze(2)
    return scores * (scores >= least).astype(scores.dtype)


def length(x):
    """The second dimension: a number, or a tensor in a graph that does not know it yet."""
    count = x.shape[1]
    return count if isinstance(count, int) and count > 0 else paddle.shape(x)[1]

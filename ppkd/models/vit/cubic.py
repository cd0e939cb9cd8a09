"""Bicubic resizing of learned positions as PyTorch does it, by which the published models were trained and are run."""

import numpy as np
import paddle


def resized(grid, rows, columns, antialias):
    """A map of another height and width.

    Args:
        grid: (H, W, C).
        rows, columns: wanted.
        antialias: whether the kernel grows with the cells where the map gets smaller. Its cubic then has the
            parameter -0.5, without it -0.75: both as PyTorch has them.

    Returns:
        (rows, columns, C).
    """
    down, across = (
        paddle.to_tensor(weights(size, wanted, antialias))
        for size, wanted in zip(grid.shape[:2], (rows, columns))
    )  # fmt: skip
    height, width, channels = grid.shape
    x = paddle.matmul(down, grid.reshape([height, width * channels])).reshape([rows, width, channels])
    return paddle.matmul(across, x)


def weights(size, wanted, antialias):
    """(wanted, size) float32: what each cell of the one line takes of the other's; half-pixel centres."""
    scale = size / wanted
    wide = max(scale, 1.0) if antialias else 1.0
    centre = (np.arange(wanted) + 0.5) * scale
    if antialias:
        first = np.maximum((centre - 2 * wide + 0.5).astype(np.int64), 0)
        last = np.minimum((centre + 2 * wide + 0.5).astype(np.int64), size)
        cells = np.arange(size)
        inside = (cells >= first[:, None]) & (cells < last[:, None])
        found = np.where(inside, _cubic((cells + 0.5 - centre[:, None]) / wide, -0.5), 0.0)
        return (found / found.sum(axis=1, keepdims=True)).astype("float32")
    found = np.zeros([wanted, size])
    begin = np.floor(centre - 0.5).astype(np.int64)
    for step in range(-1, 3):
        cells = begin + step
        share = _cubic(centre - 0.5 - cells, -0.75)
        np.add.at(found, (np.arange(wanted), np.clip(cells, 0, size - 1)), share)
    return found.astype("float32")


def _cubic(x, a):
    """Keys' kernel (IEEE Transactions on Acoustics, Speech and Signal Processing, 1981)."""
    x = np.abs(x)
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))

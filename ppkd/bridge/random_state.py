"""Random numbers that are drawn in between, and change nothing that is drawn afterwards."""

import contextlib
import random

import numpy as np
import paddle


@contextlib.contextmanager
def random_state_kept(of_paddle=True):
    """A block after which random numbers go on as if it had drawn none.

    Args:
        of_paddle: those of Paddle as well as Python's and NumPy's, which are all that readers draw.
    """
    kept = [(random.setstate, random.getstate()), (np.random.set_state, np.random.get_state())]
    kept += [(paddle.set_rng_state, paddle.get_rng_state())] if of_paddle else []
    try:
        yield
    finally:
        for put, state in kept:
            put(state)

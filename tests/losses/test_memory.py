"""What losses hold at most on the way that they take on a GPU, where a map is not cut: bytes, counted on the CPU."""

from concurrent.futures import ThreadPoolExecutor

import paddle
import pytest

from benchmarks.losses import on_a_gpu
from benchmarks.study.memory import held_mb

# Paddle 3's own softmax, which the way of a GPU takes, needs minutes on a CPU for rows as long as the finest map.
SHAPES = {"FGD": [], "FGD, five levels": [1], "CWD": [(4, 256, 25, 42)], "PKD": [(2, 256, 50, 84)], "LD": []}


@pytest.mark.parametrize("name", SHAPES)
def test_a_gpu_holds_no_more_than_twice_what_the_cpu_does(name):
    here, there = on_a_gpu.both(name, *SHAPES[name])
    assert 8 < here < there <= 2 * here


def test_what_is_held_at_once_is_counted_and_what_was_there_before_is_not():
    paddle.rand([10**6])  # a peak of earlier: 4 MB
    before = paddle.rand([10**6])

    def one_after_the_other():
        for _ in range(3):
            (before + 1).sum()

    assert held_mb(one_after_the_other) == pytest.approx(4, rel=0.01)
    assert held_mb(lambda: [before + 1, before + 2]) == pytest.approx(8, rel=0.01)


def test_what_other_threads_made_or_let_go_leaves_the_count_alone():
    """A test before may have read its images in threads: their tensors are let go where they were not made."""
    with ThreadPoolExecutor(1) as reader:
        images = reader.submit(lambda: [paddle.rand([10**6]) for _ in range(20)]).result()
        images.clear()
        assert held_mb(lambda: paddle.rand([10**6])) == pytest.approx(4, rel=0.01)

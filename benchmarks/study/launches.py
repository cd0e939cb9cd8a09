"""What a step asks of a device, counted on the CPU: kernels that are launched, by Paddle's profiler."""

import collections
import contextlib
from unittest import mock

from paddle import profiler

from ppkd.losses import kernels

# What Paddle 2 and Paddle 3 call the running of a kernel, behind its name.
_MARKS = (" compute", " kernel launch")


@contextlib.contextmanager
def as_on_a_gpu():
    """A block in which losses take the way that they take on a GPU: no pieces, no looking at values."""
    with mock.patch.object(kernels, "on_cpu", lambda _: False):
        yield


@contextlib.contextmanager
def counted():
    """A block whose kernels are counted.

    Yields:
        `collections.Counter` of their names, filled when the block ends. Views are in it, which a device is not asked
        for but the host dispatches like all else; copies from and to the host are not.
    """
    found = collections.Counter()
    watch = profiler.Profiler(targets=[profiler.ProfilerTarget.CPU], on_trace_ready=lambda _: None)
    watch.start()
    try:
        yield found
    finally:
        watch.stop()
    for root in watch.profiler_result.get_data().values():
        _add(root, found)


def launches(function):
    """How many kernels `function` launches, as on a GPU; it is called twice, and the first time makes what stays."""
    with as_on_a_gpu():
        function()
        with counted() as found:
            function()
    return sum(found.values())


def _add(node, found):
    for mark in _MARKS:
        name = node.name.removesuffix(mark)
        if name != node.name:
            found[name] += 1
    for child in node.children_node:
        _add(child, found)

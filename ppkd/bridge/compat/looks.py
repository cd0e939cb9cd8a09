"""How a cure finds out whether its host has the defect: by what is there; a clone has no version to go by.

A cure returns `NOT_NEEDED` where the defect is not, and nothing where it has been applied.
"""

import ast
import functools
import inspect
import re
import textwrap

import paddle

APPLIED, NOT_NEEDED, NOT_APPLICABLE = "applied", "not needed", "not applicable"


def says(code, pattern):
    """Whether `pattern` is found in the source of a module, a class's module, or a function below our wrappers.

    A host without sources (compiled files alone) is taken to have the defect.
    """
    try:
        source = inspect.getsource(inspect.getmodule(code) if inspect.isclass(code) else inspect.unwrap(code))
    except (OSError, TypeError):
        return True
    return re.search(pattern, source) is not None


def numbers_returned(function):
    """How many values each ``return`` of a function gives, below our wrappers, in their order; without source none."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(function))))
    except (OSError, TypeError):
        return []
    values = [(node.lineno, node.value) for node in ast.walk(tree) if isinstance(node, ast.Return)]
    return [len(value.elts) if isinstance(value, ast.Tuple) else 1 for _, value in sorted(values, key=lambda x: x[0])]


@functools.cache
def refuses_types(one, other):
    """Whether Paddle refuses to calculate with tensors of these two types, as Paddle 3 does with most pairs."""
    first, second = (paddle.to_tensor([1], dtype, place=paddle.CPUPlace()) for dtype in (one, other))
    try:
        _ = first * second
    except TypeError:
        return True
    return False


@functools.cache
def refuses_nothing(joined):
    """Whether Paddle refuses to ``stack`` or to ``concat`` tensors without elements: 2.6 both, 3.0 the second alone."""
    nothing = paddle.to_tensor([], "float32", place=paddle.CPUPlace())
    try:
        getattr(paddle, joined)([nothing, nothing])
    except ValueError:
        return True
    return False

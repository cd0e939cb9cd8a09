"""Gives one module of ppdet another view of Paddle: a few functions of its own, and nothing changes elsewhere."""

import importlib

import paddle


def replace(name, **functions):
    """Let the module of that name find `functions` where it looks for functions of ``paddle``.

    Args:
        name: a module that does ``import paddle``.
        functions: name -> function. Applied again, the last one counts.
    """
    module = importlib.import_module(name)
    if not isinstance(module.paddle, View):
        module.paddle = View()
    vars(module.paddle).update(functions)


class View:
    """Paddle as one module sees it: what has been replaced there, and for the rest Paddle itself."""

    def __getattr__(self, name):
        return getattr(paddle, name)

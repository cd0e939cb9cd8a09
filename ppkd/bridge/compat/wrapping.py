"""Puts a function of ours around one of ppdet's."""

import functools


def wrap(owner, name, wrapper):
    """Put ``wrapper(original)`` in the place of `owner`'s attribute `name`, once: applied again it changes nothing.

    The original is the new function's ``__wrapped__``.

    Args:
        owner: a class or a module.
        name: of a function or method.
        wrapper: takes the original, returns what replaces it.
    """
    original = getattr(owner, name)
    around = getattr(original, "ppkd_wrappers", ())
    if wrapper.__qualname__ in around:
        return
    replacement = functools.wraps(original)(wrapper(original))
    replacement.ppkd_wrappers = (*around, wrapper.__qualname__)
    setattr(owner, name, replacement)

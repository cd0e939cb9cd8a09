"""Keys of a module's section that its class takes and never looks at, as PP-YOLOE's backbone does: a typing error there
makes another detector in silence."""

import dis
import inspect

from ppkd.errors import UserError, is_mistyped, nearest
from ppkd.terminal.log import logger


def check_swallowed(config, classes):
    """Refuse keys that are typing errors of parameters, and tell of the others that are never read.

    Args:
        config: ppdet's.
        classes: function from a name to the class that is registered under it, or None.

    Raises:
        UserError: a key that is nearly a parameter's name, of a class that takes any.
    """
    for name, section in config.items():
        found = classes(name) if isinstance(section, dict) else None
        if found is None or not _swallows(found):
            continue
        known = {key for key, p in inspect.signature(found.__init__).parameters.items() if p.kind != p.VAR_KEYWORD}
        for key in section:
            if key in known or key == "name":
                continue
            if is_mistyped(key, known):
                raise UserError(f"{name} has no key {key!r}{nearest(key, known)}")
            logger().warning("%s has %r, which its class takes and never reads", name, key)


def _swallows(found):
    """Whether a class takes keys of any name and does nothing with them."""
    code = getattr(inspect.unwrap(found.__init__), "__code__", None)
    if code is None or not code.co_flags & inspect.CO_VARKEYWORDS:
        return False
    at = code.co_argcount + code.co_kwonlyargcount + bool(code.co_flags & inspect.CO_VARARGS)
    rest = code.co_varnames[at]
    used = (each.argval for each in dis.get_instructions(code) if each.opname.startswith("LOAD"))
    return not any(rest == value or isinstance(value, tuple) and rest in value for value in used)

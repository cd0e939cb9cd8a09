"""What training forgets where its gradients become others': when terms begin or end, or where a run is restarted."""

from dataclasses import dataclass

from ppkd.errors import UserError, nearest

# What can be forgotten: the running mean of gradients; it and that of their squares; the average of the weights, from
# which the student then goes on. Not the squares alone: a mean of former gradients over the square of the next one
# makes steps of any length.
PARTS = ("first_moment", "moments", "average")
ALL = ("moments", "average")
WARMUP = 20
KEYS = ("hand_over", "hand_over_warmup")
RESTART_KEYS = ("restart_epochs", "restart_what", "restart_warmup")


@dataclass(frozen=True)
class HandOver:
    """What is forgotten, and how the learning rate comes back.

    Args:
        parts: some of `PARTS`.
        warmup: steps over which the learning rate rises again to what its schedule says.
    """

    parts: tuple = ALL
    warmup: int = WARMUP

    def __or__(self, other):
        """Both at once."""
        parts = tuple(part for part in PARTS if part in (*self.parts, *other.parts))
        return HandOver(parts, max(self.warmup, other.warmup))

    @property
    def text(self):
        """As a file has it."""
        return "reset" if self.parts == ALL else list(self.parts)


def hand_over_of(options, where):
    """The `HandOver` of a ``distill:`` block, or None.

    Args:
        options: mapping with ``hand_over`` (``none``, ``reset`` for `ALL`, one of `PARTS` or a list of them) and
            ``hand_over_warmup``, if it has them.
        where: file and mapping, for messages.

    Raises:
        UserError: a value of the wrong kind.
    """
    if "hand_over_warmup" in options and "hand_over" not in options:
        raise UserError(f"{where}.hand_over_warmup needs {where.split(': ')[-1]}.hand_over")
    warmup = _steps(options.get("hand_over_warmup", WARMUP), f"{where}.hand_over_warmup")
    return _made(options.get("hand_over"), warmup, f"{where}.hand_over")


def restarts_of(config):
    """Epochs at whose beginning a run is restarted, and its `HandOver` then.

    Args:
        config: the run's: ``restart_epochs``, counted from 0, ``restart_what``, ``restart_warmup``.

    Returns:
        ``(tuple of epochs, HandOver)``, or ``((), None)``.

    Raises:
        UserError: a value of the wrong kind.
    """
    given = config.get("restart_epochs")
    if given is None:
        others = [key for key in RESTART_KEYS if config.get(key) is not None]
        if others:
            raise UserError(f"{others[0]} needs restart_epochs")
        return (), None
    epochs = given if isinstance(given, (list, tuple)) else [given]
    if any(isinstance(epoch, bool) or not isinstance(epoch, int) or epoch < 1 for epoch in epochs):
        raise UserError(f"restart_epochs has to be a list of epoch numbers from 1, found {given!r}")
    warmup = _steps(config.get("restart_warmup", WARMUP), "restart_warmup")
    what = _made(config.get("restart_what", "reset"), warmup, "restart_what")
    return (tuple(epochs), what) if what is not None else ((), None)


def _made(value, warmup, where):
    if value in (None, "none"):
        return None
    names = ALL if value == "reset" else (value,) if isinstance(value, str) else value
    if not isinstance(names, (list, tuple)) or not names:
        raise UserError(f"{where} has to be none, reset, or a list of {', '.join(PARTS)}; found {value!r}")
    for name in names:
        if name not in PARTS:
            raise UserError(
                f"{where}: {name!r} cannot be forgotten{nearest(str(name), PARTS)}; none, reset, or a list of "
                f"{', '.join(PARTS)}"
            )
    return HandOver(tuple(part for part in PARTS if part in names), warmup)


def _steps(value, where):
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise UserError(f"{where} has to be a number of steps from 0, found {value!r}")
    return value

"""What a run distils, before it meets any model: terms in plain values, and what goes for all of them."""

import re
from dataclasses import dataclass, field

from ppkd.errors import UserError
from ppkd.recipe.bank import BankSpec, bank_of
from ppkd.recipe.hand_over import HandOver, hand_over_of
from ppkd.recipe.parting import Parting, parting_of
from ppkd.recipe.pseudo_boxes import PseudoBoxes, own_keys, pseudo_boxes_of
from ppkd.recipe.schedules import DECAYS, Schedule
from ppkd.recipe.targets import Target

# What the teacher of the slim file's _BASE_ is called.
TEACHER = "teacher"

# Which images a term compares, where there are some without labels.
LABELLED, UNLABELLED, ALL = ON = ("labelled", "unlabelled", "all")

# The keys of a schedule, at the top of `distill:` for all terms or in one of them.
SCHEDULE_KEYS = ("start_epoch", "stop_epoch", "stop", "decay", "final_weight", "warmup_epochs")
_SHARE = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*%\s*$")


@dataclass
class TermSpec:
    """One line of a distillation recipe, before it meets any model.

    Attributes:
        name: short name for the log.
        student, teacher: sources (see `detectors.Detector.levels`); a tuple for a loss that compares several.
        student_connector, teacher_connector: names in `connectors.CONNECTORS`, mappings of such a ``name`` and
            parameters, or lists of these, the first of which comes first.
        loss: ``{"name": ..., parameters}``, a name in `losses.LOSSES`.
        weight: factor on the whole term.
        magnitude: what the weighted term is brought to in the first steps, or None for `weight` as it is.
        schedule: the factor over epochs.
        teachers: names of the teachers that it takes; None for each of them.
        max_levels: use only the first so many levels of the student.
        trained: whether connectors and the loss's own parameters learn; only PaddleDetection's numerics say no.
        every: it is computed in each epoch's batches 0, `every`, 2 * `every`, ..., and weighs the more.
        on: one of `ON`, the images that it compares; None for all that its loss can do with.
    """

    name: str
    student: str | tuple
    teacher: str | tuple
    loss: dict
    student_connector: str | dict | list = "none"
    teacher_connector: str | dict | list = "none"
    weight: float = 1.0
    magnitude: Target | None = None
    schedule: Schedule = field(default_factory=Schedule)
    teachers: tuple | None = None
    max_levels: int | None = None
    trained: bool = True
    every: int = 1
    on: str | None = None


@dataclass
class Plan:
    """A whole method.

    Attributes:
        terms: list of `TermSpec`.
        inherit: the parts of the student that start from a teacher's weights.
        alpha: factor on the whole loss, the student's own included, unless all weights are 0.
        assigner: ``student``, or the name of the teacher whose predictions assign the student's targets; ``teacher``
            is the first of them, whatever its name.
        inherit_from: the teacher that `inherit` means; None for the first.
        hand_over: what training forgets when terms begin or end, or None.
        parting: what the distillation's gradient and the detection loss's have each for itself.
        pseudo_boxes: which detections of a teacher are boxes for images without labels, or None.
        bank: what is kept of what the teachers say, or None.
    """

    terms: list
    inherit: tuple = ()
    alpha: float = 1.0
    assigner: str = "student"
    inherit_from: str | None = None
    hand_over: HandOver | None = None
    parting: Parting = Parting()
    pseudo_boxes: PseudoBoxes | None = None
    bank: BankSpec | None = None

    @classmethod
    def of(cls, terms, method, inherit=False, **more):
        """Apply the ``distill:`` options that every method has: `schedule_of`'s, `hand_over_of`'s,
        `parting_of`'s, `pseudo_boxes_of`'s, `bank_of`'s and ``inherit``.

        Args:
            terms: list of `TermSpec`.
            method: `recipe.MethodSpec`.
            inherit: whether the method inherits unless the file says otherwise.
            more: further fields of the plan.
        """
        wanted = method.options.get("inherit", inherit)
        names = [TEACHER, *(method.options.get("teachers") or {})]
        if not isinstance(wanted, bool) and wanted not in names:
            raise UserError(
                f"{method.file}: distill.inherit has to be true, false or the name of a teacher, found {wanted!r}"
            )
        where = f"{method.file}: distill"
        schedule, hand_over = schedule_of(method.options, method.epochs, where), hand_over_of(method.options, where)
        more |= {"parting": parting_of(method.options, where), "bank": bank_of(method.options, where)}
        for term in terms:
            term.schedule = schedule
        source = wanted if isinstance(wanted, str) else None
        parts = ("neck", "head") if wanted else ()
        more["pseudo_boxes"] = _pseudo_boxes(method, where)
        return cls(terms, parts, inherit_from=source, hand_over=hand_over, **more)


def _pseudo_boxes(method, where):
    keys = [key for key in SCHEDULE_KEYS if key != "stop"]  # that goes by the gradient of a term
    given = own_keys(method.options, where, keys)
    if given is None:
        return None
    schedule = {key: method.options[key] for key in keys if key in method.options} | given
    return pseudo_boxes_of(given, schedule_of(schedule, method.epochs, f"{where}.pseudo_boxes"), where)


def schedule_of(options, epochs, where):
    """The `Schedule` that the `SCHEDULE_KEYS` among `options` describe.

    Args:
        options: mapping; other keys are not looked at.
        epochs: of the run, or None.
        where: file and mapping, for messages.

    Raises:
        UserError: a value of the wrong kind.
    """
    keys = ("start_epoch", "warmup_epochs", "stop_epoch")
    counts = {key: epoch_of(options.get(key), epochs, f"{where}.{key}") for key in keys}
    stop = counts["stop_epoch"] if options.get("stop_epoch") is not None else None
    start, shares = counts["start_epoch"], [isinstance(options.get(key), str) for key in ("start_epoch", "stop_epoch")]
    # Shares of a short run may be one epoch, as in a trial; 0 is a way to say off.
    if stop and (stop < start or (stop == start and not any(shares))):
        raise UserError(
            f"{where}.stop_epoch has to be above start_epoch, {options['start_epoch']}, or no epoch is between them; "
            f"found {options['stop_epoch']}"
        )
    auto = options.get("stop")
    if auto not in (None, "auto"):
        raise UserError(f"{where}.stop has to be auto, found {auto!r}; an epoch is stop_epoch")
    decay, final = options.get("decay", "constant"), options.get("final_weight")
    if decay not in DECAYS:
        raise UserError(f"{where}.decay has to be one of {', '.join(DECAYS)}; found {decay!r}")
    if final is not None and (isinstance(final, bool) or not isinstance(final, (int, float)) or not 0 <= final <= 1):
        raise UserError(f"{where}.final_weight has to be a factor from 0 to 1, found {final!r}")
    if final is not None and decay == "constant":
        raise UserError(f"{where}.final_weight needs {where.split(': ')[-1]}.decay: linear or cosine")
    final = (1.0 if decay == "constant" else 0.0) if final is None else float(final)
    return Schedule(counts["start_epoch"], stop, decay, final, counts["warmup_epochs"], epochs, auto is not None)


def epoch_of(value, epochs, where):
    """The number that an epoch's key means: itself, 0 for None, or that of a share of the run (``33%``), 1 at least.

    Args:
        value: the key's.
        epochs: of the run, or None.
        where: file and key, for messages.

    Raises:
        UserError: it is neither, or a share of a run that says no epochs.
    """
    share = _SHARE.match(value) if isinstance(value, str) else None
    if share and 0 < float(share[1]) <= 100:
        if epochs is None:
            raise UserError(f"{where}: {value} of how many epochs? The run's file has no `epoch`")
        return max(1, round(float(share[1]) / 100 * epochs))
    value = 0 if value is None else value
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise UserError(f"{where} has to be an epoch number from 0 or a share of the run (33%), found {value!r}")
    return value


def schedule_keys(schedule):
    """The inverse of `schedule_of`: the keys that differ from a constant weight."""
    keys = {"start_epoch": schedule.start} if schedule.start else {}
    if schedule.stop is not None:
        keys["stop_epoch"] = schedule.stop
    if schedule.auto:
        keys["stop"] = "auto"
    if schedule.decay != "constant":
        keys |= {"decay": schedule.decay, "final_weight": schedule.final}
    if schedule.warmup:
        keys["warmup_epochs"] = schedule.warmup
    return keys

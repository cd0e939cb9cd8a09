"""A term: ``loss(connect_s(student source), connect_t(teacher source), context) * weight(epoch)``."""

import inspect
import math
from dataclasses import dataclass, field
from functools import partial

from paddle import nn

from ppkd.connectors import CONNECTORS, match_size
from ppkd.context import Context
from ppkd.errors import UserError, nearest
from ppkd.log import logger
from ppkd.losses import LOSSES
from ppkd.schedules import DECAYS, Schedule


@dataclass
class TermSpec:
    """One line of a distillation recipe, before it meets any model.

    Attributes:
        name: short name for the log.
        student, teacher: sources (see `detectors.Detector.levels`); a tuple for a loss that compares several.
        student_connector, teacher_connector: names in `connectors.CONNECTORS`.
        loss: ``{"name": ..., parameters}``, a name in `losses.LOSSES`.
        weight: factor on the whole term.
        schedule: the factor over epochs.
        max_levels: use only the first so many levels of the student.
        trained: whether connectors and the loss's own parameters learn; only PaddleDetection's numerics say no.
    """

    name: str
    student: str | tuple
    teacher: str | tuple
    loss: dict
    student_connector: str = "none"
    teacher_connector: str = "none"
    weight: float = 1.0
    schedule: Schedule = field(default_factory=Schedule)
    max_levels: int | None = None
    trained: bool = True


@dataclass
class Plan:
    """A whole method.

    Attributes:
        terms: list of `TermSpec`.
        inherit: the parts of the student that start from the teacher's weights.
        alpha: factor on the whole loss, the student's own included, unless all weights are 0.
        assigner: ``student``, or ``teacher`` if the student's targets are assigned by the teacher's predictions.
    """

    terms: list
    inherit: tuple = ()
    alpha: float = 1.0
    assigner: str = "student"

    @classmethod
    def of(cls, terms, method, inherit=False, **more):
        """Apply the ``distill:`` options that every method has: `schedule_of`'s and ``inherit``.

        Args:
            terms: list of `TermSpec`.
            method: `recipe.MethodSpec`.
            inherit: whether the method inherits unless the file says otherwise.
            more: further fields of the plan.
        """
        wanted = method.options.get("inherit", inherit)
        if not isinstance(wanted, bool):
            raise UserError(f"{method.file}: distill.inherit has to be true or false, found {wanted!r}")
        schedule = schedule_of(method)
        for term in terms:
            term.schedule = schedule
        return cls(terms, ("neck", "head") if wanted else (), **more)


def schedule_of(method):
    """The `Schedule` that ``start_epoch``, ``stop_epoch``, ``decay``, ``final_weight`` and ``warmup_epochs`` describe.

    Args:
        method: `recipe.MethodSpec`.

    Raises:
        UserError: a value of the wrong kind.
    """
    options, file = method.options, method.file
    stop = options.get("stop_epoch")
    counts = {key: options.get(key, 0) for key in ("start_epoch", "warmup_epochs")}
    for key, value in {**counts, "stop_epoch": 0 if stop is None else stop}.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise UserError(f"{file}: distill.{key} has to be an epoch number from 0, found {value!r}")
    decay, final = options.get("decay", "constant"), options.get("final_weight")
    if decay not in DECAYS:
        raise UserError(f"{file}: distill.decay has to be one of {', '.join(DECAYS)}; found {decay!r}")
    if final is not None and (isinstance(final, bool) or not isinstance(final, (int, float)) or not 0 <= final <= 1):
        raise UserError(f"{file}: distill.final_weight has to be a factor from 0 to 1, found {final!r}")
    if final is not None and decay == "constant":
        raise UserError(f"{file}: distill.final_weight needs distill.decay: linear or cosine")
    final = (1.0 if decay == "constant" else 0.0) if final is None else float(final)
    return Schedule(counts["start_epoch"], stop, decay, final, counts["warmup_epochs"], method.epochs)


class Term(nn.Layer):
    """A term as it is computed: connectors and loss as sub-layers, and where its inputs are recorded.

    Most losses compare one pair of levels and get two tensors. A spec with several sources gives its loss a tuple of
    tensors on either side; a loss class with ``all_levels`` gets, for each source, the list of all levels' tensors.

    Args:
        spec: the `TermSpec` that it comes from.
        pairs: list of ``(student, teacher)``, tuples of one `detectors.Level` a source; one but for ``all_levels``.
        constants: values of `Context.STATIC` of the student's head but ``strides``.

    Attributes:
        label: ``name.s8`` in logs: the spec's name and the student's stride; of all levels together the name alone.

    Raises:
        UserError: unknown loss or connector, or channels that no connector makes equal.
    """

    def __init__(self, spec, pairs, constants=None):
        super().__init__()
        self.spec, self.pairs = spec, pairs
        kind = _loss_class(spec)
        self._all_levels = getattr(kind, "all_levels", False)
        first = pairs[0][0][0]
        self.label = f"{spec.name}.{_tag(first)}"
        if self._all_levels:
            self.label = spec.name
        (student, *_), (teacher, *_) = pairs[0]
        self.connect_teacher = _connector(spec.teacher_connector)(teacher.channels, teacher.channels)
        self.connect_student = _connector(spec.student_connector)(student.channels, self.connect_teacher.channels)
        for pair in pairs:
            _check_channels(spec, pair, self.connect_student.channels)
        self.loss = _build_loss(spec, kind, self.connect_teacher.channels, student.channels)
        self.needs = context_names(self.loss)
        constants = {**(constants or {}), "strides": tuple(students[0].stride for students, _ in pairs)}
        self._constants = {name: constants[name] for name in self.needs if name in Context.STATIC}
        self._from_batch = tuple(name for name in self.needs if name not in Context.STATIC)
        if not spec.trained:
            for parameter in self.parameters():
                parameter.stop_gradient, parameter.trainable = True, False

    def taps(self, side):
        """Where the inputs are recorded: all `detectors.Tap` of the student (side 0) or the teacher (side 1)."""
        return [level.tap for pair in self.pairs for level in pair[side]]

    def weight(self, epoch):
        """The factor on the loss in `epoch`; 0 means that the term is not computed at all."""
        return self.spec.weight * self.spec.schedule.factor(epoch)

    def over(self, epoch):
        """Whether the weight is 0 from `epoch` on, for good."""
        return not self.spec.weight or self.spec.schedule.over(epoch)

    def compare(self, student, teacher, context):
        """Take the term's inputs from what was recorded, and compare them.

        Args:
            student, teacher: `recorders.Recorder` of either side after the step.
            context: `Context` of the batch.

        Returns:
            As `forward`.
        """
        s, t = (
            [[recorder.take(level.tap) for level in pair[side]] for pair in self.pairs]
            for side, recorder in enumerate((student, teacher))
        )
        return self(s, t, context)

    def forward(self, student, teacher, context):
        """Compare the tensors of the term's pairs.

        Args:
            student: list (pairs) of lists (sources) of the student's tensors.
            teacher: the teacher's, without gradient.
            context: `Context` of the batch.

        Returns:
            Dict from the part's name (``""`` for a loss of one part) to a scalar, before `weight`.
        """
        # Only a spec with one source has connectors.
        student = [[self.connect_student(x) for x in sources] for sources in student]
        teacher = [
            [_match(s, self.connect_teacher(t)) for s, t in zip(*sources)] for sources in zip(student, teacher)
        ]
        inputs = [self._arrange(side) for side in (student, teacher)]
        result = self.loss(*inputs, **self._constants, **context.pick(self._from_batch))
        return result if isinstance(result, dict) else {"": result}

    def _arrange(self, values):
        by_source = [list(levels) for levels in zip(*values)]
        if not self._all_levels:
            by_source = [levels[0] for levels in by_source]
        return tuple(by_source) if len(by_source) > 1 else by_source[0]


def _tag(level):
    """A level's short name in the log: ``s8`` for a stride, ``g12`` for a grid of 12 x 12 cells."""
    if level.cells:
        return "g" + "x".join(str(n) for n in dict.fromkeys(level.cells))
    return f"s{level.stride}" if level.stride else level.source


def _match(student, teacher):
    return match_size(student, teacher) if len(student.shape) == 4 else teacher


def _check_channels(spec, pair, connected):
    for ours, theirs in zip(*pair):
        channels = connected if len(pair[0]) == 1 else ours.channels
        if channels != theirs.channels:
            raise UserError(
                f"{spec.name}: the student's {ours.source} has {channels} channels, the teacher's {theirs.source} "
                f"{theirs.channels}, and these two are compared channel by channel: both detectors need the same "
                "num_classes, anchors and bins here; a method on neck features does without"
            )


def context_names(loss):
    """Names of the context inputs that a loss declares in its ``forward``.

    Raises:
        UserError: it asks for something that no context has.
    """
    names = []
    for name, parameter in list(inspect.signature(loss.forward).parameters.items())[2:]:
        if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            continue
        if name in Context.NAMES:
            names.append(name)
        elif parameter.default is parameter.empty:
            raise UserError(
                f"loss {type(loss).__name__} asks for {name!r}; a loss can ask for {', '.join(Context.NAMES)}"
            )
    return tuple(names)


def _connector(name):
    if name not in CONNECTORS:
        raise UserError(f"unknown connector {name!r}{nearest(name, CONNECTORS)}; known: {', '.join(CONNECTORS)}")
    return CONNECTORS[name]


def _loss_class(spec):
    name = spec.loss["name"]
    if name not in LOSSES:
        raise UserError(f"unknown loss {name!r}{nearest(name, LOSSES)}; known: {', '.join(LOSSES)}")
    return LOSSES[name]


def _build_loss(spec, kind, channels, student_channels):
    params = dict(spec.loss)
    name = params.pop("name")
    accepted = inspect.signature(kind.__init__).parameters
    of_maps = {"channels": channels, "student_channels": student_channels}
    unknown = [k for k in params if k not in accepted]
    if unknown:
        known = [k for k in accepted if k != "self" and k not in of_maps]
        raise UserError(f"loss {name} has no parameter {unknown[0]!r}{nearest(unknown[0], known)}; it has: {known}")
    params |= {k: v for k, v in of_maps.items() if k in accepted}
    try:
        return kind(**params)
    except (TypeError, ValueError) as error:
        raise UserError(f"loss {name}: {error}") from error


def build_terms(spec, student, teacher):
    """The `Term`s of a spec between two detectors: one a pair of levels, or one for all of them.

    Args:
        spec: the `TermSpec`.
        student, teacher: `detectors.Detector`.

    Raises:
        UserError: sources that do not exist, fit or pair, or a loss that asks for what the student has not.
    """
    pairs = match_levels(spec, student, teacher)
    together = getattr(_loss_class(spec), "all_levels", False)
    constants = {"cell_offset": student.cell_offset, "first_bin": student.first_bin}
    terms = [Term(spec, group, constants) for group in ([pairs] if together else [[pair] for pair in pairs])]
    if "assignment" in terms[0].needs:
        if not student.assigns:
            raise UserError(f"{spec.name}: {type(student.model).__name__} does not tell its target assignment")
        if len(pairs) != len(student.levels(_sources(spec.student)[0])):
            raise UserError(f"{spec.name}: student and teacher need the same strides: all have targets")
    return terms


def match_levels(spec, student, teacher):
    """Pair the levels of a spec's sources of the student with the teacher's.

    Levels of equal stride (or grid) pair; those of the student that have no partner are left out. Where no stride is
    common to both, each pairs with the teacher's nearest, and the teacher's map is resized (`connectors.match_size`).

    Args:
        spec: the `TermSpec`.
        student, teacher: `detectors.Detector`.

    Returns:
        List of ``(student, teacher)``, each a tuple of one `detectors.Level` a source; sources that name single
        tensors on both sides give one pair.

    Raises:
        UserError: nothing to pair.
    """
    ours = [group[: spec.max_levels] for group in map(student.levels, _sources(spec.student))]
    theirs = [teacher.levels(source) for source in _sources(spec.teacher)]
    if len(ours[0]) == 1 and len(theirs[0]) == 1:
        return [(tuple(levels[0] for levels in ours), tuple(levels[0] for levels in theirs))]
    by_place = {levels[0].place: levels for levels in zip(*theirs)}
    pairs = [(levels, by_place[levels[0].place]) for levels in zip(*ours) if levels[0].place in by_place]
    if pairs:
        alone = [level.source for level in ours[0] if level.place not in by_place]
        if alone:
            logger().info("%s: no level of the teacher has the stride of %s: left out", spec.name, ", ".join(alone))
        return pairs
    maps = [levels for levels in zip(*theirs) if levels[0].stride]
    if not maps or not all(level.stride for level in ours[0]):
        raise UserError(
            f"{spec.name}: student {spec.student} has strides or grids {[x.place for x in ours[0]]}, "
            f"teacher {spec.teacher} has {list(by_place)}: none in common"
        )
    pairs = [(levels, min(maps, key=partial(_distance, levels[0].stride))) for levels in zip(*ours)]
    strides = ", ".join(f"{ours[0].stride} with {theirs[0].stride}" for ours, theirs in pairs)
    logger().info("%s: no stride in common, so the teacher's maps are resized: %s", spec.name, strides)
    return pairs


def _distance(stride, levels):
    """How far a level is from a stride, in octaves."""
    return abs(math.log2(levels[0].stride / stride))


def _sources(names):
    return (names,) if isinstance(names, str) else names

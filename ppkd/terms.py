"""A term: ``loss(connect_s(student source), connect_t(teacher source), context) * weight(epoch)``."""

import inspect
from dataclasses import dataclass, field

from paddle import nn

from ppkd.connectors import CONNECTORS, match_size
from ppkd.context import Context
from ppkd.errors import UserError, nearest
from ppkd.losses import LOSSES
from ppkd.schedules import Schedule


@dataclass
class TermSpec:
    """One line of a distillation recipe, before it meets any model.

    Attributes:
        name: short name for the log.
        student, teacher: sources (see `detectors.Detector.levels`).
        student_connector, teacher_connector: names in `connectors.CONNECTORS`.
        loss: ``{"name": ..., parameters}``, a name in `losses.LOSSES`.
        weight: factor on the whole term.
        schedule: the factor over epochs.
        max_levels: use only the first so many levels of the student.
    """

    name: str
    student: str
    teacher: str
    loss: dict
    student_connector: str = "none"
    teacher_connector: str = "none"
    weight: float = 1.0
    schedule: Schedule = field(default_factory=Schedule)
    max_levels: int | None = None


@dataclass
class Plan:
    """A whole method: its terms, and the parts of the student that start from the teacher's weights."""

    terms: list
    inherit: tuple = ()

    @classmethod
    def of(cls, terms, options, inherit, file):
        """Apply the ``distill:`` options that every method has: ``start_epoch``, ``stop_epoch``, ``inherit``."""
        start, stop = options.get("start_epoch", 0), options.get("stop_epoch")
        for key, value in (("start_epoch", start), ("stop_epoch", stop if stop is not None else 0)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise UserError(f"{file}: distill.{key} has to be an epoch number from 0, found {value!r}")
        wanted = options.get("inherit", True)
        if not isinstance(wanted, bool):
            raise UserError(f"{file}: distill.inherit has to be true or false, found {wanted!r}")
        for term in terms:
            term.schedule = Schedule(start, stop)
        return cls(terms, inherit if wanted else ())


class Term(nn.Layer):
    """A term on one pair of levels: connectors and loss as sub-layers, and where its inputs are recorded.

    Args:
        spec: the `TermSpec` that it comes from.
        student, teacher: the `detectors.Level` on either side.

    Attributes:
        label: ``name.s8`` in logs: the spec's name and the student's stride.
    """

    def __init__(self, spec, student, teacher):
        super().__init__()
        self.spec = spec
        self.student_level, self.teacher_level = student, teacher
        self.student_tap, self.teacher_tap = student.tap, teacher.tap
        self.label = f"{spec.name}.s{student.stride}" if student.stride else f"{spec.name}.{student.source}"
        self.connect_teacher = _connector(spec.teacher_connector)(teacher.channels, teacher.channels)
        self.connect_student = _connector(spec.student_connector)(student.channels, self.connect_teacher.channels)
        self.loss = _build_loss(spec, self.connect_teacher.channels)
        self.needs = context_names(self.loss)

    def weight(self, epoch):
        """The factor on the loss in `epoch`; 0 means that the term is not computed at all."""
        return self.spec.weight * self.spec.schedule.factor(epoch)

    def forward(self, student, teacher, context):
        """Compare one pair of tensors.

        Args:
            student: the student's recorded tensor.
            teacher: the teacher's, without gradient.
            context: `Context` of the batch.

        Returns:
            Dict from the part's name (``""`` for a loss of one part) to a scalar, before `weight`.
        """
        s, t = self.connect_student(student), self.connect_teacher(teacher)
        if len(s.shape) == 4:
            t = match_size(s, t)
        result = self.loss(s, t, **context.pick(self.needs))
        return result if isinstance(result, dict) else {"": result}


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


def _build_loss(spec, channels):
    params = dict(spec.loss)
    name = params.pop("name")
    if name not in LOSSES:
        raise UserError(f"unknown loss {name!r}{nearest(name, LOSSES)}; known: {', '.join(LOSSES)}")
    accepted = inspect.signature(LOSSES[name].__init__).parameters
    unknown = [k for k in params if k not in accepted]
    if unknown:
        known = [k for k in accepted if k not in ("self", "channels")]
        raise UserError(f"loss {name} has no parameter {unknown[0]!r}{nearest(unknown[0], known)}; it has: {known}")
    if "channels" in accepted:
        params["channels"] = channels
    return LOSSES[name](**params)


def match_levels(spec, student, teacher):
    """Pair the levels of a source of the student with the teacher's, by stride.

    Args:
        spec: the `TermSpec`.
        student, teacher: `detectors.Detector`.

    Returns:
        List of ``(student Level, teacher Level)``; a source that names single tensors on both sides gives one pair.

    Raises:
        UserError: no common stride.
    """
    ours, theirs = student.levels(spec.student), teacher.levels(spec.teacher)
    ours = ours[: spec.max_levels]
    if len(ours) == 1 and len(theirs) == 1:
        return [(ours[0], theirs[0])]
    by_stride = {level.stride: level for level in theirs}
    pairs = [(level, by_stride[level.stride]) for level in ours if level.stride in by_stride]
    if not pairs:
        raise UserError(
            f"{spec.name}: student {spec.student} has strides {[x.stride for x in ours]}, "
            f"teacher {spec.teacher} has {list(by_stride)}: none in common"
        )
    return pairs

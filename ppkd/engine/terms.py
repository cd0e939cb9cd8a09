"""A term: ``loss(connect_s(student source), connect_t(teacher source), context) * weight(epoch)``."""

from dataclasses import dataclass, replace

from paddle import nn

from ppkd.detectors.context import Context
from ppkd.engine.beside import NOTHING, asked_of_labels, on_of
from ppkd.engine.connector_layers import build_connector
from ppkd.engine.loss_layers import build_loss, context_names
from ppkd.engine.sides import Side, Sides
from ppkd.engine.sizes import match_size
from ppkd.errors import UserError
from ppkd.losses import LOSSES
from ppkd.losses.common import full_precision, up


@dataclass(frozen=True)
class Sender:
    """A teacher as a term knows it.

    Attributes:
        name: for the log.
        detector: `detectors.Detector`.
        weight: factor on every term that takes it.
        scale: how many times as large as the student's its images are.
    """

    name: str
    detector: object
    weight: float = 1.0
    scale: float = 1.0


class Term(nn.Layer):
    """A term as it is computed: connectors and loss as sub-layers, and where its inputs are recorded.

    Most losses compare one pair of levels and get two tensors. A spec with several sources gives its loss a tuple of
    tensors on either side; a loss class with ``all_levels`` gets, for each source, the list of all levels' tensors.

    Args:
        spec: the `plan.TermSpec` that it comes from.
        pairs: list of ``(student, teacher)``, tuples of one `detectors.Level` a source; one but for ``all_levels``.
        constants: values of `Context.STATIC` of the student's head but ``strides``.
        sender: the `Sender`; None in tests of a term by itself.
        student: `detectors.Detector`, likewise.
        alone: whether it is the only teacher, so that the log need not name it.
        beside: `beside.Beside`.

    Attributes:
        label: ``name.s8`` in logs: the spec's name and the student's stride; of all levels together the name alone;
            with several teachers ``name.TEACHER.s8``.
        teacher: the teacher's name.
        on: which images it compares, one of `plan.ON`.
        needs_labels: whether it compares those alone whose boxes are known, be they a teacher's.

    Raises:
        UserError: unknown loss or connector, or channels that no connector makes equal.
    """

    def __init__(self, spec, pairs, constants=None, sender=None, alone=True, student=None, beside=NOTHING):
        super().__init__()
        self.spec, self.pairs = spec, pairs
        self.teacher = sender.name if sender else None
        self._factor = sender.weight if sender else 1.0
        self._all_levels = getattr(LOSSES.get(spec.loss["name"]), "all_levels", False)
        self.label = ".".join([spec.name, *([] if alone else [self.teacher])])
        if not self._all_levels:
            self.label += "." + _tag(pairs[0][0][0])
        self.connect_student, self.connect_teacher = nn.LayerList(), nn.LayerList()
        for pair in pairs:
            self._connect(pair, _sides(pair, student, sender))
        self.loss = build_loss(spec.loss, self._connected_sides(_sides(pairs[0], student, sender)), spec.name)
        self.needs = context_names(self.loss, spec.loss["name"])
        asked = asked_of_labels(self.loss)
        self.on, self.needs_labels = on_of(spec, asked, beside), bool(asked)
        constants = {**(constants or {}), "strides": tuple(students[0].stride for students, _ in pairs)}
        self._constants = {name: constants[name] for name in self.needs if name in Context.STATIC}
        self._from_batch = tuple(name for name in self.needs if name not in Context.STATIC)
        if not spec.trained:
            for parameter in self.parameters():
                parameter.stop_gradient, parameter.trainable = True, False

    def _connect(self, pair, sides):
        """Build the connectors of a pair; a spec of several sources has none."""
        spec = self.spec
        _check_kinds(spec, pair)
        if len(pair[0]) == 1:
            ours, theirs = sides.student.channels, sides.teacher.channels
            where = f"{spec.name}.teacher_connector"
            connect = build_connector(spec.teacher_connector, theirs, theirs, where, sides, "teacher")
            self.connect_teacher.append(connect)
            where = f"{spec.name}.student_connector"
            self.connect_student.append(build_connector(spec.student_connector, ours, connect.channels, where, sides))
        elif spec.student_connector != "none" or spec.teacher_connector != "none":
            raise UserError(f"{spec.name}: connectors are for a term of one source a side; write one term a source")
        kind = LOSSES.get(spec.loss["name"])
        if getattr(kind, "projects", False) or getattr(kind, "takes_boxes", False):
            return
        connected = [side[-1].channels for side in (self.connect_student, self.connect_teacher) if len(side)]
        _check_channels(spec, pair, connected)

    def _connected_sides(self, sides):
        """The sides of the first pair as its connectors leave them."""
        if not len(self.connect_teacher):
            return sides
        ours, theirs = self.connect_student[0].channels, self.connect_teacher[0].channels
        return Sides(replace(sides.student, compared=ours), replace(sides.teacher, compared=theirs))

    def taps(self, side):
        """Where the inputs are recorded: all `detectors.Tap` of the student (side 0) or the teacher (side 1)."""
        return [level.tap for pair in self.pairs for level in pair[side]]

    def weight(self, epoch):
        """The factor on the loss in `epoch`; 0 means that the term is not computed at all.

        Of a term that is computed in some batches only it is that on its mean over all (see `outweighs`).
        """
        return self.spec.weight * self._factor * self.spec.schedule.factor(epoch)

    def due(self, clock):
        """Whether the term is computed in the batch that a `context.Clock` tells."""
        return clock.batch % self.spec.every == 0

    def outweighs(self, batches):
        """What its weight is multiplied by where it is due, so that the mean over an epoch's `batches` is the same."""
        return batches / -(-batches // self.spec.every)

    def age(self, clock):
        """How many batches it has been computed in before the one that `clock` tells."""
        return clock.since(self.spec.schedule.start, self.spec.every)

    def share(self, epoch):
        """`weight` of a term that a `magnitude.Magnitude` brings to size: without the spec's own weight."""
        return self.weight(epoch) / self.spec.weight * self.spec.magnitude.times(epoch)

    def turns(self, epoch):
        """Whether the weight changes by much as `epoch` begins."""
        shares = [self.spec.magnitude.part] if self.spec.magnitude is not None else []
        return bool(self.spec.weight * self._factor) and self.spec.schedule.turns(epoch, *shares)

    def over(self, epoch):
        """Whether the weight is 0 from `epoch` on, for good."""
        return not self.spec.weight * self._factor or self.spec.schedule.over(epoch)

    def compare(self, student, teacher, context):
        """Take the term's inputs from what was recorded, and compare them.

        Args:
            student: its `recorders.Recorder` after the step.
            teacher: what `of_teacher` or `from_kept` gives.
            context: `Context` of the batch.

        Returns:
            As `forward`.
        """
        tensors, ahead = teacher
        return self(self._taken(student, 0), tensors, context, ahead)

    def inputs(self, student, teacher, context):
        """What `compare` gives its loss of each side; the same arguments."""
        tensors, ahead = teacher
        return self.connected(self._taken(student, 0), tensors, self.age(context.clock), ahead)

    def take(self, student, teacher):
        """The student's and the teacher's tensors as `forward` takes them, from the `recorders.Recorder` of each."""
        return [self._taken(student, 0), self.of_teacher(teacher)[0]]

    def of_teacher(self, recorder):
        """The teacher's tensors for `compare`, from its `recorders.Recorder`."""
        # A teacher may compute in a lower type than the connectors, which are the student's.
        return up_all(self._taken(recorder, 1)), False

    def _taken(self, recorder, side):
        return [[recorder.take(level.tap) for level in pair[side]] for pair in self.pairs]

    @property
    def _ahead(self):
        """Whether the teacher's tensors can be connected before the student's are there, once for all."""
        links = [*self.connect_student, *self.connect_teacher]
        learned = any(len(chain.state_dict()) for chain in self.connect_teacher)
        return self.spec.teacher_connector != "none" and not learned and not any(chain.asks for chain in links)

    @property
    def keeps(self):
        """Names of the teacher's tensors that a bank keeps for the term: the same for terms that take the same."""
        end = f" {self.spec.teacher_connector}" if self._ahead else ""
        return [f"{self.teacher} {level.source}{end}" for _, levels in self.pairs for level in levels]

    def to_keep(self, recorder):
        """The teacher's tensors by the names of `keeps`: connected where that can be done once for all."""
        tensors, _ = self.of_teacher(recorder)
        if self._ahead:
            tensors = [[connect(x, x)] for connect, (x,) in zip(self.connect_teacher, tensors)]
        return dict(zip(self.keeps, (x for each in tensors for x in each)))

    def from_kept(self, found):
        """The teacher's tensors for `compare`, of those that `to_keep` gave."""
        names = iter(self.keeps)
        return [[found[next(names)] for _ in levels] for _, levels in self.pairs], self._ahead

    def connected(self, student, teacher, age, ahead=False):
        """What the loss gets of each side: the tensors after their connectors, in the sizes in which they are compared.

        Args:
            student: list (pairs) of lists (sources) of the student's tensors.
            teacher: the teacher's, without gradient.
            age: see `connector_layers.Chain`.
            ahead: whether the teacher's are connected already.
        """
        if len(self.connect_student):
            recorded = [(s, t) for (s,), (t,) in zip(student, teacher)]
            student = [[connect(*pair, age)] for connect, pair in zip(self.connect_student, recorded)]
            if not ahead:
                teacher = [[connect(t, s, age)] for connect, (s, t) in zip(self.connect_teacher, recorded)]
        teacher = [[_match(s, t) for s, t in zip(*sides)] for sides in zip(student, teacher)]
        return [self._arrange(side) for side in (student, teacher)]

    def forward(self, student, teacher, context, ahead=False):
        """Compare the tensors of the term's pairs.

        Args:
            student, teacher: as for `connected`.
            context: `Context` of the batch.
            ahead: as for `connected`.

        Returns:
            Dict from the part's name (``""`` for a loss of one part) to a scalar, before `weight`.
        """
        inputs = self.connected(student, teacher, self.age(context.clock), ahead)
        return self._compared(*inputs, context.pick(self._from_batch))

    @full_precision
    def _compared(self, student, teacher, picked):
        # Many a loss multiplies and adds up behind its own formula; and a plugin's knows nothing of mixed precision.
        result = self.loss(up_all(student), up_all(teacher), **self._constants, **picked)
        return {name: up(x) for name, x in (result if isinstance(result, dict) else {"": result}).items()}

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


def up_all(values):
    """Tensors in float32 or better, in tuples and lists."""
    return type(values)(map(up_all, values)) if isinstance(values, (tuple, list)) else up(values)


def _match(student, teacher):
    return match_size(student, teacher) if len(student.shape) == 4 == len(teacher.shape) else teacher


def _check_kinds(spec, pair):
    """Refuse a map beside what is none; a plugin's loss may know what to make of them."""
    kind = LOSSES.get(spec.loss["name"])
    if getattr(kind, "takes_boxes", False) or not getattr(kind, "__module__", "").startswith("ppkd."):
        return
    for ours, theirs in zip(*pair):
        if ours.is_map != theirs.is_map:
            told = [f"the {side}'s {x.source} is {'' if x.is_map else 'not '}" for side, x in
                    (("student", ours), ("teacher", theirs))]  # fmt: skip
            raise UserError(f"{spec.name}: {told[0]}a map (N, C, H, W), {told[1]}one: these are not compared")
        if ours.tokens is not None and not getattr(kind, "takes_tokens", False):
            known = ", ".join(name for name, each in LOSSES.items() if getattr(each, "takes_tokens", False))
            raise UserError(
                f"{spec.name}: loss {spec.loss['name']} compares maps (N, C, H, W), and {ours.source} is none: "
                f"{known} compare what a decoder makes of its queries"
            )
        if ours.tokens != theirs.tokens and not getattr(kind, "all_levels", False):
            raise UserError(
                f"{spec.name}: the student's {ours.source} has {ours.tokens} queries, the teacher's {theirs.source} "
                f"{theirs.tokens}, and {spec.loss['name']} compares them one by one: detr_match compares sets of any "
                "numbers, shared_queries what both make of the same queries"
            )


def _check_channels(spec, pair, connected):
    for ours, theirs in zip(*pair):
        channels, wanted = connected or (ours.channels, theirs.channels)
        if channels != wanted:
            raise UserError(
                f"{spec.name}: the student's {ours.source} has {channels} channels, the teacher's {theirs.source} "
                f"{wanted}, and these two are compared channel by channel: {_cure(ours)}"
            )


def _cure(level):
    if level.source.startswith(("head.", "decoder.")) and not level.source.startswith("decoder.query"):
        return "both detectors need the same num_classes, anchors and bins here; a method on neck features does without"
    return "`student_connector: align` connects them"


def _sides(pair, student, sender):
    """The `Sides` of a pair of levels; of several sources those of the first."""
    (ours, *_), (theirs, *_) = pair
    teacher = sender.detector if sender else None
    return Sides(Side(ours, student, ours.channels), Side(theirs, teacher, theirs.channels))

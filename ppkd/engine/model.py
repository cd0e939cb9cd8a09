"""DistillModel: a plain student, frozen teachers beside it, and the terms between them."""

import math

import paddle
from paddle import nn

from ppkd.bridge.unlabelled import KEY
from ppkd.detectors import detector_for
from ppkd.detectors.base import Detector
from ppkd.detectors.context import Clock, Context
from ppkd.detectors.recorders import recording
from ppkd.engine.bank import VIEW
from ppkd.engine.beside import count_of, joined, takes
from ppkd.engine.distillation import Distillation
from ppkd.engine.pseudo_boxes import TeacherBoxes
from ppkd.engine.teachers import Teachers
from ppkd.engine.terms import Sender
from ppkd.engine.together import compare_all
from ppkd.engine.weighing import added
from ppkd.errors import UserError, nearest
from ppkd.losses.common import full_precision, up
from ppkd.recipe.plan import LABELLED, TEACHER, UNLABELLED
from ppkd.recipe.pseudo_boxes import NAME as PSEUDO_BOXES
from ppkd.terminal.log import logger


class DistillModel(nn.Layer):
    """Trains a student beside its teachers; the student itself stays an ordinary ppdet model.

    Sub-layers are the student and the distillation (connectors, learnable losses, magnitudes): they are optimised,
    synchronised and kept for resuming. Teachers are not sub-layers: they are in no optimizer, EMA, reducer or
    checkpoint.

    Args:
        student: ppdet model.
        teachers: name -> ppdet model; frozen and put into eval mode here.
        plan: `plan.Plan`.
        preparations: name of a teacher -> what turns the student's batch into one that this teacher knows (see
            `teacher_inputs.preparation_for`), for those that need it.
        specs: name of a teacher -> `teachers.TeacherSpec`, for its weight and the size of its images; without one,
            both are 1.
        classes: how many the student has; None where nobody knows it but its layers.
        beside: whether batches may have images without labels beside them (`bridge.unlabelled.KEY`).

    Attributes:
        preparations: name of a teacher -> preparation, as given.
        epoch: current epoch, set by `enter`; schedules read it.
        batch, batches: the batch of this epoch, from 0, and how many an epoch has; set by who trains, read by what is
            done every so many batches. Left alone, every batch is the first.
        timed: whether the next step measures `teacher_seconds`, for which a GPU has to be waited for.
        asked: the `teachers.Teachers`, with the bank of what they said, if there is one.
        watched: whether the next step measures every term's gradient beside the detection loss's (see `entering`); at
            the beginning of some epochs, since ``stop: auto`` and ``magnitude: ... every epoch`` go by it.
        hand_over, parting, bank_spec: the plan's.
        alpha: factor on the whole loss; 1 if no term of the plan ever has a weight.

    Raises:
        UserError: a term or the plan names a teacher that there is not; as `build_terms.build_terms`.
    """

    def __init__(self, student, teachers, plan, preparations=None, specs=None, beside=False, classes=None):
        super().__init__()
        self.student = student
        self.preparations = dict(preparations or {})
        self.epoch, self.batch, self.batches = 0, 0, 1
        self.timed = False
        self.watched, self._pulls, self._sizes = False, {}, {}
        self.alpha = plan.alpha if any(spec.weight for spec in plan.terms) else 1.0
        self.hand_over, self.parting, self.bank_spec = plan.hand_over, plan.parting, plan.bank
        # What is no layer hides the teachers from nn.Layer.
        self.asked, self._beside = Teachers(teachers, self.preparations), beside
        # Neither is an adapter a layer: it holds the student without owning it.
        self._student = detector_for(student)
        self._assigner = self.asked.assigner = self._find_assigner(plan.assigner, specs or {})
        self.distillation = Distillation(plan, self._student, self._senders(specs or {}), beside)
        if plan.pseudo_boxes:
            told = {None: classes} | {name: spec.config.get("num_classes") for name, spec in (specs or {}).items()}
            self.distillation.boxes = TeacherBoxes(plan.pseudo_boxes, self._student, dict(self.asked), beside, told)
        if plan.assigner != "student" and not any("assignment" in term.needs for term in self.terms):
            logger().warning("assigner: %s changes nothing: no term asks for the targets of predictions", plan.assigner)

    def _senders(self, specs):
        factors = {name: (spec.weight, spec.input_scale) for name, spec in specs.items()}
        return [Sender(name, detector, *factors.get(name, ())) for name, detector in self.asked]

    def _find_assigner(self, wanted, specs):
        """The name of the teacher that assigns the student's targets, or None."""
        if wanted == "student":
            return None
        detectors = dict(self.asked)
        name = wanted if wanted in detectors or wanted != TEACHER else next(iter(detectors))
        if name not in detectors:
            raise UserError(f"assigner: there is no teacher {name!r}{nearest(name, detectors)}; {', '.join(detectors)}")
        if not (self._student.assigns and detectors[name].assigns):
            return None
        if name in specs and specs[name].input_scale != 1:
            raise UserError(f"assigner: {name} sees images of another size (input_scale); write assigner: student")
        return name

    @property
    def terms(self):
        """All `terms.Term`."""
        return self.distillation.terms

    @property
    def boxes(self):
        """The `pseudo_boxes.TeacherBoxes` of images without labels, or None."""
        return self.distillation.boxes

    def _boxes_on(self):
        return self.boxes is not None and self.boxes.factor(self.epoch) > 0

    @property
    def teachers(self):
        """Teachers by name, as ppdet models."""
        return {name: detector.model for name, detector in self.asked}

    @property
    def teacher_seconds(self):
        """Time of all teachers in the last step that was measured, or None if none ran."""
        return self.asked.seconds

    def compute_teachers(self, block):
        """Let teachers compute inside of blocks of their own, such as `precision.Precision.of_teachers` makes them.

        Args:
            block: function without arguments to a context manager.
        """
        self.asked.compute(block)

    def train(self):
        """Put student and terms into train mode; teachers stay in eval mode whatever happens."""
        super().train()
        for model in self.teachers.values():
            model.eval()

    def enter(self, epoch):
        """Begin an epoch; terms that have stopped helping end, and with the last of all terms the teachers go.

        Returns:
            Whether they were let go just now.
        """
        self.epoch = epoch
        self.distillation.enter(epoch)
        over = self.boxes is None or self.boxes.over(epoch)
        if not self.asked or not over or not all(self.distillation.over(term, epoch) for term in self.terms):
            return False
        self.asked.let_go()
        self.distillation.let_go()
        return True

    @property
    def bound(self):
        """Why the teachers have to be there in every step, whatever a bank has; empty if they need not be."""
        held = {type(x).__name__ for term in self.terms for x in term.sublayers() if hasattr(x, "let_go")}
        found = [f"connector {name} works with layers of the teacher's own" for name in sorted(held)]
        if type(self._student).prepared is not Detector.prepared:
            found.append(f"{type(self.student).__name__} draws a size of its images in every step")
        return found + (["images without labels stand beside the batches"] if self._beside else [])

    @property
    def banked(self):
        """The terms whose inputs a bank keeps: all that ever have a weight."""
        return [term for term in self.terms if not term.over(-1)]

    def fill(self, batch):
        """Ask the teachers about a view, and keep in the bank what they say."""
        self.asked.taught(batch, [], None, batch.pop(VIEW), self.banked)

    def turned(self, epoch):
        """Names of the lines whose strength changes by much as `epoch`, which was entered, begins."""
        boxed = self.boxes is not None and self.boxes.spec.weight and self.boxes.spec.schedule.turns(epoch)
        return self.distillation.turned(epoch) + [PSEUDO_BOXES] * bool(boxed)

    @property
    def strength(self):
        """The highest factor that schedules put on a term in this epoch; 0 if none is on."""
        return max((term.spec.schedule.factor(self.epoch) for term, _ in self._on()), default=0.0)

    def part(self, losses):
        """What the terms added to ``loss``, or None if none is on.

        Args:
            losses: what `forward` returned.
        """
        labels = tuple(term.label for term, _ in self.active_terms())
        found = [v for k, v in losses.items() if k in labels or k.startswith(tuple(f"{x}." for x in labels))]
        return sum(found) * self.alpha if found else None

    def take_pulls(self):
        """What the last step that was `watched` found, once; empty if there was none since.

        Returns:
            ``NAME.share``, of a line's weighted gradient's norm in the detection loss's, and ``NAME.cosine`` between
            the two; None for what is not finite.
        """
        pulls, sizes, self._pulls, self._sizes = self._pulls, self._sizes, {}, {}
        self.distillation.tell_faint(sizes)
        flat = {f"{name}.{what}": x for name, pair in pulls.items() for what, x in zip(("share", "cosine"), pair)}
        return {name: float(x) if math.isfinite(float(x)) else None for name, x in flat.items()}

    def _on(self):
        """Terms whose weight is not zero in this epoch, with their weights."""
        terms = [term for term in self.terms if not self.distillation.over(term, self.epoch)]
        weighted = [(term, term.weight(self.epoch)) for term in terms]
        return [(term, weight) for term, weight in weighted if weight]

    @property
    def _now(self):
        return Clock(self.epoch, self.batch, self.batches)

    def active_terms(self):
        """Terms that are computed in this batch, with their weights in it."""
        return [(term, weight * term.outweighs(self.batches)) for term, weight in self._on() if term.due(self._now)]

    def takes(self, kind):
        """Whether a term compares images of a kind, one of `plan.ON`, in this epoch."""
        boxed = kind == UNLABELLED and self._boxes_on()
        return boxed or bool(_taking(self._on(), kind, boxed=kind == LABELLED))

    def idle(self):
        """Parameters of the terms whose weight is zero in this epoch: no step reaches them, on whatever rank."""
        active = {id(term) for term, _ in self._on()}
        return [p for term in self.terms if id(term) not in active for p in term.parameters()]

    def forward(self, batch):
        """One training step's losses, or the student's detections in eval mode.

        Args:
            batch: ppdet's batch, with one of images without labels under `bridge.unlabelled.KEY` or none. The student
                sees these in a forward of their own, whose losses count nothing.

        Returns:
            In train mode the student's own losses; where a term is active, ``loss`` with the distillation terms added
            and the sum multiplied by `alpha`; and one entry a term, level and part, such as ``fgd.s8.relation``, each
            weighted as it enters that sum.
        """
        active = self.active_terms() if self.training else []
        self.asked.begin(self.timed)
        beside, view = batch.pop(KEY, None), batch.pop(VIEW, None)
        boxed = self.training and self._boxes_on()
        if not active and not boxed:
            return self.student(batch)
        clock = self._now
        losses, compared, recorder = self._compared(batch, _taking(active, LABELLED), clock, view=view)
        both, more = compared, {}
        there = _taking(active, UNLABELLED, boxed)
        if beside and "image" in beside and (there or boxed):
            beside |= {key: batch[key] for key in ("epoch_id",) if key in batch}
            found, more = self._compared_beside(beside, there, clock, boxed)
            both = joined(compared, found, (count_of(batch), count_of(beside)))
        return self._added(losses, compared, both, more, recorder, clock)

    def _compared_beside(self, batch, active, clock, boxed):
        """The terms on images without labels; and the student's own loss there by name, with its weight, if any.

        Without the teacher's boxes its own losses, of images without a box, go nowhere: what is recorded is as in any
        step.
        """
        if not boxed:
            return self._compared(batch, active, clock, labels=False)[1], {}
        name = self.boxes.teacher
        teacher, prepare = dict(self.asked)[name], self.preparations.get(name)
        with self.asked.timing():
            batch, block, factor = self.boxes.boxed(batch, teacher, prepare, self._student)
        with block:
            losses, found, _ = self._compared(batch, active, clock)
        factor *= self.boxes.spec.weight * self.boxes.factor(clock.epoch) * bool(count_of(batch))
        return found, {PSEUDO_BOXES: (losses["loss"], factor)} if self.boxes.spec.weight else {}

    def broken_sources(self, batch):
        """Which of the teachers' sources are not finite for a batch: names such as ``teacher neck[0] (fgd.s8)``."""
        active = self.active_terms()
        if not active or "image" not in batch or not self.asked:  # in a bank everything is finite
            return []
        with self._student.prepared(dict(batch)) as prepared:
            recorded, _ = self.asked.run(dict(prepared), [term for term, _ in active], None)
        return [
            f"{term.teacher} {level.source} ({term.label})"
            for term, _ in active
            for _, teachers in term.pairs
            for level in teachers
            if not bool(paddle.isfinite(recorded[term.teacher].take(level.tap)).all())
        ]

    def _compared(self, batch, active, clock, labels=True, view=None):
        """The student's own losses on a batch, the active terms with what they come to, and what was recorded of it."""
        with self._student.prepared(batch) as batch:
            return self._compared_as_prepared(batch, active, clock, labels, view)

    def _compared_as_prepared(self, batch, active, clock, labels, view):
        # Models write into the batch dict that they get; the teacher has to see what the student saw.
        for_teacher = dict(batch)
        assigned = labels and any("assignment" in term.needs for term, _ in active)
        by_teacher = self._assigner if assigned and self._assigns_now(batch) else None
        terms = [term for term, _ in active]
        taught, given = self.asked.taught(for_teacher, terms, by_teacher, view, self.banked)
        taps = [tap for term, _ in active for tap in term.taps(0)]
        with (
            recording(self.student, taps, self._student.assigners if assigned else ()) as student,
            self._student.given(given),
        ):
            losses = dict(self.student(batch))
        targets = (self._student.assigned(student) or given) if assigned else None
        context = Context(for_teacher, targets, clock, labels)
        compared = compare_all(active, student, taught, context)
        taught.clear()  # the graph holds what it needs of the teachers' maps
        return losses, compared, student

    @full_precision
    def _added(self, losses, compared, both, more, recorder, clock):
        """The student's losses with the terms in them; products and sums are in float32 whatever the step is in.

        Args:
            losses, compared, recorder: of the labelled images, by which gradients are measured.
            both: the terms over all images.
            more: name -> ``(value, weight)`` of what else is added.
            clock: `Clock`.
        """
        own = up(losses["loss"])
        entering = self.distillation.measure(self.student, compared, own, recorder, clock, self.watched)
        parts, weighted = {}, self.distillation.weighted(both, own, clock)
        if self.watched:
            self._pulls = self.distillation.pulls(weighted, entering)
            if clock.epoch:  # a head that is new lets no gradient through in its first steps
                self._sizes = self.distillation.sizes(weighted, own)
        for term, weight, values in weighted:
            parts |= {f"{term.label}.{part}" if part else term.label: (x, weight) for part, x in values.items()}
        parts |= {name: (up(value), weight) for name, (value, weight) in more.items()}
        if taken := sorted(parts.keys() & losses.keys()):
            raise UserError(f"distill.terms.{taken[0]}: a loss of the student's own has this name")
        if not parts:  # no image without a label could be read, and there is no other term
            return losses
        weighed, total = added(*zip(*parts.values()))
        loss, parts = own + total, dict(zip(parts, weighed))
        return {**losses, "loss": loss if self.alpha == 1 else loss * self.alpha, **parts}

    def _assigns_now(self, batch):
        return self._assigner is not None and self._student.assigns_by_prediction(batch)


def _taking(active, kind, boxed=True):
    """Those of the active terms that compare images of a kind, which have boxes or not."""
    return [(term, weight) for term, weight in active if takes(term.on, kind) and (boxed or not term.needs_labels)]

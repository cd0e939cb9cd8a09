"""DistillModel: a plain student, frozen teachers beside it, and the terms between them."""

import time

import paddle
from paddle import nn

from ppkd.context import Context
from ppkd.detectors import detector_for
from ppkd.recorders import Recorder
from ppkd.terms import build_terms

TEACHER = "teacher"


class DistillModel(nn.Layer):
    """Trains a student beside its teachers; the student itself stays an ordinary ppdet model.

    Sub-layers are the student and the terms (connectors, learnable losses): they are optimised, synchronised and
    kept for resuming. Teachers are not sub-layers: they are in no optimizer, EMA, reducer or checkpoint.

    Args:
        student: ppdet model.
        teachers: name -> ppdet model; frozen and put into eval mode here.
        plan: `terms.Plan`.
        views: name of a teacher -> what turns the student's batch into one that this teacher knows (see
            `normalisation`), for those that need it.

    Attributes:
        epoch: current epoch, set by `enter`; schedules read it.
        timed: whether the next step measures `teacher_seconds`, for which a GPU has to be waited for.
        teacher_seconds: time of the teacher in the last step that was measured, or None if it did not run.
        alpha: factor on the whole loss; 1 if no term of the plan ever has a weight.
    """

    def __init__(self, student, teachers, plan, views=None):
        super().__init__()
        self.student = student
        self._views = dict(views or {})
        self.epoch = 0
        self.timed, self.teacher_seconds = False, None
        self.alpha = plan.alpha if any(spec.weight for spec in plan.terms) else 1.0
        # A plain tuple hides the teachers from nn.Layer; a dict of layers would too, a Layer attribute would not.
        self._teachers = tuple((name, detector_for(freeze(model))) for name, model in teachers.items())
        # Neither is an adapter a layer: it holds the student without owning it.
        self._student = detector_for(student)
        teacher = dict(self._teachers).get(TEACHER)
        self._teacher_assigns = plan.assigner == "teacher" and self._student.assigns and teacher.assigns
        self.terms = nn.LayerList([term for spec in plan.terms for term in build_terms(spec, self._student, teacher)])

    @property
    def teachers(self):
        """Teachers by name, as ppdet models."""
        return {name: detector.model for name, detector in self._teachers}

    def train(self):
        """Put student and terms into train mode; teachers stay in eval mode whatever happens."""
        super().train()
        for model in self.teachers.values():
            model.eval()

    def enter(self, epoch):
        """Begin an epoch; once the last one with any distillation is over, the teachers are let go.

        Returns:
            Whether they were let go just now.
        """
        self.epoch = epoch
        if not self._teachers or not all(term.over(epoch) for term in self.terms):
            return False
        self._teachers = ()
        return True

    def active_terms(self):
        """Terms whose weight is not zero in this epoch, with their weights."""
        weighted = [(term, term.weight(self.epoch)) for term in self.terms]
        return [(term, weight) for term, weight in weighted if weight]

    def forward(self, batch):
        """One training step's losses, or the student's detections in eval mode.

        Args:
            batch: ppdet's batch.

        Returns:
            In train mode the student's own losses; ``loss`` with the distillation terms added and the sum multiplied
            by `alpha`; and one entry a term, level and part, such as ``fgd.s8.relation``, each weighted as it enters
            that sum.
        """
        active = self.active_terms() if self.training else []
        self.teacher_seconds = None
        if not active:
            return self._scaled(self.student(batch)) if self.training else self.student(batch)
        with self._student.prepared(batch) as batch:
            return self._scaled(self._distilled(batch, active))

    def _distilled(self, batch, active):
        # Models write into the batch dict that they get; the teacher has to see what the student saw.
        for_teacher = dict(batch)
        assigned = any("assignment" in term.needs for term, _ in active)
        by_teacher = assigned and self._teacher_assigns and self._student.assigns_by_prediction(batch)
        teacher, given = self._run_teacher(for_teacher, active, by_teacher)
        paths = [tap.path for term, _ in active for tap in term.taps(0)]
        paths += self._student.assigners if assigned else ()
        with Recorder(self.student, paths) as student, self._student.given(given):
            losses = dict(self.student(batch))
        context = Context(for_teacher, (self._student.assigned(student) or given) if assigned else None)
        parts = {}
        for term, weight in active:
            for part, value in term.compare(student, teacher, context).items():
                parts[f"{term.label}.{part}" if part else term.label] = value * weight
        losses["loss"] = losses["loss"] + sum(parts.values())
        return {**losses, **parts}

    def _scaled(self, losses):
        return losses if self.alpha == 1 else {**losses, "loss": losses["loss"] * self.alpha}

    def _run_teacher(self, batch, active, assign):
        """What the teacher's sources gave and, if asked for, the targets that its predictions call for."""
        detector = dict(self._teachers)[TEACHER]
        taps = [tap for term, _ in active for tap in term.taps(1)]
        taps += detector.outputs() if assign else []
        view = self._views.get(TEACHER)
        begin = self._clock()
        with paddle.no_grad(), Recorder(detector.model, [tap.path for tap in taps]) as recorder:
            detector.run(view(batch) if view else batch, {tap.path.split(".")[0] for tap in taps})
        with paddle.no_grad():
            given = detector.assign(recorder, batch) if assign else None
        self.teacher_seconds = self._clock() - begin if self.timed else None
        return recorder, given

    def _clock(self):
        if self.timed and paddle.get_device().startswith("gpu"):
            paddle.device.synchronize()
        return time.perf_counter()


def freeze(model):
    """Put a model into eval mode and exclude every parameter of it from training; returns it."""
    model.eval()
    for parameter in model.parameters():
        parameter.stop_gradient = True
        parameter.trainable = False
    return model

"""DistillModel: a plain student, frozen teachers beside it, and the terms between them."""

import paddle
from paddle import nn

from ppkd.context import Context
from ppkd.detectors import detector_for
from ppkd.recorders import Recorder
from ppkd.terms import Term, match_levels

TEACHER = "teacher"


class DistillModel(nn.Layer):
    """Trains a student beside its teachers; the student itself stays an ordinary ppdet model.

    Sub-layers are the student and the terms (connectors, learnable losses): they are optimised, synchronised and
    kept for resuming. Teachers are not sub-layers: they are in no optimizer, EMA, reducer or checkpoint.

    Args:
        student: ppdet model.
        teachers: name -> ppdet model; frozen and put into eval mode here.
        term_specs: list of `terms.TermSpec`.

    Attributes:
        epoch: current epoch, set by the trainer; schedules read it.
    """

    def __init__(self, student, teachers, term_specs):
        super().__init__()
        self.student = student
        self.epoch = 0
        # A plain tuple hides the teachers from nn.Layer; a dict of layers would too, a Layer attribute would not.
        self._teachers = tuple((name, detector_for(freeze(model))) for name, model in teachers.items())
        of_student = detector_for(student)
        teacher = dict(self._teachers).get(TEACHER)
        self.terms = nn.LayerList(
            [Term(spec, *pair) for spec in term_specs for pair in match_levels(spec, of_student, teacher)]
        )

    @property
    def teachers(self):
        """Teachers by name, as ppdet models."""
        return {name: detector.model for name, detector in self._teachers}

    def train(self):
        """Put student and terms into train mode; teachers stay in eval mode whatever happens."""
        super().train()
        for model in self.teachers.values():
            model.eval()

    def active_terms(self):
        """Terms whose weight is not zero in this epoch, with their weights."""
        weighted = [(term, term.weight(self.epoch)) for term in self.terms]
        return [(term, weight) for term, weight in weighted if weight]

    def forward(self, batch):
        """One training step's losses, or the student's detections in eval mode.

        Args:
            batch: ppdet's batch.

        Returns:
            In train mode the student's own losses; ``loss`` with the distillation terms added, and one entry a
            term, level and part, such as ``fgd.s8.relation``, each weighted as it enters ``loss``.
        """
        active = self.active_terms() if self.training else []
        if not active:
            return self.student(batch)
        # Models write into the batch dict that they get; the teacher has to see what the student saw.
        for_teacher = dict(batch)
        with Recorder(self.student, [term.student_tap.path for term, _ in active]) as student:
            losses = dict(self.student(batch))
        teacher = self._run_teacher(for_teacher, [term.teacher_tap for term, _ in active])
        context = Context(for_teacher)
        parts = {}
        for term, weight in active:
            values = term(student.take(term.student_tap), teacher.take(term.teacher_tap), context)
            for part, value in values.items():
                parts[f"{term.label}.{part}" if part else term.label] = value * weight
        losses["loss"] = losses["loss"] + sum(parts.values())
        return {**losses, **parts}

    def _run_teacher(self, batch, taps):
        detector = dict(self._teachers)[TEACHER]
        with paddle.no_grad(), Recorder(detector.model, [tap.path for tap in taps]) as recorder:
            detector.run(batch, {tap.path.split(".")[0] for tap in taps})
        return recorder


def freeze(model):
    """Put a model into eval mode and exclude every parameter of it from training; returns it."""
    model.eval()
    for parameter in model.parameters():
        parameter.stop_gradient = True
        parameter.trainable = False
    return model

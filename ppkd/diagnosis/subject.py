"""What is examined: the models of a recipe with their weights, built as a run would build them."""

from collections import Counter
from dataclasses import dataclass, field, replace

import paddle
from paddle.utils import unique_name

from ppkd.bridge.weights import load_into
from ppkd.build import build_student, build_teacher, inherit_parts, needed_parts, wrap
from ppkd.errors import UserError
from ppkd.files.tensor_files import read_weights
from ppkd.files.yaml_io import clone
from ppkd.methods import plan
from ppkd.recipe.plan import TEACHER
from ppkd.training.seeds import seed_everything


@dataclass
class Teacher:
    """A teacher under examination.

    Attributes:
        name: as the recipe calls it.
        spec: `teachers.TeacherSpec`.
        model: ppdet model, as training would have it.
        match: `weights.Match`, or None if it has no weights.
        classes: number of classes that its weights are of.
        whole: the model to judge its detections by: `model`, or one of `classes` classes; None if its head's weights
            are not there.
    """

    name: str
    spec: object
    model: object
    match: object = None
    classes: int = 0
    whole: object = None

    @property
    def called(self):
        return "the teacher" if self.name == TEACHER else f"teacher {self.name}"


@dataclass
class Subject:
    """All of a run that is examined.

    Attributes:
        recipe: `recipe.Recipe`.
        student: ppdet model.
        match: `weights.Match` of the student's ``pretrain_weights``, or None.
        teachers: list of `Teacher`.
        model: `model.DistillModel`, or None if it cannot be built.
        inherited: ``(teacher, number of tensors)`` that the student starts from, or None.
    """

    recipe: object
    student: object
    match: object = None
    teachers: list = field(default_factory=list)
    model: object = None
    inherited: tuple | None = None

    @property
    def classes(self):
        """The student's number of classes; without a word about it ppdet's heads have 80."""
        return self.recipe.student.get("num_classes", 80)

    @property
    def compares_classes(self):
        """Whether any term compares class scores, which mean the same on both sides only with equal classes."""
        sources = [
            level.source for term in (self.model.terms if self.model else ()) for p in term.pairs for level in p[1]
        ]
        return any(source.startswith("head.cls") for source in sources)


def build(recipe, findings):
    """Build all models, load their weights, and note what does not fit.

    Args:
        recipe: `recipe.Recipe` with a method.
        findings: `findings.Findings`.

    Returns:
        `Subject`.

    Raises:
        UserError: a weight file that is missing or broken.
    """
    config = recipe.student
    seed_everything(int(config.get("seed") or 0))
    steps = plan(recipe.method)
    subject = Subject(recipe, build_student(recipe, load=False))
    if config.get("pretrain_weights"):
        subject.match = load_into(subject.student, config["pretrain_weights"], "student weights (pretrain_weights)")
    subject.teachers = [_teacher(name, spec) for name, spec in recipe.teachers.items()]
    models = {teacher.name: teacher.model for teacher in subject.teachers}
    try:
        with unique_name.guard("distill_"):
            subject.model = wrap(recipe, steps, subject.student, models)
        if steps.inherit:
            source, taken = inherit_parts(steps, subject.student, models)
            subject.inherited = (source, len(taken))
    except UserError as error:
        findings.add("build-failed", str(error))
    for teacher in subject.teachers:
        _check_teacher(teacher, subject, findings)
    _check_student(subject, findings)
    return subject


def _teacher(name, spec):
    teacher = Teacher(name, spec, build_teacher(spec), classes=spec.config.get("num_classes"))
    if spec.weights is not None and not spec.detects:
        teacher.match = load_into(teacher.model, spec.weights, "teacher weights")
    if spec.weights is None or not spec.detects:
        return teacher
    teacher.match = load_into(teacher.model, spec.weights, "teacher weights")
    if teacher.match.complete:
        teacher.whole = teacher.model
    elif found := trained_classes(spec, teacher.model, teacher.match.path):
        teacher.classes = found
        whole = build_teacher(_of_classes(spec, found))
        teacher.whole = whole if load_into(whole, spec.weights, "teacher weights").complete else None
    if teacher.whole is not None:
        teacher.whole.eval()
    return teacher


def trained_classes(spec, model, path):
    """The number of classes that a weight file's head has, if it is another than the config's; else None.

    Which sizes grow with the number of classes, and how, a second model with one class more tells.

    Args:
        spec: `teachers.TeacherSpec`.
        model: its model.
        path: of the weight file.
    """
    count = spec.config.get("num_classes")
    given = {name: list(v.shape) for name, v in read_weights(path).items() if hasattr(v, "shape")}
    more = build_teacher(_of_classes(spec, count + 1)).state_dict()
    votes = Counter()
    for name, tensor in model.state_dict().items():
        theirs, ours, next_ = given.get(name), list(tensor.shape), list(more[name].shape)
        if theirs is None or theirs == ours or len(theirs) != len(ours):
            continue
        for a, b, c in zip(theirs, ours, next_):
            if c != b and (a - b) % (c - b) == 0:
                votes[count + (a - b) // (c - b)] += 1
    found = votes.most_common(1)
    return found[0][0] if found and found[0][0] not in (count, 0) else None


def _of_classes(spec, count):
    return replace(spec, config=clone(spec.config) | {"num_classes": count})


def _check_teacher(teacher, subject, findings):
    if teacher.match is None:
        key = "teacher" if teacher.name == TEACHER else f"distill.teachers.{teacher.name}"
        text = f"{teacher.called} has no weights (pretrain_weights is null): it would teach noise"
        findings.add("teacher-untrained", text, key=f"{key}.pretrain_weights")
        return
    _check_finite(teacher.called, teacher.model, findings)
    if teacher.match.complete:
        return
    needed = needed_parts(subject.model, teacher.name) if subject.model else {"backbone", "neck"}
    lacking = [n for n in (*teacher.match.missing, *teacher.match.unfit) if n.split(".")[0] in needed]
    if lacking:
        findings.add("teacher-weights", f"{teacher.called}: what its terms run on is not in the file: {teacher.match}")
    elif teacher.whole is None and teacher.spec.detects:
        findings.add("teacher-head", f"{teacher.called} has no trained head, so its AP cannot be told: {teacher.match}")


def _check_finite(whose, model, findings):
    broken = [name for name, tensor in model.state_dict().items() if not bool(paddle.isfinite(tensor).all())]
    if broken:
        more = f" and {len(broken) - 3} more" if len(broken) > 3 else ""
        findings.add("broken-weights", f"weights of {whose} are not finite: {', '.join(broken[:3])}{more}")


def _check_student(subject, findings):
    _check_finite("the student", subject.student, findings)
    if subject.match is None:
        begin = (
            f"; {subject.inherited[1]} tensors start from those of {subject.inherited[0]}" if subject.inherited else ""
        )
        findings.add("student-random", f"the student starts from random weights (pretrain_weights is null){begin}")
        return
    names = [name for name in subject.student.state_dict() if name.startswith("backbone.")]
    taken = set(subject.match.taken)
    share = sum(name in taken for name in names) / max(len(names), 1)
    if share < 0.9:
        findings.add(
            "student-weights", f"only {share:.0%} of the student's backbone is in its weights: {subject.match}"
        )

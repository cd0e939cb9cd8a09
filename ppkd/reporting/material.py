"""What all sections draw on: the detectors that are told about, what they find, and how they are drawn."""

from dataclasses import dataclass, field

from ppkd.errors import UserError
from ppkd.recipe.plan import TEACHER
from ppkd.reporting.plots import STYLES
from ppkd.study.cells import OKABE_ITO
from ppkd.study.coco_matches import Matches, read_coco
from ppkd.study.detections import config_for, detect

_TEACHER_STYLES = ((OKABE_ITO["black"], ":", "*"), ("#666666", (0, (1, 2)), "X"))
# The plain student always looks the same; distilled ones take the other styles in turn.
_PLAIN_STYLES = (STYLES[1], STYLES[4])
_DISTILLED_STYLES = (STYLES[0], STYLES[2], STYLES[3], STYLES[5])
_MOST = {"teacher": len(_TEACHER_STYLES), "plain": len(_PLAIN_STYLES), "distilled": len(_DISTILLED_STYLES)}


@dataclass
class Subject:
    """A detector of the report.

    Attributes:
        role: ``teacher``, ``plain`` or ``distilled``.
        name: what it is called in the report.
        run: `runs.Run` that it comes from.
        config: by which it is built and evaluated.
        weights: path or URL.
        style: colour, line and marker.
        found: `detections.Detections`.
        matches: `coco_matches.Matches`.
    """

    role: str
    name: str
    run: object
    config: dict
    weights: str
    style: tuple
    found: object = None
    matches: object = None

    @property
    def short(self):
        """Its name without its role, where that is clear."""
        return self.name.removesuffix(" student").removeprefix(f"{self.role}: ")

    @property
    def stats(self):
        """AP, AP50, ... as fractions."""
        return self.matches.stats()


@dataclass
class Material:
    """All of it.

    Attributes:
        runs: list of `runs.Run`.
        subjects: list of `Subject`: teachers, plain and distilled students, in this order.
        images: number of validation images that were asked for, or None for all.
        coco: pycocotools' ``COCO`` of the validation set.
        built: what one section has made and another may use.
    """

    runs: list
    subjects: list
    images: int | None = None
    coco: object = None
    built: dict = field(default_factory=dict)

    def of(self, role):
        """Subjects of a role."""
        return [subject for subject in self.subjects if subject.role == role]

    @property
    def plain(self):
        """The plain student of the highest AP, with which others are compared, or None."""
        return self._best("plain")

    @property
    def teacher(self):
        """The first teacher, or None."""
        return next(iter(self.of("teacher")), None)

    @property
    def best(self):
        """The distilled student of the highest AP, or None."""
        return self._best("distilled")

    def _best(self, role):
        return max(self.of(role), key=lambda subject: subject.stats["AP"], default=None)


def gather(runs, images=None):
    """Evaluate everything that the report is about.

    Args:
        runs: list of `runs.Run`.
        images: the first so many validation images only; None for all.

    Raises:
        UserError: more runs than can be told apart, other validation sets, or as `detections.detect`.
    """
    material = Material(runs, _subjects(runs), images)
    seen = None
    for subject in material.subjects:
        subject.found = detect(subject.config, subject.weights, subject.run.folder, subject.name, images)
        if material.coco is None:
            material.coco, seen = read_coco(subject.found.annotations), subject
        elif not _same_images(subject.found, seen.found):
            raise UserError(f"{subject.run.folder}: its validation set is another than that of {seen.run.folder}")
        kinds = {other.found.kind for other in (subject, seen)}
        if len(kinds) > 1:
            raise UserError(
                f"{subject.name} finds {subject.found.kind}, {seen.name} {seen.found.kind}: no AP in common"
            )
        subject.matches = Matches(material.coco, subject.found.results, subject.found.images, subject.found.kind)
    return material


def _same_images(first, second):
    if first.images != second.images or first.annotations == second.annotations:
        return first.images == second.images
    with open(first.annotations, "rb") as one, open(second.annotations, "rb") as other:
        return one.read() == other.read()


def _subjects(runs):
    teachers, students = {}, {"plain": [], "distilled": []}
    for run in runs:
        students["distilled" if run.distilled else "plain"].append(run)
        for name, spec in run.recipe.teachers.items():
            if spec.weights and spec.detects:
                teachers.setdefault(spec.weights, (name, run, spec))
    for role, found in (("teacher", teachers), *students.items()):
        if len(found) > _MOST[role]:
            raise UserError(
                f"{len(found)} {role} detectors: a report tells at most {_MOST[role]} apart; "
                "`ppkd compare` takes any number of runs"
            )
    made = []
    for (name, run, spec), style in zip(teachers.values(), _TEACHER_STYLES):
        called = "teacher" if len(teachers) == 1 or name == TEACHER else f"teacher {name}"
        made.append(Subject("teacher", called, run, config_for(run, spec), spec.weights, style))
    for role, styles in (("plain", _PLAIN_STYLES), ("distilled", _DISTILLED_STYLES)):
        for run, style in zip(students[role], styles):
            called = f"{role} student" if len(students[role]) == 1 else f"{role}: {run.label}"
            made.append(Subject(role, called, run, config_for(run), run.weights, style))
    return made

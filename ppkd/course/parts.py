"""The parts of a course: each is an ordinary command of ppkd, and what it leaves behind."""

import os
from dataclasses import dataclass

from ppkd.course.files import SLIM, STUDENT, TEACHER

# What a part costs, in steps of plain training: by this the time of those that have not run is reckoned.
_DISTILLED, _OF_TEACHER, _EXAMINATION, _DRAWING = 2.1, 1.6, 30, 10


@dataclass(frozen=True)
class Part:
    """A part.

    Attributes:
        name: what its log and its entry among those that are done are called.
        title: for people.
        words: the command without ``ppkd``.
        makes: a file that is there afterwards.
        cost: in steps of plain training.
        run: the output folder, where it is a training.
        reads: files that it depends on: edited, they are a reason to look again.
        needs: names of the parts whose results it takes: done again, they are a reason too.
    """

    name: str
    title: str
    words: tuple
    makes: str
    cost: float = 1
    run: str | None = None
    reads: tuple = ()
    needs: tuple = ()

    @property
    def examines(self):
        """Whether it leaves findings."""
        return self.words[:1] == ("doctor",)


@dataclass(frozen=True)
class Trained:
    """A detector of the course: what it is called, its config, the folder of its run (None: weights were given), its
    weights and seed."""

    name: str
    title: str
    config: str
    run: str | None
    weights: str
    seed: int | None = None


def detectors(folder, weights, seeds, baseline):
    """All `Trained` of a course: the teacher, the students with it and, with `baseline`, those without."""
    def path(*names):
        return os.path.join(folder, *names)

    run = None if weights else path("teacher")
    found = [Trained("teacher", "teacher", path(TEACHER), run, weights or path("teacher", "best_model.pdparams"))]
    for kind, title in (("taught", "student with the teacher"), ("plain", "student alone"))[: 1 + baseline]:
        for seed in range(seeds):
            run, more = path(f"{kind}_seed{seed}", "student"), f", seed {seed}" if seeds > 1 else ""
            final = os.path.join(run, "model_final.pdparams")
            found.append(Trained(f"{kind}_seed{seed}", title + more, path(STUDENT), run, final, seed))
    return found


def parts(folder, trained, data, sizes, waive):
    """The list of `Part`.

    Args:
        folder: of the course.
        trained: of `detectors`.
        data: `data.Data`.
        sizes: `sizes.Sizes`.
        waive: names of findings of the doctor that do not end the course.
    """
    student, slim = os.path.join(folder, STUDENT), os.path.join(folder, SLIM)
    teacher, students, steps = trained[0], trained[1:], max(1, data.train // sizes.batch)
    evaluation = 3 + data.val / (3 * sizes.batch)  # starting a process, and forward passes alone
    found = [_checked(folder, student, evaluation)]
    if teacher.run:
        words = ("train", "-c", teacher.config, "--eval", "-r", "auto", "-o", f"save_dir={folder}")
        cost = _OF_TEACHER * steps * sizes.teacher_epochs
        found.append(Part("teacher", "the teacher's training", words, teacher.weights, cost, teacher.run,
                          (teacher.config,)))  # fmt: skip
    report = os.path.join(folder, "checks", "doctor.json")
    words = ("doctor", "-c", student, "--slim_config", slim, "--images", "24", "--json", report)
    words += ("--waive", ",".join(waive)) if waive else ()
    reads = (student, slim, os.path.join(folder, TEACHER))
    found.append(Part("doctor", "an examination of the pair", words, report, _EXAMINATION, None, reads,
                      (teacher.name,)))  # fmt: skip
    for each in students:
        found.append(_trained(each, slim, steps * sizes.epochs, reads))
    for each in trained:
        found.append(_evaluated(folder, each, evaluation))
    runs = [each.run for each in students]
    if any(each.name.startswith("plain") for each in students):
        table = comparison_of(folder)
        cost = evaluation * len(runs)
        found.append(Part("compare", "the comparison", ("compare", *runs, "--json", table), table, cost,
                          needs=tuple(each.name for each in students)))  # fmt: skip
    page = os.path.join(folder, "report")
    shown = [each for each in students if each.seed == 0]
    words = ("report", *(each.run for each in shown), "--output", page)
    cost, needs = _DRAWING + evaluation * (1 + 2 * len(shown)), tuple(each.name for each in (teacher, *shown))
    found.append(Part("report", "the report", words, os.path.join(page, "report.html"), cost, needs=needs))
    return found


def comparison_of(folder):
    """The file of the comparison."""
    return os.path.join(folder, "checks", "compare.json")


def result_of(folder, each):
    """The file with the figures of a detector."""
    return os.path.join(folder, "checks", f"{each.name}.json")


def _checked(folder, student, cost):
    made = os.path.join(folder, "checks", "data.json")
    words = ("doctor", "--data", "-c", student, "--json", made)
    return Part("data", "a look at every image and annotation", words, made, cost, None, ())


def _trained(each, slim, steps, reads):
    taught = each.name.startswith("taught")
    words = ("train", "-c", each.config, *(("--slim_config", slim) if taught else ()), "--eval", "-r", "auto")
    words += ("-o", f"save_dir={os.path.dirname(each.run)}", f"seed={each.seed}")
    cost = steps * (_DISTILLED if taught else 1)
    title = f"the training of the {each.title}"
    more = {"reads": reads, "needs": ("teacher",)} if taught else {"reads": reads[:1]}
    return Part(each.name, title, words, each.weights, cost, each.run, **more)


def _evaluated(folder, each, cost):
    made = result_of(folder, each)
    words = ("eval", "-c", each.config, "--json", made, "-o", f"weights={each.weights}")
    return Part(f"eval_{each.name}", f"AP of the {each.title}", words, made, cost, needs=(each.name,))

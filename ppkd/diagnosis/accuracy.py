"""How good teacher and student are on a sample, as the wrapper shows it to them, and what the teacher means."""

import dataclasses

from ppkd.diagnosis.findings import ERROR, WARNING
from ppkd.diagnosis.normalisations import eval_preparation, other_preparations
from ppkd.diagnosis.sample import Sample
from ppkd.diagnosis.scores import Scores, found_as, renamed, renaming
from ppkd.errors import UserError
from ppkd.terminal.log import logger

# A teacher below these knows nothing: AP50 of a detector without training is 0, of a poor one on few images above this.
NEAR_ZERO = 0.05
# One with a lower AP knows little, and a student that starts with such a share of its teacher's AP is no beginner.
_WEAK, _HIGH = 0.2, 0.5
# How many images other normalisations are tried on, what one has to reach, and by how much it has to be better:
# absolute and as a factor.
_TRIED, _LEAST, _BETTER, _TIMES = 16, 0.2, 0.05, 1.1


def measure_accuracy(subject, count, folder, findings):
    """Measure all models on a sample and judge the teachers.

    Args:
        subject: `subject.Subject`.
        count: images.
        folder: an empty folder.
        findings: `findings.Findings`.

    Returns:
        ``(plain values for the results, name of a teacher -> Scores)``.
    """
    config = subject.recipe.student
    try:
        sample = Sample(config, count, folder)
    except UserError as error:
        findings.add("accuracy-not-measured", f"no AP was measured: {error}")
        return {}, {}
    logger().info("student: detecting on %d validation images", len(sample))
    student = sample.score(sample.detect(subject.student, config["architecture"], sample.classes))
    results, scores = {"images": len(sample), "student": _plain(student, sample), "teachers": {}}, {}
    for teacher in subject.teachers:
        if teacher.whole is None:
            continue
        logger().info("%s: detecting on %d validation images", teacher.called, len(sample))
        scores[teacher.name] = found = _measure_teacher(teacher, sample, subject, findings)
        results["teachers"][teacher.name] = _plain(found, sample)
        if found.agnostic50 > NEAR_ZERO and 0 < student.ap >= found.ap:
            text = f"{teacher.called} has AP {_pc(found.ap)} on the sample, the student has {_pc(student.ap)} already"
            findings.add("teacher-not-better", text)
        elif found.ap50 >= NEAR_ZERO and found.ap < _WEAK and teacher.classes == subject.classes:
            findings.add("teacher-weak", f"{teacher.called} has AP {_pc(found.ap)} on the sample, which is little")
        if student.ap50 >= NEAR_ZERO and student.ap >= _HIGH * found.ap:
            start = f"from {subject.inherited[1]} tensors of the teacher" if subject.inherited else "from its weights"
            text = f"the student starts {start} with AP {_pc(student.ap)} on the sample, before any training"
            findings.add("student-starts-high", text)
    return results, scores


def _measure_teacher(teacher, sample, subject, findings):
    config = subject.recipe.student
    architecture = teacher.spec.config["architecture"]
    prepare = eval_preparation(config, teacher.spec)
    found = sample.detect(teacher.whole, architecture, teacher.classes, prepare)
    score = sample.score(found)
    _judge_normalisation(teacher, sample, config, found, findings)
    equal = teacher.classes == subject.classes
    moved = equal and _judge_order(teacher, sample, found, score, subject, findings)
    # By other classes than the student's there is no AP to have; that they are others is told by `classes`.
    if not moved and (score.ap50 if equal else score.agnostic50) < NEAR_ZERO:
        text = f"{teacher.called} has AP50 {_pc(score.ap50)} on {len(sample)} validation images of the student's"
        if score.agnostic50 >= NEAR_ZERO:
            text += f" ({_pc(score.agnostic50)} whatever the class: it finds objects, and calls them something else)"
        findings.add("teacher-near-zero", text)
    return score


def _judge_order(teacher, sample, found, score, subject, findings):
    """Whether the teacher finds the objects under other classes' numbers."""
    if found[1] != "bbox" or score.agnostic50 < NEAR_ZERO:
        return False
    names = renaming(found_as(sample.truth, found[0]))
    if not names:
        return False
    better = sample.score((renamed(found[0], names), found[1]))
    if better.ap50 < max(score.ap50 + 0.1, 1.2 * score.ap50):
        return False
    index = {category: i for i, category in enumerate(sample.names)}
    told = [f"its class {index[a]} finds your {sample.names[b]!r} (class {index[b]})" for a, b in names.items()]
    findings.add(
        "class-order",
        f"{teacher.called}'s classes stand in another order than the data set's: {'; '.join(told[:6])}. Its AP50 is "
        f"{_pc(score.ap50)} as they are, {_pc(better.ap50)} with these exchanged",
        ERROR if subject.compares_classes or subject.inherited else WARNING,
    )
    return True


def _judge_normalisation(teacher, sample, config, found, findings):
    """Whether the teacher sees better in images normalised otherwise than its config says."""
    images = sample.first(_TRIED)
    own = sample.score(found, images)
    best, how = own, None
    for name, prepare in other_preparations(config, teacher.spec):
        logger().info("%s: trying its images with %s", teacher.called, name)
        tried = sample.detect(teacher.whole, teacher.spec.config["architecture"], teacher.classes, prepare, images)
        score = sample.score(tried, images)
        if score.agnostic50 > best.agnostic50:
            best, how = score, name
    if how and best.agnostic50 > max(_LEAST, own.agnostic50 + _BETTER, own.agnostic50 * _TIMES):
        findings.add(
            "teacher-normalisation",
            f"{teacher.called} finds more in images with {how} than as its config says: AP50 whatever the class "
            f"{_pc(best.agnostic50)} against {_pc(own.agnostic50)} on {len(images)} images",
        )


def _plain(score: Scores, sample):
    values = dataclasses.asdict(score)
    values["by_class"] = {sample.names[category]: value for category, value in score.by_class.items()}
    return values


def _pc(value):
    return f"{100 * value:.1f}"

"""Whose classes: what the teacher's files say, beside the student's data.

What lies beside the teacher's weights says it, or else what its config's data set does; how it does on the student's
own images (`accuracy`) is the stronger evidence.
"""

from ppkd.bridge.class_names import names_in
from ppkd.diagnosis.findings import ERROR, WARNING
from ppkd.files.class_names import names_beside


def check_classes(subject, findings):
    """Compare numbers and names of classes; what is known becomes part of the results.

    Returns:
        Plain values: ``student`` and for each teacher ``number``, ``names``, ``file``.
    """
    config = subject.recipe.student
    ours, file = names_in(config)
    count = subject.classes
    known = {"student": {"number": count, "names": ours, "file": file}, "teachers": {}}
    evaluated, other = names_in(config, ("EvalDataset",))
    if ours and evaluated and ours != evaluated:
        text = f"{file} and {other} do not list the same categories in the same order"
        text += f": {_first_difference(ours, evaluated)}"
        findings.add("data-classes", text)
    if ours and len(ours) < count:
        text = f"the student has {count} classes, the data set {len(ours)}: the others will never be seen"
        findings.add("unused-classes", text, count=len(ours))
    for teacher in subject.teachers:
        if not teacher.spec.detects:
            continue
        if (matched := getattr(teacher.model, "matched", None)) is not None:
            known["teachers"][teacher.name] = _of_another_framework(teacher.model)
            if matched.missing:
                text = f"{teacher.called} does not know {', '.join(matched.missing)}: of these it finds nothing"
                findings.add("classes-missing", text)
            continue
        theirs, where = _of_teacher(teacher)
        known["teachers"][teacher.name] = {"number": teacher.classes, "names": theirs, "file": where}
        if teacher.classes != count:
            level = ERROR if subject.compares_classes else WARNING
            text = f"{teacher.called} was trained on {teacher.classes} classes, the student has {count}"
            findings.add("classes-number", text, level)
        if theirs is None:
            text = f"no file of {teacher.called}'s config names its classes: known is their number, and what it finds"
            findings.add("classes-unknown", text)
    return known


def judge_names(known, scores, subject, findings):
    """Weigh different names by what the teacher finds: names may be spelt otherwise and mean the same.

    Args:
        known: what `check_classes` returned.
        scores: name of a teacher -> `scores.Scores`, for those that were measured.
        subject: `subject.Subject`.
        findings: `findings.Findings`.
    """
    ours = known["student"]["names"]
    for teacher in subject.teachers:
        if not teacher.spec.detects:
            continue
        theirs, file = known["teachers"][teacher.name]["names"], known["teachers"][teacher.name]["file"]
        if hasattr(teacher.model, "matched"):  # by their names, in whatever order
            continue
        if not ours or not theirs or _plain(ours) == _plain(theirs) or teacher.classes != subject.classes:
            continue
        score = scores.get(teacher.name)
        finds = score is not None and score.agnostic50 and score.ap50 > 0.5 * score.agnostic50
        begin = f"{teacher.called}'s classes by {file} and the student's"
        if sorted(_plain(ours)) == sorted(_plain(theirs)) and not finds:
            if "class-order" in findings.ids(ERROR, WARNING):
                continue  # told already, by what it finds
            level = ERROR if subject.compares_classes or subject.inherited else WARNING
            text = f"{begin} are the same in another order: {_first_difference(ours, theirs)}"
            findings.add("class-order", text, level)
        else:
            text = f"{begin} differ: {_first_difference(ours, theirs)}"
            text += "; on the student's images it finds the student's classes nevertheless" if finds else ""
            findings.add("class-names", text, WARNING if finds else ERROR)


def _of_another_framework(model):
    names = [name for name in model.class_names if name is not None]
    return {"number": len(names), "names": names, "file": model.file}


def _of_teacher(teacher):
    names, file = names_beside(teacher.match.path) if teacher.match is not None else (None, None)
    if names and len(names) == teacher.classes:
        return names, file
    sections = ("TrainDataset", "EvalDataset", "TestDataset")
    names, file = names_in(teacher.spec.config, sections, teacher.classes)
    # The config may be the student's in all but the weights; then its files say nothing of what these know.
    return (names, file) if names and len(names) == teacher.classes else (None, None)


def _plain(names):
    return ["".join(c for c in name.casefold() if c.isalnum()) for name in names]


def _first_difference(a, b):
    for i, (x, y) in enumerate(zip(a, b)):
        if _plain([x]) != _plain([y]):
            return f"class {i} is {x!r} in the one and {y!r} in the other"
    return f"{len(a)} classes in the one, {len(b)} in the other"

"""Which levels are compared, and which are left out."""

import math

from ppkd.detectors import detector_for
from ppkd.diagnosis.findings import NOTE, WARNING
from ppkd.engine.pairing import sources

# Octaves between two strides that are no matter: those of a teacher with images of another size lie between levels.
_NEAR = 0.6


def check_levels(subject, findings):
    """Note levels that no term takes, and pairs of another stride.

    Returns:
        List of plain rows, one a pair: ``term``, ``student``, ``student_stride``, ...
    """
    rows = []
    for term in subject.model.terms:
        for students, teachers in term.pairs:
            for ours, theirs in zip(students, teachers):
                rows.append(
                    {
                        "term": term.label, "teacher": term.teacher,
                        "student_source": ours.source, "student_channels": ours.channels, "student_place": _place(ours),
                        "teacher_source": theirs.source, "teacher_channels": theirs.channels,
                        "teacher_place": _place(theirs),
                    }
                )  # fmt: skip
    _check_strides(subject, findings)
    _left_out(subject, findings)
    return rows


def _check_strides(subject, findings):
    """One finding for all pairs of a term and a teacher whose strides differ."""
    unlike = {}
    for term in (each for each in subject.model.terms if subject.recipe.teachers[each.teacher].detects):
        for pair in term.pairs:
            for ours, theirs in zip(*pair):
                if ours.stride and theirs.stride and ours.stride != theirs.stride:
                    unlike.setdefault((term.spec.name, term.teacher), []).append((ours, theirs))
    for (name, teacher), pairs in unlike.items():
        told = "; ".join(f"{a.source} has {a.stride:.3g}, {teacher}'s {b.source} {b.stride:.3g}" for a, b in pairs)
        far = max(abs(math.log2(a.stride / b.stride)) for a, b in pairs)
        text = f"{name}: maps of other strides are resized: the student's {told}"
        findings.add("strides-differ", text, WARNING if far > _NEAR else NOTE)


def _left_out(subject, findings):
    detector = detector_for(subject.student)
    specs = {}
    for term in subject.model.terms:
        taken = specs.setdefault((term.spec.name, term.teacher), (term.spec, set()))[1]
        taken.update(level.source for level in (own for pair in term.pairs for own in pair[0]))
    for (name, teacher), (spec, taken) in specs.items():
        levels = [level for source in sources(spec.student) for level in detector.levels(source)]
        alone = [level.source for level in levels if level.source not in taken]
        if alone:
            text = f"{name}: nothing of {teacher} is compared with the student's {', '.join(alone)}"
            findings.add("level-left-out", text)


def _place(level):
    return f"stride {level.stride:.4g}" if level.stride else "x".join(map(str, level.cells)) if level.cells else "-"

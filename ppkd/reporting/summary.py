"""The outcome in a sentence, the few numbers that count, and what has to be known before they are believed."""

import numpy as np

from ppkd.bridge.sizes import reader_size
from ppkd.study.bootstrap import Sample, image_draws, image_interval

# As many as `ppkd compare` takes, so that one pair has one interval.
_RESAMPLES = 2000
# A teacher that is less ahead of the plain student shows no way to go.
_FAR = 0.01


def outcome(material):
    """``(sentence, facts, remarks)`` for `document.Document`."""
    best, plain, teacher = material.best, material.plain, material.teacher
    facts = [
        (percent(subject.stats["AP"]), f"AP, {subject.name}")
        for subject in (teacher, plain, best)
        if subject is not None
    ]
    remarks = [_scope(material), *_sizes(material)]
    if best is None or plain is None:
        return _without_comparison(material), facts, remarks
    gain = round(best.stats["AP"] - plain.stats["AP"], 9) + 0.0  # no minus before a zero
    interval = _interval(best, plain)
    sure = f"95 % interval over images {100 * interval.low:+.1f} to {100 * interval.high:+.1f}"
    if interval.low <= 0 <= interval.high:
        sure += ": not told from chance"
    facts.append((f"{100 * gain:+.1f}", f"AP gained by distillation, {sure}"))
    ap, before = (percent(subject.stats["AP"]) for subject in (best, plain))
    sentence = (
        f"{_called(best, material)} reaches AP {ap}, {_called(plain, material)} {before}: {100 * gain:+.1f} points "
        f"({sure})"
    )
    if teacher is not None and gain > 0 and teacher.stats["AP"] - plain.stats["AP"] > _FAR:
        share = 100 * gain / (teacher.stats["AP"] - plain.stats["AP"])
        sentence += f", {share:.0f} % of the way to the teacher's {percent(teacher.stats['AP'])}"
    if len(material.of("plain") + material.of("distilled")) > 2:
        remarks.append("What is called best was chosen by these same images, which flatters it.")
    remarks.append(
        "The interval is that of other images like these; what another seed would give is not in it. "
        "`ppkd compare` tells that from several seeds."
    )
    return sentence + ".", facts, remarks + _unlike(plain.run, best.run)


def percent(value):
    """AP as text in percent, or a dash for COCO's -1."""
    return f"{100 * value:.1f}" if value >= 0 else "-"


def _called(subject, material):
    """The subject in the sentence, which the distilled student begins."""
    distilled, count = subject.role == "distilled", len(material.of(subject.role))
    if count > 1:
        return f"{'The' if distilled else 'the'} best of {count} {subject.role} students ({subject.short})"
    if not distilled:
        return "without it" if len(material.of("distilled")) == 1 else "the plain student"
    method = subject.run.recipe.method.name
    return f"With distillation ({method}) the student" if method != "terms" else "With distillation the student"


def _scope(material):
    seen, total = len(material.subjects[0].found.images), len(material.coco.imgs)
    part = f"the first {seen} of {total}" if seen < total else f"all {total}"
    return f"Measured on {part} validation images, with the weights {material.runs[0].which}.pdparams of each run."


def _sizes(material):
    """That a teacher is judged on images of another size than it is shown while it teaches."""
    for teacher in material.of("teacher"):
        students = reader_size(teacher.run.recipe.student, "EvalReader")
        own = reader_size(teacher.config, "EvalReader")
        if students and own and students != own:
            sizes = [f"{width} × {height}" for height, width in (own, students)]
            yield (
                f"The AP of the {teacher.name} is that on images of {sizes[0]} pixels, by its own EvalReader; the "
                f"students are evaluated on {sizes[1]}, and in training a teacher is shown the student's images."
            )


def _without_comparison(material):
    what = [f"{subject.name} {percent(subject.stats['AP'])}" for subject in material.subjects]
    lacking = "no plain student" if material.best is not None else "no distilled student"
    return f"AP: {', '.join(what)}. There is {lacking} among the runs, so what distillation gave cannot be said."


def _interval(best, plain):
    draws = image_draws(len(best.matches.images), _RESAMPLES)
    samples = [
        Sample(np.array([subject.stats["AP"]]), subject.matches.resampled(draws)[None]) for subject in (best, plain)
    ]
    return image_interval(*samples)


def _unlike(plain, best):
    """What beside distillation is not alike in the two runs."""
    first, second = plain.identity(), best.identity()
    distillation = {"distill", *best.recipe.teachers}
    keys = [key for key in sorted(first.keys() | second.keys()) if first.get(key) != second.get(key)]
    keys = [key for key in keys if key.split(".")[0] not in distillation]
    remarks = []
    if keys:
        shown = "; ".join(f"{key}: {first.get(key)} and {second.get(key)}" for key in keys[:5])
        more = f"; and {len(keys) - 5} more" if len(keys) > 5 else ""
        remarks.append(
            f"Not like for like: beside distillation the plain and the distilled run differ in {shown}{more}."
        )
    if plain.seed != best.seed:
        remarks.append(f"The two runs have different seeds: {plain.seed} and {best.seed}.")
    return remarks

"""Whether the teacher gets images as it knows them."""

from ppkd.bridge.normalisation import Normalisation
from ppkd.diagnosis import normalisations
from ppkd.diagnosis.findings import WARNING

_COLOURS = 6


def check_readers(subject, findings):
    """Compare the normalisations of the run's readers and the teachers'.

    Returns:
        Plain values: who normalises how.
    """
    config = subject.recipe.student
    train, evaluated = normalisations.train_normalisation(config), normalisations.eval_normalisation(config)
    if train is not None and evaluated is not None and not normalisations.close(train, evaluated):
        findings.add(
            "train-eval-normalisation",
            f"the student trains on images with {normalisations.rounded(train)} and is evaluated on images with "
            f"{normalisations.rounded(evaluated)}",
        )
    told = {"TrainReader": _words(train), "EvalReader": _words(evaluated), "teachers": {}}
    for teacher in subject.teachers:
        wanted = normalisations.wanted_by(teacher.spec)
        told["teachers"][teacher.name] = _words(wanted)
        if wanted is None or train is None:
            whose = f"{teacher.called}'s config" if wanted is None else "the run's"
            text = f"{whose} has no reader, so {teacher.called} gets the student's images as they are"
            findings.add("normalisation-unknown", text)
        elif not normalisations.close(wanted, train):
            findings.add(
                "teacher-input-translated",
                f"{teacher.called} is used to images with {normalisations.rounded(wanted)}, the student's have "
                f"{normalisations.rounded(train)}: the wrapper gives it its own",
            )
        _check_own_readers(teacher, wanted, findings)
    return told


def _check_own_readers(teacher, wanted, findings):
    for name in ("EvalReader", "TestReader"):
        other = Normalisation.of(teacher.spec.config, (name,))
        if wanted is not None and other is not None and not normalisations.close(wanted, other):
            findings.add(
                "train-eval-normalisation",
                f"{teacher.called}'s config says {normalisations.rounded(wanted)} for training, which the wrapper "
                f"goes by, and {normalisations.rounded(other)} in its {name}",
                WARNING,
            )
            return


def check_batch(name, image, norm, findings):
    """Check that a batch's values are ones that a normalisation can give.

    Args:
        name: whose images they are.
        image: (N, 3, H, W).
        norm: `normalisation.Normalisation` that it should have, or None.
        findings: `findings.Findings`.
    """
    if norm is None:
        return
    lowest, highest = normalisations.limits(norm)
    low, high = float(image.min()), float(image.max())
    # Augmentations of colour (RandomDistort) leave 0 to 255 by a few times; pixels scaled otherwise by fifty and more.
    slack = _COLOURS * (highest - lowest)
    outside = low < min(lowest, 0.0) - slack or high > max(highest, 0.0) + slack  # padding is 0
    # Photographs use most of the range; values crowded into a hundredth of it have been scaled twice.
    crowded = high - low < 0.01 * (highest - lowest)
    if outside or crowded:
        findings.add(
            "input-range",
            f"{name} gets values from {low:.3g} to {high:.3g}; images with {normalisations.rounded(norm)} have "
            f"{lowest:.3g} to {highest:.3g}",
        )


def _words(norm):
    return None if norm is None else normalisations.rounded(norm)

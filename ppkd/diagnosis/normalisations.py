"""What a teacher's images look like: by the wrapper, and as they might have been meant."""

import dataclasses

from ppkd.bridge.normalisation import Normalisation, Translation
from ppkd.engine.teacher_inputs import Chained, Resized, preparation_for

_PLAIN = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# What detectors of ppdet are trained on.
USUAL = {
    "pixels from 0 to 255": Normalisation(1.0, *_PLAIN),
    "pixels divided by 255": Normalisation(1 / 255, *_PLAIN),
    "ImageNet's mean and deviation": Normalisation(1 / 255, *_IMAGENET),
}


def same(batch):
    """What changes nothing: the batch as the reader made it."""
    return batch


def train_normalisation(config):
    """The `Normalisation` of a run's TrainReader, or None."""
    return Normalisation.of(config, ("TrainReader",))


def eval_normalisation(config):
    """The `Normalisation` of a run's EvalReader, or None."""
    return Normalisation.of(config, ("EvalReader",))


def wanted_by(spec):
    """The `Normalisation` that a teacher's config says it is used to, or None."""
    return Normalisation.of(spec.config, ("TrainReader", "EvalReader", "TestReader"))


def close(a, b):
    """Whether two normalisations are the same but for rounding."""
    return all(abs(x - y) <= 1e-6 + 1e-4 * abs(y) for x, y in zip(_flat(a), _flat(b)))


def _flat(norm):
    return (norm.scale, *norm.mean, *norm.std)


def eval_preparation(config, spec):
    """What the wrapper does, for a teacher, to batches of the run's EvalReader.

    Args:
        config: the run's.
        spec: `teachers.TeacherSpec`.
    """
    # The wrapper starts from the TrainReader's images; here they are the EvalReader's.
    prepare, _ = preparation_for({**config, "TrainReader": config.get("EvalReader")}, spec)
    return prepare or same


def other_preparations(config, spec):
    """Preparations in which the teacher's images are normalised otherwise than its config says.

    Yields:
        ``(what that is, preparation)``.
    """
    ours = eval_normalisation(config)
    if ours is None:
        return
    current = wanted_by(spec) or ours
    candidates = {**USUAL}
    if not any(close(ours, other) for other in candidates.values()):
        candidates["the student's normalisation"] = ours
    for name, other in candidates.items():
        if not close(other, current):
            preparations = [Translation(ours, other)]
            preparations += [Resized(spec.input_scale)] if spec.input_scale != 1 else []
            yield name, Chained(preparations)


def limits(norm):
    """Lowest and highest value that an image can have, over all channels."""
    lowest = min(-mean / std for mean, std in zip(norm.mean, norm.std))
    highest = max((255 * norm.scale - mean) / std for mean, std in zip(norm.mean, norm.std))
    return lowest, highest


def rounded(norm):
    """A normalisation in words."""
    for name, other in USUAL.items():
        if close(norm, other):
            return name
    norm = dataclasses.replace(norm, scale=round(norm.scale, 6))
    return f"(pixel * {norm.scale:g} - {list(norm.mean)}) / {list(norm.std)}"

"""How a teacher sees the student's batch: its own normalisation, its own size."""

import paddle.nn.functional as F

from ppkd.bridge.ground_truth import FRAME
from ppkd.bridge.normalisation import translation
from ppkd.recipe.foreign import multiple_of

# Sides of images are kept a multiple of this many pixels, or a neck's maps of neighbouring levels do not fit.
_MULTIPLE = 32


class Resized:
    """A batch with images `scale` times as large.

    Args:
        scale: factor on height and width.
        multiple: of pixels, that both come to.
    """

    def __init__(self, scale, multiple=_MULTIPLE):
        self._scale, self._multiple = scale, multiple

    def __call__(self, batch):
        """The batch with its images and ``im_shape`` resized; a new dict, or itself if its images are of that size.

        Args:
            batch: ``image`` (N, 3, H, W) and ``im_shape`` (N, 2).
        """
        sides, multiple = list(batch["image"].shape[2:]), self._multiple
        size = [max(round(side * self._scale / multiple), 1) * multiple for side in sides]
        if size == sides:
            return batch
        image = F.interpolate(batch["image"], size=size, mode="bilinear", align_corners=False)
        sizes = {key: batch[key].astype("float32") * self._scale for key in ("im_shape", FRAME) if key in batch}
        return {**batch, "image": image, **sizes}


class Chained:
    """One preparation after another."""

    def __init__(self, preparations):
        self._preparations = preparations

    def __call__(self, batch):
        """The batch as the last of the preparations leaves it."""
        for prepare in self._preparations:
            batch = prepare(batch)
        return batch


def preparation_for(student, teacher):
    """What turns the student's batch into the teacher's, or None if nothing has to be done.

    Args:
        student: the run's config.
        teacher: `teachers.TeacherSpec`.

    Returns:
        ``(preparation, lines for the log)``.
    """
    preparations, notes = [], []
    if (translate := translation(student, teacher.config)) is not None:
        preparations.append(translate)
        notes.append("its images are normalised otherwise than the student's; it gets them in its own way")
    if teacher.input_scale != 1:
        notes.append(f"it gets the student's images {teacher.input_scale:g} times as large")
    patch = multiple_of(teacher.config)
    if patch or teacher.input_scale != 1:
        preparations.append(Resized(teacher.input_scale, patch or _MULTIPLE))
    return (Chained(preparations) if preparations else None), notes

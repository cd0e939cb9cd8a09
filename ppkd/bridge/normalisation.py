"""How detectors want their images normalised, and the way from one's images to another's.

PP-YOLOE divides pixels by 255, YOLOX takes them as they are, RetinaNet subtracts ImageNet's mean: a teacher of another
family sees nothing it knows in the student's batch.
"""

from dataclasses import dataclass

import numpy as np
import paddle

from ppkd.bridge.ground_truth import FRAME

# The readers that say what a teacher is used to, the first that there is.
OF_TEACHERS = ("TrainReader", "EvalReader", "TestReader")


@dataclass(frozen=True)
class Normalisation:
    """``(pixel * scale - mean) / std`` of red, green and blue, pixels being 0 to 255."""

    scale: float = 1.0
    mean: tuple = (0.0, 0.0, 0.0)
    std: tuple = (1.0, 1.0, 1.0)

    @classmethod
    def of(cls, config, readers):
        """That of the first of the named readers that `config` has, or None if it has none of them.

        Args:
            config: a ppdet config.
            readers: names such as ``TrainReader``.
        """
        for name in readers:
            reader = config.get(name)
            if isinstance(reader, dict):
                steps = [*(reader.get("sample_transforms") or []), *(reader.get("batch_transforms") or [])]
                given = next((step["NormalizeImage"] for step in steps if "NormalizeImage" in step), None)
                return cls() if given is None else cls._from(given or {})
        return None

    @classmethod
    def _from(cls, given):
        """ppdet's transform ``NormalizeImage`` with its defaults."""
        scale = 1 / 255 if given.get("is_scale", True) else 1.0
        if given.get("norm_type", "mean_std") == "none":
            return cls(scale)
        mean, std = given.get("mean", [0.485, 0.456, 0.406]), given.get("std", [0.229, 0.224, 0.225])
        return cls(scale, tuple(map(float, mean)), tuple(map(float, std)))


class Translation:
    """From images as the student has them to images as the teacher wants them.

    Args:
        student, teacher: `Normalisation`.
    """

    def __init__(self, student, teacher):
        ratio = teacher.scale / student.scale
        factor = np.array(student.std) / np.array(teacher.std) * ratio
        offset = (np.array(student.mean) * ratio - np.array(teacher.mean)) / np.array(teacher.std)
        self._factor, self._offset = (_per_channel(values) for values in (factor, offset))

    def __call__(self, batch):
        """The batch with translated images.

        Args:
            batch: ``image`` (N, 3, H, W), and ``im_shape`` (N, 2), their heights and widths before padding: padding is
                zeros whatever the normalisation.

        Returns:
            A new dict; the other entries are the same objects.
        """
        image = batch["image"]
        frame = batch[FRAME if FRAME in batch else "im_shape"]
        rows, columns = (_below(image.shape[axis + 2], frame[:, axis]) for axis in (0, 1))
        inside = (rows.unsqueeze(2) * columns.unsqueeze(1)).unsqueeze(1)
        # Transforms that do not keep im_shape up to date are no reason to lose pixels.
        seen = (image != 0).any(axis=1, keepdim=True).astype("float32")
        return {**batch, "image": (image * self._factor + self._offset) * paddle.maximum(inside, seen)}


def translation(student, teacher):
    """The `Translation` that a teacher needs, or None where both normalise alike or one of them does not say.

    Args:
        student: the run's config; its TrainReader makes the images.
        teacher: the teacher's config; its TrainReader, or else EvalReader or TestReader, says what it is used to.
    """
    ours = Normalisation.of(student, ("TrainReader",))
    theirs = Normalisation.of(teacher, OF_TEACHERS)
    return None if ours is None or theirs is None or ours == theirs else Translation(ours, theirs)


def _per_channel(values):
    return paddle.to_tensor(values.astype("float32")).reshape([1, 3, 1, 1])


def _below(count, limits):
    """(N, count): 1 at positions below each image's limit."""
    return (paddle.arange(count).astype("float32") < limits.astype("float32").unsqueeze(1)).astype("float32")

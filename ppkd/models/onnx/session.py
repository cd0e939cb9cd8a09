"""A file that ONNX Runtime opens, and what it says of its inputs and outputs."""

import numpy as np

from ppkd.errors import UserError
from ppkd.files.regular import NotAFile, check_file
from ppkd.models.onnx.process import Process
from ppkd.models.onnx.worker import CUDA, OUTPUTS

# Gigabytes that a file may take, unless its entry says otherwise.
MEMORY = 4
_IMAGE = 4  # axes of an image batch
_TYPES = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(double)": "float64"}
# What detectors want beside the image, by name: PaddleDetection's, and those of RT-DETR's and D-FINE's authors.
_BESIDE = {"im_shape": "float32", "scale_factor": "float32", "orig_target_sizes": "int64"}


class Session:
    """An ONNX file, opened. Nothing in it runs but ONNX's own operators, in a process of bounded memory.

    Args:
        path: the file.
        where: file and key, for messages.
        memory: gigabytes that it may take.
        gpu: number of the GPU that it is to run on, or None for the CPU.

    Attributes:
        outputs: names, in the file's order.
        shapes: of the outputs, in that order; None for a side that is not fixed.
        names: of its classes as the file gives them, a list or a mapping from numbers; None if it gives none.
        batch: images that a run takes, or None for any number.
        size: height and width of the images, or None for any; one of the two may be None as well.
        provider: what of ONNX Runtime runs it, ``CPU`` or ``CUDA``.
        known: whether this ONNX Runtime has CUDA's, be it that it runs or not.

    Raises:
        UserError: ONNX Runtime is not installed, the file is not one that it opens, or its inputs are no images.
    """

    def __init__(self, path, where, memory=MEMORY, gpu=None):
        try:
            check_file(path)
        except (NotAFile, OSError) as error:
            raise UserError(f"{where}: {path}: {error}") from None
        self.path, self.memory = path, memory
        self._process = Process(path, int(memory * 2**30), where, gpu)
        told = self._process.told
        self.outputs, self.shapes = [each[0] for each in told["outputs"]], [each[2] for each in told["outputs"]]
        self.names, self.provider = told["names"], told["providers"][0].removesuffix("ExecutionProvider")
        self.known = CUDA in told["known"]
        self._image, kind, shape = self._find_image(where, told["inputs"])
        self._type = _TYPES[kind]
        self.batch, _, *size = (side if side and side > 0 else None for side in shape)
        self.size = tuple(size)

    @property
    def peak(self):
        """The most memory that its process has had so far, in bytes."""
        return self._process.peak

    def _find_image(self, where, inputs):
        images = [each for each in inputs if len(each[2]) == _IMAGE]
        self._others = [name for name, _, shape in inputs if len(shape) != _IMAGE]
        if len(images) != 1 or any(name not in _BESIDE for name in self._others):
            told = ", ".join(f"{name} {_shown(shape)}" for name, _, shape in inputs)
            raise UserError(f"{where}: {self.path}: one input of images (N, 3, H, W) is wanted; it has {told}")
        _, kind, shape = images[0]
        if kind not in _TYPES:
            raise UserError(f"{where}: {self.path}: its images are {kind}; wanted are {', '.join(_TYPES)}")
        if shape[1] not in (3, None):
            raise UserError(f"{where}: {self.path}: its images have {shape[1]} channels, not 3 ({_shown(shape)})")
        return images[0]

    def run(self, images, wanted, beside=None):
        """The outputs of these names.

        Args:
            images: (N, 3, H, W) float32 array.
            wanted: list of names.
            beside: name -> array, for inputs beside the images.

        Returns:
            List of lists: of each piece of the batch that the file takes at once, its outputs, of as many images as
            were given it.

        Raises:
            UserError: it does not take these images.
        """
        step = self.batch or len(images)
        for i in range(0, len(images), step):
            count = min(step, len(images) - i)
            feed = {self._image: _filled(images[i : i + step], step, self._type)}
            for name in self._others:
                feed[name] = _filled(self._beside(name, images, beside)[i : i + step], step, _BESIDE[name])
            yield count, self._process.run(wanted, feed)

    def _beside(self, name, images, beside):
        if name == "orig_target_sizes":  # width and height that boxes are to be in pixels of
            return np.tile([images.shape[3], images.shape[2]], [len(images), 1])
        return beside[name]

    def maps(self, images, wanted, beside=None):
        """As `run`, put together: each output an array of a row an image.

        Raises:
            UserError: it does not take these images, an output has not one row an image, or all are too large.
        """
        pieces, most, size = [], self.memory * 2**30 / OUTPUTS, 0
        for count, values in self.run(images, wanted, beside):
            pieces.append([self._cut(value, count) for value in values])
            size += sum(value.nbytes for value in values)
            if size > most:
                raise UserError(
                    f"{self.path}: its outputs for {len(images)} images take more than {most / 2**30:.3g} GB, which is "
                    f"all that they may of its {self.memory:g} GB (memory: GB gives more, a smaller batch takes less)"
                )
        return [np.concatenate(values) for values in zip(*pieces)]

    def _cut(self, value, count):
        if not value.ndim or len(value) != (self.batch or count):
            raise UserError(
                f"{self.path}: an output of shape {list(value.shape)} for {self.batch or count} images: one row an "
                "image is needed"
            )
        return value[:count]


def _filled(rows, step, dtype):
    """As many rows as are wanted: the last is repeated."""
    short = step - len(rows)
    return (np.concatenate([rows, np.repeat(rows[-1:], short, axis=0)]) if short else rows).astype(dtype)


def _shown(shape):
    return "[" + ", ".join("?" if side is None else str(side) for side in shape) + "]"

"""A file that ONNX Runtime opens, and what it says of its inputs and outputs."""

import os

import numpy as np

from ppkd.errors import UserError
from ppkd.files.regular import NotAFile, check_file

_IMAGE = 4  # axes of an image batch
_TYPES = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(double)": "float64"}
# What detectors of PaddleDetection want beside the image, by name.
_BESIDE = ("im_shape", "scale_factor")


class Session:
    """An ONNX file, opened. Nothing in it runs but ONNX's own operators.

    Args:
        path: the file.
        where: file and key, for messages.

    Attributes:
        outputs: names, in the file's order.
        batch: images that a run takes, or None for any number.
        size: height and width of the images, or None for any; one of the two may be None as well.

    Raises:
        UserError: ONNX Runtime is not installed, the file is not one that it opens, or its inputs are no images.
    """

    def __init__(self, path, where):
        try:
            import onnxruntime
        except ImportError as error:
            raise UserError(f"{where}: ONNX Runtime is not installed: pip install onnxruntime ({error})") from None
        try:
            check_file(path)
        except (NotAFile, OSError) as error:
            raise UserError(f"{where}: {path}: {error}") from None
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = int(os.environ.get("OMP_NUM_THREADS") or 0)
        known = onnxruntime.get_available_providers()
        providers = [name for name in ("CUDAExecutionProvider", "CPUExecutionProvider") if name in known]
        try:
            self._session = onnxruntime.InferenceSession(os.fspath(path), options, providers=providers)
        except Exception as error:  # of many classes of its own, which have no common one
            told = " ".join(str(error).split())[:200]
            raise UserError(f"{where}: {path}: ONNX Runtime does not open it: {told}") from None
        self.path, self.outputs = path, [each.name for each in self._session.get_outputs()]
        self._image = self._find_image(where)
        n, _, height, width = (side if isinstance(side, int) and side > 0 else None for side in self._image.shape)
        self.batch, self.size = n, (height, width)

    def _find_image(self, where):
        images = [each for each in self._session.get_inputs() if len(each.shape or ()) == _IMAGE]
        others = [each.name for each in self._session.get_inputs() if len(each.shape or ()) != _IMAGE]
        strange = [name for name in others if name not in _BESIDE]
        if len(images) != 1 or strange:
            told = ", ".join(f"{each.name} {each.shape}" for each in self._session.get_inputs())
            raise UserError(f"{where}: {self.path}: one input of images (N, 3, H, W) is wanted; it has {told}")
        image = images[0]
        if image.type not in _TYPES:
            raise UserError(f"{where}: {self.path}: its images are {image.type}; wanted are {', '.join(_TYPES)}")
        if image.shape[1] not in (3, None) and not isinstance(image.shape[1], str):
            raise UserError(f"{where}: {self.path}: its images have {image.shape[1]} channels, not 3 ({image.shape})")
        self._others = others
        return image

    def run(self, images, wanted, beside=None):
        """The outputs of these names.

        Args:
            images: (N, 3, H, W) float32 array.
            wanted: list of names.
            beside: name -> array, for inputs beside the images.

        Raises:
            UserError: it does not take these images.
        """
        step = self.batch or len(images)
        pieces = [images[i : i + step] for i in range(0, len(images), step)]
        found = []
        for i, piece in enumerate(pieces):
            short = step - len(piece)
            full = np.concatenate([piece, np.repeat(piece[-1:], short, axis=0)]) if short else piece
            feed = {self._image.name: full.astype(_TYPES[self._image.type])}
            for name in self._others:
                rows = beside[name][i * step : i * step + len(piece)]
                feed[name] = np.concatenate([rows, np.repeat(rows[-1:], short, axis=0)]).astype("float32")
            try:
                values = self._session.run(wanted, feed)
            except Exception as error:  # see above
                told = " ".join(str(error).split())[:200]
                raise UserError(f"{self.path}: it does not take images {list(full.shape)}: {told}") from None
            found.append([self._cut(value, len(piece), step) for value in values])
        return [np.concatenate(values) for values in zip(*found)]

    def _cut(self, value, count, step):
        if not value.ndim or len(value) != step:
            raise UserError(
                f"{self.path}: an output of shape {list(value.shape)} for {step} images: one row an image is needed"
            )
        return value[:count]

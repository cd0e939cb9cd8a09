"""A detector given as ONNX as ppdet builds it: what it finds, by the names of the data set's classes."""

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import nn
from ppdet.core.workspace import register

from ppkd.errors import UserError
from ppkd.files.class_names import checked
from ppkd.files.class_spellings import match
from ppkd.models.onnx.decoding import Decoder
from ppkd.models.onnx.session import MEMORY
from ppkd.models.onnx.teacher import ONNXTeacher


class _Found(nn.Layer):
    """Hands on what was found when it is recorded, and says of how many classes, as heads do."""

    def __init__(self, num_classes):
        super().__init__()
        self.num_classes = num_classes

    def forward(self, x):
        return x


@register
class ONNXDetector(ONNXTeacher):
    """A detector of another framework. In eval mode it answers as ppdet's detectors do.

    Attributes:
        file: its path.
        class_names: the file's classes, None for a number that is none.
        matched: `class_spellings.Matched` between these and the data set's.
        found: hands on (N, M, 6) class, score and corners in pixels of the images, -1 where there are fewer than M.

    Args:
        file, memory, bgr: as `teacher.ONNXTeacher`.
        detections: of `layouts.read_layout`.
        classes: names of the data set's classes.
    """

    def __init__(self, file, detections, classes=None, memory=MEMORY, bgr=False):
        super().__init__(file, memory, bgr)
        self._size = detections["size"]
        where = f"teacher.onnx: {file}"
        if not classes:
            raise UserError(f"{where}: what the data set's classes are called is not known: class_names=[...] tells it")
        theirs = _names(detections["names"], self.session.names, where)
        self.file, self.class_names = file, theirs
        self.matched = match(theirs, classes)
        if not self.matched.place:
            raise UserError(
                f"{where}: none of its classes ({_some(theirs)}) is one of the data set's ({_some(classes)}); "
                "detections.names says what they are called, in their order"
            )
        self._place = np.full(len(theirs), -1, "int64")
        for number, place in self.matched.place.items():
            self._place[number] = place
        self._decoder = Decoder(detections, self.session.outputs, self.session.shapes, len(theirs), where)
        self.found = _Found(len(classes))
        self.notice += f"; {self.matched}"

    def load_meanstd(self, transforms):
        """Does nothing: ppdet's trainer tells every detector its normalisation, for those that normalise themselves."""

    def fitted(self, image):
        """As `ONNXTeacher`; in ``detections.size``, if the file takes any."""
        if self._size and list(image.shape[2:]) != self._size:
            image = F.interpolate(image, size=self._size, mode="bilinear", align_corners=False)
        return super().fitted(image)

    def forward(self, batch, wanted=None):
        """Run the file; with `wanted` as `ONNXTeacher`, else answer as ppdet's detectors do.

        Returns:
            Without `wanted` ``{"bbox": (M, 6), "bbox_num": (N,)}``, class, score and corners in pixels of the image
            file, by ``scale_factor`` and ``im_shape`` of the batch.
        """
        if wanted is None:
            return self.get_pred(batch)
        maps = [name for name in wanted if name != "found"]
        if maps:
            super().forward(batch, maps)
        if "found" in wanted:
            self.found(paddle.to_tensor(_padded(self.detect(batch["image"]))))

    def detect(self, image):
        """What is found on images: of each an (n, 6) array of class, score and corners in pixels of it, best first.

        Args:
            image: (N, 3, H, W).

        Raises:
            UserError: see `decoding.Decoder.found`.
        """
        seen = self.fitted(image)
        size = np.array(seen.shape[2:], "float32")
        count = seen.shape[0]
        # Boxes in pixels of what it is given, whatever it would make of an image's own size.
        beside = {"im_shape": np.tile(size, [count, 1]), "scale_factor": np.ones([count, 2], "float32")}
        factor = np.tile(np.array(image.shape[2:], "float32") / size, 2)[[1, 0, 1, 0]]
        found = []
        for number, values in self.session.run(seen.numpy(), self._decoder.wanted, beside):
            for labels, scores, boxes in self._decoder.found(values, number, tuple(seen.shape[2:])):
                places = self._place[labels]
                known = places >= 0
                columns = (places[known, None], scores[known, None], boxes[known] * factor)
                found.append(np.concatenate(columns, axis=1).astype("float32"))
        return found

    def get_pred(self, batch):
        """See `forward`."""
        found = []
        with paddle.no_grad():
            detected = self.detect(batch["image"])
        shapes, scales = (batch[key].numpy() for key in ("im_shape", "scale_factor"))
        for each, shape, scale in zip(detected, shapes, scales):
            boxes = each[:, 2:].clip(0, np.tile(shape[::-1], 2)) / np.tile(scale[::-1], 2)
            kept = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
            found.append(np.concatenate([each[:, :2], boxes], axis=1)[kept].astype("float32"))
        numbers = paddle.to_tensor(np.array([len(each) for each in found], "int32"))
        return {"bbox": paddle.to_tensor(np.concatenate(found)), "bbox_num": numbers}


def _padded(found):
    most = max(1, *(len(each) for each in found)) if found else 1
    made = np.full([len(found), most, 6], -1, "float32")
    for row, each in zip(made, found):
        row[: len(each)] = each
    return made


def _names(given, of_file, where):
    """Names of the file's classes, None for a number that is none."""
    if isinstance(given, list):
        return given
    if isinstance(given, str):
        return _published(given)
    if of_file is None:
        raise UserError(
            f"{where}: neither the file nor detections.names says what its classes are called: names: [cat, dog], a "
            "file of them, or coco, coco91 or voc"
        )
    return checked(of_file, f"{where}: names in the file")


def _published(name):
    from ppdet.data.source.category import _coco17_category, _vocall_category

    classes, names = (_vocall_category if name == "voc" else _coco17_category)()
    if name == "coco91":
        return [names[number] if number in classes.values() else None for number in range(91)]
    return [names[classes[number]] for number in sorted(classes)]


def _some(names):
    names = [name for name in names if name is not None]
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")

"""What a file of MMDetection's says beside its tensors: the text of its config, the name of its run, its classes."""

import os
import re
from dataclasses import dataclass
from functools import cached_property

from ppkd.files.mmdet_text import find, numbers, read, within

# Red, green, blue.
_IMAGENET = ([123.675, 116.28, 103.53], [58.395, 57.12, 57.375])
# Of the ResNets that Detectron trained, as FCOS and as all others take them.
_CAFFE = {"FCOS": [122.7717, 115.9465, 102.9801]}
_CAFFE_MEAN, _ONES = [123.675, 116.28, 103.53], [1.0, 1.0, 1.0]
# Least score, IoU from which on NMS suppresses, most detections.
_CHOICE = {"GFL": (0.05, 0.6, 100), "YOLOX": (0.01, 0.65, -1)}
# Of a text that cannot be read as a whole.
_TEST = re.compile(
    r"score_thr\s*=\s*([\d.e-]+)\s*,\s*nms\s*=\s*dict\(\s*type\s*=\s*'nms'\s*,\s*iou_thr(?:eshold)?\s*=\s*([\d.]+)\s*\)"
    r"(?:\s*,\s*max_per_img\s*=\s*(\d+))?"
)


@dataclass
class Told:
    """What a file's notes say.

    Attributes:
        text: of its config, or empty.
        names: of its run and of the file, in lower case.
        version: of MMDetection, or empty.
        classes: their names, or None.
        part: ``student`` or ``teacher``, the one that is looked for where the file is of a distillation.
    """

    text: str
    names: str
    version: str
    classes: list | None
    part: str = "student"

    @classmethod
    def of(cls, tree, path, part="student"):
        """Of what a file holds; notes of another form than they should have are none."""
        meta = tree.get("meta") if isinstance(tree, dict) else None
        meta = meta if isinstance(meta, dict) else {}
        text = next((meta[key] for key in ("config", "cfg") if isinstance(meta.get(key), str)), "")
        names = [os.path.basename(path), *(str(meta.get(key, "")) for key in ("exp_name", "experiment_name"))]
        noted = meta.get("dataset_meta")
        classes = meta.get("CLASSES") or (noted.get("classes") if isinstance(noted, dict) else None)
        known = isinstance(classes, (list, tuple)) and all(isinstance(name, str) for name in classes)
        version = str(meta.get("mmdet_version", ""))
        return cls(text, " ".join(names).lower(), version, list(classes) if known and classes else None, part)

    @cached_property
    def config(self):
        """The text as nested dicts; empty if it cannot be read."""
        return read(self.text)

    @cached_property
    def model(self):
        """What the text says of the detector: of a distiller's, of the part that is looked for; empty for nothing."""
        whole = within(self.config, "model")
        parts = ("teacher",) if self.part == "teacher" else ("architecture", "student")
        inner = [within(whole, key) for key in parts]
        return next((tree for tree in (*inner, whole) if "backbone" in tree), {})

    @property
    def _style(self):
        if self.model:
            return str(within(self.model, "backbone").get("style", "pytorch"))
        said = re.search(r"\bstyle\s*=\s*'(\w+)'", self.text)
        return said[1] if said else None

    @property
    def caffe(self):
        """Whether the ResNet is Detectron's: its stride in the first convolution of a block, its images blue first."""
        return self._style == "caffe" if self._style else "caffe" in self.names

    @property
    def style_is_known(self):
        """Whether anything says so, or MMDetection's names for its runs, which would."""
        return self._style is not None or re.search(r"[rx](18|34|50|101|152)(?!\d)", self.names) is not None

    @cached_property
    def _images(self):
        """The dict of the text that says how images are normalised, or None."""
        places = [
            self.model.get("data_preprocessor"), within(self.config, "model").get("data_preprocessor"),
            self.config.get("data_preprocessor"), self.config.get("img_norm_cfg"), self.config,
        ]  # fmt: skip
        found = (find(place, "mean", "std") for place in places)
        return next((x for x in found if x and numbers(x["mean"], 3) and numbers(x["std"], 3)), None)

    @property
    def blue_first(self):
        """Whether the images are blue, green, red."""
        if self._images:
            said = [self._images[key] for key in ("bgr_to_rgb", "to_rgb") if isinstance(self._images.get(key), bool)]
            # Where nothing is said MMDetection 3 leaves the order as it is, and 2 turns it round.
            return not said[0] if said else str(self._images.get("type")).endswith("DataPreprocessor")
        said = re.search(r"\b(?:to_rgb|bgr_to_rgb)\s*=\s*(True|False)", self.text)
        return said[1] == "False" if said else self.caffe

    def normalisation(self, kind):
        """Mean and deviation of red, green, blue, of pixels from 0 to 255."""
        given = self._images and [numbers(self._images[key]) for key in ("mean", "std")]
        if not given:
            said = [re.search(rf"\b{key}\s*=\s*\[([\d.,\s]+)\]", self.text) for key in ("mean", "std")]
            given = [[float(x) for x in match[1].split(",") if x.strip()] if match else [] for match in said]
        if [len(values) for values in given] == [3, 3]:
            return tuple(values[::-1] if self.blue_first else values for values in given)
        return (_CAFFE.get(kind, _CAFFE_MEAN), _ONES) if self.caffe else _IMAGENET

    @property
    def size(self):
        """``[short, long]``, to which the sides of images are brought in evaluation; None where nothing says so."""
        for key in ("scale", "img_scale"):  # of MMDetection 3 and 2
            given = find(self.config.get("test_pipeline"), key)
            sides = numbers(given[key], 2) if given else None
            if sides and min(sides) >= 1:
                return sorted(int(side) for side in sides)
        return None

    def says(self, key, name=None):
        """Whether the config's text has ``key=True``, or the run's name has `name`."""
        if self.model:
            return (find(self.model, key) or {}).get(key) is True
        said = re.search(rf"\b{key}\s*=\s*(True|False)", self.text)
        return said[1] == "True" if said else bool(name) and name in self.names

    def test(self, *path):
        """What the text says of how detections are chosen; ``rpn`` and ``rcnn`` of two stages."""
        return within(self.model, "test_cfg", *path) or within(self.config, "test_cfg", *path)

    def choice(self, kind):
        """``(least score, IoU, most)`` of its detections."""
        score, iou, most = _CHOICE.get(kind, (0.05, 0.5, 100))
        test = self.test("rcnn") if "RCNN" in kind else self.test()
        if "score_thr" in test:
            own = within(test, "nms")
            given = (test["score_thr"], own.get("iou_threshold", own.get("iou_thr")), test.get("max_per_img"))
            return tuple(x if type(x) in (int, float) else y for x, y in zip(given, (score, iou, most)))
        said = _TEST.search(self.text)
        return (float(said[1]), float(said[2]), int(said[3] or most)) if said else (score, iou, most)

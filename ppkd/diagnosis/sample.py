"""A few images of the validation set, and what a detector finds in them."""

import contextlib
import io
import json
import os
import shutil

import paddle

from ppkd.bridge.coco_reading import coco_class, read_tidied
from ppkd.bridge.datasets import open_dataset
from ppkd.bridge.own_data import finds_masks
from ppkd.bridge.workspace import scope
from ppkd.diagnosis.scores import score
from ppkd.errors import UserError
from ppkd.files.yaml_io import clone
from ppkd.terminal.log import quiet
from ppkd.training.evaluation import evaluate


class Sample:
    """Images with objects, evenly from the whole validation set, as a data set of their own.

    Args:
        config: the run's config.
        count: how many images, if there are as many.
        folder: an empty folder for its annotation file.

    Attributes:
        truth: ``pycocotools.coco.COCO`` of the sample.
        names: category id -> name.
        classes: number of categories.

    Raises:
        UserError: the validation set is missing or not in COCO's format.
    """

    def __init__(self, config, count, folder):
        given = config.get("EvalDataset")
        if not isinstance(given, dict) or not str(given.get("anno_path") or "").endswith(".json"):
            raise UserError("the validation set is not in COCO's format")
        with scope(config), quiet():
            path = open_dataset("EvalDataset", config).get_anno()
        self._content = read_tidied(path, ("images", "annotations", "categories")).content
        self._config, self._folder = config, folder
        self._cut(count)
        self.names = {category["id"]: str(category["name"]) for category in self._content["categories"]}
        self.classes = len(self.names)
        self.truth = self._load(self._write(self.classes))

    def __len__(self):
        return len(self._content["images"])

    def first(self, count):
        """Ids of the first `count` images."""
        return [image["id"] for image in self._content["images"][:count]]

    def _cut(self, count):
        content = self._content
        full = {box["image_id"] for box in content["annotations"] if not box.get("iscrowd")}
        images = [image for image in content["images"] if image["id"] in full]
        if not images:
            raise UserError("no image of the validation set has an object")
        step = max(len(images) / count, 1.0)
        images = [images[int(i * step)] for i in range(min(count, len(images)))]
        kept = {image["id"] for image in images}
        boxes = [box for box in content["annotations"] if box["image_id"] in kept]
        self._content = {"images": images, "annotations": boxes, "categories": content["categories"]}

    def _write(self, classes, images=None):
        """The sample's annotation file with categories for `classes` classes: those beyond the data's are unnamed."""
        content, last = dict(self._content), max(self.names)
        content["categories"] = [
            *content["categories"],
            *({"id": last + i + 1, "name": f"class {self.classes + i}"} for i in range(classes - self.classes)),
        ]
        if images is not None:
            content["images"] = [image for image in content["images"] if image["id"] in set(images)]
            content["annotations"] = [box for box in content["annotations"] if box["image_id"] in set(images)]
        path = os.path.join(self._folder, "sample.json")
        with open(path, "w", encoding="utf-8") as file:
            json.dump(content, file)
        return path

    def _load(self, path):
        with contextlib.redirect_stdout(io.StringIO()):
            return coco_class()(path)

    def detect(self, model, architecture, classes, prepare=None, images=None):
        """What a detector finds, by the run's own EvalReader.

        Args:
            model: ppdet model; afterwards in the mode it was in.
            architecture: its ``architecture``.
            classes: its number of classes; the sample's categories come first.
            prepare: see `engine.teacher_inputs.preparation_for`; what it sees in place of the reader's batch.
            images: ids of some of the images; None for all.

        Returns:
            ``(list of COCO results, kind)``, kind being ``bbox`` or, of a detector of masks alone, ``segm``.
        """
        config = clone(self._config)
        path = os.path.abspath(self._write(max(classes, self.classes), images))
        config["EvalDataset"]["anno_path"] = path
        config |= {"architecture": architecture, "save_prediction_only": True, "metric": "COCO", "worker_num": 0}
        if finds_masks(config):
            config["EvalReader"]["batch_size"] = 1
        out = os.path.join(self._folder, "found")
        with scope(config) as table, quiet(progress=True), _seeing(model, prepare):
            evaluate(model, table, out)
        try:
            for name, kind in (("bbox.json", "bbox"), ("segm.json", "segm")):
                file = os.path.join(out, name)
                if os.path.exists(file):
                    with open(file, encoding="utf-8") as content:
                        return json.load(content), kind
            return [], "bbox"
        finally:
            shutil.rmtree(out, ignore_errors=True)  # there is none where nothing was found

    def score(self, found, images=None):
        """`scores.Scores` of what `detect` returned."""
        return score(self.truth, *found, images)


@contextlib.contextmanager
def _seeing(model, prepare):
    """A block in which a detector gets each batch as it is prepared, at whatever size it has."""
    handle = None
    if prepare is not None:
        handle = model.register_forward_pre_hook(lambda layer, inputs: (_seen(prepare, inputs[0]), *inputs[1:]))
    try:
        yield
    finally:
        if handle is not None:
            handle.remove()


def _seen(prepare, batch):
    seen = prepare(batch)
    sides = [new / old for new, old in zip(seen["image"].shape[2:], batch["image"].shape[2:])]
    if sides != [1.0, 1.0]:  # boxes go back to the image's own pixels
        seen = {**seen, "scale_factor": batch["scale_factor"] * paddle.to_tensor([sides])}
    return seen

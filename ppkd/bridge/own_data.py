"""Short keys for a data set of the user's own, expanded into ppdet's three data set sections."""

import os

from ppkd.bridge.annotation_file import EXAMPLE, read_categories
from ppkd.errors import UserError
from ppkd.files.class_names import KEY, given_names, names_beside
from ppkd.files.yaml_io import Tagged

KEYS = ("dataset_dir", "train_images", "train_annotations", "val_images", "val_annotations", "allow_empty")


def expand_own_data(config):
    """Expand ``dataset_dir``, ``train_images``, ``train_annotations``, ``val_images``, ``val_annotations`` in place.

    Each key that is present fills the matching field of TrainDataset, EvalDataset and TestDataset (COCO format);
    ``allow_empty`` says whether images without a box are kept (default true).
    ``num_classes: auto`` becomes the number of categories in the training annotations.

    Where a detector is used and that file is not there, it is the number of names that lie beside its ``weights``.

    Raises:
        UserError: ``num_classes: auto`` and the annotation file is not given, missing or broken; or no number.
    """
    _section(config, "TrainDataset", "COCODataSet", "train")
    _section(config, "EvalDataset", "COCODataSet", "val")
    test = _section(config, "TestDataset", "ImageFolder", "val")
    if test is not None:
        test.pop("image_dir", None)
    for name in ("TrainDataset", "EvalDataset", "TestDataset"):
        section = config.get(name)
        if isinstance(section, dict) and section.get("dataset_dir"):
            section["dataset_dir"] = os.path.expanduser(str(section["dataset_dir"]))
    if config.get("num_classes") == "auto":
        config["num_classes"] = _count(config)
    classes = config.get("num_classes", 1)
    if not isinstance(classes, int) or classes < 1:
        raise UserError(f"num_classes has to be a number of classes or auto, found {classes!r}")
    for key in KEYS:
        config.pop(key, None)


def _count(config):
    """The number of classes that ``num_classes: auto`` means."""
    if config.get(KEY) is not None:
        return len(given_names(config[KEY]))
    train = config.get("TrainDataset")
    given = isinstance(train, dict) and train.get("anno_path")
    path = os.path.join(train.get("dataset_dir") or "", str(train["anno_path"])) if given else ""
    if not os.path.isfile(path) and config.get("weights"):  # where a detector is used, its data set need not be there
        names, _ = names_beside(str(config["weights"]).split("#")[0])
        if names is not None:
            return len(names)
    if not given:
        raise UserError(
            "num_classes: auto counts the categories of the training annotations, and none are given. Set them, "
            f"for example {EXAMPLE}, or set num_classes to a number"
        )
    return len(read_categories(path))


def _section(config, name, tag, split):
    values = {
        "dataset_dir": config.get("dataset_dir"),
        "image_dir": config.get(f"{split}_images"),
        "anno_path": config.get(f"{split}_annotations"),
    }
    values = {k: v for k, v in values.items() if v is not None}
    if not values:
        return None
    section = given = config.get(name)
    if not isinstance(given, Tagged) and not (isinstance(given, dict) and "name" in given):
        section = config[name] = Tagged(tag)
        if tag == "COCODataSet":
            # Readers for evaluation stack what they are given; boxes of unequal number do not stack.
            fields = ["image", "gt_bbox", "gt_class", "is_crowd", *(["gt_poly"] if finds_masks(config) else [])]
            section["data_fields"] = fields if split == "train" else ["image"]
            section["allow_empty"] = True
        section.update(given or {})  # fields alone, as of ``-o TrainDataset.sample_num=50``
    if "allow_empty" in config and name != "TestDataset":
        section["allow_empty"] = bool(config["allow_empty"])
    section.update(values)
    return section


def finds_boxes(name):
    """Whether detectors of an architecture find boxes: SOLO and SOLOv2 find masks alone."""
    return name not in ("SOLO", "SOLOv2")


def finds_masks(config):
    """Whether the detector of `config` finds masks: its training needs polygons in the annotations.

    Architectures that may have masks or not (PP-YOLOE-seg, Mask-RT-DETR) are told by what their readers do.
    """
    name = config.get("architecture")
    if name == "CascadeRCNN":
        return bool((config.get(name) or {}).get("mask_head"))
    transforms = (config.get("TrainReader") or {}).get("sample_transforms") or []
    by_name = name in ("MaskRCNN", "QueryInst", "SOLO", "SOLOv2")
    return by_name or any("Poly2Mask" in each for each in transforms)

"""Short keys for a data set of the user's own, expanded into ppdet's three data set sections."""

import json
import os

from ppkd.errors import UserError
from ppkd.yaml_io import Tagged

KEYS = ("dataset_dir", "train_images", "train_annotations", "val_images", "val_annotations", "allow_empty")


def expand_own_data(config):
    """Expand ``dataset_dir``, ``train_images``, ``train_annotations``, ``val_images``, ``val_annotations`` in place.

    Each key that is present fills the matching field of TrainDataset, EvalDataset and TestDataset (COCO format);
    ``allow_empty`` says whether images without a box are kept (default true).
    ``num_classes: auto`` becomes the number of categories in the training annotations.

    Raises:
        UserError: ``num_classes: auto`` and the annotation file is missing or broken.
    """
    train = _section(config, "TrainDataset", "COCODataSet", "train")
    _section(config, "EvalDataset", "COCODataSet", "val")
    test = _section(config, "TestDataset", "ImageFolder", "val")
    if test is not None:
        test.pop("image_dir", None)
    if config.get("num_classes") == "auto":
        if train is None:
            raise UserError("num_classes: auto needs the keys dataset_dir and train_annotations to count categories")
        path = os.path.join(str(train.get("dataset_dir") or ""), str(train["anno_path"]))
        config["num_classes"] = len(read_categories(path))
    for key in KEYS:
        config.pop(key, None)


def _section(config, name, tag, split):
    values = {
        "dataset_dir": config.get("dataset_dir"),
        "image_dir": config.get(f"{split}_images"),
        "anno_path": config.get(f"{split}_annotations"),
    }
    values = {k: v for k, v in values.items() if v is not None}
    if not values:
        return None
    section = config.get(name)
    if not isinstance(section, dict):
        section = config[name] = Tagged(tag)
        if tag == "COCODataSet":
            # Readers for evaluation stack what they are given; boxes of unequal number do not stack.
            section["data_fields"] = ["image", "gt_bbox", "gt_class", "is_crowd"] if split == "train" else ["image"]
            section["allow_empty"] = bool(config.get("allow_empty", True))
    section.update(values)
    return section


def read_categories(path):
    """Category names of a COCO annotation file, in the order of their ids.

    Raises:
        UserError: the file is missing, is not JSON, or has no categories.
    """
    try:
        with open(path, encoding="utf-8") as file:
            categories = json.load(file)["categories"]
        return [str(c["name"]) for c in sorted(categories, key=lambda c: c["id"])]
    except FileNotFoundError:
        raise UserError(
            f"{path}: no such annotation file. Set dataset_dir and train_annotations, for example "
            "-o dataset_dir=/data/mine train_annotations=train.json"
        ) from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not a COCO annotation file: {type(error).__name__}: {error}") from None

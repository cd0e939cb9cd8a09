"""Checks and opens ppdet's data sets, with one clear message where something is missing."""

import os

from ppkd.errors import UserError
from ppkd.workspace import create

_HOW = (
    "Put it there, or point elsewhere with -o {section}.dataset_dir=... {section}.image_dir=... "
    "{section}.anno_path=... (docs/own_data.md)"
)


def open_dataset(section, config):
    """Create and parse the data set of `section` in the current scope.

    Args:
        section: ``TrainDataset`` or ``EvalDataset``.
        config: the run's config.

    Returns:
        A parsed ppdet data set.

    Raises:
        UserError: folder or annotation file missing, annotation file broken, no image found.
    """
    check_files(section, config)
    dataset = create(section)()
    path = dataset.get_anno()
    try:
        dataset.parse_dataset()
    except (ValueError, KeyError, TypeError, AssertionError, IndexError) as error:
        raise UserError(
            f"{section}: the annotation file {path} is broken or of another format: {type(error).__name__}: {error}"
        ) from error
    if not len(dataset.roidbs):
        raise UserError(f"{section}: no image of {path} was found under {dataset.dataset_dir}/{dataset.image_dir}")
    return dataset


def check_files(section, config):
    """Check that the folder and the annotation file of a data set section exist.

    ppdet would start to download COCO (20 GB) instead.

    Raises:
        UserError: something is missing; says what, where it was looked for, and how to set it.
    """
    given = config.get(section)
    if not isinstance(given, dict):
        raise UserError(f"the config has no {section}; a _BASE_ such as configs/datasets/coco_detection.yml gives one")
    folder = os.path.expanduser(str(given.get("dataset_dir") or "."))
    wanted = {"data set folder": folder}
    if given.get("anno_path"):
        wanted["annotation file"] = os.path.join(folder, str(given["anno_path"]))
    if given.get("image_dir"):
        wanted["image folder"] = os.path.join(folder, str(given["image_dir"]))
    for what, path in wanted.items():
        if not os.path.exists(path):
            raise UserError(
                f"{section}: no {what} at {path} (that is {os.path.abspath(path)}). " + _HOW.format(section=section)
            )

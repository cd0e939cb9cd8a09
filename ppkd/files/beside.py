"""The config that goes with weights of MMDetection, kept beside them: ``model.config.yml``."""

import os

from ppkd.errors import UserError
from ppkd.files import mmdet
from ppkd.files.class_names import write_names
from ppkd.files.mmdet_heads import unlike
from ppkd.files.mmdet_settings import apply, settings
from ppkd.files.tensor_files import SUFFIXES
from ppkd.files.write import write_text
from ppkd.files.yaml_io import dump, merge
from ppkd.terminal.log import logger

SUFFIX = ".config.yml"
_HEAD = (
    "# The detector whose weights are {weights}, as MMDetection had it: made from a config of ppkd and from what the\n"
    "# checkpoint tells. Images are red, green, blue: weights that took blue first are turned round.\n"
)


def config_beside(weights):
    """The path of the config of a weight file: the same without its ending, and `SUFFIX`."""
    stem, ending = os.path.splitext(weights)
    return (stem if ending in SUFFIXES else weights) + SUFFIX


def adapt(config, state, told, given=None):
    """Let a config say what weights of MMDetection need; each change goes to the log.

    Args:
        config: a ppdet config; it is changed.
        state: MMDetection's name -> array.
        told: `mmdet_settings.Told`.
        given: what ``-o`` says, which wins.

    Raises:
        UserError: a config of another architecture, or something in the tensors is not as it is there.
    """
    mmdet.check_kind(state, str(config.get("architecture")))
    kind = mmdet.architecture_of(state)
    try:
        changes = apply(config, kind, settings(kind, state, told), told)
    except (KeyError, IndexError, ValueError, ZeroDivisionError) as error:
        raise UserError(f"{mmdet.describe(state)} without what such a detector has: {error}") from None
    merge(config, {key: value for key, value in (given or {}).items() if key in config})
    for line in changes:
        logger().info("by the checkpoint: %s", line)
    for line in unlike(told, kind):
        logger().warning("by the text of its config %s: nothing here does so, and its numbers will be others", line)
    if kind != "YOLOX" and not told.style_is_known:
        logger().warning(
            "the checkpoint does not tell the style of its ResNet: taken as MMDetection's pytorch style, images red "
            "first; one of style caffe has the word in its file's name"
        )


def write_beside(weights, config, told):
    """Write the config, and the names of the classes if the checkpoint has them, beside a weight file.

    Raises:
        UserError: the disk is full or the folder is not writable.
    """
    path = config_beside(weights)
    own = {**config, "weights": weights, "pretrain_weights": None}
    write_text(path, _HEAD.format(weights=os.path.basename(weights)) + dump(own))
    if told.classes and len(told.classes) == config.get("num_classes", 80):
        write_names(weights, told.classes)
    logger().info("its config is %s: for -c, or as the _BASE_ of a slim file", path)

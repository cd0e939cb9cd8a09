"""Weights of PyTorch's files where a config names them: converted once, into the cache, and read from there."""

import hashlib
import json
import os

from ppkd.errors import UserError
from ppkd.files import locate, mmdet
from ppkd.files.beside import write_beside
from ppkd.files.download import sha256
from ppkd.files.foreign import look, take_weights
from ppkd.files.mmdet_settings import settings
from ppkd.files.tensor_files import write_tensors
from ppkd.files.write import make_folder, replacing
from ppkd.terminal.log import logger

# What of a config nothing but its keys says, and ppdet's defaults of it.
_SAID = {
    "ResNet": {"variant": "b", "groups": 1, "base_width": 64, "dcn_v2_stages": [-1]},
    "FPN": {"use_c5": True, "relu_before_extra_convs": True, "norm_type": None},
}
# Of the conversion: what was converted by another one is not taken from the cache.
_VERSION = 2
# So far means of the same images may lie apart.
_PIXELS = 2.0


def converted(path, model, what, config=None):
    """The path of ppdet's weights of a file that PyTorch saved.

    They lie in the cache, under a name that is of the file's content and of the model: another file is converted anew.

    Args:
        path: the local file.
        model: the ppdet model that they are for; not all of it has to fit.
        what: for messages, for example ``teacher weights``.
        config: the model's, or None; then what it says is checked, and it is written beside the weights.

    Raises:
        UserError: the file is none that is known, of another architecture or depth, or the config does not go with it;
            or the cache cannot be written.
    """
    stem = os.path.splitext(os.path.basename(path))[0]
    name = f"{stem}-{sha256(path)[:16]}-{_fingerprint(model, config)}.pdparams"
    target = os.path.join(locate.CACHE, "converted", name)
    if os.path.isfile(target):
        logger().info("%s: %s, converted before", what, target)
        return target
    try:
        found = look(path) if config is not None else None
        if found is not None:
            check_config(config, *found)
        arrays = take_weights(path, model, whole=False)
    except UserError as error:
        raise UserError(f"{what}: {error}") from None
    make_folder(os.path.dirname(target))
    with replacing(target, "") as temporary:
        write_tensors(temporary, arrays, ".pdparams")
    if found is not None:
        write_beside(target, config, found[1])
    logger().info("%s: converted into %s", what, target)
    return target


def check_config(config, state, told):
    """Refuse a config under which weights of MMDetection would give other numbers than they gave there.

    Raises:
        UserError: names the key, what it says and what it has to say.
    """
    kind = mmdet.architecture_of(state)
    mmdet.check_kind(state, str(config.get("architecture")))
    try:
        wanted = settings(kind, state, told)
    except (KeyError, IndexError, ValueError, ZeroDivisionError) as error:
        raise UserError(f"{mmdet.describe(state)} without what such a detector has: {error}") from None
    for section, defaults in _SAID.items():
        given = {**defaults, **(config.get(section) or {})}
        for key, value in wanted.get(section, {}).items():
            own = given.get(key)
            own = [own] if key == "dcn_v2_stages" and isinstance(own, int) else own
            if key in defaults and own != value:
                raise UserError(f"{mmdet.describe(state)}: its config needs {section}.{key}={value}, and has {own}")
    if kind != "YOLOX" and (told.text or told.style_is_known):
        _check_normalisation(config, told.normalisation(kind))


def _check_normalisation(config, wanted):
    reader = config.get("TrainReader") or {}
    steps = [*(reader.get("sample_transforms") or []), *(reader.get("batch_transforms") or [])]
    given = next((step["NormalizeImage"] or {} for step in steps if "NormalizeImage" in step), None)
    if given is None:
        return
    scale = 255.0 if given.get("is_scale", True) else 1.0
    for key, values, default in zip(("mean", "std"), wanted, ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])):
        own = [x * scale for x in given.get(key, default)]
        # Detectron's means are written with and without their last digits.
        if any(abs(x - y) > _PIXELS for x, y in zip(own, values)):
            need = f"{{is_scale: false, mean: {list(wanted[0])}, std: {list(wanted[1])}}}"
            raise UserError(f"it takes images of another normalisation: the readers' NormalizeImage has to be {need}")


def _fingerprint(model, config):
    """Ten digits of what a conversion depends on."""
    shapes = [(name, list(value.shape)) for name, value in model.state_dict().items()]
    said = {key: config.get(key) for key in (*_SAID, "TrainReader")} if config is not None else None
    return hashlib.sha256(json.dumps([_VERSION, shapes, said], default=str).encode()).hexdigest()[:10]

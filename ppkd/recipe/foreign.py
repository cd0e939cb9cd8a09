"""Teachers that are no detectors of ppdet: ``teacher: {vit: dinov3-vitb16, pretrain_weights: FILE}``.

Each becomes a config like any other teacher's, so that records, doctor and report need not know of it.
"""

from dataclasses import asdict

from ppkd.errors import UserError
from ppkd.files.yaml_io import clone
from ppkd.models.vit.variants import variant_of

# The key that says which kind of teacher it is.
VIT = "vit"
KINDS = (VIT,)
_ARCHITECTURE = "ViTTeacher"
# What the published transformers saw: pixels from 0 to 1, normalised by ImageNet's mean and deviation.
_READER = {
    "sample_transforms": [
        {"NormalizeImage": {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "is_scale": True}}
    ]
}


def foreign_config(entry, where):
    """The config of such a teacher.

    Args:
        entry: the teacher's keys, with `VIT` among them.
        where: file and key, for messages.

    Raises:
        UserError: no such transformer.
    """
    if "config" in entry:
        raise UserError(f"{where}: a teacher has config or {VIT}, not both")
    variant = variant_of(entry[VIT], f"{where}.{VIT}")
    return {"architecture": _ARCHITECTURE, _ARCHITECTURE: {"variant": asdict(variant)}, "TestReader": clone(_READER)}


def detects(config):
    """Whether a teacher's config is a detector's."""
    return config["architecture"] != _ARCHITECTURE


def multiple_of(config):
    """What sides of images have to be a multiple of for a teacher that is no detector; None for any other."""
    if detects(config):
        return None
    return variant_of(config[_ARCHITECTURE]["variant"], _ARCHITECTURE).patch

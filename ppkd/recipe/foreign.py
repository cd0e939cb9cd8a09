"""Teachers that are no detectors of ppdet: ``{vit: dinov3-vitb16, pretrain_weights: FILE}`` or ``{onnx: FILE}``,
with ``detections:`` a detector of another framework.

Each becomes a config like any other teacher's, so that records, doctor and report need not know of it.
"""

from dataclasses import asdict

from ppkd.errors import UserError
from ppkd.files.yaml_io import clone
from ppkd.models.onnx.contents import image_size
from ppkd.models.onnx.layouts import read_layout
from ppkd.models.onnx.session import MEMORY as DEFAULT_MEMORY
from ppkd.models.vit.variants import variant_of
from ppkd.recipe.keys import is_number

# The keys that say which kind of teacher it is.
VIT, ONNX = "vit", "onnx"
KINDS = (VIT, ONNX)
_ARCHITECTURES = {VIT: "ViTTeacher", ONNX: "ONNXTeacher"}
DETECTOR = "ONNXDetector"
# Sides of images for a detector that takes any, and the grey around one that keeps its shape.
_SIZE, _GREY = 640, [114.0, 114.0, 114.0]
# How an ONNX file wants its images; by default pixels from 0 to 1.
NORMALISATION = ("mean", "std", "is_scale")
# The gigabytes that it may take.
MEMORY = "memory"
# The order of its images' colours, and how detections lie in its outputs.
BGR, DETECTIONS = "bgr", "detections"
# All that goes with such a file and with no other teacher.
OF_ONNX = (*NORMALISATION, MEMORY, BGR, DETECTIONS)
# What the published transformers saw: pixels from 0 to 1, normalised by ImageNet's mean and deviation.
_READER = {
    "sample_transforms": [
        {"NormalizeImage": {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "is_scale": True}}
    ]
}


def foreign_config(entry, where):
    """The config of such a teacher.

    Args:
        entry: the teacher's keys, with one of `KINDS` among them.
        where: file and key, for messages.

    Raises:
        UserError: no such transformer, keys that do not go together, or a normalisation that is none.
    """
    kinds = [key for key in ("config", *KINDS) if key in entry]
    if len(kinds) > 1:
        raise UserError(f"{where}: a teacher has {kinds[0]} or {kinds[1]}, not both")
    kind = kinds[0]
    if kind == VIT:
        own, reader = {"variant": asdict(variant_of(entry[VIT], f"{where}.{VIT}"))}, clone(_READER)
    else:
        own, reader = _of_onnx(entry, where), _reader(entry, where)
    name = DETECTOR if DETECTIONS in own else _ARCHITECTURES[kind]
    # As weights the file is in what a run is known by, so that another at its place is another teacher.
    made = {"architecture": name, name: own, "TestReader": reader, "pretrain_weights": own.get("file")}
    return made | ({"EvalReader": _eval_reader(own, reader)} if name == DETECTOR else {})


def _of_onnx(entry, where):
    memory = entry.get(MEMORY, DEFAULT_MEMORY)
    if not is_number(memory) or memory <= 0:
        raise UserError(f"{where}.{MEMORY} has to be a number of gigabytes above 0, found {memory!r}")
    own = {"file": _file(entry, where), MEMORY: float(memory), BGR: entry.get(BGR, False)}
    if not isinstance(own[BGR], bool):
        raise UserError(f"{where}.{BGR} has to be true or false, found {own[BGR]!r}")
    if DETECTIONS in entry:
        own[DETECTIONS] = read_layout(entry[DETECTIONS], f"{where}.{DETECTIONS}")
    return own


def _file(entry, where):
    if not isinstance(entry[ONNX], str) or "pretrain_weights" in entry:
        told = f"has to be the path of a file, which has its weights in it (no pretrain_weights); found {entry[ONNX]!r}"
        raise UserError(f"{where}.{ONNX} {told}")
    return entry[ONNX]


def _reader(entry, where):
    given = {key: entry[key] for key in NORMALISATION if key in entry}
    for key, value in given.items():
        three = isinstance(value, list) and len(value) == 3 and all(is_number(x) for x in value)
        if not (isinstance(value, bool) if key == "is_scale" else three and (key == "mean" or min(value) > 0)):
            kinds = "mean and std have three numbers, is_scale is true or false"
            raise UserError(f"{where}.{key}: {value!r} is none: {kinds}")
    given = {"mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0], "is_scale": True} | clone(given)
    return {"sample_transforms": [{"NormalizeImage": given}]}


def _eval_reader(own, reader):
    """How images become those of a detector: of its size, in its normalisation."""
    options = own[DETECTIONS]
    size = options["size"] or [side or _SIZE for side in image_size(own["file"]) or (None, None)]
    resize = {"Resize": {"target_size": list(size), "keep_ratio": options["keep_ratio"], "interp": 2}}
    pad = [{"Pad": {"size": list(size), "fill_value": _GREY}}] if options["keep_ratio"] else []
    steps = [{"Decode": {}}, resize, *pad, *clone(reader["sample_transforms"]), {"Permute": {}}]
    return {"sample_transforms": steps, "batch_size": 1}


def teach_names(config, names):
    """Tell a detector given as ONNX what the classes of the data set are called; another teacher is left as it is.

    Args:
        config: of the teacher, changed in place.
        names: list, or None where nothing says them.
    """
    if config["architecture"] == DETECTOR:
        config[DETECTOR]["classes"] = names
        config["num_classes"] = len(names or ())


def detects(config):
    """Whether a teacher's config is a detector's."""
    return config["architecture"] not in _ARCHITECTURES.values()


def multiple_of(config):
    """What sides of images have to be a multiple of for a vision transformer; None for any other teacher."""
    name = _ARCHITECTURES[VIT]
    return variant_of(config[name]["variant"], name).patch if config["architecture"] == name else None

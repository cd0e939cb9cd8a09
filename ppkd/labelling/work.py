"""Detects on photographs, part by part; each part that is done is kept, so that a run that was killed goes on."""

import contextlib
import hashlib
import io
import json
import os
import tempfile

from ppkd.bridge.bad_images import BadImages
from ppkd.bridge.images import BadImage, decode
from ppkd.bridge.weights import load_exactly
from ppkd.bridge.workspace import build_detector, scope
from ppkd.files.regular import open_file
from ppkd.files.write import write_text
from ppkd.files.yaml_io import Tagged
from ppkd.study.detections import key_of, run_detector
from ppkd.terminal.log import logger

# Images of a part: what a killed run loses at most.
PART = 64


def detect_all(teacher, photographs, folder):
    """What a teacher finds on photographs.

    Args:
        teacher: `teacher.Teacher`.
        photographs: `unlabelled.Photographs`.
        folder: for the parts that are done; one of another teacher, or of images that have changed, is made anew.

    Returns:
        ``(images, bad)``: a list of ``{"name", "width", "height", "results"}``, results being COCO's with the ids of
        the teacher's categories; and a mapping from the names of images that cannot be read to the reason.
    """
    base = key_of(teacher.config, teacher.weights, teacher.annotations)
    model, images, bad, total = None, [], {}, len(photographs.names)
    parts = [photographs.names[i : i + PART] for i in range(0, total, PART)]
    for number, names in enumerate(parts, 1):
        path = os.path.join(folder, f"part_{_key(base, photographs.folder, names)}.json")
        made = _read(path)
        if made is None:
            if model is None:
                model = build_detector(teacher.config)
                load_exactly(model, teacher.weights, "weights", teacher.config.get("num_classes"), "--teacher")
            made = _detect(model, teacher, photographs.folder, names)
            write_text(path, json.dumps(made))
            logger().info("detected on %d of %d images", min(number * PART, total), total)
        images += made["images"]
        bad |= made["bad"]
    return images, bad


def _key(base, folder, names):
    """What tells a part from one of other images, or of another teacher."""
    found = hashlib.sha256(base.encode())
    for name in names:
        with contextlib.suppress(OSError, ValueError):  # of a name that no file can have
            about = os.stat(os.path.join(folder, name))
            found.update(f"\0{name}\0{about.st_size}\0{about.st_mtime_ns}".encode("utf-8", "surrogateescape"))
    return found.hexdigest()[:24]


def _read(path):
    try:
        with open_file(path, encoding="utf-8") as file:
            return json.load(file)
    except (OSError, ValueError):
        return None


def _detect(model, teacher, folder, names):
    images, bad = {}, {}
    for number, name in enumerate(names, 1):
        try:
            height, width = decode(os.path.join(folder, name)).shape[:2]
        except BadImage as error:
            bad[name] = error.reason
            logger().warning("left out: %s: %s", error.file, error.reason)
            continue
        images[number] = {"name": name, "width": width, "height": height, "results": []}
    if images:
        size = ("width", "height")
        entries = [{"id": n, "file_name": i["name"], **{k: i[k] for k in size}} for n, i in images.items()]
        counter = BadImages(teacher.config, "unlabelled", ends=False)
        with tempfile.TemporaryDirectory() as scratch:
            listed = os.path.join(scratch, "images.json")
            write_text(listed, json.dumps({"images": entries, "annotations": [], "categories": teacher.categories}))
            place = {"dataset_dir": os.path.abspath(folder), "image_dir": "", "anno_path": listed}
            section = Tagged("COCODataSet", place | {"data_fields": ["image"], "allow_empty": True})
            # A folder that the user names may be full of links; lists were looked at before.
            more = {"EvalDataset": section, "save_prediction_only": True, "allow_outside": True}
            with scope(teacher.config | more) as table, contextlib.redirect_stdout(io.StringIO()):
                _, results = run_detector(model, table, counter)
        called = {os.path.abspath(os.path.join(folder, image["name"])): image["name"] for image in images.values()}
        for file, reason in counter.found.items():  # what decodes and cannot be transformed
            name = called[os.path.abspath(file)]
            bad[name] = reason
            images = {number: image for number, image in images.items() if image["name"] != name}
        for result in results:
            image = images[result["image_id"]]
            box = _inside(result["bbox"], image["width"], image["height"])
            if box is not None:
                image["results"].append({"category_id": result["category_id"], "bbox": box, "score": result["score"]})
    return {"images": list(images.values()), "bad": bad}


def _inside(box, width, height):
    """The part of a box (x, y, width, height in pixels) that is in the image, as people draw one; None without any.

    Detectors of one stage go on beyond the edge where an object is cut off.
    """
    x, y, w, h = box
    left, top = max(x, 0), max(y, 0)
    w, h = min(x + w, width) - left, min(y + h, height) - top
    return [left, top, w, h] if w > 0 and h > 0 else None

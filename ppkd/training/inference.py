"""Detects objects in image files and draws them, picture by picture: a bad file costs nothing but itself."""

import contextlib
import glob
import io
import json
import os
from dataclasses import dataclass
from functools import partial

import numpy as np
import paddle
from PIL import Image

from ppkd.bridge.bad_images import Checked
from ppkd.bridge.images import ENDINGS, BadImage, decode
from ppkd.bridge.ppdet_results import categories_of, drawn, entries_of
from ppkd.bridge.ppdet_trainer import metrics_of_detections, trainer_of
from ppkd.bridge.sizes import TEST_SIZE, fitting, follow_images, reader_size
from ppkd.bridge.workspace import built_from_config, create
from ppkd.detectors.found import check_post_process
from ppkd.errors import UserError
from ppkd.files.write import alone, filling, make_folder, write_bytes, write_text
from ppkd.terminal.log import hushed, logger
from ppkd.terminal.progress import follow
from ppkd.training.drawing import draw_boxes
from ppkd.training.evaluation import count_parameters

_NAMED = 4


def find_images(images, folder):
    """Paths of the images that ``--infer_img`` (one or several) or ``--infer_dir`` names.

    Raises:
        UserError: neither is given, or nothing is found.
    """
    if images:
        images = [images] if isinstance(images, str) else list(images)
        for image in images:
            if os.path.isdir(image):
                raise UserError(f"--infer_img {image}: is a folder; --infer_dir takes it")
            if not os.path.lexists(image):
                raise UserError(f"--infer_img {image}: no such file")
        return images
    if not folder:
        raise UserError("give --infer_img FILE or --infer_dir FOLDER")
    if not os.path.isdir(folder):
        raise UserError(f"--infer_dir {folder}: no such folder")
    try:
        names = [name for name in sorted(os.listdir(folder)) if name[0] != "."]
    except OSError as error:
        raise UserError(f"--infer_dir {folder}: cannot be read: {error.strerror}") from None
    # A link that leads to itself is, as one that leads nowhere, an image that cannot be read.
    folders = [name for name in names if os.path.isdir(os.path.join(folder, name))]
    files = [name for name in names if name not in folders]
    found = [os.path.join(folder, name) for name in files if name.lower().endswith(ENDINGS)]
    others = [name for name in files if not name.lower().endswith(ENDINGS)]
    if not found:
        below = f"; {_named(folders)} below it are not looked into" if folders else ""
        raise UserError(f"--infer_dir {folder}: no image in it ({', '.join(ENDINGS)}){below}")
    if folders:
        logger().warning("--infer_dir %s: folders in it are not looked into: %s", folder, _named(folders))
    if others:
        logger().warning("--infer_dir %s: left out, for their endings are no image's: %s", folder, _named(others))
    return found


@dataclass(frozen=True)
class Detection:
    """An object that was found in an image.

    Attributes:
        name: of its class.
        category: id of its class, as ``bbox.json`` has it: the data set's where there is one, else the number from 0.
        score: 0 to 1.
        box: ``(x1, y1, x2, y2)`` in pixels of the image; None for a detector that finds masks alone.
    """

    name: str
    category: int
    score: float
    box: tuple | None


def infer(
    model, table, images, threshold, output_dir, save_results=False, visualize=True, tell=lambda path, found: None
):
    """Detect objects in images and draw them on the pixels that the detector saw.

    Args:
        model: a ppdet detector; afterwards in eval mode.
        table: ppdet's global config as `workspace.scope` yielded it.
        images: paths.
        threshold: scores below it are not drawn.
        output_dir: folder for the pictures, which keep their files' names, and for ``bbox.json`` and the like.
        save_results: write ppdet's result files; an image's id in them is its place among `images`, from 0.
        visualize: draw.
        tell: is called with the path of each image and its list of `Detection`, the best first, whatever their score.

    Returns:
        ``{path: reason}`` of the images that cannot be read or drawn.
    """
    check_post_process(model)
    settings = table.copy()
    settings["model"] = model
    settings["use_ema"] = settings["amp"] = False  # as for `evaluation.evaluate`
    count_parameters(model, settings)
    with built_from_config("TestDataset"), hushed():
        engine = trainer_of(settings, "test")
        categories, names = categories_of(engine)
    drawn_to = output_dir if visualize else None
    if save_results or visualize:
        make_folder(output_dir)
    if not save_results:
        with alone(output_dir) if visualize else contextlib.nullcontext():
            return _detect(model, engine, images, threshold, drawn_to, (categories, names), [], tell)
    with filling(output_dir) as folder:  # ppdet writes results itself
        with hushed():
            metrics = metrics_of_detections(engine, images, folder)
        bad = _detect(model, engine, images, threshold, drawn_to, (categories, names), metrics, tell)
        for metric in metrics:
            metric.accumulate()
        _name(folder, images, names)
    return bad


def _name(folder, images, names):
    """Write file and class beside the numbers that ppdet writes into its results."""
    for path in glob.glob(os.path.join(glob.escape(folder), "*.json")):
        with open(path, encoding="utf-8") as file:
            entries = json.load(file)
        for entry in entries:
            entry["file_name"] = os.path.basename(images[entry["image_id"]])
            entry["category"] = str(names.get(entry["category_id"], entry["category_id"]))
        write_text(path, json.dumps(entries))


def _detect(model, engine, images, threshold, output_dir, classes, metrics, tell):
    categories, names = classes
    reader, bad = create("TestReader"), {}
    transforms = Checked(reader._sample_transforms)
    model.eval()
    follow_images(model)
    size = reader_size(engine.cfg, "TestReader")
    for number, path in enumerate(follow(images, "detecting", len(images))):
        try:
            sample = transforms({"im_id": np.array([number]), "im_file": path, "curr_iter": number})
            batch = {k: paddle.to_tensor(v) for k, v in reader._batch_transforms([sample]).items()}
            with paddle.no_grad(), fitting(size, TEST_SIZE, partial(_size_of, batch)):
                found = model(batch)
            for metric in metrics:
                metric.update(batch, found)
            found = {k: v.numpy() if hasattr(v, "numpy") else v for k, v in found.items()}
            found["im_id"] = batch["im_id"].numpy()
            found = entries_of(found, categories)
            tell(path, _detections(found, names))
            if output_dir:
                picture = _draw(path, found, number, names, threshold, engine)
                _save(picture, os.path.join(output_dir, os.path.basename(path)), path)
        except BadImage as error:
            bad[path] = error.reason
            logger().warning("left out: %s: %s", path, error.reason)
    return bad


def _size_of(batch):
    """Height and width of a batch's images."""
    return tuple(batch["image"].shape[2:])


def _detections(found, names):
    entries = next((found[kind] for kind in ("bbox", "segm", "mask") if found.get(kind)), [])
    made = []
    for entry in entries:
        category, box = entry["category_id"], None
        if "bbox" in entry:
            x, y, width, height = map(float, entry["bbox"])
            box = (x, y, x + width, y + height)
        made.append(Detection(str(names.get(category, category)), category, float(entry["score"]), box))
    return sorted(made, key=lambda detection: -detection.score)


def in_words(found, threshold):
    """One line about an image.

    Args:
        found: list of `Detection`, the best first.
        threshold: scores below it do not count.
    """
    counted = {}
    for detection in found:
        if detection.score >= threshold:
            counted.setdefault(detection.name, []).append(detection.score)
    if not counted:
        best = f"; the best score is {score_text(found[0].score)} ({found[0].name})" if found else ""
        return f"nothing from a score of {threshold:g} on{best}"
    return ", ".join(f"{len(scores)} {name} ({_scores(scores)})" for name, scores in counted.items())


def score_text(score):
    """A score in two digits, or in the first that is not 0."""
    return f"{score:.2f}" if score >= 0.01 else f"{score:.1g}"


def _scores(scores):
    shown = ", ".join(map(score_text, scores[:_NAMED]))
    return f"{shown}, ..." if len(scores) > _NAMED else shown


def _draw(path, found, number, names, threshold, engine):
    pixels = decode(path)[:, :, ::-1]
    picture = drawn(Image.fromarray(pixels), found, number, names, threshold)
    draw_boxes(picture, found.get("bbox") or (), names, threshold)
    if engine._compose_callback:  # VisualDL's
        engine.status.update(mode="test", original_image=pixels, result_image=np.array(picture))
        engine._compose_callback.on_step_end(engine.status)
    return picture


def _save(picture, target, path):
    data, ending = io.BytesIO(), os.path.splitext(target)[1].lower()
    try:
        picture.save(data, Image.registered_extensions().get(ending, ending), quality=95)
    except (KeyError, OSError, ValueError) as error:
        raise BadImage(path, f"cannot be written as {ending}: {error}") from error
    write_bytes(target, data.getvalue())


def _named(names):
    return ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")


def check_not_over(images, folder):
    """Check that no image is drawn over itself, or over the picture of another: results have their images' names."""
    named = {}
    for path in images:
        other = named.setdefault(os.path.basename(path), path)
        if os.path.realpath(other) != os.path.realpath(path):
            name = os.path.basename(path)
            raise UserError(f"{other} and {path} would both be drawn as {name} in {folder}; detect on them one by one")
        if os.path.realpath(os.path.join(folder, os.path.basename(path))) == os.path.realpath(path):
            raise UserError(f"--output_dir {folder}: {path} lies there and would be overwritten; give another folder")

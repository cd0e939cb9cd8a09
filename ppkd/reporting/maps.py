"""Where a distillation looks: FGD's masks and attention, CWD's channels as distributions over the image."""

import os
from dataclasses import dataclass

import numpy as np
import paddle
import paddle.nn.functional as F

from ppkd.bridge import images
from ppkd.losses.cwd import CWDLoss
from ppkd.losses.fgd import FGDLoss, attention_maps
from ppkd.losses.masks import box_masks
from ppkd.methods import plan
from ppkd.reporting.document import Gallery, Missing, Section, Text
from ppkd.reporting.examples import samples
from ppkd.reporting.features import Pair, batches
from ppkd.reporting.plots import photo
from ppkd.study.cells import draw_box

TITLE = "Maps"
_WIDTH = 2.1  # inches
_IMAGES = 2
_LEAD = (
    "What the losses compare, laid over the image: dark is little, bright is much, each map scaled to its own largest "
    "value. Before is the student as its training began, after is as it ended; both after their connectors, those that "
    "standardise seeing this image alone."
)


def section(material):
    """For two images and every level: masks and attention (FGD), or two channels (CWD)."""
    if material.best is None:
        command = "ppkd train -c STUDENT.yml --slim_config TEACHER.yml --eval"
        return Section(TITLE, _LEAD, [Missing("There is no run with a teacher.", command)])
    losses = {s.name: {term.loss["name"] for term in plan(s.run.recipe.method).terms} for s in material.of("distilled")}
    drawable = [s for s in material.of("distilled") if losses[s.name] & {"fgd", "cwd"}]
    if not drawable:
        used = ", ".join(sorted(set().union(*losses.values())))
        what = f"Attention, masks and channel maps are FGD's and CWD's; the losses here are {used}."
        return Section(TITLE, _LEAD, [Text(what)])
    subject = max(drawable, key=lambda s: s.stats["AP"])
    pair = Pair(subject)
    terms = [term for term in pair.model.terms if type(term.loss) in _DRAWN]
    ids = [sample["id"] for sample in samples(material)] or subject.found.images
    inputs = Inputs(material, subject, ids[:_IMAGES])
    before = _compared(pair, terms, inputs.batches)
    pair.finish(connectors=True)
    after = _compared(pair, terms, inputs.batches)
    blocks = []
    for index, picture in enumerate(inputs.pictures):
        objects = _objects(picture)
        for term, first, last in zip(terms, before, after):
            for what, found in _DRAWN[type(term.loss)](term, first, last, inputs, index):
                title = f"{picture.name}, {term.label}: {what}"
                shown = [objects, *(_picture(picture, title, name, values) for name, values in found)]
                blocks.append(Gallery(shown, title, 150))
    return Section(TITLE, f"{_LEAD} Student: {subject.name}.", blocks)


@dataclass
class Picture:
    """An image as it is shown: its name, pixels, which of them the whole input stands for, and its objects' boxes."""

    name: str
    pixels: object
    extent: tuple
    boxes: list


class Inputs:
    """Chosen images as batches of one, with their boxes in pixels of the network's input."""

    def __init__(self, material, subject, ids):
        config = subject.config | {"EvalReader": subject.config["EvalReader"] | {"batch_size": 1}}
        self.batches = list(batches(config, ids))
        self.boxes, self.pictures = [], []
        for number, batch in zip(ids, self.batches):
            scale = batch["scale_factor"].numpy()[0]  # height, width
            entries = [a for a in material.coco.imgToAnns[number] if not a.get("iscrowd")]
            corners = [_corners(entry["bbox"]) for entry in entries]
            scaled = [box * np.tile(scale[::-1], 2) for box in corners]
            self.boxes.append(paddle.to_tensor(np.array(scaled, "float32").reshape(1, -1, 4)))
            file = material.coco.imgs[number]["file_name"]
            height, width = batch["image"].shape[2:]
            extent = (0, width / scale[1], height / scale[0], 0)
            path = os.path.join(subject.found.image_dir, file)
            self.pictures.append(Picture(os.path.basename(file), _grey(path), extent, corners))


def _corners(box):
    x, y, width, height = box
    return np.array([x, y, x + width, y + height])


def _grey(path):
    return np.asarray(images.picture(path).convert("L"))


def _compared(pair, terms, inputs):
    """For each term, for each image, what its loss gets: student's and teacher's map."""
    found = []
    for term in terms:
        found.append([])
        for batch in inputs:
            student = pair.student(batch, [path for tap in term.taps(0) for path in tap.paths])
            teacher = pair.teacher(term.teacher, batch, [path for tap in term.taps(1) for path in tap.paths])
            with paddle.no_grad():
                found[-1].append(term.connected(*term.take(student, teacher), age=0))
    return found


def _of_fgd(term, before, after, inputs, index):
    """``[(what, [(name, map (H, W))])]``: mask and attention in one row."""
    student, teacher = before[index]
    size, batch = student.shape[2:], inputs.batches[index]
    boxes = inputs.boxes[index]
    frame = batch["im_shape"].astype("float32")
    if term.loss.box_frame == "padded":
        frame = paddle.to_tensor([[float(side) for side in batch["image"].shape[2:]]])
    foreground, _ = box_masks(boxes, paddle.ones(boxes.shape[:2]), frame, size)
    found = [("mask of the objects", foreground[0].numpy())]
    for name, feature in _sides(student, teacher, after[index][0]):
        attention, _ = attention_maps(feature.flatten(2), term.loss.temp)
        found.append((f"attention, {name}", attention.reshape(size).numpy()))
    return [("mask and attention", found)]


def _of_cwd(term, before, after, inputs, index):
    """The same: one row for the channel in which the teacher is surest of a place, one for that in the middle."""
    sides = _sides(before[index][0], before[index][1], after[index][0])
    spread = {name: _distributions(feature, term.loss.tau) for name, feature in sides}
    order = np.argsort(-spread["teacher"].max(axis=(1, 2)))
    chosen = {"the teacher's sharpest channel": order[0], "a channel of middling sharpness": order[len(order) // 2]}
    return [(what, [(name, found[c]) for name, found in spread.items()]) for what, c in chosen.items()]


def _sides(before, teacher, after):
    return [("teacher", teacher), ("student before", before), ("student after", after)]


def _distributions(feature, tau):
    """(C, H, W): each channel of the only image as a distribution over its positions."""
    flat = F.softmax(feature.flatten(2) / tau, axis=2)
    return flat.reshape(feature.shape)[0].numpy()


_DRAWN = {FGDLoss: _of_fgd, CWDLoss: _of_cwd}


def _objects(picture):
    def draw(axes):
        _show(axes, picture)
        for box in picture.boxes:
            draw_box(axes, "truth", box)

    height, width = picture.pixels.shape
    caption = f"{len(picture.boxes)} object{'' if len(picture.boxes) == 1 else 's'}"
    return photo(draw, f"{picture.name} in grey with its {caption}.", caption, (_WIDTH, _WIDTH * height / width))


def _show(axes, picture):
    height, width = picture.pixels.shape
    axes.imshow(picture.pixels, cmap="gray", extent=(0, width, height, 0), vmin=0, vmax=255)
    axes.set(xlim=(0, width), ylim=(height, 0))


def _picture(picture, title, name, found):
    height, width = picture.pixels.shape

    def draw(axes):
        _show(axes, picture)
        top = float(found.max())
        style = {"cmap": "cividis", "extent": picture.extent, "alpha": 0.65, "interpolation": "nearest"}
        axes.imshow(found, vmin=0, vmax=top if top > 0 else 1, **style)
        axes.set(xlim=(0, width), ylim=(height, 0))

    return photo(draw, f"{title}: {name}.", name, (_WIDTH, _WIDTH * height / width))

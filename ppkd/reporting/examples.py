"""Images with what the detectors found, those first on which distillation changed most."""

import os

from pycocotools import mask as masks

from ppkd.bridge.images import picture
from ppkd.reporting.document import Gallery, Legend, Missing, Section
from ppkd.reporting.plots import photo
from ppkd.study.cells import LEGEND, draw_cell
from ppkd.study.samples import match, pick_samples

COUNT = 6
_SCORE = 0.3
_WIDTH = 2.65  # inches


def section(material):
    """A row of pictures an image: objects, teacher, plain and distilled student."""
    chosen = samples(material)
    lead = (
        f"The images on which the plain and the distilled student differ most in how many objects they find (IoU 0.5, "
        f"score {_SCORE} or more), in either direction: where the plain one is better, that is shown too."
    )
    if not chosen:
        what = "Examples need a plain and a distilled student."
        return Section("Examples", lead, [Missing(what, "ppkd report PLAIN_RUN DISTILLED_RUN")])
    blocks = [Legend([("truth", "object"), *LEGEND])]
    for number, sample in enumerate(chosen, 1):
        names = ["truth", *sample["detections"]]
        title = f"{number}. {os.path.basename(sample['image'])}: {_outcome(sample)}"
        blocks.append(Gallery([_picture(material, sample, name) for name in names], title, 150))
    return Section("Examples", lead, blocks)


def samples(material):
    """What `samples.pick_samples` chooses; empty without a plain and a distilled student."""
    if material.plain is None or material.best is None:
        return []
    if "samples" not in material.built:
        subjects = {s.role: s for s in (material.teacher, material.plain, material.best) if s is not None}
        found = next(iter(subjects.values())).found
        results = {role: _boxes(subject.found.results) for role, subject in subjects.items()}
        material.built["samples"] = pick_samples(
            found.annotations, found.image_dir, results, COUNT, _SCORE, among=found.images
        )
    return material.built["samples"]


def _boxes(results):
    """Results with boxes, also those of a detector that finds masks alone."""
    return [r if "bbox" in r else r | {"bbox": masks.toBbox(r["segmentation"]).tolist()} for r in results]


def _outcome(sample):
    found = {role: sum(match(sample["truth"], boxes)[0]) for role, boxes in sample["detections"].items()}
    return f"{found['distilled']} of {len(sample['truth'])} found with distillation, {found['plain']} without"


def _picture(material, sample, name):
    image = picture(sample["image"])
    caption = []

    def draw(axes):
        caption.append(draw_cell(axes, image, sample, name, _WIDTH))

    called = "objects" if name == "truth" else _name(material, name)
    size = (_WIDTH, _WIDTH * image.height / image.width)
    made = photo(draw, "", "", size)
    made.caption = caption[0] if name == "truth" else f"{called}: {caption[0]}"
    made.alt = f"{os.path.basename(sample['image'])} with boxes of {called}: {caption[0]}."
    return made


def _name(material, role):
    return {"teacher": material.teacher, "plain": material.plain, "distilled": material.best}[role].name

"""What a student finds before its training: the first point of its curve, which is above 0 where it inherits."""

import os
import tempfile

from ppkd.build import build_model
from ppkd.files.tensor_files import write_tensors
from ppkd.study.coco_matches import Matches
from ppkd.study.detections import detect
from ppkd.training.seeds import seed_everything


def ap_before(subject, material):
    """AP of a student with the weights that its training began with, as a fraction.

    Its detections are kept beside the run, as all are.

    Args:
        subject: `material.Subject`.
        material: `material.Material` that it is of.

    Raises:
        UserError: what it began with is not there any more, or as `detections.detect`.
    """
    run = subject.run
    seed_everything(run.seed)
    model = build_model(run.recipe)
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "begin.pdparams")
        write_tensors(path, getattr(model, "student", model).state_dict())
        found = detect(subject.config, path, run.folder, f"{subject.name} before training", material.images)
    return Matches(material.coco, found.results, found.images, found.kind).stats()["AP"]

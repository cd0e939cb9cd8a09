"""What was run: seeds, steps, versions, and the recipe of every run in full."""

import os

from ppkd.bridge.annotation_file import read_annotations
from ppkd.bridge.host import versions
from ppkd.bridge.made_labels import made_labels
from ppkd.errors import UserError
from ppkd.reporting.document import Code, Missing, Section, Table
from ppkd.training.record import FILE


def section(material):
    """A table of the runs and their ``recipe.yml``."""
    now = versions()
    head = ["run", "kind", "method", "seed", "steps", *now]
    rows = []
    for run in material.runs:
        kind = "distilled" if run.distilled else "plain"
        steps = "-" if run.steps is None else str(run.steps)
        rows.append([run.label, kind, _method(run), str(run.seed), steps, *(run.versions.get(k, "-") for k in now)])
    rows.append(["this report", "", "", "", "", *now.values()])
    blocks = [Table(head, rows, "Runs and versions", plain=True)]
    weights = [[s.name, s.weights] for s in material.subjects]
    blocks.append(Table(["detector", "weights"], weights, "Weights", plain=True))
    unknown = [run.label for run in material.runs if not run.versions]
    if unknown:
        blocks.append(Missing(f"Versions were not recorded by {', '.join(unknown)}.", "ppkd train ..."))
    if labelled := [(run.label, told) for run in material.runs if (told := _made(run))]:
        blocks.append(Table(["run", "labels"], labelled, "Training labels that a teacher has made", plain=True))
    for run in material.runs:
        with open(os.path.join(run.folder, FILE), encoding="utf-8") as file:
            blocks.append(Code(f"{FILE} of {run.label}", file.read()))
    lead = "A run is repeated to the bit on one CPU process with the same recipe, data and versions."
    return Section("Recipe and versions", lead, blocks)


def _made(run):
    """What the run's training annotations say of labels that were made; None where they are people's, or gone."""
    section = run.recipe.student.get("TrainDataset") or {}
    path = os.path.join(str(section.get("dataset_dir") or ""), str(section.get("anno_path") or ""))
    try:
        return made_labels(read_annotations(path, ())) if path.endswith(".json") else None
    except UserError:
        return None


def _method(run):
    if not run.distilled:
        return "-"
    method = run.recipe.method
    file = os.path.basename(method.file)
    return file if method.name == "terms" else f"{method.name} ({file})"

"""AP of all detectors: overall, by size, by class, with what distillation changed."""

from ppkd.reporting.document import Missing, Section, Table
from ppkd.reporting.summary import percent

_HEADINGS = {
    "AP": "AP", "AP50": "AP50", "AP75": "AP75", "APs": "AP small", "APm": "AP medium", "APl": "AP large"
}  # fmt: skip
_PLAIN_COMMAND = "ppkd train -c STUDENT.yml --eval, then ppkd report with its output folder as one more RUN"
_DISTILLED_COMMAND = (
    "ppkd train -c STUDENT.yml --slim_config TEACHER.yml --eval, then its output folder as one more RUN"
)


def section(material):
    """Two tables: overall with sizes, and by class."""
    plain = material.plain
    rows = [[s.name, *(percent(s.stats[key]) for key in _HEADINGS)] for s in material.subjects]
    differences = []
    for subject in material.of("distilled") if plain else ():
        pairs = [(subject.stats[key], plain.stats[key]) for key in _HEADINGS]
        differences.append([f"{subject.short} − {plain.short}", *(difference(a, b) for a, b in pairs)])
    strong = tuple(range(len(rows), len(rows) + len(differences)))
    blocks = [Table(["detector", *_HEADINGS.values()], rows + differences, "Average precision (%)", strong)]
    for role, what, command in (
        ("teacher", "No teacher's weights are known to these runs", _DISTILLED_COMMAND),
        ("plain", "There is no run of the student alone, so there are no differences", _PLAIN_COMMAND),
        ("distilled", "There is no run with a teacher", _DISTILLED_COMMAND),
    ):
        if not material.of(role):
            blocks.append(Missing(f"{what}.", command))
    blocks.append(_by_class(material))
    lead = (
        "COCO's average precision, the mean over IoU thresholds from 0.50 to 0.95, computed by pycocotools from the "
        "detections of each image. Small objects are below 32², large ones above 96² pixels."
    )
    return Section("Accuracy", lead, blocks)


def _by_class(material):
    by_class = [subject.matches.by_class() for subject in material.subjects]
    plain, best = material.plain, material.best
    head = ["class", "objects", *(subject.name for subject in material.subjects)]
    counts = _objects(material)
    rows = []
    for index, name in enumerate(material.subjects[0].matches.classes):
        rows.append([name, str(counts.get(name, 0)), *(percent(values[index]) for values in by_class)])
    if plain is not None and best is not None:
        head.append("gain")
        before, after = (by_class[material.subjects.index(subject)] for subject in (plain, best))
        gains = [a - b if min(a, b) >= 0 else float("-inf") for a, b in zip(after, before)]
        for row, a, b in zip(rows, after, before):
            row.append(difference(a, b))
        rows = [rows[i] for i in sorted(range(len(rows)), key=lambda i: -gains[i])]
    caption = "AP by class (%)" + (", the largest gain first" if plain and best else "")
    return Table(head, rows, caption)


def _objects(material):
    wanted, counts = set(material.subjects[0].found.images), {}
    for entry in material.coco.dataset["annotations"]:
        if entry["image_id"] in wanted and not entry.get("iscrowd"):
            name = material.coco.cats[entry["category_id"]]["name"]
            counts[name] = counts.get(name, 0) + 1
    return counts


def difference(after, before):
    """A difference of AP as text in points, or a dash where one of the two does not exist."""
    return f"{100 * (after - before):+.1f}" if min(after, before) >= 0 else "-"

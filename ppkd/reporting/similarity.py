"""How alike the features of student and teacher are, level by level, before and after training.

Linear centred kernel alignment: Kornblith et al., "Similarity of Neural Network Representations Revisited", ICML 2019
(arXiv 1905.00414), equation 3 and section 3.
"""

import numpy as np

from ppkd.bridge.weights import load_exactly
from ppkd.bridge.workspace import build_detector
from ppkd.detectors import detector_for
from ppkd.engine.pairing import match_levels
from ppkd.engine.sizes import match_size
from ppkd.recipe.plan import TermSpec
from ppkd.reporting.document import Gallery, Missing, Section, Table
from ppkd.reporting.features import Pair, batches, recorded
from ppkd.reporting.plots import HATCHES, legend_below, plot

_IMAGES = 64
TITLE = "Similarity of features"
_BEFORE = "before training"


class Alignment:
    """Linear CKA of two sets of features, added up batch by batch.

    With X (n, p) and Y (n, q), columns centred: ``|X'Y|^2 / (|X'X| |Y'Y|)`` in Frobenius norms. From 0 to 1; the same
    for any rotation and any common factor of either.
    """

    def __init__(self):
        self._sums = None
        self.rows = 0

    def add(self, x, y):
        """Add rows: arrays (n, p) and (n, q)."""
        x, y = np.asarray(x, "float64"), np.asarray(y, "float64")
        new = [x.sum(0), y.sum(0), x.T @ y, x.T @ x, y.T @ y]
        self._sums = new if self._sums is None else [a + b for a, b in zip(self._sums, new)]
        self.rows += len(x)

    def value(self):
        """The CKA so far; NaN where one side is constant."""
        sx, sy, xy, xx, yy = self._sums
        xy, xx, yy = (m - np.outer(a, b) / self.rows for m, a, b in ((xy, sx, sy), (xx, sx, sx), (yy, sy, sy)))
        below = np.linalg.norm(xx) * np.linalg.norm(yy)
        return float((xy**2).sum() / below) if below > 0 else float("nan")


def section(material):
    """A bar for every level and state of the student, and the numbers."""
    lead = (
        "Linear CKA between the student's and the teacher's maps, 1 for maps that agree but for rotation and scale, "
        "over all positions of some validation images. Before: the student as its training began, with whatever it "
        "inherited, built anew from recipe and seed; its batch norms have the statistics that they begin with."
    )
    best = material.best
    if best is None:
        command = "ppkd train -c STUDENT.yml --slim_config TEACHER.yml --eval"
        return Section(TITLE, lead, [Missing("There is no run with a teacher.", command)])
    values = _measure(material, best)
    levels = list(next(iter(values.values())))
    rows = [[state, *(f"{found.get(level, float('nan')):.3f}" for level in levels)] for state, found in values.items()]
    lead += f" Here {len(_images(best))} images; before training: {best.name}."
    plotted = Gallery([_plot(values, levels, material)], least=440)
    return Section(TITLE, lead, [plotted, Table(["student", *levels], rows, "Linear CKA with the teacher")])


def _images(subject):
    return subject.found.images[:_IMAGES]


def _measure(material, best):
    """State of a student -> ``{level: CKA}``."""
    pair = Pair(best)
    name = next(iter(pair.specs))
    source = _source(pair.model.student)
    found = {_BEFORE: _alignment(pair, name, pair.model.student, best.config, _images(best))}
    for subject in material.of("plain") + material.of("distilled"):
        model = build_detector(subject.config)
        load_exactly(model, subject.weights, subject.name)
        if _source(model) == source:
            found[subject.name] = _alignment(pair, name, model, subject.config, _images(best))
    return found


def _source(model):
    """What of a model is compared: the maps that its head gets, or its tokens."""
    known = detector_for(model).aliases()
    return next(source for source in ("neck[*]", "tokens[*]", "backbone[*]") if source.partition("[")[0] in known)


def _alignment(pair, name, student, config, ids):
    """``{level: CKA}`` of a student and the teacher `name`."""
    teacher = pair.model.teachers[name]
    spec = TermSpec("similarity", _source(student), _source(teacher), {})
    levels = match_levels(spec, detector_for(student), detector_for(teacher), pair.specs[name].input_scale)
    sums = [Alignment() for _ in levels]
    taps = [[pair_of[side][0].tap for pair_of in levels] for side in (0, 1)]
    for batch in batches(config, ids):
        ours = recorded(student, batch, [path for tap in taps[0] for path in tap.paths])
        theirs = pair.teacher(name, batch, [path for tap in taps[1] for path in tap.paths])
        for alignment, s, t in zip(sums, *taps):
            s, t = ours.take(s), theirs.take(t)
            alignment.add(_rows(s), _rows(match_size(s, t)))
    return {_called(pair_of[0][0]): alignment.value() for pair_of, alignment in zip(levels, sums)}


def _called(level):
    return f"stride {level.stride}" if level.stride else level.source


def _rows(feature):
    """(N, C, H, W) as (N H W, C)."""
    return feature.flatten(2).transpose([0, 2, 1]).reshape([-1, feature.shape[1]]).numpy()


def _plot(values, levels, material):
    colours = {_BEFORE: "#999999"} | {subject.name: subject.style[0] for subject in material.subjects}

    def draw(axes):
        width = 0.84 / len(values)
        for i, ((state, found), hatch) in enumerate(zip(values.items(), HATCHES)):
            x = np.arange(len(levels)) + (i - (len(values) - 1) / 2) * width
            heights = [found.get(level, np.nan) for level in levels]
            axes.bar(x, heights, width * 0.92, color=colours[state], hatch=hatch, edgecolor="white", label=state)
            for place, height in zip(x, heights) if len(values) < 4 else ():  # no room for more numbers
                axes.annotate(f"{height:.2f}", (place, height), fontsize=7, ha="center", va="bottom")
        axes.set(title="Student and teacher", ylabel="linear CKA", ylim=(0, 1.08), xlabel="level of the neck")
        axes.set_xticks(range(len(levels)), levels)
        axes.grid(axis="x", visible=False)
        legend_below(axes, 2)

    told = "; ".join(
        f"{state}: " + ", ".join(f"{level} {value:.2f}" for level, value in found.items())
        for state, found in values.items()
    )
    return plot(draw, f"Linear CKA of student and teacher by level. {told}.", size=(4.6, 3.5))

"""Precision over recall."""

import numpy as np

from ppkd.reporting.document import Gallery, Section
from ppkd.reporting.plots import legend_below, line, plot

# Title -> indices of COCO's ten IoU thresholds (0.50, 0.55, ... 0.95).
_PLOTS = {"IoU 0.50": [0], "IoU 0.75": [5], "mean over IoU 0.50 to 0.95": list(range(10))}


def section(material):
    """One plot for loose, strict and all IoU thresholds."""
    images = [_plot(material.subjects, title, thresholds) for title, thresholds in _PLOTS.items()]
    lead = (
        "Precision that is left when a detector is to find a given share of the objects, as the mean over all classes. "
        "The area below a curve is the AP at that IoU."
    )
    return Section("Precision and recall", lead, [Gallery(images)])


def _plot(subjects, title, thresholds):
    def draw(axes):
        for subject in subjects:
            found = subject.matches.precision[thresholds, :, :, 0, -1]
            there = (found > -1).all(axis=(0, 1))
            if there.any():
                line(axes, subject.matches.recalls, found[:, :, there].mean(axis=(0, 2)), subject.style, subject.name)
        axes.set(xlim=(0, 1), ylim=(0, 1.03), title=title, xlabel="recall (share of objects)", ylabel="precision")
        axes.set_xticks(np.linspace(0, 1, 6))
        legend_below(axes, 2)

    names = ", ".join(subject.name for subject in subjects)
    return plot(draw, f"Precision over recall at {title} of {names}.")

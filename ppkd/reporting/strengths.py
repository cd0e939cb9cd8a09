"""Every distillation term over time, as it entered the loss."""

from ppkd.reporting.document import Gallery, Missing, Section, Table
from ppkd.reporting.learning import detection_loss, term_names, terms_in
from ppkd.reporting.plots import STYLES, from_zero, legend_below, line, over, plot

_COMMAND = "ppkd train -c STUDENT.yml --slim_config TEACHER.yml --eval"


def section(material):
    """For each distilled student: all terms beside the detection loss, each by itself, and a table."""
    blocks = []
    for subject in material.of("distilled"):
        records = subject.run.of_kind("train")
        names = term_names(subject.run)
        series = {}
        for record in records:
            for key, value in terms_in(record, names).items():
                series.setdefault(key, []).append((record["step"], value))
        if not series:
            blocks.append(Missing(f"{subject.name}: its metrics.jsonl holds no distillation term.", _COMMAND))
            continue
        images = [_total(subject), *gradients(subject.run)]
        images += [_one(title, lines) for title, lines in _grouped(series, names).items()]
        blocks += [Gallery(images, subject.name if len(material.of("distilled")) > 1 else ""), _table(series)]
    if not blocks:
        blocks = [Missing("There is no run with a teacher.", _COMMAND)]
    lead = (
        "What each term added to the loss, weights included. A term that stays far above the detection loss drowns it; "
        "one that begins near 0 teaches nothing. The authors of FGD keep each between 0.1 and 2 at the start. Of "
        "gradients, where a term enters the student, the share is of the detection loss's; a cosine below 0 says that "
        "the term pulls against the labels."
    )
    return Section("Distillation terms", lead, blocks)


def _grouped(series, names):
    """Title of a plot -> ``{label of a line: points}``: one plot a term and part, its levels as lines."""
    plots = {}
    for key, points in series.items():
        name = next(n for n in sorted(names, key=len, reverse=True) if key == n or key.startswith(f"{n}."))
        rest = key[len(name) :].strip(".").split(".")
        level = next((part for part in rest if part[:1] in "sg" and part[1:2].isdigit()), "")
        parts = [part for part in rest if part and part != level]
        plots.setdefault(" ".join([name, *parts]), {})[_called(level)] = points
    return plots


def _called(level):
    """A level's tag in words."""
    if not level:
        return "all levels"
    return f"stride {level[1:]}" if level[0] == "s" else f"grid {level[1:]}"


def _one(title, lines):
    def draw(axes):
        for (label, points), style in zip(lines.items(), STYLES * len(lines)):
            line(axes, *zip(*points), style, label)
        axes.set(title=title, ylabel="loss, weighted")
        over(axes, "step", _last(lines))
        from_zero(axes)
        if len(lines) > 1:
            legend_below(axes)

    ends = [f"{label} from {points[0][1]:.3g} to {points[-1][1]:.3g}" for label, points in lines.items()]
    return plot(draw, f"Term {title} over steps: {'; '.join(ends)}.", size=(4.1, 2.6))


def _total(subject):
    own = detection_loss(subject.run)
    names = term_names(subject.run)
    summed = [(r["step"], sum(terms_in(r, names).values())) for r in subject.run.of_kind("train")]

    def draw(axes):
        line(axes, *zip(*own), STYLES[1], "detection loss")
        line(axes, *zip(*summed), STYLES[0], "all terms")
        axes.set(title="all terms beside the detection loss", ylabel="loss")
        over(axes, "step", own[-1][0])
        from_zero(axes)
        legend_below(axes)

    alt = f"The detection loss falls from {own[0][1]:.3g} to {own[-1][1]:.3g}, the sum of all terms goes from "
    return plot(draw, f"{alt}{summed[0][1]:.3g} to {summed[-1][1]:.3g}.", size=(4.1, 2.6))


def gradients(run):
    """Plots over the epochs of each term's share of the gradient, its cosine, and how far each loss moves the weights;
    none where it was not recorded."""
    records, images = run.of_kind("gradients"), []
    titles = {"share": "gradient, by that of the detection loss", "cosine": "cosine of the gradients",
              "update": "update by each loss, in learning rates"}  # fmt: skip
    for what, title in titles.items():
        lines = {}
        for record in records:
            for key, value in record.items():
                if key.endswith(f".{what}") and value is not None:
                    lines.setdefault(key[: -len(what) - 1], []).append((record["epoch"], value))
        if lines:
            images.append(_over_epochs(what, title, lines))
    return images


def _over_epochs(what, title, lines):
    def draw(axes):
        for (label, points), style in zip(lines.items(), STYLES * len(lines)):
            line(axes, *zip(*points), style, label)
        axes.set(title=title, ylabel=what)
        axes.axhline(0, color="#666666", linewidth=0.8)
        over(axes, "epoch", _last(lines))
        legend_below(axes)

    ends = [f"{label} from {points[0][1]:.3g} to {points[-1][1]:.3g}" for label, points in lines.items()]
    return plot(draw, f"{title[0].upper()}{title[1:]} over epochs: {'; '.join(ends)}.", size=(4.1, 2.6))


def _last(lines):
    return max(points[-1][0] for points in lines.values())


def _table(series):
    rows = [
        [key, *(f"{value:.4g}" for value in (points[0][1], points[-1][1])), _change(points)]
        for key, points in series.items()
    ]
    return Table(["term", "first interval", "last interval", "change"], rows, "Terms at the start and at the end")


def _change(points):
    first, last = points[0][1], points[-1][1]
    return f"{100 * (last / first - 1):+.0f} %" if first else "-"

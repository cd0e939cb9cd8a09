"""How the students learned: AP over epochs, their own detection loss and the learning rate over steps."""

from ppkd.errors import UserError
from ppkd.methods import plan
from ppkd.recipe.pseudo_boxes import NAME as PSEUDO_BOXES
from ppkd.reporting.beginning import ap_before
from ppkd.reporting.document import Gallery, Missing, Section
from ppkd.reporting.plots import from_zero, legend_below, line, over, plot

_AGAIN = "ppkd train ... --eval (log_iter sets how often losses are recorded, snapshot_epoch how often AP is)"


def section(material):
    """Three plots, or what is missing for them."""
    students = material.of("plain") + material.of("distilled")
    blocks, images = [], []
    evaluated = [s for s in students if any("AP" in r for r in s.run.of_kind("eval"))]
    trained = [s for s in students if s.run.of_kind("train")]
    if evaluated:
        curves, unknown = _curves(evaluated, material)
        images.append(_ap(curves, evaluated, material.teacher))
        blocks += [Missing(f"AP before training: {error}.") for error in unknown]
    if trained:
        images += [_over_steps(trained, *what) for what in _LOSS_AND_RATE]
    if images:
        blocks.insert(0, Gallery(images))
    for what, found in (("AP over epochs", evaluated), ("Losses over steps", trained)):
        lacking = [s.name for s in students if s not in found]
        if lacking:
            blocks.append(Missing(f"{what}: not recorded by {', '.join(lacking)}.", _AGAIN))
    lead = (
        "The detection loss is the student's own, without what distillation adds, so that the curves can be compared; "
        "a value is the mean over a log interval. AP at epoch 0 is that of the weights which training began with."
    )
    return Section("Learning curves", lead, blocks)


def term_names(run):
    """Names of the terms of a distilled run; none for a plain one."""
    return [term.name for term in plan(run.recipe.method).terms] if run.distilled else []


def terms_in(record, names):
    """The entries of a record that are distillation terms, weighted as they entered the loss."""
    return {k: v for k, v in record.items() if k in names or k.startswith(tuple(f"{name}." for name in names))}


def detection_loss(run):
    """List of ``(step, the student's own loss)``."""
    names = [*term_names(run), PSEUDO_BOXES] if run.distilled else []
    alpha = plan(run.recipe.method).alpha if run.distilled else 1.0
    return [(r["step"], _own(r["loss"], terms_in(r, names), alpha)) for r in run.of_kind("train")]


def _own(loss, added, alpha):
    # `DistillModel` scales what it has added to: before and behind the terms a loss is the student's own as it stands.
    return loss / alpha - sum(added.values()) if added else loss


def _rates(run):
    return [(r["step"], r["lr"]) for r in run.of_kind("train")]


_LOSS_AND_RATE = (
    ("Detection loss", "detection loss", detection_loss),
    ("Learning rate", "learning rate", _rates),
)


def _curves(students, material):
    """``({name: points of epoch and AP in percent}, why a first one is missing)``."""
    curves, unknown = {}, []
    for student in students:
        points = [(r["epoch"], 100 * r["AP"]) for r in student.run.of_kind("eval") if "AP" in r]
        try:
            points.insert(0, (0, 100 * ap_before(student, material)))
        except UserError as error:
            unknown.append(f"{student.name}: {error}")
        curves[student.name] = points
    return curves, unknown


def _ap(curves, students, teacher):
    def draw(axes):
        for student in students:
            line(axes, *zip(*curves[student.name]), student.style, student.name)
        if teacher is not None:
            colour, dashes, _ = teacher.style
            axes.axhline(100 * teacher.stats["AP"], color=colour, linestyle=dashes, label=teacher.name)
        axes.set(title="AP on the validation set", ylabel="AP (%)")
        over(axes, "epoch", max(points[-1][0] for points in curves.values()))
        from_zero(axes)
        legend_below(axes, 2)

    ends = [f"{name} from {points[0][1]:.1f} to {points[-1][1]:.1f}" for name, points in curves.items()]
    return plot(draw, f"AP over epochs: {', '.join(ends)}.")


def _over_steps(students, title, label, values):
    series = {student.name: values(student.run) for student in students}

    def draw(axes):
        for student in students:
            line(axes, *zip(*series[student.name]), student.style, student.name)
        axes.set(title=title, ylabel=label)
        over(axes, "step", max(points[-1][0] for points in series.values()))
        from_zero(axes)
        legend_below(axes, 2)

    ends = [f"{name} {points[-1][1]:.3g}" for name, points in series.items()]
    return plot(draw, f"{title} over steps; at the end: {', '.join(ends)}.")

"""How the students learned: AP over epochs, their own detection loss and the learning rate over steps."""

from ppkd.methods import plan
from ppkd.reporting.document import Gallery, Missing, Section
from ppkd.reporting.plots import legend_below, line, plot

_AGAIN = "ppkd train ... --eval (log_iter sets how often losses are recorded, snapshot_epoch how often AP is)"


def section(material):
    """Three plots, or what is missing for them."""
    students = material.of("plain") + material.of("distilled")
    blocks, images = [], []
    evaluated = [s for s in students if any("AP" in r for r in s.run.of_kind("eval"))]
    trained = [s for s in students if s.run.of_kind("train")]
    if evaluated:
        images.append(_ap(evaluated, material.teacher))
    if trained:
        images += [_over_steps(trained, *what) for what in _LOSS_AND_RATE]
    if images:
        blocks.append(Gallery(images))
    for what, found in (("AP over epochs", evaluated), ("Losses over steps", trained)):
        lacking = [s.name for s in students if s not in found]
        if lacking:
            blocks.append(Missing(f"{what}: not recorded by {', '.join(lacking)}.", _AGAIN))
    lead = (
        "The detection loss is the student's own, without what distillation adds, so that the curves can be compared; "
        "a value is the mean over a log interval."
    )
    return Section("Learning curves", lead, blocks)


def term_names(run):
    """Names of the terms of a distilled run; none for a plain one."""
    return [term.name for term in plan(run.recipe.method).terms] if run.distilled else []


def terms_of(record, names):
    """The entries of a record that are distillation terms, weighted as they entered the loss."""
    return {k: v for k, v in record.items() if k in names or k.startswith(tuple(f"{name}." for name in names))}


def detection_loss(run):
    """List of ``(step, the student's own loss)``."""
    names = term_names(run)
    alpha = plan(run.recipe.method).alpha if run.distilled else 1.0
    return [(r["step"], r["loss"] / alpha - sum(terms_of(r, names).values())) for r in run.of_kind("train")]


def _rates(run):
    return [(r["step"], r["lr"]) for r in run.of_kind("train")]


_LOSS_AND_RATE = (
    ("Detection loss", "detection loss", detection_loss),
    ("Learning rate", "learning rate", _rates),
)


def _ap(students, teacher):
    def draw(axes):
        for student in students:
            points = [(r["epoch"], 100 * r["AP"]) for r in student.run.of_kind("eval") if "AP" in r]
            line(axes, *zip(*points), student.style, student.name)
        if teacher is not None:
            colour, dashes, _ = teacher.style
            axes.axhline(100 * teacher.stats["AP"], color=colour, linestyle=dashes, label=teacher.name)
        axes.set(title="AP on the validation set", xlabel="epoch", ylabel="AP (%)")
        axes.set(ylim=(0, None), xlim=(0, None))
        axes.xaxis.get_major_locator().set_params(integer=True)
        legend_below(axes, 2)

    ends = [f"{s.name} {100 * s.run.of_kind('eval')[-1]['AP']:.1f}" for s in students]
    return plot(draw, f"AP over epochs; at the end: {', '.join(ends)}.")


def _over_steps(students, title, label, values):
    series = {student.name: values(student.run) for student in students}

    def draw(axes):
        for student in students:
            line(axes, *zip(*series[student.name]), student.style, student.name)
        axes.set(title=title, xlabel="step", ylabel=label)
        axes.set_ylim(bottom=0)
        legend_below(axes, 2)

    ends = [f"{name} {points[-1][1]:.3g}" for name, points in series.items()]
    return plot(draw, f"{title} over steps; at the end: {', '.join(ends)}.")

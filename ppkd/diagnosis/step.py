"""One real training step: what every part of the loss is, and how it pulls at the student."""

import math

from ppkd.detectors import detector_for
from ppkd.diagnosis.features import Watched, check_attention, check_silence, check_sources, silent_terms
from ppkd.diagnosis.findings import ERROR, WARNING
from ppkd.diagnosis.inputs import check_batch
from ppkd.diagnosis.normalisations import train_normalisation, wanted_by
from ppkd.engine.balance import measure, untouched

# A term against the detection loss, by value or by gradient norm: warning, error. The FGD authors keep each between 0.1
# and 2, beside a detection loss of some units. What still helps is far above: on the demo's data PPYOLOEDistill with
# PKD's terms, 22 times by value, gains 10 AP (docs/methods.md), and PKD's published weight gives 25 by gradient.
STRONG = {"value": (30, 100), "gradient": (100, 300)}
_WEAK = 1e-4
# The FGD authors' rule for each of its terms in the first steps.
_RULE = (0.1, 2.0)


def busiest_epoch(model, epochs):
    """The first of the epochs in which the terms together are strongest."""
    return max(range(max(epochs, 1)), key=lambda epoch: sum(_schedule(term, epoch) for term in model.terms))


def _schedule(term, epoch):
    return term.spec.schedule.factor(epoch) if term.spec.weight else 0.0


def check_step(subject, batch, findings):
    """Take apart one training step; the model is left as it was.

    Args:
        subject: `subject.Subject` with a model, whose epoch is set.
        batch: a training batch with ``epoch_id``.
        findings: `findings.Findings`.

    Returns:
        List of plain rows, one a part of the loss, the detection loss first.
    """
    model, config = subject.model, subject.recipe.student
    check_batch("the student", batch["image"], train_normalisation(config), findings)
    for teacher in subject.teachers:
        prepare = model.preparations.get(teacher.name)
        seen = prepare(batch) if prepare else batch
        check_batch(teacher.called, seen["image"], wanted_by(teacher.spec), findings)
    with Watched(model) as seen:
        pulls = measure(model, batch)
    labels = {term.label: _group(term, subject) for term, _ in model.active_terms()}
    broken = [p.name for p in pulls if not (math.isfinite(p.value) and math.isfinite(p.norm))]
    if broken:
        findings.add("not-finite", f"in one training step not finite: {', '.join(broken)}")
    waiting = _waiting(model, batch, pulls, labels)
    if waiting:
        text = f"a share of the detection loss's gradient in its sources, which is 0 at first: {', '.join(waiting)}"
        findings.add("share-of-nothing", text)
    heard = {label: group for label, group in labels.items() if label not in waiting}
    dead = check_sources(seen, silent_terms(pulls, heard), findings)
    check_silence(pulls, heard, dead, findings)
    check_attention(seen, findings)
    if not broken:
        _check_strength(pulls, labels, findings, _zero_head(subject.student, findings))
        _check_rule(pulls, [term for term, _ in model.active_terms()], findings)
    weights = {term.label: weight for term, weight in model.active_terms()}
    return [_row(pull, weights, {t.label: t.spec.magnitude for t in model.terms}) for pull in pulls]


def _waiting(model, batch, pulls, labels):
    """Labels of terms that are silent only because they are a share of a gradient that a new head lets not through."""
    by_share = {t.label for t in model.terms if t.spec.magnitude is not None and t.spec.magnitude.gradient}
    silent = silent_terms(pulls, labels) & by_share
    if not silent:
        return []
    with untouched(model):
        model.distillation.let_all_count()
        again = measure(model, batch)
    return sorted(silent - silent_terms(again, labels))


def _group(term, subject):
    return term.spec.name if len(subject.teachers) == 1 else f"{term.spec.name} ({term.teacher})"


def _row(pull, weights, magnitudes):
    label = next((label for label in weights if pull.name == label or pull.name.startswith(f"{label}.")), None)
    brought = label is not None and magnitudes[label] is not None
    return {
        "part": pull.name,
        "value": pull.value,
        "weight": None if brought else weights.get(label),
        "gradient": pull.norm,
        "share": pull.share,
        "cosine": pull.cosine,
    }


def _zero_head(student, findings):
    """Whether a layer of the student's head starts with zeros, as PP-YOLOE's do."""
    names = [n for n, p in detector_for(student).head.named_parameters() if p.ndim > 1 and not bool(p.any())]
    if names:
        text = f"the student's head starts with zeros ({names[0]}, ...), so the detection loss's gradient is small"
        findings.add("zero-head", f"{text} at first: terms are compared with it by value alone")
    return bool(names)


def _check_strength(pulls, labels, findings, values_only=False):
    """Compare each term, all its levels and parts together, with the detection loss.

    Args:
        pulls: list of `balance.Pull`.
        labels: label of every active term -> the name of its group.
        findings: `findings.Findings`.
        values_only: whether the detection loss's gradient says nothing yet.
    """
    detection, parts = pulls[0], pulls[1:]
    if not labels:
        findings.add("term-negligible", "no term has a weight in any epoch: this is plain training", term="NAME")
    for name in dict.fromkeys(labels.values()):
        own = [p for p in parts if any(_is(p, label) for label, group in labels.items() if group == name)]
        # Norms do not add up; their sum is the most that the gradient of the sum can be.
        value, norm = sum(abs(p.value) for p in own), sum(p.norm for p in own)
        ratio = {"value": _over(value, abs(detection.value)), "gradient": _over(norm, detection.norm)}
        _check_ratio(name, ratio, value, detection, findings, ("value",) if values_only else tuple(STRONG))
        against = sum(p.norm * (p.cosine or 0.0) for p in own)
        if norm and not values_only and against / norm < -0.5 and ratio["gradient"] > 0.5:
            text = f"{name}: its gradient works against the detection loss's (cosine {against / norm:.2f})"
            findings.add("term-opposed", text, term=name.split()[0])


def _check_ratio(name, ratio, value, detection, findings, keys):
    told = f"{value:.3g} beside a detection loss of {detection.value:.3g}, its gradient {ratio['gradient']:.3g} times"
    if any(ratio[key] > STRONG[key][0] for key in keys):
        grave = any(ratio[key] > STRONG[key][1] for key in keys)
        text = f"{name} is too strong: {told} as large"
        level = ERROR if grave else WARNING
        findings.add("term-too-strong", text, level, factor=_round([ratio[key] for key in keys]), term=name.split()[0])
    elif 0 < max(ratio.values()) < _WEAK:
        findings.add("term-negligible", f"{name} changes next to nothing: {told} as large", term=name.split()[0])


def _check_rule(pulls, terms, findings):
    """FGD's parts, each over all its levels, against what its authors want them to be."""
    sums = {}
    for term in (each for each in terms if each.spec.loss["name"] == "fgd" and each.spec.magnitude is None):
        for pull in (each for each in pulls[1:] if _is(each, term.label)):
            part = term.spec.name, pull.name.rpartition(".")[2]
            sums[part] = sums.get(part, 0.0) + pull.value
    out = [f"{part} {value:.3g}" for (_, part), value in sums.items() if not _RULE[0] <= value <= _RULE[1]]
    if out:
        text = f"outside of the FGD authors' rule, each between {_RULE[0]:g} and {_RULE[1]:g} in the first steps"
        findings.add("term-outside-rule", f"{text}: {', '.join(out)}", term=next(iter(sums))[0])


def _round(ratios):
    """About how many times too strong, as a power of ten: what brings it to the size of the detection loss."""
    return 10 ** round(math.log10(min(max(*ratios, 2), 1e12)))


def _is(pull, label):
    return pull.name == label or pull.name.startswith(f"{label}.")


def _over(a, b):
    return a / b if b else math.inf if a else 0.0

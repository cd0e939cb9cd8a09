"""Whether what is compared lives: recorded sources of both sides, and FGD's attention over them."""

import contextlib
from functools import partial

import numpy as np

from ppkd.detectors.recorders import Recorder
from ppkd.diagnosis.findings import WARNING
from ppkd.errors import UserError
from ppkd.losses.fgd import FGDLoss, attention_maps

# A map counts as constant if it varies by less than this share of its largest value.
_SAME = 1e-6


class Watched:
    """Records in a training step what the terms of a model take.

    Use as ``with Watched(model) as seen: ...``; what is kept is looked at after the block.

    Args:
        model: `model.DistillModel`.
    """

    def __init__(self, model):
        self._model = model
        terms = [term for term, _ in model.active_terms()]
        self._terms, self._compared, self._handles = terms, {}, []
        student = [path for term in terms for tap in term.taps(0) for path in tap.paths]
        self._recorders = {None: Recorder(model.student, student)}
        for name, teacher in model.teachers.items():
            taken = [path for term in terms if term.teacher == name for tap in term.taps(1) for path in tap.paths]
            self._recorders[name] = Recorder(teacher, taken)

    def __enter__(self):
        self._stack = contextlib.ExitStack()
        for recorder in self._recorders.values():
            self._stack.enter_context(recorder)
        for term in self._terms:
            if isinstance(term.loss, FGDLoss):
                self._handles.append(term.loss.register_forward_pre_hook(partial(_keep, self._compared, term.label)))
        return self

    def __exit__(self, *exception):
        self._stack.close()
        for handle in self._handles:
            handle.remove()

    def sources(self):
        """Every source once.

        Yields:
            ``(teacher's name or None for the student, level, labels of the terms, array)``.
        """
        found = {}
        for term in self._terms:
            for side, owner in ((0, None), (1, term.teacher)):
                for level in (level for pair in term.pairs for level in pair[side]):
                    found.setdefault((owner, level.source), (level, []))[1].append(term.label)
        for (owner, _), (level, labels) in found.items():
            try:
                value = self._recorders[owner].take(level.tap)
            except UserError:
                continue
            yield owner, level, labels, value.astype("float32").numpy()

    def attention(self):
        """Of every FGD term: ``(term, the teacher's spatial attention (N, P), channel attention (N, C))``."""
        for term in self._terms:
            if term.label in self._compared:
                _, teacher = self._compared[term.label]
                spatial, channel = attention_maps(teacher.astype("float32").flatten(2), term.loss.temp)
                yield term, spatial.numpy(), channel.numpy()


def _keep(found, label, layer, inputs):
    found[label] = [x.detach() for x in inputs[:2]]


def check_sources(seen, silent, findings):
    """Note sources that say nothing.

    Args:
        seen: `Watched` after a step.
        silent: labels of terms that gave the student no gradient at all.
        findings: `findings.Findings`.

    Returns:
        Labels of terms whose source is dead: why they are silent is told already.
    """
    dead, constant = set(), []
    for owner, level, labels, value in seen.sources():
        whose = "the student" if owner is None else owner if owner == "teacher" else f"teacher {owner}"
        name = f"{'the ' if whose == 'teacher' else ''}{whose}'s {level.source} ({', '.join(labels)})"
        if not np.isfinite(value).all():
            findings.add("not-finite", f"{name} has values that are not finite")
            dead.update(labels)
            continue
        state = _state(value)
        if state and (owner is not None or silent.intersection(labels)):
            findings.add("dead-source", f"{name} is {state}: there is nothing to learn from it")
            dead.update(labels)
        elif state:
            constant.append(level.source)
        elif owner is not None and (share := _constant_channels(value)) > 0.5:
            findings.add("constant-channels", f"{share:.0%} of the channels of {name} are the same everywhere")
    if constant:
        findings.add("student-constant", f"the same everywhere as the student starts: {', '.join(constant)}")
    return dead


def check_attention(seen, findings):
    """Note FGD attention that is all in one place, or nowhere."""
    flat = []
    for term, spatial, channel in seen.attention():
        for what, values in (("place", spatial), ("channel", channel)):
            count = values.shape[1]
            if count < 4:
                continue
            # values are count times a softmax; the largest of it is the share of the one place or channel.
            top = float(np.median(values.max(axis=1))) / count
            if top > 0.9:
                text = (
                    f"{term.label}: {top:.0%} of FGD's attention (temp {term.loss.temp:g}) is on one {what} of {count}"
                )
                findings.add("attention-saturated", text)
            elif top * count < 1.05:
                flat.append(f"{term.label} ({what}s)")
    if flat:
        findings.add("attention-flat", f"FGD's attention is the same everywhere: {', '.join(flat)}")


def check_silence(pulls, labels, dead, findings):
    """Note terms that give the student no gradient although their sources live.

    Args:
        pulls: list of `balance.Pull`.
        labels: label of every active term -> the name of its group.
        dead: labels that `check_sources` returned.
        findings: `findings.Findings`.
    """
    quiet = silent_terms(pulls, labels)
    for label in sorted(quiet - dead):
        group = {other for other, name in labels.items() if name == labels[label]}
        level = None if group <= quiet else WARNING
        findings.add("no-gradient", f"{label} gives the student no gradient on this batch", level)


def silent_terms(pulls, labels):
    """Labels of terms no part of which has a gradient."""
    return {label for label in labels if not any(p.norm for p in pulls if _of(p.name, label))}


def _of(part, label):
    return part == label or part.startswith(f"{label}.")


def _state(value):
    """What is wrong with a recorded array (N, ...), or None."""
    most = float(np.abs(value).max())
    if most == 0:
        return "zero everywhere"
    if float(value.max() - value.min()) <= _SAME * most:
        return f"{float(value.flat[0]):.3g} everywhere"
    if len(value) > 1 and float(np.abs(value - value[:1]).max()) <= _SAME * most:
        return "the same for every image"
    return None


def _constant_channels(value):
    if value.ndim != 4 or value.shape[2] * value.shape[3] == 1:
        return 0.0
    spread = value.max(axis=(0, 2, 3)) - value.min(axis=(0, 2, 3))
    return float((spread <= _SAME * float(np.abs(value).max())).mean())

"""An examination for people, and for programs."""

import json
import math
import textwrap

from ppkd import __version__
from ppkd.diagnosis.findings import ERROR, LEVELS, WARNING
from ppkd.terminal.log import duration
from ppkd.terminal.table import text_table
from ppkd.terminal.text import printable

_WIDTH = 110


# Above such a share of a step, what would make the teacher cheaper is said.
_DEAR = 0.3


def as_text(examination, recipe):
    """The report, no line break at the end."""
    results = examination.results
    method = recipe.method
    who = f"{recipe.name} ({recipe.detector}), taught by {method.file} ({method.name})"
    lines = [printable(who)]
    for title, part in (
        ("Weights", _weights), ("Classes", _classes), ("Accuracy on a sample of the validation set", _accuracy),
        ("Images without labels", _unlabelled), ("Levels", _levels),
        ("One training step", _step), ("Time and memory", _cost),
    ):  # fmt: skip
        text = part(results)
        if text:
            lines += ["", title, "-" * len(title), text]
    lines += ["", "Findings", "--------", *_findings(examination.findings), "", f"Verdict: {examination.verdict}"]
    return "\n".join(lines)


def as_json(examination, recipe):
    """The same as JSON; numbers that are not finite are null."""
    content = {
        "ppkd": __version__,
        "student": recipe.name,
        "slim": recipe.method.file,
        "verdict": examination.verdict,
        "errors": len(examination.findings.of(ERROR)),
        "warnings": len(examination.findings.of(WARNING)),
        "findings": [vars(item) for item in examination.findings.items],
        **examination.results,
    }
    return json.dumps(_finite(content), indent=1)


def _finite(value):
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _findings(findings):
    if not findings.items:
        yield "none"
    for level in LEVELS:
        for item in findings.of(level):
            yield from _wrapped(f"{level.upper() if level != 'note' else level} [{item.id}] {item.text}.", "  ")
            if level != "note":
                yield from _wrapped(f"  -> {item.advice}", "     ")


def _wrapped(text, indent):
    return textwrap.wrap(text, _WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def _weights(results):
    rows = [("", "tensors taken", "missing", "of another shape", "file")]
    weights = results["weights"]
    for name, match in (("student", weights["student"]), *weights["teachers"].items()):
        if match is None:
            rows.append((name, "none", "-", "-", "-"))
            continue
        if not match["tensors"]:  # a file that another framework runs
            rows.append((name, "runs as it is", "-", "-", match["file"]))
            continue
        taken = f"{match['taken']} of {match['tensors']}"
        rows.append((name, taken, str(len(match["missing"])), str(len(match["unfit"])), match["file"]))
    lines = [text_table(rows)]
    for name, match in (("student", weights["student"]), *weights["teachers"].items()):
        for what in ("missing", "unfit"):
            if match and match[what]:
                more = f" and {len(match[what]) - 6} more" if len(match[what]) > 6 else ""
                lines += _wrapped(f"{name}, {what}: {', '.join(match[what][:6])}{more}", "  ")
        if match and match["training"]:
            lines += _wrapped(f"{name} {match['training']} (recipe.yml beside its weights)", "  ")
    if inherited := weights["inherited"]:
        lines.append(f"the student starts with {inherited['tensors']} tensors of {inherited['from']}")
    return "\n".join(lines)


def _classes(results):
    known = results["classes"]
    rows = [("", "number", "names", "from")]
    for name, item in (("student", known["student"]), *known["teachers"].items()):
        names = item["names"] or []
        shown = ", ".join(names[:6]) + (", ..." if len(names) > 6 else "") if names else "unknown"
        rows.append((name, str(item["number"]), shown, item["file"] or "-"))
    return text_table(rows)


def _accuracy(results):
    measured = results.get("accuracy")
    if not measured:
        return ""
    rows = [("", "AP", "AP50", "AP of any class", "AP50 of any class")]
    everybody = (("student, before training", measured["student"]), *measured["teachers"].items())
    rows += [(name, *(_percent(v[k]) for k in ("ap", "ap50", "agnostic", "agnostic50"))) for name, v in everybody]
    lines = [text_table(rows), f"{measured['images']} images"]
    for name, values in measured["teachers"].items():
        by_class = list(values["by_class"].items())
        shown = ", ".join(f"{label} {_percent(value)}" for label, value in by_class[:12])
        lines += _wrapped(f"{name}, AP50 by class: {shown}{', ...' if len(by_class) > 12 else ''}", "  ")
    return "\n".join(lines)


def _unlabelled(results):
    found = results.get("unlabelled")
    if not found:
        return ""
    if "distance" not in found:
        return f"{found['images']} images; no teacher was there to look at them"
    bad = f", {found['bad']} more cannot be read" if found["bad"] else ""
    lines = [f"{found['looked_at']} of {found['images']} were looked at{bad}"]
    lines += _wrapped(
        f"in the teacher's features {found['distance']:.2f} deviations from the labelled ones, whose halves are "
        f"{found['distance_within']:.2f} from each other", "  ",
    )  # fmt: skip
    ours, theirs = (found["detections"][kind] for kind in ("labelled", "unlabelled"))
    lines += _wrapped(
        f"{theirs:.1f} detections an image reach the threshold of their class ({ours:.1f} in labelled ones); "
        f"{found['below_threshold']:.0%} of the detections do not, {found['without']:.0%} of images have none", "  ",
    )  # fmt: skip
    if found["boxes"]:
        right = "none is right" if found["right"] is None else f"{found['right']:.0%} are right"
        lines += _wrapped(
            f"those that reach it are the student's boxes (distill.pseudo_boxes); in labelled images {right}", "  "
        )
    if found["never"]:
        lines += _wrapped(f"never found: {', '.join(found['never'])}", "  ")
    return "\n".join(lines)


def _percent(value):
    return f"{100 * value:.1f}"


def _levels(results):
    if not results.get("levels"):
        return ""
    rows = [("term", "student", "channels", "place", "teacher", "channels", "place")]
    several = len(results["weights"]["teachers"]) > 1
    for row in results["levels"]:
        theirs = f"{row['teacher']}: {row['teacher_source']}" if several else row["teacher_source"]
        rows.append(
            (
                row["term"], row["student_source"], str(row["student_channels"]), row["student_place"], theirs,
                str(row["teacher_channels"]), row["teacher_place"],
            )
        )  # fmt: skip
    return text_table(rows)


def _step(results):
    if not results.get("step"):
        return ""
    rows = [("part", "loss", "weight", "gradient", "share", "cosine")]
    for row in results["step"]:
        weight = "" if row["part"] == "detection" else "set" if row["weight"] is None else f"{row['weight']:.3g}"
        cosine = "-" if row["cosine"] is None else f"{row['cosine']:+.2f}"
        rows.append(
            (row["part"], f"{row['value']:.4g}", weight, f"{row['gradient']:.4g}", f"{row['share']:.1%}", cosine)
        )
    return text_table(rows)


def _cost(results):
    cost = results.get("cost")
    if not cost:
        return ""
    rows = [("", "s/step", "memory (GB)", "whole run")]
    for name, label in (("plain", "without teacher"), ("distilled", "with teacher")):
        memory = cost[name]["memory_gb"]
        run = duration(cost[name]["run_seconds"])
        rows.append((label, f"{cost[name]['step_seconds']:.2f}", "-" if memory is None else f"{memory:.2f}", run))
    epochs = f"{cost['epochs']} epochs of {cost['batches_per_epoch']} batches, {cost['epochs_distilled']} with teacher"
    told = f"{epochs}, on one {cost['device'].partition(':')[0]}; loading a batch takes {cost['loading_seconds']:.2f} s"
    return text_table(rows) + f"\n{told}; evaluation and saving not counted" + _of_teachers(cost) + _of_processes(cost)


def _of_teachers(cost):
    seconds, step = cost.get("teacher_seconds"), cost["distilled"]["step_seconds"]
    if not seconds:
        return ""
    share = min(seconds / step, 1)
    less, kept, views = "", cost.get("bank_bytes"), cost.get("bank_views")
    if views:
        less = f", in {views} epochs; then its bank is read, {views * kept / 1e9:.2g} GB"
    elif share > _DEAR:
        less = "; `every: k` on its terms or an input_scale below 1 would make it less"
        if kept and not cost.get("bank_wanted"):
            less += f", and a bank would ask it once a view: distill.bank.views=8 takes {8 * kept / 1e9:.2g} GB"
    return f"\nthe teacher takes {seconds:.2f} s of a step, {share:.0%}{less}"


def _of_processes(cost):
    return "".join(
        f"\n{name} runs in a process of its own: {each['peak_gb']:.2f} GB so far, {each['most_gb']:.3g} GB and what "
        "Python takes at most (`memory`)" for name, each in (cost.get("teacher_processes") or {}).items()
    )  # fmt: skip

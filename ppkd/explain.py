"""What a slim file comes to: the ``distill:`` block that any method is, who set which key, and the levels it pairs.

The text is a slim file itself, which gives the same losses to the bit.
"""

import copy
import os

from ppkd.build import build_student, build_teacher, wrap
from ppkd.engine.loss_layers import own_parameters
from ppkd.errors import UserError
from ppkd.files.yaml_io import BASE_KEY, Tagged, clone, flow, merge, path_of_base, read_yaml
from ppkd.methods import plan
from ppkd.methods.block import plan_block
from ppkd.recipe.hand_over import KEYS as HAND_OVER_KEYS
from ppkd.recipe.keys import METHOD_KEYS, RUN_KEYS
from ppkd.recipe.method import SECTIONS, TERMS
from ppkd.recipe.parting import KEYS as PARTING_KEYS
from ppkd.recipe.plan import SCHEDULE_KEYS, TEACHER
from ppkd.recipe.recipe import parse_overrides
from ppkd.terminal.table import text_table

# Mappings below these keys are written in one line.
_ONE_LINE = ("student_connector", "teacher_connector")


def explained(recipe, overrides, folder):
    """The text.

    Args:
        recipe: `recipe.Recipe` with a method.
        overrides: the ``-o`` that it was made with.
        folder: paths in the text are relative to it.

    Raises:
        UserError: anything that would stop the run when it is built; weights are not looked for.
    """
    steps = plan(recipe.method)
    student = build_student(recipe, load=False)
    teachers = {name: build_teacher(spec) for name, spec in recipe.teachers.items()}
    model = wrap(recipe, steps, student, teachers)
    block = _complete(plan_block(steps))
    top, who = _top(recipe, overrides, folder)
    top["distill"] = _engine(recipe, folder, parse_overrides(overrides)) | block
    who |= {f"distill.{path}": source for path, source in _origins(recipe.method, block).items()}
    lines = [f"# {line}" for line in _heading(recipe, overrides)]
    lines += ["", *_lines(top, who, _default(recipe.method))]
    lines += ["", "# What is compared:", *(f"# {line}" for line in _pairs(model).splitlines())]
    return "\n".join(lines)


def _heading(recipe, overrides):
    method = recipe.method
    named = "its own terms" if method.name == TERMS else method.name
    yield f"{method.file} with student {recipe.name} ({recipe.detector}): {named}."
    yield "This is a slim file too, and gives the same losses. Behind each key stands who set it."
    rest = [pair for pair in overrides if not _stands_in_file(pair)]
    if rest:
        yield f"To be given on the command line as before, since no slim file can say it: -o {' '.join(rest)}"
    for note in recipe.notes:
        if note.startswith("not applied"):
            yield note


def _stands_in_file(pair):
    """Whether the text has what this ``-o`` sets: not the student's keys, nor a teacher's that mean the run there."""
    first, *rest = pair.partition("=")[0].split(".")
    return first == "distill" or first in RUN_KEYS or (first == "teacher" and rest[0] not in RUN_KEYS)


def _top(recipe, overrides, folder):
    """The keys beside ``distill:``, and who set each."""
    slim, path = recipe.slim, recipe.method.file
    given = parse_overrides(overrides)
    run = merge(clone(slim.run), {k: v for k, v in given.items() if k in RUN_KEYS})
    section, _ = SECTIONS.get(recipe.method.name, (None, ()))
    named = TEACHER in (recipe.method.options.get("teachers") or {})
    of_teacher = {} if named else {k: v for k, v in (given.get("teacher") or {}).items() if k not in RUN_KEYS}
    teacher = merge({k: clone(v) for k, v in slim.of_teacher.items() if k != section}, of_teacher)
    top = {BASE_KEY: [_relative(base, folder) for base in _teacher_files(path)]} if slim.bases else {}
    top |= {"slim": "Distill", **teacher, **run}
    files = {key: next((file for file, own in reversed(slim.layers) if key in own), path) for key in slim.own}
    who = {key: os.path.basename(file) for key, file in files.items()}
    who |= dict.fromkeys((key for key in given if key in run), "-o")
    return top, who | dict.fromkeys(of_teacher, "-o teacher")


def _teacher_files(path):
    """The bases of a slim file that are no slim files themselves, nor are theirs."""
    bases = read_yaml(path).get(BASE_KEY) or []
    found = []
    for base in bases if isinstance(bases, list) else [bases]:
        file = path_of_base(path, str(base))
        found += _teacher_files(file) if METHOD_KEYS & read_yaml(file).keys() else [file]
    return found


def _engine(recipe, folder, given):
    """What of ``distill:`` is neither term nor schedule."""
    options, block = recipe.method.options, {}
    if options.get("upstream_merge"):
        block["upstream_merge"] = True
    if options.get("plugins"):
        block["plugins"] = [_relative(path, folder) for path in options["plugins"]]
    if options.get("teachers"):
        block["teachers"] = clone(options["teachers"])
        if TEACHER in block["teachers"]:
            merge(block["teachers"][TEACHER], given.get("teacher") or {})
        for entry in block["teachers"].values():
            if "config" in entry:
                entry["config"] = _relative(entry["config"], folder)
    return block


def _relative(path, folder):
    return os.path.relpath(path, folder)


def _complete(block):
    """The block with every parameter that a loss has."""
    for term in block["terms"].values():
        loss = term["loss"]
        rest = {k: p.default for k, p in own_parameters(loss["name"]).items() if k not in loss}
        term["loss"] = loss | {k: list(v) if isinstance(v, tuple) else v for k, v in rest.items()}
    return block


def _default(method):
    return "the default" if method.name == TERMS else f"{method.name}'s default"


def _origins(method, block):
    """Dotted path in the block -> who set it, of all that is not a default.

    Keys that the user wrote in the block's own terms are looked up. What a method made of its keys is found by
    changing one of these at a time and looking at what changes with it.
    """
    found, before = {}, _flat(block)
    for path, source in method.origin.items():
        first = path.split(".")[0]
        if first in ("terms", "teachers", "plugins", "upstream_merge"):
            continue
        shown = f"{os.path.basename(source)} ({path})" if source != "-o" else f"-o distill.{path}"
        if first in ("inherit", *PARTING_KEYS, *HAND_OVER_KEYS):
            found[first] = shown
        elif first in SCHEDULE_KEYS:
            found |= {key: shown for key in before if key.startswith("terms.") and key.endswith(f".{path}")}
        else:
            changed = _with_another(method, path)
            found |= {key: shown for key in before if changed and key in changed and changed[key] != before[key]}
    written = {path: source for path, source in method.origin.items() if path.split(".")[0] in ("terms", "teachers")}
    for path, source in (*written.items(), *_lists(method)):
        source = os.path.basename(source)
        found |= {key: source for key in (path, *before) if key == path or key.startswith(f"{path}.")}
    return found


def _lists(method):
    return [(path, source) for path, source in method.origin.items() if path in ("plugins", "upstream_merge")]


def _with_another(method, path):
    """The flat block of the method with another value at `path`, or None if that cannot be had."""
    other = copy.deepcopy(method)
    *parents, last = path.split(".")
    for values in (other.params, other.options):
        for parent in parents:
            values = values.get(parent) if isinstance(values, dict) else None
        if not isinstance(values, dict) or last not in values:
            continue
        value = values[last]
        if isinstance(value, bool):
            values[last] = not value
        elif isinstance(value, (int, float)):
            values[last] = value * 2 + 1
        else:
            del values[last]
        try:
            return _flat(_complete(plan_block(plan(other))))
        except UserError:
            return None
    return None


def _flat(value, path=""):
    if isinstance(value, dict) and value:
        return {k: v for key, item in value.items() for k, v in _flat(item, f"{path}{key}.").items()}
    return {path[:-1]: value}


def _lines(values, who, default, path="", indent=""):
    """YAML, one key a line, with who set it behind."""
    lines = []
    for key, value in values.items():
        here = f"{path}{key}"
        if isinstance(value, dict) and value and key not in _ONE_LINE and not isinstance(value, Tagged):
            source = f"  # {who[here]}" if here in who and not here.startswith("distill") else ""
            lines += [f"{indent}{key}:{source}", *_lines(value, who, default, f"{here}.", indent + "  ")]
            continue
        # Of a mapping in one line, such as a connector's, the parameters may be of several.
        ours = here.startswith("distill.")
        inside = dict.fromkeys(who[name] for name in who if ours and name.startswith(f"{here}."))
        source = who.get(here) or ", ".join(inside) or (default if ours else who.get(here.split(".")[0]))
        text = f"{indent}{key}: {flow(value)}"
        lines.append(f"{text:<47} # {source}" if source else text)
    return lines


def _pairs(model):
    rows = [("term", "student", "channels", "place", "teacher", "channels", "place")]
    for term in model.terms:
        for students, teachers in term.pairs:
            for ours, theirs in zip(students, teachers):
                name = theirs.source if len(model.teachers) == 1 else f"{term.teacher}: {theirs.source}"
                rows.append((term.label, *_shown(ours, ours.source), *_shown(theirs, name)))
    return text_table(rows)


def _shown(level, name):
    place = f"stride {level.stride:g}" if level.stride else "x".join(map(str, level.cells)) if level.cells else "-"
    return name, str(level.channels), place

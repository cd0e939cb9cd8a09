"""A whole course: its data, its files, its parts one after the other, and what came of it."""

import hashlib
import json
import os
import shlex
import time
from dataclasses import asdict, dataclass

from ppkd.course import data as data_sets
from ppkd.course import files, sizes
from ppkd.course.follow import Follower
from ppkd.course.methods import lines_of
from ppkd.course.parts import comparison_of, detectors, parts, result_of
from ppkd.course.told import errors_of, warnings_of
from ppkd.errors import UserError
from ppkd.files.json_io import read_json
from ppkd.files.locate import find_weights
from ppkd.files.regular import open_file
from ppkd.files.write import alone, make_folder, write_text
from ppkd.recipe.settings import KEYS as SETTINGS
from ppkd.recipe.settings import take
from ppkd.terminal.log import duration, logger
from ppkd.training.device import has_gpu

STATE = "course.json"
_IMPORTED = "data"
# With another value of these a course only becomes longer.
_GROWING = ("seeds", "baseline", "waive")


@dataclass(frozen=True)
class Wishes:
    """What the user says.

    Attributes:
        data: folder of the data set, in any format that ``ppkd data import`` reads.
        student, teacher: names or paths of configs; the teacher's with ``=WEIGHTS`` if it is trained.
        output: folder for all that is made.
        epochs, teacher_epochs, imgsz, batch: None for what is proposed.
        method: of `methods.lines_of`.
        seeds: how many students of each kind.
        baseline: train the student alone as well.
        waive: findings of the doctor that do not end the course.
        unlabelled: photographs without labels, as `unlabelled.find_photographs` takes them; None for none.
    """

    data: str
    student: str = "ppyoloe_plus_small_custom"
    teacher: str = "ppyoloe_plus_teacher_custom"
    output: str = "output/distill"
    epochs: int | None = None
    teacher_epochs: int | None = None
    imgsz: int | None = None
    batch: int | None = None
    method: str = "auto"
    seeds: int = 1
    baseline: bool = False
    waive: tuple = ()
    unlabelled: str | None = None


@dataclass
class Course:
    """A course that is ready to run.

    Attributes:
        folder: of all that it makes.
        trained: list of `parts.Trained`.
        parts: list of `parts.Part`.
        state: what was done before: ``parts`` by name, and the ``begun`` ones.
    """

    folder: str
    trained: list
    parts: list
    state: dict


def prepare(wishes):
    """Look at the data, import it where it is in another format, and write the three files.

    Raises:
        UserError: anything wrong with what is given; an output folder of another course, or that another call has.
    """
    folder = wishes.output
    given = {key: getattr(wishes, key) for key in ("epochs", "teacher_epochs", "imgsz", "batch")}
    take({key: value for key, value in given.items() if key in SETTINGS and value is not None}, "--imgsz")
    _state(folder, wishes)
    name, _, weights = wishes.teacher.partition("=")
    student = files.read_config(wishes.student, "--student")
    teacher = files.read_config(name, "--teacher")
    weights = os.path.abspath(find_weights(weights, "--teacher")) if weights else None
    lines_of(wishes.method, student[1], teacher[1])
    make_folder(folder)
    with alone(folder):
        return _prepared(wishes, _state(folder, wishes), student, teacher, weights, given)


def _prepared(wishes, state, student, teacher, weights, given):
    folder = wishes.output
    _keep(folder, state)
    data = _data(wishes, folder)
    logger().info("data: %s", data.text)
    gpu = has_gpu()
    chosen, told = sizes.propose(data, student[1], teacher[1], gpu, given, bool(weights))
    beside = data_sets.unlabelled(wishes.unlabelled, data, chosen.batch) if wishes.unlabelled is not None else None
    if told:
        logger().info("proposed for this data and %s: %s", "a GPU" if gpu else "a CPU", "; ".join(told))
    trained = detectors(folder, weights, wishes.seeds, wishes.baseline)
    what = (chosen, student, teacher, wishes.method, os.path.abspath(trained[0].weights), gpu, beside)
    written, why = files.write_files(folder, data, *what)
    if written:
        logger().info("method: %s", why)
        logger().info("written to %s, and yours to edit: %s", folder, ", ".join(written))
    found = parts(folder, trained, data, chosen, wishes.waive)
    return Course(folder, trained, found, state)


def run(course):
    """Run the parts that are not done, each as the command that it is.

    Returns:
        Path by name of what there is at the end: ``weights``, ``report``, and ``results`` with AP by detector.

    Raises:
        UserError: a part failed; the same course goes on from there. Another call has the folder.
    """
    with alone(course.folder):
        return _run(course)


def _run(course):
    done, begin = course.state["parts"], time.time()
    _forget(course.parts, done)
    follower = Follower(course.folder, course.parts, list(done))
    for number, part in enumerate(course.parts, 1):
        place = f"[{number}/{len(course.parts)}]"
        if part.name in done:
            logger().info("%s %s: done before", place, part.title)
            continue
        logger().info("%s %s: ppkd %s", place, part.title, shlex.join(part.words))
        begun = _begun(course, part)
        earlier = begun["seconds"]

        def note(seconds, begun=begun, earlier=earlier):
            begun["seconds"] = round(earlier + seconds, 1)
            _keep(course.folder, course.state)

        try:
            note(follower.run(part, place, note))
        except UserError:
            for line in errors_of(part.makes) if part.examines else ():
                logger().error("%s %s", place, line)
            raise
        done[part.name] = course.state["begun"].pop(part.name)
        _keep(course.folder, course.state)
        for line in warnings_of(part.makes) if part.examines else ():
            logger().warning("%s %s", place, line)
    results = {each.name: read_json(result_of(course.folder, each)) for each in course.trained}
    times = ", ".join(f"{part.name} {duration(done[part.name]['seconds'])}" for part in course.parts)
    logger().info("time by part: %s; this time %s in all", times, duration(time.time() - begin))
    weights = next(each.weights for each in course.trained if each.name.startswith("taught"))
    return {"weights": weights, "report": course.parts[-1].makes, "results": results}


def compared(folder):
    """What the comparison of a course says, in lines; none where it has no student without a teacher."""
    path = comparison_of(folder)
    if not os.path.exists(path):
        return []
    found = read_json(path)
    lines = []
    for row in (row for row in found["groups"] if "gain" in row):
        both = row["interval_seeds_and_images"]
        low, high = both or row["interval_images"]
        over = "seeds and images" if both else "images, one seed each"
        told = f"{100 * row['gain']:+.1f} AP (95 % interval over {over} {100 * low:+.1f} to {100 * high:+.1f})"
        lines.append(f"with the teacher against alone: {told}: {row['verdict']}")
    return lines


def _data(wishes, folder):
    if not os.path.isdir(wishes.data):
        raise UserError(f"{wishes.data}: no such folder; give one with images and their annotations")
    made = os.path.join(folder, _IMPORTED)
    if data_sets.is_ready(wishes.data):
        return data_sets.opened(wishes.data, wishes.data)
    if os.path.isdir(made):
        logger().info("data: %s is there already", made)
    else:
        where = shlex.join(["data", "import", wishes.data, "--output", made, "--images", "leave"])
        logger().info("data: to be laid out as ppkd's configs take it, its images where they are: ppkd %s", where)
        data_sets.make(wishes.data, made)
    return data_sets.opened(made, wishes.data)


def _state(folder, wishes):
    """What an earlier call left, if it is of the same course."""
    path, given = os.path.join(folder, STATE), asdict(wishes)
    given["data"] = os.path.realpath(given["data"])
    given = {key: value for key, value in given.items() if key not in ("output", *_GROWING)}
    if not os.path.exists(path):
        there = os.listdir(folder) if os.path.isdir(folder) else []
        if there:
            first = ", ".join(sorted(there)[:3])
            raise UserError(f"--output {folder}: has other things in it ({first}); give a new folder")
        return {"given": given, "parts": {}}
    state = read_json(path, "; remove it, or give another --output")
    if not isinstance(state, dict) or not all(isinstance(state.get(key), dict) for key in ("given", "parts")):
        raise UserError(f"{path}: is not what a course leaves; remove it, or give another --output")
    begun = state["parts"] or any(os.path.exists(os.path.join(folder, name)) for name in files.NAMES)
    imported = os.path.exists(os.path.join(folder, _IMPORTED))  # of that data
    for key, value in given.items():
        if (before := state["given"].get(key)) != value and (begun or key == "data" and imported):
            raise UserError(
                f"--output {folder}: holds a course of another {key}: {before} then, {value} now; give what it had, "
                "or another --output"
            )
    return state | {"given": given}


def _keep(folder, state):
    write_text(os.path.join(folder, STATE), json.dumps(state, indent=1))


def _begun(course, part):
    """The entry of a part that is not done: what calls that were killed have spent on it, if it is the same still."""
    entries, of = course.state.setdefault("begun", {}), _fingerprint(part)
    before = entries.get(part.name)
    if not (isinstance(before, dict) and before.get("of") == of and isinstance(before.get("seconds"), int | float)):
        entries[part.name] = {"seconds": 0.0, "of": of}
    return entries[part.name]


def _forget(parts, done):
    """Take out of `done` what has to be done again, and all that takes its results."""
    names = {part.name for part in parts}
    for part in parts:  # each stands after those that it needs
        if not _is_done(part, done) or any(name in names and name not in done for name in part.needs):
            done.pop(part.name, None)


def _is_done(part, done):
    """Whether a part was done with the same command and files, and what it made is there."""
    entry = done.get(part.name)
    if not isinstance(entry, dict) or not isinstance(entry.get("seconds"), int | float):
        return False
    return os.path.exists(part.makes) and entry.get("of") == _fingerprint(part)


def _fingerprint(part):
    """What tells a part from the same one after an edit."""
    found = hashlib.sha256(shlex.join(part.words).encode())
    for path in part.reads:
        with open_file(path, "rb") as file:
            found.update(file.read())
    return found.hexdigest()[:16]

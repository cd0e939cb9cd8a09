"""From a folder of images to a taught student in one command."""

import shlex

from ppkd.commands.common import infer_command
from ppkd.terminal.log import logger


def distill(args):
    """``ppkd distill``: the whole course."""
    from ppkd.course import compared, prepare, run
    from ppkd.terminal.table import COLUMNS, result_table

    course = prepare(_wishes(args))
    found = run(course)
    kinds = tuple(key for key in COLUMNS if key.startswith("AP"))
    rows = [
        {"name": each.title, **{key: found["results"][each.name].get(key) for key in kinds}} for each in course.trained
    ]
    print("\n" + result_table(rows, ("name", *kinds)) + "\n", flush=True)
    for line in compared(course.folder):
        logger().info(line)
    logger().info("report: %s", found["report"])
    weights = found["weights"]
    logger().info("the taught student: %s; next: %s", weights, infer_command(course.trained[1].config, weights))
    return found


def init(args):
    """``ppkd init``: the three files of a course, to edit."""
    from ppkd.course import prepare

    course = prepare(_wishes(args))
    for part in course.parts:
        logger().info("%s: ppkd %s", part.title, shlex.join(part.words))
    return course.folder


def _wishes(args):
    from ppkd.course import Wishes

    given = {key: value for key, value in vars(args).items() if key in Wishes.__dataclass_fields__}
    return Wishes(**given | {"waive": tuple(given.get("waive") or ())})

"""What is made of runs."""

import json
import os

from ppkd.commands.common import show
from ppkd.errors import UserError
from ppkd.files.write import check_writable, write_text
from ppkd.terminal.log import logger
from ppkd.training.device import start_device


def report(args):
    """``ppkd report``: a page about runs."""
    runs = _opened(args)
    from ppkd.reporting import write_report

    paths = write_report(runs, args.output, args.images)
    for path in paths:
        logger().info("written to %s", path)
    return paths[0]


def compare(args):
    """``ppkd compare``: methods and seeds with intervals."""
    check_writable("--json", args.json and os.path.dirname(args.json))
    runs = _opened(args)
    from ppkd.study.compare import compare, comparison_table

    found = compare(runs, args.against, args.images, args.resamples)
    show("\n" + comparison_table(found))
    if args.json:
        write_text(args.json, json.dumps(found, indent=1))
    return found


def _opened(args):
    from ppkd.study.runs import open_runs

    if not args.runs:
        raise UserError("no run is given")

    runs = open_runs(args.runs, args.opt, args.weights)
    start_device(runs[0].recipe.student)
    return runs

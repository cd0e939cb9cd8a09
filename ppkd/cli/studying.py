"""Arguments of the commands about runs that are done."""

import argparse

from ppkd.cli.kinds import positive
from ppkd.cli.shared import permissions


def _of_runs(description):
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("runs", nargs="+", metavar="RUN", help="output folder of a training")
    parser.add_argument("--weights", choices=("model_final", "best_model", "last"), default="model_final",
                        help="which of a run's weights (default model_final)")  # fmt: skip
    parser.add_argument("--images", type=positive, help="look at the first so many validation images only")
    parser.add_argument("-o", "--opt", nargs="*", action="extend", default=[], metavar="KEY=VALUE",
                        help="over what the runs recorded, where data or weights have been moved")  # fmt: skip
    return permissions(parser)


def report_parser():
    """Arguments of ``ppkd report``."""
    parser = _of_runs("Write one HTML page, and Markdown beside it, about runs with and without a teacher.")
    parser.add_argument("--output", default="output/report", help="a folder, or a file that ends in .html")
    return parser


def compare_parser():
    """Arguments of ``ppkd compare``."""
    parser = _of_runs("Compare methods over seeds, with intervals that tell a gain from chance.")
    parser.add_argument("--against", metavar="NAME", help="the group to compare with; the runs without a teacher")
    parser.add_argument("--resamples", type=positive, default=2000, help="resampled sets of images (default 2000)")
    parser.add_argument("--json", help="also write the comparison into this file")
    return parser

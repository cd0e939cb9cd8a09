"""What several commands have in common."""

import argparse

# Single settings that move all that hangs on them (`recipe.settings`).
SETTINGS = {
    "epochs": "length of the run: learning rate, warm-up, stages and terms move with it",
    "imgsz": "longer side of the images in pixels: readers, evaluation and export move together",
    "batch": "images a batch",
}


class Help(argparse.ArgumentDefaultsHelpFormatter):
    """Says defaults that say something."""

    def _get_help_string(self, action):
        told = action.default not in (None, False, [], argparse.SUPPRESS) and "(default" not in (action.help or "")
        return super()._get_help_string(action) if told else action.help


def common(description):
    """A parser with what every command with a config has."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("-c", "--config", required=True, help="the student's config file")
    parser.add_argument(
        "-o", "--opt", nargs="*", action="extend", default=[], metavar="KEY=VALUE",
        help="set config values: key=value for the run and the student, teacher.key=value, distill.key=value",
    )  # fmt: skip
    for name, what in SETTINGS.items():  # each is one of -o's keys by another name
        parser.add_argument(f"--{name}", dest="opt", action="append", default=[], type=f"{name}={{}}".format,
                            metavar="N", help=what)  # fmt: skip
    return permissions(parser)


def permissions(parser):
    """What files of others may do is said on the command line and nowhere else."""
    parser.add_argument(
        "--allow-classes", action="extend", type=lambda text: text.split(","), default=[], metavar="NAME[,NAME]",
        help="let configs name these classes of ppdet, which are refused otherwise (docs/security.md)",
    )  # fmt: skip
    parser.add_argument(
        "--allow-plugins", action="store_true",
        help="run the Python files that a slim file or a run's recipe.yml names in distill.plugins",
    )  # fmt: skip
    return parser

"""Command-line arguments, PaddleDetection's where it has them, and the console command."""

import sys

from ppkd import __version__
from ppkd.cli.around import configs_parser, data_parser, demo_parser, hosts_parser
from ppkd.cli.labelling import label_parser
from ppkd.cli.learning import bank_parser, doctor_parser, explain_parser, layers_parser, train_parser
from ppkd.cli.studying import compare_parser, report_parser
from ppkd.cli.using import eval_parser, export_parser, infer_parser
from ppkd.cli.weights import convert_parser, halve_parser
from ppkd.cli.whole import distill_parser, init_parser
from ppkd.errors import nearest
from ppkd.running import run, say

__all__ = [
    "COMMANDS", "bank_parser", "compare_parser", "configs_parser", "convert_parser", "data_parser", "demo_parser",
    "distill_parser", "doctor_parser", "eval_parser", "explain_parser", "export_parser", "halve_parser",
    "hosts_parser", "infer_parser", "init_parser", "label_parser", "layers_parser", "main", "report_parser", "run",
    "train_parser",
]  # fmt: skip

# Subcommands of ``ppkd``: name -> (parser, name of the function in `commands`, one line).
COMMANDS = {
    "distill": (distill_parser, "distill", "from a folder of images to a taught student: all that follows, in one"),
    "init": (init_parser, "init", "write the files of student, teacher and method for a data set"),
    "train": (train_parser, "train", "train a detector, or distil a teacher into it"),
    "bank": (bank_parser, "bank", "keep what a teacher says of the training images, so that it is asked once"),
    "eval": (eval_parser, "evaluate", "evaluate a detector"),
    "infer": (infer_parser, "infer", "detect objects in images and draw them"),
    "export": (export_parser, "export", "write a detector for Paddle Inference, and as ONNX"),
    "convert": (convert_parser, "convert", "turn weights of others into a detector's"),
    "explain": (explain_parser, "explain", "print what a slim file comes to, and who set which key"),
    "doctor": (doctor_parser, "doctor", "examine a distillation before it is run"),
    "layers": (layers_parser, "layers", "print a detector's modules, shapes and sources"),
    "report": (report_parser, "report", "write a page about runs with and without a teacher"),
    "compare": (compare_parser, "compare", "tell methods apart over seeds and images, or say that they cannot be"),
    "configs": (configs_parser, "configs", "list the configs that come with ppkd and can be named"),
    "hosts": (hosts_parser, "hosts", "print which Paddle and ppdet are used here, and what was cured of them"),
    "data": (data_parser, "data", "make COCO of Pascal VOC, YOLO, LabelMe, CVAT, Label Studio"),
    "label": (label_parser, "label", "let a trained detector label photographs, once it has shown what it can"),
    "demo": (demo_parser, "demo", "train a student alone and with a teacher on generated images"),
}


def main(argv=None):
    """The console command ``ppkd``, also ``python -m ppkd``."""
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] in ("-h", "--help"):
        lines = [f"  {name:<9}{line}" for name, (_, _, line) in COMMANDS.items()]
        return say("\n".join(["usage: ppkd COMMAND ...   (ppkd COMMAND --help tells its arguments)", "", *lines]))
    name, *rest = argv
    if name in ("-V", "--version"):
        return say(f"ppkd {__version__} (ppkd hosts tells what it stands on)")
    if name not in COMMANDS:
        print(f"ppkd: error: unknown command {name!r}{nearest(name, COMMANDS)}", file=sys.stderr)
        sys.exit(1)
    make, function, _ = COMMANDS[name]
    parser = make()
    parser.prog = f"ppkd {name}"
    run(parser, function, rest)

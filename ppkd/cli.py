"""Command-line arguments, PaddleDetection's where it has them, and the console command."""

import argparse
import sys

from ppkd.errors import nearest
from ppkd.running import run

# Single settings that move all that hangs on them (`recipe.settings`).
SETTINGS = {
    "epochs": "length of the run: learning rate, warm-up, stages and terms move with it",
    "imgsz": "longer side of the images in pixels: readers, evaluation and export move together",
    "batch": "images a batch",
}
_UNUSED_SLIM = "accepted as PaddleDetection does, and not read: a distilled student is a plain detector"


class _Help(argparse.ArgumentDefaultsHelpFormatter):
    """Says defaults that say something."""

    def _get_help_string(self, action):
        told = action.default not in (None, False, [], argparse.SUPPRESS) and "(default" not in (action.help or "")
        return super()._get_help_string(action) if told else action.help


def _common(description):
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("-c", "--config", required=True, help="the student's config file")
    parser.add_argument(
        "-o", "--opt", nargs="*", action="extend", default=[], metavar="KEY=VALUE",
        help="set config values: key=value for the run and the student, teacher.key=value, distill.key=value",
    )  # fmt: skip
    for name, what in SETTINGS.items():  # each is one of -o's keys by another name
        parser.add_argument(f"--{name}", dest="opt", action="append", default=[], type=f"{name}={{}}".format,
                            metavar="N", help=what)  # fmt: skip
    return _permissions(parser)


def _permissions(parser):
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


def train_parser():
    """Arguments of ``tools/train.py``."""
    parser = _common("Train a detector; with --slim_config, distil a teacher into it.")
    parser.add_argument("--slim_config", help="the teacher's and method's file; without it, plain training")
    parser.add_argument("--eval", action="store_true", help="evaluate at every snapshot and keep the best weights")
    parser.add_argument("-r", "--resume", help="go on from this checkpoint; auto: the newest of the output folder")
    parser.add_argument("--force", action="store_true", help="with -r: although the recipe is another")
    parser.add_argument("--amp", action="store_true", help="mixed precision")
    parser.add_argument("--max_steps", type=_positive, help="stop after so many steps")
    parser.add_argument("--track", type=_names, metavar="NAME[,NAME]", help="tensorboard, wandb, visualdl, if there")
    parser.add_argument("--use_vdl", type=_flag, nargs="?", const=True, default=False, help="log to VisualDL")
    parser.add_argument("--vdl_log_dir", default="vdl_log_dir/scalar", help="folder of the VisualDL log")
    return parser


def bank_parser():
    """Arguments of ``ppkd bank``."""
    parser = _common("Keep what the teacher says of every view of every image, before the run (distill.bank).")
    parser.add_argument("--slim_config", required=True, help="the teacher's and method's file")
    parser.add_argument("--shard", type=_part, default=(0, 1), metavar="I/N", help="the I-th of N parts, one a process")
    parser.add_argument("--amp", action="store_true", help="as the run will be: in mixed precision")
    return parser


def explain_parser():
    """Arguments of ``ppkd explain``."""
    parser = _common("Print what a slim file comes to: its terms, who set which key, and the levels that they pair.")
    parser.add_argument("--slim_config", required=True, help="the teacher's and method's file")
    parser.add_argument("--output", help="write it into this file, itself a slim file, and not to the terminal")
    return parser


def doctor_parser():
    """Arguments of ``ppkd doctor``."""
    parser = _common("Examine a distillation before it is run; nothing is trained or written.")
    parser.add_argument("--slim_config", help="the teacher's and method's file; not needed with --data")
    parser.add_argument("--data", action="store_true", help="look at every image and annotation instead")
    parser.add_argument("--json", help="write everything that was found and measured into this file")
    parser.add_argument("--images", type=_positive, default=48, help="validation images to detect on (default 48)")
    parser.add_argument("--waive", type=_names, metavar="ID[,ID]", help="findings that you know of: told as notes")
    return parser


def layers_parser():
    """Arguments of ``ppkd layers``."""
    parser = _common("Print a detector's modules with the shapes and strides of their outputs, and its sources.")
    parser.add_argument("--depth", type=_positive, default=2, help="levels of modules to print (default 2)")
    return parser


def eval_parser():
    """Arguments of ``tools/eval.py``."""
    parser = _common("Evaluate the detector of -c with the weights of -o weights=PATH_OR_URL.")
    parser.add_argument("--slim_config", help=_UNUSED_SLIM)
    parser.add_argument("--output_eval", help="folder for the detections as COCO json (bbox.json)")
    parser.add_argument("--json", help="write the results into this file")
    parser.add_argument("--classwise", action="store_true", help="also print AP by class; curves go into --output_eval")
    parser.add_argument("--save_prediction_only", action="store_true", help="write detections, compute no AP")
    return parser


def infer_parser():
    """Arguments of ``tools/infer.py``."""
    parser = _common("Detect objects in images with the weights of -o weights=PATH_OR_URL, and draw them.")
    parser.formatter_class = _Help
    parser.add_argument("--slim_config", help=_UNUSED_SLIM)
    parser.add_argument("--infer_img", nargs="+", help="one image or several; they go before --infer_dir")
    parser.add_argument("--infer_dir", help="all images of a folder")
    parser.add_argument("--output_dir", default="output/infer", help="folder for the drawn images")
    parser.add_argument("--draw_threshold", type=_share, default=0.5, help="draw detections from this score on")
    parser.add_argument("--save_results", type=_flag, nargs="?", const=True, default=False,
                        help="also write bbox.json, with names of files and classes")  # fmt: skip
    parser.add_argument("--visualize", type=_flag, default=True, help="draw the images")
    parser.add_argument("--use_vdl", type=_flag, nargs="?", const=True, default=False, help="log to VisualDL")
    parser.add_argument("--vdl_log_dir", default="vdl_log_dir/image", help="folder of the VisualDL log")
    return parser


def export_parser():
    """Arguments of ``tools/export_model.py``."""
    parser = _common("Export a detector with the weights of -o weights=PATH_OR_URL for Paddle Inference.")
    parser.add_argument("--slim_config", help=_UNUSED_SLIM)
    parser.add_argument("--output_dir", default="output_inference", help="the files go to a folder of it named as -c")
    parser.add_argument("--onnx", action="store_true", help="also write model.onnx")
    parser.add_argument("--opset", type=_positive, default=16, help="version of ONNX's operators (default 16)")
    return parser


def configs_parser():
    """Arguments of ``ppkd configs``."""
    parser = argparse.ArgumentParser(
        description="List the configs that come with ppkd: -c and --slim_config take names."
    )
    parser.add_argument("word", nargs="?", default="", metavar="WORD", help="those with WORD in their name")
    return parser


def hosts_parser():
    """Arguments of ``ppkd hosts``."""
    return argparse.ArgumentParser(
        description="Print which Paddle, ppdet, Python and numpy are used here, and what was cured of them."
    )


def convert_parser():
    """Arguments of ``tools/convert.py``."""
    parser = _common(
        "Turn weights into those of the detector of -c: the student of PaddleDetection's distillation, RTMDet of "
        "MMYOLO, MMDetection or MMRazor, or torchvision's ResNet for its backbone."
    )
    parser.add_argument("--checkpoint", required=True, help="a .pdparams, .pdema, .safetensors or .pth file, or a URL")
    parser.add_argument("--part", choices=["student", "teacher"], default="student", help="of MMRazor's distillation")
    parser.add_argument("--output", required=True, help="the .pdparams or .safetensors file to write")
    return parser


def data_parser():
    """Arguments of ``ppkd data import``."""
    parser = argparse.ArgumentParser(description="Turn a data set of another format into a folder in COCO's.")
    parser.add_argument("action", choices=["import"], help="import: read SOURCE, write --output")
    parser.add_argument("source", help="the data set's folder: images and annotations; stays as it is")
    parser.add_argument("--output", required=True, help="the folder to make; must not be there yet")
    parser.add_argument("--format", default="auto", help="coco, label-studio, labelme, cvat, voc, yolo (default auto)")
    parser.add_argument("--val", help="share for validation, such as 20%%; without it the data set's splits, or 20%%")
    parser.add_argument("--seed", type=int, default=0, help="of the random split (default 0)")
    parser.add_argument("--names", help="classes in their order: a,b,c or a file with names")
    parser.add_argument("--images", choices=["copy", "link", "leave"], default="copy",
                        help="copy them into --output, link (hard links), or leave them in place")  # fmt: skip
    return parser


def distill_parser():
    """Arguments of ``ppkd distill``."""
    return _of_course("From a folder of images to a taught student: each part is an ordinary command, and is printed.")


def init_parser():
    """Arguments of ``ppkd init``."""
    return _of_course("Write the files of student, teacher and method for a data set, and print what to run.")


def _of_course(description):
    parser = argparse.ArgumentParser(description=description, formatter_class=_Help)
    parser.add_argument("data", metavar="DATA", help="folder in COCO's, YOLO's or another format of ppkd data import")
    parser.add_argument("--student", default="ppyoloe_plus_small_custom", metavar="NAME_OR_FILE", help="its config")
    parser.add_argument("--teacher", default="ppyoloe_plus_teacher_custom", metavar="NAME_OR_FILE[=WEIGHTS]",
                        help="its config; without weights it is trained first")  # fmt: skip
    for name, what in SETTINGS.items():
        parser.add_argument(f"--{name}", type=_positive, metavar="N", help=f"{what}; proposed if not given")
    parser.add_argument("--teacher_epochs", type=_positive, metavar="N", help="length of the teacher's training")
    parser.add_argument("--method", default="auto", metavar="NAME", help="auto, FGD, PKD, ..., or a shipped slim file")
    parser.add_argument("--baseline", action="store_true", help="train the student without a teacher as well")
    parser.add_argument("--seeds", type=_positive, default=1, metavar="N", help="students of each kind")
    parser.add_argument("--unlabelled", metavar="FOLDER", help="photographs without labels, to teach from as well")
    parser.add_argument("--output", default="output/distill", help="folder for all that is made")
    parser.add_argument("--waive", type=_names, metavar="ID[,ID]", help="findings of the doctor to go on with")
    return parser


def label_parser():
    """Arguments of ``ppkd label``."""
    parser = argparse.ArgumentParser(
        description="Let a trained detector label photographs, once it has shown on labelled ones what it can.",
        formatter_class=_Help,
    )
    parser.add_argument("data", metavar="DATA", help="folder of the labelled data set, in COCO's format")
    parser.add_argument("--teacher", required=True, metavar="NAME_OR_FILE=WEIGHTS",
                        help="its config and weights, or FILE.onnx")
    parser.add_argument("--images", required=True, metavar="FOLDER",
                        help="the photographs: a folder, a .txt list of paths, or a COCO .json file")  # fmt: skip
    parser.add_argument("--output", required=True, metavar="FILE.json", help="the annotation file to write")
    parser.add_argument("--least_ap", type=_share, default=0.2, metavar="SHARE",
                        help="AP that the teacher has to have on the labelled validation set")  # fmt: skip
    parser.add_argument("--threshold", metavar="SCORE", help="label from this score on, or CLASS=SCORE,...; without it "
                        "each class's is the one of the highest F1 on the validation set")  # fmt: skip
    parser.add_argument("--sample", type=_positive, metavar="N", help="measure on the first N validation images only")
    parser.add_argument("--add_labelled", action="store_true", help="the labelled training images go into the file too")
    parser.add_argument("--keep_empty", action="store_true", help="keep images without a label, as background")
    parser.add_argument("--imgsz", dest="opt", action="append", default=[], type="imgsz={}".format, metavar="N",
                        help="longer side of the images that the teacher gets, in pixels")  # fmt: skip
    parser.add_argument("-o", "--opt", nargs="*", action="extend", default=[], metavar="KEY=VALUE",
                        help="set values of the teacher's config")  # fmt: skip
    return _permissions(parser)


def demo_parser():
    """Arguments of ``tools/demo.py``."""
    parser = argparse.ArgumentParser(description="Train a student alone and with a teacher on generated images.")
    parser.add_argument("--teacher", default="shipped", help="shipped, train, or the path of weights")
    parser.add_argument("--output", default="output/demo", help="folder for everything the demo makes")
    parser.add_argument("--data", default="dataset/shapes", help="folder of the generated data set")
    parser.add_argument("--seed", type=int, default=0, help="seed of both students")
    return parser


def _of_runs(description):
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("runs", nargs="+", metavar="RUN", help="output folder of a training")
    parser.add_argument("--weights", choices=("model_final", "best_model", "last"), default="model_final",
                        help="which of a run's weights (default model_final)")  # fmt: skip
    parser.add_argument("--images", type=_positive, help="look at the first so many validation images only")
    parser.add_argument("-o", "--opt", nargs="*", action="extend", default=[], metavar="KEY=VALUE",
                        help="over what the runs recorded, where data or weights have been moved")  # fmt: skip
    return _permissions(parser)


def report_parser():
    """Arguments of ``ppkd report``."""
    parser = _of_runs("Write one HTML page, and Markdown beside it, about runs with and without a teacher.")
    parser.add_argument("--output", default="output/report", help="a folder, or a file that ends in .html")
    return parser


def compare_parser():
    """Arguments of ``ppkd compare``."""
    parser = _of_runs("Compare methods over seeds, with intervals that tell a gain from chance.")
    parser.add_argument("--against", metavar="NAME", help="the group to compare with; the runs without a teacher")
    parser.add_argument("--resamples", type=_positive, default=2000, help="resampled sets of images (default 2000)")
    parser.add_argument("--json", help="also write the comparison into this file")
    return parser


def halve_parser():
    """Arguments of ``tools/halve_weights.py``."""
    parser = argparse.ArgumentParser(description="Store weights in float16.")
    parser.add_argument("weights", help="a .pdparams or .safetensors file or URL")
    parser.add_argument("output", help="the file to write")
    return parser


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
        print("usage: ppkd COMMAND ...   (ppkd COMMAND --help tells its arguments)\n")
        print("\n".join(f"  {name:<9}{line}" for name, (_, _, line) in COMMANDS.items()))
        return
    name, *rest = argv
    if name not in COMMANDS:
        print(f"ppkd: error: unknown command {name!r}{nearest(name, COMMANDS)}", file=sys.stderr)
        sys.exit(1)
    make, function, _ = COMMANDS[name]
    parser = make()
    parser.prog = f"ppkd {name}"
    run(parser, function, rest)


def _positive(text):
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("has to be at least 1")
    return value


def _part(text):
    number, _, count = text.partition("/")
    if not 1 <= int(number) <= int(count):
        raise argparse.ArgumentTypeError("has to be a part such as 1/2")
    return int(number) - 1, int(count)


def _share(text):
    value = float(text[:-1]) / 100 if text.endswith("%") else float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError("has to be a share such as 20% or 0.2")
    return value


def _names(text):
    return [name.strip() for name in text.split(",") if name.strip()]


def _flag(text):
    if text.lower() in ("true", "1", "yes"):
        return True
    if text.lower() in ("false", "0", "no"):
        return False
    raise argparse.ArgumentTypeError("has to be true or false")

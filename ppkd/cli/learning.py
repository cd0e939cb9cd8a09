"""Arguments of the commands about a training."""

from ppkd.cli.kinds import flag, names, part, positive
from ppkd.cli.shared import common


def train_parser():
    """Arguments of ``tools/train.py``."""
    parser = common("Train a detector; with --slim_config, distil a teacher into it.")
    parser.add_argument("--slim_config", help="the teacher's and method's file; without it, plain training")
    parser.add_argument("--eval", action="store_true", help="evaluate at every snapshot and keep the best weights")
    parser.add_argument("-r", "--resume", help="go on from this checkpoint; auto: the newest of the output folder")
    parser.add_argument("--force", action="store_true", help="with -r: although the recipe is another")
    parser.add_argument("--amp", action="store_true", help="mixed precision")
    parser.add_argument("--max_steps", type=positive, help="stop after so many steps")
    parser.add_argument("--track", type=names, metavar="NAME[,NAME]", help="tensorboard, wandb, visualdl, if there")
    parser.add_argument("--use_vdl", type=flag, nargs="?", const=True, default=False, help="log to VisualDL")
    parser.add_argument("--vdl_log_dir", default="vdl_log_dir/scalar", help="folder of the VisualDL log")
    return parser


def bank_parser():
    """Arguments of ``ppkd bank``."""
    parser = common("Keep what the teacher says of every view of every image, before the run (distill.bank).")
    parser.add_argument("--slim_config", required=True, help="the teacher's and method's file")
    parser.add_argument("--shard", type=part, default=(0, 1), metavar="I/N", help="the I-th of N parts, one a process")
    parser.add_argument("--amp", action="store_true", help="as the run will be: in mixed precision")
    return parser


def explain_parser():
    """Arguments of ``ppkd explain``."""
    parser = common("Print what a slim file comes to: its terms, who set which key, and the levels that they pair.")
    parser.add_argument("--slim_config", required=True, help="the teacher's and method's file")
    parser.add_argument("--output", help="write it into this file, itself a slim file, and not to the terminal")
    return parser


def doctor_parser():
    """Arguments of ``ppkd doctor``."""
    parser = common("Examine a distillation before it is run; nothing is trained or written.")
    parser.add_argument("--slim_config", help="the teacher's and method's file; not needed with --data")
    parser.add_argument("--data", action="store_true", help="look at every image and annotation instead")
    parser.add_argument("--json", help="write everything that was found and measured into this file")
    parser.add_argument("--images", type=positive, default=48, help="validation images to detect on (default 48)")
    parser.add_argument("--waive", type=names, metavar="ID[,ID]", help="findings that you know of: told as notes")
    return parser


def layers_parser():
    """Arguments of ``ppkd layers``."""
    parser = common("Print a detector's modules with the shapes and strides of their outputs, and its sources.")
    parser.add_argument("--depth", type=positive, default=2, help="levels of modules to print (default 2)")
    return parser

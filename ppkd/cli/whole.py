"""Arguments of the one command for all, and of the one that writes its files."""

import argparse

from ppkd.cli.kinds import names, positive
from ppkd.cli.shared import SETTINGS, Help


def distill_parser():
    """Arguments of ``ppkd distill``."""
    return _of_course("From a folder of images to a taught student: each part is an ordinary command, and is printed.")


def init_parser():
    """Arguments of ``ppkd init``."""
    return _of_course("Write the files of student, teacher and method for a data set, and print what to run.")


def _of_course(description):
    parser = argparse.ArgumentParser(description=description, formatter_class=Help)
    parser.add_argument("data", metavar="DATA", help="folder in COCO's, YOLO's or another format of ppkd data import")
    parser.add_argument("--student", default="ppyoloe_plus_small_custom", metavar="NAME_OR_FILE", help="its config")
    parser.add_argument("--teacher", default="ppyoloe_plus_teacher_custom", metavar="NAME_OR_FILE[=WEIGHTS]",
                        help="its config; without weights it is trained first")  # fmt: skip
    for name, what in SETTINGS.items():
        parser.add_argument(f"--{name}", type=positive, metavar="N", help=f"{what}; proposed if not given")
    parser.add_argument("--teacher_epochs", type=positive, metavar="N", help="length of the teacher's training")
    parser.add_argument("--method", default="auto", metavar="NAME", help="auto, FGD, PKD, ..., or a shipped slim file")
    parser.add_argument("--baseline", action="store_true", help="train the student without a teacher as well")
    parser.add_argument("--seeds", type=positive, default=1, metavar="N", help="students of each kind")
    parser.add_argument("--unlabelled", metavar="FOLDER", help="photographs without labels, to teach from as well")
    parser.add_argument("--output", default="output/distill", help="folder for all that is made")
    parser.add_argument("--waive", type=names, metavar="ID[,ID]", help="findings of the doctor to go on with")
    return parser

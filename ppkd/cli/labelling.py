"""Arguments of ``ppkd label``."""

import argparse

from ppkd.cli.kinds import positive, share
from ppkd.cli.shared import Help, permissions


def label_parser():
    """Arguments of ``ppkd label``."""
    parser = argparse.ArgumentParser(
        description="Let a trained detector label photographs, once it has shown on labelled ones what it can.",
        formatter_class=Help,
    )
    parser.add_argument("data", metavar="DATA", help="folder of the labelled data set, in COCO's format")
    parser.add_argument("--teacher", required=True, metavar="NAME_OR_FILE=WEIGHTS",
                        help="its config and weights, or FILE.onnx")
    parser.add_argument("--images", required=True, metavar="FOLDER",
                        help="the photographs: a folder, a .txt list of paths, or a COCO .json file")  # fmt: skip
    parser.add_argument("--output", required=True, metavar="FILE.json", help="the annotation file to write")
    parser.add_argument("--least_ap", type=share, default=0.2, metavar="SHARE",
                        help="AP that the teacher has to have on the labelled validation set")  # fmt: skip
    parser.add_argument("--threshold", metavar="SCORE", help="label from this score on, or CLASS=SCORE,...; without it "
                        "each class's is the one of the highest F1 on the validation set")  # fmt: skip
    parser.add_argument("--sample", type=positive, metavar="N", help="measure on the first N validation images only")
    parser.add_argument("--add_labelled", action="store_true", help="the labelled training images go into the file too")
    parser.add_argument("--keep_empty", action="store_true", help="keep images without a label, as background")
    parser.add_argument("--imgsz", dest="opt", action="append", default=[], type="imgsz={}".format, metavar="N",
                        help="longer side of the images that the teacher gets, in pixels")  # fmt: skip
    parser.add_argument("-o", "--opt", nargs="*", action="extend", default=[], metavar="KEY=VALUE",
                        help="set values of the teacher's config")  # fmt: skip
    return permissions(parser)

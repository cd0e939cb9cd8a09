"""Arguments of the commands around a training: configs, hosts, data sets, the demo."""

import argparse


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


def demo_parser():
    """Arguments of ``tools/demo.py``."""
    parser = argparse.ArgumentParser(description="Train a student alone and with a teacher on generated images.")
    parser.add_argument("--teacher", default="shipped", help="shipped, train, or the path of weights")
    parser.add_argument("--output", default="output/demo", help="folder for everything the demo makes")
    parser.add_argument("--data", default="dataset/shapes", help="folder of the generated data set")
    parser.add_argument("--seed", type=int, default=0, help="seed of both students")
    return parser

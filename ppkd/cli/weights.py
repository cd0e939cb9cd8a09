"""Arguments of the commands that turn weights into others."""

import argparse

from ppkd.cli.shared import common


def convert_parser():
    """Arguments of ``tools/convert.py``."""
    parser = common(
        "Turn weights into those of the detector of -c: the student of PaddleDetection's distillation, RTMDet of "
        "MMYOLO, MMDetection or MMRazor, or torchvision's ResNet for its backbone."
    )
    parser.add_argument("--checkpoint", required=True, help="a .pdparams, .pdema, .safetensors or .pth file, or a URL")
    parser.add_argument("--part", choices=["student", "teacher"], default="student", help="of MMRazor's distillation")
    parser.add_argument("--output", required=True, help="the .pdparams or .safetensors file to write")
    return parser


def halve_parser():
    """Arguments of ``tools/halve_weights.py``."""
    parser = argparse.ArgumentParser(description="Store weights in float16.")
    parser.add_argument("weights", help="a .pdparams or .safetensors file or URL")
    parser.add_argument("output", help="the file to write")
    return parser

#!/usr/bin/env python3
"""Export a detector for Paddle Inference and ONNX."""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from ppkd import cli

if __name__ == "__main__":
    cli.run(cli.export_parser(), "export")

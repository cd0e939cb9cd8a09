#!/usr/bin/env python3
"""Detect objects in images and draw them."""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from ppkd import cli

if __name__ == "__main__":
    cli.run(cli.infer_parser(), "infer")

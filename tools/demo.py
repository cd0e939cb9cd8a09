#!/usr/bin/env python3
"""The demo behind `make demo`."""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from ppkd import cli

if __name__ == "__main__":
    cli.run(cli.demo_parser(), "demo")

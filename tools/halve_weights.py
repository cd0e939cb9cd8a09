#!/usr/bin/env python3
"""Store weights in float16: half the size to ship. Loading casts them back to the model's type.

    python tools/halve_weights.py output/demo/teacher/ppyoloe_plus_teacher_shapes/model_final.pdparams \\
        ppkd/data/teacher_shapes.pdparams
"""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from ppkd import cli

if __name__ == "__main__":
    cli.run(cli.halve_parser(), "halve")

"""Compare ppkd's losses with golden fixtures: ``check_golden.py DIR``.

Exits with 0 if all known cases are within tolerance, 1 on a deviation, 2 if nothing was checked.
"""

import argparse
import sys
import zlib  # noqa: F401  Paddle 2.6 brings a zlib of its own: the system's must be loaded first
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.golden.check.report import report


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", metavar="DIR", help="holds one folder of npz files a loss")
    return report(parser.parse_args().directory)


if __name__ == "__main__":
    sys.exit(main())

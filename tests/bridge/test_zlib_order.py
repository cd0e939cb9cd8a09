"""Paddle 2.6 and zlib: the order of imports, each in a process of its own."""

import subprocess
import sys

import paddle
import pytest

from tests.conftest import ROOT

BEFORE_3 = int(paddle.__version__.split(".")[0]) < 3


def run(*lines):
    """The finished process of a few lines of Python."""
    command = [sys.executable, "-c", "\n".join(lines)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


def test_ppkd_first_then_paddle_then_pycocotools():
    done = run("import ppkd", "import paddle", "import pycocotools.mask, lap", "import zlib",
               "assert zlib.decompress(zlib.compress(b'x' * 9999)) == b'x' * 9999")  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_the_cure_is_needed():
    """Once the first of these fails, Paddle has been mended and ppkd.bridge.compat.zlib_order can go."""
    done = run("import paddle", "import pycocotools.mask")
    if BEFORE_3:
        assert done.returncode < 0 or done.returncode == 139, "Paddle 2.6 no longer dies"
    else:
        assert done.returncode == 0, done.stderr
    with_cure = run("import zlib", "import paddle", "import pycocotools.mask")
    assert with_cure.returncode == 0, with_cure.stderr


def test_paddle_before_ppkd():
    """Too late to cure on 2.6: a message instead of a crash later."""
    done = run("import paddle", "import ppkd")
    if BEFORE_3:
        assert done.returncode == 1
        assert done.stderr.splitlines()[-1].startswith("ImportError: Paddle 2.6 was imported before ppkd")
        assert "Put `import ppkd` (or `import zlib`) above `import paddle`" in done.stderr
    else:
        assert done.returncode == 0, done.stderr


def test_paddle_before_ppkd_is_fine_where_zlib_came_first():
    done = run("import zlib", "import paddle", "import ppkd", "import pycocotools.mask")
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(BEFORE_3, reason="Paddle 2.6 dies")
def test_paddle_3_needs_no_order():
    done = run("import paddle", "import ppkd", "import pycocotools.mask")
    assert done.returncode == 0, done.stderr

"""The Makefile takes a clone of any place, and says which Python a Paddle has no release for."""

import os
import subprocess

import pytest

from tests.conftest import ROOT


def make(*words):
    # `make test` runs this; its flags in the environment would have this make speak of the folders that it enters.
    env = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")}
    return subprocess.run(["make", *words], cwd=ROOT, env=env, capture_output=True, text=True, check=False, timeout=60)


def python(tmp_path, minor):
    """A program that answers as a Python of that version would."""
    script = tmp_path / "python"
    script.write_text(f'#!/bin/sh\ncase "$1" in -V) echo "Python 3.{minor}.0" ;; -c) echo ${{2:+3{minor}}} ;; esac\n')
    script.chmod(0o755)
    return f"PYTHON={script}"


def test_a_clone_in_a_folder_with_a_space_is_one_folder(tmp_path):
    """The second half of the name was run as a command."""
    package = tmp_path / "a clone" / "ppdet"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    last = make("-n", "test-host", f"PPDET={package.parent}").stdout.splitlines()[-1]
    assert last.startswith(f'PYTHONPATH="$(cd "{package.parent}" && pwd)" ') and " -m pytest " in last


@pytest.mark.parametrize(
    "minor, paddle, message",
    [
        (13, "2.6.2", "ppkd: Paddle 2.6.2 has no release for Python 3.13: PYTHON=python3.11, or PADDLE=3.3.1"),
        (10, "2.6.2", 'is Python 3.10.0; needs 3.11, 3.12 or 3.13 (with 3.10: pip install ".[paddledet,cpu]")'),
        (13, "3.3.1", None),
        (11, "2.6.2", None),
    ],
)
def test_what_does_not_go_together_is_one_line_before_anything_is_made(minor, paddle, message, tmp_path):
    """Of Paddle 2.6.2 on Python 3.13 pip said that it "could not find a version", behind a new environment."""
    done = make("python", python(tmp_path, minor), f"PADDLE={paddle}")
    assert (done.returncode != 0) == bool(message), done.stderr
    assert message is None or message in done.stderr.splitlines()[0]


def test_a_clone_that_is_not_there_is_told_before_anything_is_installed(tmp_path):
    done = make("test-host", python(tmp_path, 12), f"PPDET={tmp_path}")
    assert done.returncode and f"no ppdet in '{tmp_path}'" in done.stderr
    assert "installing" not in done.stdout

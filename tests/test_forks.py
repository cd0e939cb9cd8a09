"""The processes that stand in for new ones: their words, streams and ends are those of Python's own."""

import os
import signal
import subprocess
import time

import pytest

from tests.helpers_forks import Forks

SCRIPT = """
import os, sys
print(sys.argv[1:], os.getcwd(), os.environ["GIVEN"], __name__)
print(sys.stdin.read(), file=sys.stderr)
if sys.argv[1] == "raise":
    raise ValueError("of its own")
if sys.argv[1] == "kill":
    os.kill(os.getpid(), 9)
sys.exit({"0": 0, "3": 3, "text": "a word"}[sys.argv[1]])
"""


@pytest.mark.parametrize("how, code", [("0", 0), ("3", 3), ("text", 1), ("raise", 1), ("kill", -signal.SIGKILL)])
def test_a_script_runs_and_ends_as_under_python(how, code, forks, tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    command = [forks, str(tmp_path / "script.py"), how, "b c"]
    environment = {**os.environ, "GIVEN": "ä"}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, input="asked", capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == code, done.stderr
    if how != "kill":  # what a killed process has printed into a pipe it may not have sent
        assert done.stdout == f"{[how, 'b c']} {tmp_path} ä __main__\n" and done.stderr.startswith("asked\n")
    for text, when in (("ValueError: of its own", "raise"), ("a word", "text")):
        assert (text in done.stderr) == (how == when)


@pytest.mark.timeout(100)
def test_the_server_ends_although_others_have_its_pipes(tmp_path):
    server = Forks(tmp_path)
    server.python()
    if (process := os.fork()) == 0:
        time.sleep(200)
        os._exit(0)
    try:
        server.close()
    finally:
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)

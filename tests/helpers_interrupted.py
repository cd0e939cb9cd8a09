"""Run by test_interrupted.py: trains in child processes that are killed, and goes on from what they left.

    helpers_interrupted.py ARGUMENTS.json KILLS SEED

Everything is imported once and every child forked from here, so that a kill costs a second and not ten. Prints how
many of the kills hit a checkpoint that was being written.
"""

import contextlib
import json
import os
import random
import signal
import sys
import time
import traceback
from unittest import mock

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import ppkd  # noqa: F401, I001  # before paddle
import ppdet.engine  # noqa: F401

from ppkd.training import checkpoint
from ppkd.recipe.recipe import load_recipe
from ppkd.training.trainer import Trainer

STEP, WRITE, WRITTEN = b"s", b"w", b"d"


def child(arguments, events, aimed):
    """Train to the end, telling every step, and when a checkpoint's file is begun and done.

    Args:
        aimed: number of the write that a kill is to hit, or None. It waits before its file gets its name, or on a
            machine with other work to do it would be done before the kill comes.
    """
    step, write, written = Trainer._after_step, checkpoint.write, []

    def watched_step(self, *args):
        result = step(self, *args)
        os.write(events, STEP)
        return result

    def watched_write(path, content):
        os.write(events, WRITE)
        written.append(path)
        with mock.patch("os.replace", waiting) if len(written) == aimed else contextlib.nullcontext():
            write(path, content)
        os.write(events, WRITTEN)

    def waiting(*args, replace=os.replace):
        time.sleep(5)
        replace(*args)

    Trainer._after_step, checkpoint.write = watched_step, watched_write
    with Trainer.open(load_recipe(*arguments), resume="auto", validate=True) as trainer:
        trainer.run()


def run(arguments, kill_at=None):
    """Fork a child; kill it a moment after its n-th event of a kind.

    Args:
        kill_at: ``(kind, n, seconds)``, or None to let it end.

    Returns:
        The events up to its end.
    """
    reading, writing = os.pipe()
    process = os.fork()
    if process == 0:
        os.close(reading)
        code = 1
        try:
            child(arguments, writing, kill_at[1] if kill_at is not None and kill_at[0] == WRITE else None)
            code = 0
        except Exception:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    os.close(writing)
    seen = b""
    while event := os.read(reading, 1):
        seen += event
        if kill_at is not None and event == kill_at[0] and seen.count(event) == kill_at[1]:
            time.sleep(kill_at[2])
            os.kill(process, signal.SIGKILL)
            kill_at = None
    os.close(reading)
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    assert code in (0, -signal.SIGKILL), f"the child ended with {code}"
    return seen


def main():
    path, kills, seed = sys.argv[1:]
    with open(path, encoding="utf-8") as file:
        arguments = json.load(file)
    draw, hit = random.Random(int(seed)), 0
    for number in range(int(kills)):
        # Every other one inside of a write, where it does most harm; never before the first step is done.
        if number % 2:
            seen = run(arguments, (WRITE, draw.randint(2, 4), draw.uniform(0, 0.01)))
        else:
            seen = run(arguments, (STEP, draw.randint(1, 2), draw.uniform(0, 0.3)))
        hit += seen.count(WRITE) > seen.count(WRITTEN)
    run(arguments)
    print(f"inside of a write: {hit}")


if __name__ == "__main__":
    main()

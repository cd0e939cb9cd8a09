"""Run by test_loader_processes.py: a run that loses a loading process and goes on, and one that loses none.

    helpers_lost_worker.py ARGUMENTS.json

Prints, as JSON, how the first ended, the steps of its last checkpoint, and what of both differs.
"""

import json
import multiprocessing
import os
import pathlib
import signal
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import ppkd  # noqa: F401  # before paddle
from ppkd.errors import UserError
from ppkd.recipe.recipe import load_recipe
from ppkd.training import checkpoint
from ppkd.training.trainer import Trainer
from tests.helpers_training import differing


def train(config, overrides, lose_at=None):
    """Train to the end; kill a loading process when so many steps are done."""
    with Trainer.open(load_recipe(config, None, overrides), resume="auto") as trainer:
        after = trainer._after_step

        def watched(*args):
            stop = after(*args)
            if trainer.step == lose_at:
                os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)
                time.sleep(60)  # until Paddle says so
            return stop

        trainer._after_step = watched
        trainer.run()
        return pathlib.Path(trainer.output_dir)


def records(run):
    found = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: item[key] for key in ("kind", "epoch", "step", "loss", "lr")} for item in found]


def main():
    config, folder, overrides = json.loads(pathlib.Path(sys.argv[1]).read_text())
    lost, whole = ([*overrides, f"save_dir={folder}/{name}"] for name in ("lost", "whole"))
    try:
        train(config, lost, lose_at=4)
        ended = "by itself"
    except UserError as error:
        ended = str(error)
    saved = checkpoint.load_newest(load_recipe(config, None, lost).output_dir)["step"]
    first, second = train(config, lost), train(config, whole)
    states = [checkpoint.load(str(run / "model_final")) for run in (first, second)]
    found = [key for key in ("student", "optimizer", "step") if differing(*({key: s[key]} for s in states))]
    found += ["records"] if records(first) != records(second) else []
    print(json.dumps({"ended": ended, "saved": saved, "differing": found}))


if __name__ == "__main__":
    main()

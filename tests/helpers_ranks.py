"""Runs on two ranks: what starts them, and what each rank does with them.

    SCRIPT FOLDER NAME=ARGUMENTS.json ...

is what `finished` has two processes do: for every NAME they write ``FOLDER/NAME.RANK``.
"""

import json
import os
import subprocess
import sys

from tests.conftest import ROOT


def launch(folder, script, *arguments, python=sys.executable):
    """Run a script on two ranks; the text of both if it fails."""
    command = [python, "-m", "paddle.distributed.launch", "--nproc_per_node", "2", "--log_dir", "log"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, str(ROOT / script), *map(str, arguments)],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=420, check=False,
    )  # fmt: skip
    logs = [path.read_text(errors="replace") for path in sorted((folder / "log").glob("workerlog.*"))]
    assert done.returncode == 0, done.stderr[-2000:] + "\n".join(log[-3000:] for log in logs)
    assert len(logs) == 2
    return logs


def on_two_ranks(folder, script, runs, python=sys.executable):
    """Run name -> what rank 0 and rank 1 had after it; one launch for all.

    Args:
        script: calls `main`.
        runs: name -> keyword arguments of the script's function.
        python: what runs it, as `conftest.forks`.
    """
    import paddle

    arguments = []
    for name, given in runs.items():
        (folder / f"{name}.json").write_text(json.dumps(given))
        arguments.append(f"{name}={folder / name}.json")
    launch(folder, script, folder, *arguments, python=python)
    return {name: [paddle.load(str(folder / f"{name}.{rank}")) for rank in (0, 1)] for name in runs}


def main(function):
    """On a rank: call a function with the arguments of each run and save what it returns."""
    import paddle

    from ppkd.training.device import start_device

    folder, *runs = sys.argv[1:]
    start_device({})
    for run in runs:
        name, path = run.split("=", 1)
        with open(path, encoding="utf-8") as file:
            result = function(**json.load(file))
        paddle.save(result, os.path.join(folder, f"{name}.{paddle.distributed.get_rank()}"))

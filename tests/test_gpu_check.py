"""The check of a GPU, run on the CPU at its smallest size: the script itself is known to work."""

import dataclasses
import json
import os
import pathlib
import subprocess
import time

import paddle
import pytest

from benchmarks import gpu_check
from benchmarks.device import losses, pairs, speed, tools
from benchmarks.device.lines import FAILED, MISSED, NOT_HERE, NOT_ON_CPU, OK, table, tried
from tests.conftest import ROOT


def check(python, folder, *args):
    command = [python, str(ROOT / "benchmarks" / "gpu_check.py"), *args]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=1800, check=False
    )  # fmt: skip


def test_on_a_cpu_every_line_is_shown_or_said_not_to_be(forks, tmp_path):
    done = check(forks, tmp_path, "--device", "cpu", "--smallest")
    found = json.loads((tmp_path / "gpu_check.json").read_text())
    lines = {line["name"]: line for line in found["lines"]}
    assert found["failed"] == [], [lines[name]["detail"] for name in found["failed"]]
    assert done.returncode == bool(found["missed"]), done.stderr
    assert all(name in done.stdout and line["verdict"] in done.stdout for name, line in lines.items())
    by = {verdict: {n for n, x in lines.items() if x["verdict"] == verdict} for verdict in (OK, NOT_ON_CPU, NOT_HERE)}
    trained = {f"train {' '.join(pair)} {name}" for pair in pairs.PAIRS for name in pairs.PRECISIONS}
    full = {name for name in trained if name.endswith("float32")}
    assert by[NOT_ON_CPU] == trained - full | {f"rows {name}" for name in speed.GROUPS}
    assert by[NOT_HERE] == {"golden files", "two ranks", "launches retinanet fgd", "launches gfl ld"}
    rest = {"device", "resume", "doctor", "evaluation", "export", "waits", *(f"loss {name}" for name in losses.CASES)}
    assert rest | full <= by[OK] and set(lines) - set().union(*by.values()) <= set(found["missed"])
    assert not list(tmp_path.glob("output*")), "it leaves its file and nothing else"
    for name in full:
        assert len(lines[name]["numbers"]["losses"]) == 1


@pytest.mark.skipif(paddle.is_compiled_with_cuda(), reason="this Paddle may find a GPU")
def test_without_a_gpu_it_says_so_and_no_more(forks, tmp_path):
    done = check(forks, tmp_path)
    found = json.loads((tmp_path / "gpu_check.json").read_text())
    assert done.returncode == 1 and [line["name"] for line in found["lines"]] == ["device"] == found["failed"]
    assert "Paddle finds no GPU; --device cpu runs the same list" in done.stdout


def test_a_part_that_ends_with_its_process_does_not_end_the_others(tmp_path, monkeypatch):
    args = gpu_check.argparse.Namespace(folder=str(tmp_path), device="cpu", steps=1, golden=None)
    monkeypatch.setattr(gpu_check.sys, "executable", "/bin/false")
    (line,) = gpu_check.in_a_process(args, "losses", 60)
    assert (line.name, line.verdict) == ("losses", FAILED) and "exit code 1" in line.detail
    (late,) = gpu_check.in_a_process(args, "losses", 0)
    assert late.verdict == NOT_HERE and "no time left" in late.detail


def test_a_part_that_takes_too_long_ends_with_all_that_it_has_started(tmp_path, monkeypatch):
    slow = tmp_path / "slow"
    slow.write_text(f"#!/bin/sh\nsleep 60 2> /dev/null & echo $! > {tmp_path}/child; wait\n")
    slow.chmod(0o755)
    args = gpu_check.argparse.Namespace(folder=str(tmp_path), device="cpu", steps=1, golden=None)
    monkeypatch.setattr(gpu_check.sys, "executable", str(slow))
    (line,) = gpu_check.in_a_process(args, "losses", 2)
    assert line.verdict == MISSED and "not done when the 600 s were over" in line.detail, "or a part that hangs is fine"
    child = int((tmp_path / "child").read_text())
    limit = time.time() + 20  # of its 60 s: what is killed dies when it is its turn
    while is_running(child):
        assert time.time() < limit, "it goes on"
        time.sleep(0.05)


def test_what_a_part_has_found_before_it_dies_is_shown(tmp_path, monkeypatch):
    dies = tmp_path / "dies"
    found = json.dumps(dataclasses.asdict(tried("train float32", lambda: (True, "fine", {}))))
    dies.write_text(f"#!/bin/sh\necho '{found}' > \"$5\"; printf '{{' >> \"$5\"; kill -SEGV $$\n")
    dies.chmod(0o755)
    args = gpu_check.argparse.Namespace(folder=str(tmp_path), device="cpu", steps=1, golden=None)
    monkeypatch.setattr(gpu_check.sys, "executable", str(dies))
    lines = gpu_check.in_a_process(args, "pair a b", 60)
    assert [(line.name, line.verdict) for line in lines] == [("train float32", OK), ("pair a b", FAILED)]
    assert "exit code -11" in lines[1].detail


def test_a_part_gives_its_lines_one_by_one(tmp_path, monkeypatch):
    """So that what it has come to is there when the device ends it."""
    seen, said = [], lambda name, *_: seen.append(name) or tried(name, lambda: (True, "", {}))
    args = gpu_check.argparse.Namespace(folder=str(tmp_path), device="gpu", steps=1, golden=None, smallest=False)
    for module in (pairs, speed, tools, losses):
        monkeypatch.setattr(module, "tried", said)
    for part in ("pair gfl ld", "tools", "launches", "losses"):
        del seen[:]
        line = next(gpu_check.lines_of(args, part))
        assert seen == [line.name]


def test_a_launcher_that_hangs_is_given_the_time_to_end_its_workers(tmp_path):
    launcher = tmp_path / "launcher"
    stop = f"kill $(cat {tmp_path}/child)"
    launcher.write_text(
        f"#!/bin/sh\ntrap '{stop}; exit 1' TERM\nsetsid sleep 60 2> /dev/null & echo $! > {tmp_path}/child; wait\n"
    )
    launcher.chmod(0o755)
    with pytest.raises(subprocess.TimeoutExpired):
        tools._done([str(launcher)], tmp_path, dict(os.environ), limit=2)
    limit = time.time() + 20
    while is_running(int((tmp_path / "child").read_text())):
        assert time.time() < limit, "it goes on"
        time.sleep(0.05)


@pytest.mark.parametrize("args, told", [
    (["--json", "nowhere/check.json"], "--json nowhere/check.json: No such file or directory; nothing was checked"),
    (["--steps", "0"], "--steps is 0, expected at least 1"),
])  # fmt: skip
def test_what_cannot_be_done_is_told_before_anything_is_checked(args, told, forks, tmp_path):
    done = check(forks, tmp_path, "--device", "cpu", *args)
    assert done.returncode == 2 and done.stderr.splitlines()[-1].endswith(told) and not done.stdout


def test_a_loss_that_is_no_number_is_written_as_other_programs_read_it(tmp_path):
    args = gpu_check.argparse.Namespace(device="gpu", json=str(tmp_path / "check.json"))
    numbers = {"losses": [1.0, float("nan"), float("inf")]}
    gpu_check.save(args, [tried("train", lambda: (False, "", numbers))], {}, 1.0)
    text = (tmp_path / "check.json").read_text()
    (line,) = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))["lines"]
    assert line["numbers"] == {"losses": [1.0, "nan", "inf"]}


def test_a_precision_is_beside_float32_alone():
    first = {}
    assert pairs._beside_float32(2.0, False, first)[::2] == (False, None), "its own loss is no measure for others"
    assert pairs._beside_float32(2.0, True, first)[::2] == (True, None)
    assert pairs._beside_float32(2.05, False, first)[0] and not pairs._beside_float32(2.2, False, first)[0]
    assert not pairs._beside_float32(float("nan"), False, first)[0]


def is_running(process):
    try:
        return pathlib.Path(f"/proc/{process}/stat").read_text().split()[2] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_what_a_line_says():
    def breaks():
        raise ZeroDivisionError("first\n  Error: what it was\nlast")

    lines = [
        tried("right", lambda: (True, "fine", {"x": 1})), tried("wrong", lambda: (False, "far off", {})),
        tried("slow", lambda: (MISSED, "2 (target: 1)", {})), tried("broken", breaks),
    ]  # fmt: skip
    assert [line.verdict for line in lines] == [OK, FAILED, MISSED, FAILED]
    assert lines[3].detail == "ZeroDivisionError: Error: what it was"
    assert all(word in table(lines) for word in ("far off", "TARGET MISSED", "2 (target: 1)", "Error: what it was"))


def test_a_loss_that_is_off_is_seen(monkeypatch):
    right = losses.measured("cwd")
    assert losses._as_expected("cwd", "cpu")[0]
    for part in right:
        monkeypatch.setattr(losses, "measured", lambda _, part=part: {**right, part: right[part] * 1.001})
        good, detail, _ = losses._as_expected("cwd", "cpu")
        assert not good and detail.startswith(part)
        assert losses._as_expected("cwd", "gpu")[0], "TF32 has ten bits"


@pytest.mark.parametrize("target, expected", [(">= 2", OK), (">= 3", MISSED), ("<= 2", MISSED), (None, OK)])
def test_a_row_beside_its_target(target, expected):
    assert speed._line(speed.run.Row("loss", ratio=2.5, target=target)).verdict == expected
    assert speed._line(speed.run.Row("loss", note="failed: no memory")).verdict == FAILED

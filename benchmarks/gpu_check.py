"""What someone with one GPU or two runs once, in at most ten minutes: does everything work here, and how fast?

    python benchmarks/gpu_check.py [--golden FOLDER] [--json FILE]
    python benchmarks/gpu_check.py --device cpu [--smallest]

It prints a line for each thing that was checked, with its target, and writes the same as JSON. The exit code is 1 if a
line failed or missed its target. Each part is a process of its own, so that one that is ended by the device does not
end the others; docs/gpu.md tells how to read it.
"""

# ruff: noqa: E402
import argparse
import dataclasses
import json
import math
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)

from benchmarks.device.lines import FAILED, MISSED, NOT_HERE, OK, Line, table

BUDGET = 600  # seconds
# Number of steps of each pair; at the smallest size.
STEPS, FEWEST = 30, 1


def main():
    args = parse()
    if args.inside:
        return inside(args)
    begin, lines, versions = time.time(), [], {}
    args.folder = tempfile.mkdtemp(prefix="gpu_check_")
    try:
        for part in parts(args):
            left = BUDGET - (time.time() - begin)
            found = in_this_process(args, part) if args.smallest else in_a_process(args, part, left)
            versions = versions or next((line.numbers for line in found if line.name == "device"), {})
            lines += found
            save(args, lines, versions, time.time() - begin)
            if not args.smallest:
                print(table(found) + "\n", flush=True)
            if part == "device" and found[0].verdict == FAILED:
                break  # Paddle would go on with the CPU, and the other lines would tell of that
    finally:
        shutil.rmtree(args.folder, ignore_errors=True)
    counts = {verdict: sum(line.verdict == verdict for line in lines) for verdict in {line.verdict for line in lines}}
    print(table(lines))
    print("\n" + ", ".join(f"{verdict}: {count}" for verdict, count in sorted(counts.items())), end="")
    print(f" in {time.time() - begin:.0f} s; written to {args.json}")
    return 1 if counts.get(FAILED) or counts.get(MISSED) else 0


def parse():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--device", choices=("gpu", "cpu"), default="gpu", help="cpu runs the same list (default gpu)")
    parser.add_argument("--golden", metavar="FOLDER", help="golden files, as for tools/check_golden.py")
    parser.add_argument("--json", default="gpu_check.json", help="file to write (default gpu_check.json)")
    parser.add_argument("--steps", type=int, help=f"steps of each pair (default {STEPS})")
    parser.add_argument("--smallest", action="store_true", help=f"{FEWEST} step of each pair, all in one process")
    parser.add_argument("--inside", help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.steps = (FEWEST if args.smallest else STEPS) if args.steps is None else args.steps
    if args.steps < 1:
        parser.error(f"--steps is {args.steps}, expected at least 1")
    try:
        with open(args.json, "a", encoding="utf-8"):
            pass
    except OSError as error:
        parser.error(f"--json {args.json}: {error.strerror}; nothing was checked")
    return args


def parts(args):
    """Names of the parts, in their order; nothing of Paddle is imported for them."""
    pairs = (
        "ppyoloe ppyoloe", "gfl ld", "gfl cwd", "retinanet fgd", "yolov3 yolov3", "picodet ld", "rtmdet neck",
        "resnet matching",
    )  # fmt: skip
    return ["device", "losses", *(f"pair {pair}" for pair in pairs), "resume", "tools", "ranks", "launches", *_rows()]


def _rows():
    from benchmarks.device.speed import GROUPS

    return [f"rows {name}" for name in GROUPS]


def lines_of(args, part):
    """The lines of a part, each as soon as it is there."""
    kind, _, name = part.partition(" ")
    if kind == "device":
        yield device_line(args)
    elif kind == "losses":
        from benchmarks.device import losses

        yield from losses.group(args)
    elif kind in ("pair", "resume"):
        from benchmarks.device import pairs

        yield from pairs.group(args, tuple(name.split())) if kind == "pair" else pairs.resume(args)
    elif kind in ("tools", "ranks"):
        from benchmarks.device import tools

        yield from tools.group(args) if kind == "tools" else tools.ranks(args)
    else:
        from benchmarks.device import speed

        yield from speed.launches(args) if kind == "launches" else speed.rows(args, name)


def device_line(args):
    """What the check runs on."""
    import paddle

    numbers = {"python": platform.python_version(), "paddle": paddle.__version__, "system": platform.platform()}
    if args.device == "gpu":
        if not paddle.is_compiled_with_cuda() or not paddle.device.cuda.device_count():
            return Line("device", FAILED, "Paddle finds no GPU; --device cpu runs the same list", numbers)
        about = paddle.device.cuda.get_device_properties()
        numbers |= {
            "gpus": paddle.device.cuda.device_count(), "gpu": about.name, "gb": round(about.total_memory / 1e9, 1),
            "capability": f"{about.major}.{about.minor}", "bfloat16": bool(paddle.amp.is_bfloat16_supported()),
            "cuda": paddle.version.cuda(), "cudnn": paddle.version.cudnn(),
        }  # fmt: skip
    return Line("device", OK, ", ".join(f"{key} {value}" for key, value in numbers.items()), numbers)


def in_this_process(args, part):
    start(args)
    return list(lines_of(args, part))


def start(args):
    import ppkd  # noqa: F401  # before paddle
    from ppkd.training.device import start_device

    start_device({"use_gpu": args.device == "gpu"})


def in_a_process(args, part, left):
    """The lines of a part; where it does not come to its end those that it came to, and one that tells of the end."""
    begin, path = time.time(), os.path.join(args.folder, f"{part}.json")
    if left <= 0:
        return [Line(part, NOT_HERE, f"no time left of {BUDGET} s")]
    command = [sys.executable, os.path.abspath(__file__), "--inside", part, "--json", path, "--device", args.device]
    command += ["--folder", args.folder, "--steps", str(args.steps)]
    command += ["--golden", os.path.abspath(args.golden)] if args.golden else []
    # In a session of its own, so that what it starts itself ends with it.
    child = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        _, errors = child.communicate(timeout=left)
    except subprocess.TimeoutExpired:
        end_all(child)
        verdict, told = MISSED, f"it hangs or is too slow: not done when the {BUDGET} s were over"
    else:
        last = [line for line in errors.strip().splitlines() if line.strip()][-1:] or ["no message"]
        verdict, told = FAILED, f"exit code {child.returncode}: {last[0]}"[:400]
    lines = read(path)
    if not lines or child.returncode:
        lines.append(Line(part, verdict, told, {}, round(time.time() - begin, 1)))
    return lines


def end_all(child, patience=20):
    """End a process and all of its session; a launcher among them is given the time to end what it has started."""
    for kind, seconds in ((signal.SIGTERM, patience), (signal.SIGKILL, 0)):
        try:
            os.killpg(child.pid, kind)
            limit = time.time() + seconds
            while time.time() < limit:
                child.poll()  # or it stays in its group
                os.killpg(child.pid, 0)
                time.sleep(0.1)
        except ProcessLookupError:
            break
    child.wait()
    child.stderr.close()


def read(path):
    """The lines that a part has come to."""
    if not os.path.exists(path):
        return []
    with open(path, encoding="utf-8") as file:
        return [Line(**json.loads(line)) for line in file if line.endswith("\n")]


def inside(args):
    if args.inside != "device":
        start(args)
    args.smallest = False
    with open(args.json, "w", encoding="utf-8") as file:
        for line in lines_of(args, args.inside):
            file.write(json.dumps(dataclasses.asdict(line)) + "\n")
            file.flush()
    return 0


def save(args, lines, versions, seconds):
    """Write all lines so far."""
    failed, missed = ([line.name for line in lines if line.verdict == verdict] for verdict in (FAILED, MISSED))
    content = {"device": args.device, "versions": versions, "seconds": round(seconds, 1), "failed": failed}
    content |= {"missed": missed, "lines": [dataclasses.asdict(line) for line in lines]}
    with open(args.json, "w", encoding="utf-8") as file:
        json.dump(plain(content), file, indent=1, allow_nan=False)
        file.write("\n")


def plain(value):
    """What JSON has: of numbers that it does not know their names, as a loss may be NaN."""
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


if __name__ == "__main__":
    sys.exit(main())

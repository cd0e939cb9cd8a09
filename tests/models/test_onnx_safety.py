"""An ONNX file of a stranger opens no other file, runs nothing of its own, and takes no more memory than it may."""

import json
import os
import re
import subprocess
import sys
import time
import tracemalloc

import numpy as np
import pytest

from ppkd.errors import UserError
from ppkd.models.onnx.contents import check_contents, image_size
from ppkd.models.onnx.session import Session
from tests.conftest import ROOT
from tests.models.onnx_file import convolutions, function, graph, model, node, tensor

pytest.importorskip("onnxruntime")

IMAGE = ("image", ("n", 3, "h", "w"))
OUT = ("out", ("n", "a", "b"))
# Gigabytes that the files here may take, and what Python and ONNX Runtime take beside it at most.
MEMORY, BESIDE = 0.25, 0.25


def of(nodes, *initial, outputs=(OUT,), inputs=(IMAGE,), **more):
    return model(graph(nodes, outputs, initial, inputs), **more)


def written(tmp_path, content):
    path = tmp_path / "x.onnx"
    path.write_bytes(content)
    return str(path)


ONES = np.ones(4, "float32")
LEFT = node("Identity", ["w"], ["out"])
IN_A_BRANCH = node(
    "If", ["yes"], ["out"],
    then_branch=[graph([node("Constant", [], ["out"], value=tensor("w", ONES, external="w.bin"))], [OUT])],
    else_branch=[graph([node("Custom", [], ["out"], "evil.ops")], [OUT])],
)  # fmt: skip


@pytest.mark.parametrize(
    "content, told",
    [
        (of([LEFT], tensor("w", ONES, external="/etc/passwd")), "lie in other files: save it as one file"),
        (of([LEFT], tensor("w", ONES, external="../../w.bin")), "lie in other files"),
        (of([LEFT], tensor("w", ONES, external="w.bin")), "lie in other files"),
        (of([LEFT], tensor("w", ONES, external="*/_ORT_MEM_ADDR_/*")), "lie in other files"),
        (of([IN_A_BRANCH], tensor("yes", ONES)), r"lie in other files|none of ONNX's: evil.ops::Custom"),
        (of([node("Run", ["image"], ["out"], "evil.ops")], domains=["evil.ops"]), "none of ONNX's: evil.ops::Run$"),
        (of([node("EPContext", ["image"], ["out"], "com.microsoft", ep_cache_context="/etc/passwd", embed_mode=0)]),
         "none of ONNX's: com.microsoft::EPContext"),
        (of([node("PyOp", ["image"], ["out"], "pyop")], domains=["pyop"]), "none of ONNX's: pyop::PyOp"),
        (
            of([node("f", ["image"], ["out"], "own")], domains=["own"],
               functions=[function("f", "own", ["x"], ["y"], [node("Run", ["x"], ["y"], "evil.ops")])]),
            "functions of its own, .*: write them out when you export it",
        ),
        (of([LEFT], tensor("w", ONES, dims=[1 << 40])), r"its tensor w is stated as \[1099511627776\], in \d+ bytes"),
        (of([LEFT], tensor("w", ONES, dims=[1 << 31, 1 << 31])), "its tensor w is stated as"),
        (of([LEFT], tensor("w", ONES, dims=[-4, -1])), "its tensor w is stated as"),
        (of([node("Constant", [], ["out"], value=tensor("", ONES, dims=[1 << 33]))]), "tensor .without a name. is"),
        (b"\0\0\0\0ORTM" + bytes(64), "no model of ONNX"), (b"", "an empty file"), (b"\x3a", "no model of ONNX"),
        (b"\x0b" * 100, "no protocol buffer"), (b"\x08\x08", "there is no graph in it"),
        (of([LEFT], tensor("w", ONES))[:-9], "ends too early"), (b"\x80" * 30, "ends too early"),
    ],
)  # fmt: skip
def test_what_leads_out_of_the_file_or_lies_is_refused_before_it_is_opened(tmp_path, content, told):
    with pytest.raises(UserError, match=told):
        check_contents(written(tmp_path, content))


def doubled(times, start="w"):
    """Nodes that join a tensor with itself again and again: 2 ** times as much."""
    nodes = [node("Concat", [start if i == 0 else f"d{i}"] * 2, [f"d{i + 1}"], axis=0) for i in range(times)]
    return [*nodes, node("Identity", [f"d{times}"], ["out"])]


def looping():
    """A file that keeps a growing tensor in a loop."""
    body = graph(
        [node("Concat", ["x", "x"], ["xx"], axis=0), node("Identity", ["go"], ["on"])],
        [("on", (), 9), ("xx", ("a",))], (), [("i", (), 7), ("go", (), 9), ("x", ("a",))],
    )  # fmt: skip
    return of([node("Loop", ["many", "", "w"], ["out"], body=[body])], tensor("many", np.array(1 << 40)),
              tensor("w", np.ones(64)))  # fmt: skip


BOMBS = {
    "a shape to be filled": of([node("ConstantOfShape", ["s"], ["out"])], tensor("s", np.array([1 << 34]))),
    "tiles": of([node("Tile", ["w", "s"], ["out"])], tensor("w", ONES), tensor("s", np.array([1 << 32]))),
    "expanded": of([node("Expand", ["w", "s"], ["out"])], tensor("w", ONES), tensor("s", np.array([1 << 32, 4]))),
    "resized": of(
        [node("Resize", ["image", "", "s"], ["out"])], tensor("s", np.array([1, 1, 1e4, 1e4], "float32"))
    ),
    "doubled, told by nothing but its nodes": of(doubled(40), tensor("w", ONES)),
    "doubled images": of(doubled(40, "image")),
    "a range": of([node("Range", ["a", "b", "c"], ["out"])], *(
        tensor(name, np.array(value)) for name, value in (("a", 0), ("b", 1 << 40), ("c", 1))),
        outputs=[("out", ("n",), 7)]),
    "a loop": looping(),
    "outputs that this process would hold": of(
        [node("Tile", ["w", "s"], ["out"])], tensor("w", ONES), tensor("s", np.array([5_000_000]))),
}  # fmt: skip


# A process without a past: what children had counts what the process had that started them.
ALONE = """
import json, resource, sys
import numpy as np
from ppkd.errors import UserError
from ppkd.models.onnx.session import Session
for path in sys.argv[2:]:
    try:
        Session(path, "teacher.onnx", float(sys.argv[1])).maps(np.ones([1, 3, 8, 8], "float32"), ["out"])
        told = ""
    except UserError as error:
        told = str(error)
    print("TOLD", json.dumps([told, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20]))
"""


@pytest.fixture(scope="module")
def bombed(tmp_path_factory):
    """Of each bomb what is told, and how many gigabytes a child had at most so far."""
    folder, paths = tmp_path_factory.mktemp("bombs"), []
    for i, content in enumerate(BOMBS.values()):
        paths.append(folder / f"{i}.onnx")
        paths[-1].write_bytes(content)
    command = [sys.executable, "-c", ALONE, str(MEMORY), *map(str, paths)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    lines = [line.removeprefix("TOLD ") for line in done.stdout.splitlines() if line.startswith("TOLD ")]
    return dict(zip(BOMBS, map(json.loads, lines), strict=True))


@pytest.mark.parametrize("name", BOMBS)
def test_a_file_takes_no_more_memory_than_it_may(bombed, name):
    told, most = bombed[name]
    # The second is told of Tile by ONNX Runtime itself.
    assert re.search(r"wants more memory than the 0\.25 GB that it may take|require more than", told)
    assert "\n" not in told and most < MEMORY + BESIDE


def test_what_fits_runs_and_its_process_ends_with_it(tmp_path):
    held = np.ones(10**8)  # 0.8 GB of this process, which the other's peak must not have
    session = Session(written(tmp_path, convolutions([np.ones([2, 3, 2, 2])])), "x", MEMORY)
    (found,) = session.maps(np.ones([5, 3, 4, 4], "float32"), ["level0"])
    assert found.shape == (5, 2, 2, 2) and (found == 12).all() and 0 < session.peak < (MEMORY + BESIDE) * 2**30
    process = session._process._process
    del session, held
    assert process.poll() is not None


def test_outputs_of_all_pieces_of_a_batch_are_bounded_together(tmp_path):
    content = of([node("Tile", ["image", "s"], ["out"])], tensor("s", np.array([1, 1, 1, 50_000])),
                 inputs=[("image", (1, 3, "h", "w"))], outputs=[("out", (1, "c", "h", "w"))])  # fmt: skip
    session = Session(written(tmp_path, content), "x", MEMORY)
    assert session.maps(np.ones([3, 3, 4, 4], "float32"), ["out"])[0].nbytes == 3 * 9_600_000
    with pytest.raises(UserError, match=r"outputs for 9 images take more than 0\.0625 GB, .* of its 0\.25 GB"):
        session.maps(np.ones([9, 3, 4, 4], "float32"), ["out"])


def test_a_file_of_outputs_without_end_is_refused(tmp_path):
    names = [f"{'x' * 100}{i}" for i in range(12_000)]
    content = of([LEFT], *(tensor(name, ONES) for name in ["w", *names]), outputs=[(name, (4,)) for name in names])
    with pytest.raises(UserError, match="it has 12000 outputs, and says more of inputs and outputs than a megabyte"):
        Session(written(tmp_path, content), "x", MEMORY)


def test_a_file_of_inputs_without_end_is_looked_at_in_its_first(tmp_path):
    path = written(tmp_path, model(bytes([0x5A, 0]) * 300_000))  # empty inputs of a graph
    tracemalloc.start()
    try:
        assert image_size(path) is None
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_modules_in_the_folder_where_one_works_are_not_imported(tmp_path, monkeypatch):
    path = written(tmp_path, convolutions([np.ones([2, 3, 2, 2])]))
    for name in ("json", "onnxruntime", "ppkd", "select"):
        (tmp_path / f"{name}.py").write_text("import os\nos._exit(7)\n")
    monkeypatch.chdir(tmp_path)
    assert Session(path, "x", MEMORY).outputs == ["level0"]


ENDLESS = """
import sys
import numpy as np
from ppkd.models.onnx.session import Session
session = Session(sys.argv[1], "x")
print(session._process._process.pid, flush=True)
session.maps(np.ones([1, 3, 8, 8], "float32"), ["out"])
"""


def test_a_file_that_never_answers_ends_with_who_asked(tmp_path):
    body = graph(
        [node("Identity", ["go"], ["on"]), node("Identity", ["x"], ["y"])], [("on", (), 9), ("y", ("a",))], (),
        [("i", (), 7), ("go", (), 9), ("x", ("a",))],
    )  # fmt: skip
    for_ever = node("Loop", ["many", "", "w"], ["out"], body=[body])
    path = written(tmp_path, of([for_ever], tensor("many", np.array(1 << 62)), tensor("w", ONES)))
    command = [sys.executable, "-c", ENDLESS, path]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as asking:
        worker = int(asking.stdout.readline())
        os.kill(worker, 0)
        asking.kill()
    deadline = time.monotonic() + 60
    while _lives(worker) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not _lives(worker)


def _lives(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_process_that_is_killed_is_told(tmp_path):
    session = Session(written(tmp_path, convolutions([np.ones([2, 3, 2, 2])])), "x", MEMORY)
    session._process._process.kill()
    with pytest.raises(UserError, match="ONNX Runtime has ended on it"):
        session.maps(np.ones([1, 3, 4, 4], "float32"), ["level0"])

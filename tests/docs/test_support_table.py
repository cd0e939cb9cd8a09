"""tools/support_table.py, and that the page in docs/ is what its last run gave."""

import importlib.util
import json

import pytest

from tests.conftest import CONFIGS, ROOT

RESULTS = json.loads((ROOT / "docs" / "support.json").read_text())


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("support_table", ROOT / "tools" / "support_table.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_made_of_the_results(tool):
    assert (ROOT / "docs" / "support.md").read_text() == tool.page(RESULTS), "run `make support`"


# Refused in one line: Paddle 3 makes no graph of their deformable attention, neither Paddle one of Sparse R-CNN;
# ppdet has no export of QueryInst.
NO = {(host, name, "export") for host in RESULTS for name in ("sparse_rcnn", "queryinst")}
NO |= {(host, name, "export") for host in RESULTS if host[0] == "3" for name in ("deformable_detr", "dino")}


def test_both_versions_have_every_cell_and_all_say_yes(tool):
    assert {version.split(".")[0] for version in RESULTS} == {"2", "3"}
    for version, detectors in RESULTS.items():
        assert list(detectors) == sorted(tool.detectors_of(version)), version
        for name, cells in detectors.items():
            wanted = {task: (version, name, task) not in NO for task in tool.TASKS}
            assert {task: cells[task]["ok"] for task in tool.TASKS} == wanted, (version, name)


def test_every_detector_has_a_student_and_a_teacher(tool):
    for name in tool.DETECTORS | tool.OF_CLONES:
        assert all((CONFIGS / f"{name}_{kind}.yml").is_file() for kind in ("tiny", "wide"))


def test_a_failure_is_a_no_with_its_reason_and_the_other_tasks_go_on(tool, monkeypatch, capsys, tmp_path):
    def fail(self):
        raise ValueError("no such\n  operator")

    for task in tool.TASKS:
        monkeypatch.setattr(tool.Run, task, fail if task == "eval" else lambda self: None)
    tool.inside("gfl", str(tmp_path))
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("CELL ")]
    cells = dict(json.loads(line[5:]) for line in lines)
    assert cells == {t: {"ok": True} for t in tool.TASKS} | {
        "eval": {"ok": False, "error": "ValueError: no such operator"}
    }
    page = tool.page({"3.3.1": {"gfl": cells}})
    assert "| GFL | 3.3.1 | yes | yes | **no** | yes | yes |" in page
    assert "- GFL, Paddle 3.3.1, eval: `ValueError: no such operator`" in page
    assert "PP-YOLOE-seg" not in page, "the wheel has none"
    assert page.count("not run") == len(tool.TASKS) * (len(tool.DETECTORS) - 1)


def test_a_clone_has_rows_of_its_own(tool):
    host = tool.host_of({"paddle": "2.6.2", "paddledet": "clone, commit 666f597f, changed"})
    assert host == "2.6.2, clone 666f597f, changed"
    assert tool.host_of({"paddle": "2.6.2", "paddledet": "2.6.0"}) == "2.6.2"
    cells = {task: {"ok": True} for task in tool.TASKS}
    page = tool.page({"2.6.2": {"gfl": cells}, host: {"gfl": cells, "rtdetr": cells}})
    assert f"| GFL | {host} | yes |" in page and "| GFL | 2.6.2 | yes |" in page
    assert f"| RT-DETR | {host} | yes |" in page and "| RT-DETR | 2.6.2 |" not in page


def test_a_process_that_dies_is_a_no_for_what_it_did_not_get_to(tool, monkeypatch, tmp_path):
    script = tmp_path / "dies.py"
    script.write_text("import os\nprint('CELL [\"train\", {\"ok\": true}]', flush=True)\nos._exit(7)\n")
    monkeypatch.setattr(tool, "__file__", str(script))
    cells = tool.outside("gfl", str(tmp_path))
    assert cells["train"] == {"ok": True}
    assert cells["distil"] == {"ok": False, "error": "the process ended with 7"}


@pytest.mark.parametrize("task", ["train", "distil", "eval", "infer"])
def test_the_tasks_of_one_detector_run(task, runs):
    getattr(runs, task)()


@pytest.fixture(scope="module")
def runs(tool, shapes, tmp_path_factory):
    folder = tmp_path_factory.mktemp("support")
    (folder / "data").symlink_to(shapes)
    return tool.Run("fcos", str(folder))

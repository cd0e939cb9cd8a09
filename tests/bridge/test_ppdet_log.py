"""Warnings of ppdet reach the user, once, in this log; what is told otherwise, and what is no warning, does not."""

import json
import logging
import pathlib

import pytest

from ppkd.bridge import ppdet_log
from ppkd.bridge.workspace import create, import_ppdet, scope
from ppkd.terminal.log import logger
from tests.helpers_tools import write


@pytest.fixture
def heard(monkeypatch):
    """The lines of the log, and ppdet's warnings as if none had been said yet."""
    import_ppdet()
    monkeypatch.setattr(ppdet_log._ours, "kinds", type(ppdet_log._ours.kinds)())
    monkeypatch.setattr(ppdet_log._ours, "said", set())
    lines = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    logger().addHandler(handler)
    yield lines
    logger().removeHandler(handler)


def test_boxes_that_ppdet_drops_are_told_the_first_few_of_them(heard, shapes, tmp_path, capfd):
    shapes = pathlib.Path(shapes)
    content = json.loads((shapes / "annotations" / "instances_val.json").read_text())
    for entry in content["annotations"][:-1]:
        entry["bbox"][2] = 0
    path = write(tmp_path / "a.json", json.dumps(content))
    section = {"dataset_dir": str(shapes), "image_dir": "val", "anno_path": path}
    with scope({"EvalDataset": {"name": "COCODataSet", **section, "data_fields": ["image", "gt_bbox"]}}):
        for _ in range(2):  # as evaluation does: once to look, once to run
            create("EvalDataset")().parse_dataset()
    assert sum(line.startswith("ppdet: Found an invalid bbox in annotations: im_id") for line in heard) == 3
    assert sum("more of this kind" in line for line in heard) == 1 and len(content["annotations"]) > 5
    assert "invalid bbox" not in capfd.readouterr().err


@pytest.mark.parametrize("name", ["ppdet.engine", "reader", "ppdet.made.later"])
def test_every_logger_of_ppdet_is_heard_from_warnings_on(name, heard):
    from ppdet.utils import logger as theirs

    log = theirs.setup_logger(name)
    log.info("saved")
    log.warning("a\n  scheme of %d", 3)
    log.warning("a scheme of 3")
    log.error("broken")
    assert heard == ["ppdet: a scheme of 3", "ppdet: broken"]


@pytest.mark.parametrize(
    "text",
    [
        "metric_type: COCO, load default categories of COCO.",
        "Illegal image file: a/b.jpg, and it will be ignored",
        "fail to map batch transform [PadGT] with error: x and stack:\nTraceback",
    ],
)
def test_what_is_told_otherwise_is_not_told_twice(text, heard):
    logging.getLogger("ppdet.engine").warning(text)
    assert heard == []

"""What the fuzz tests have found, each kept as a case of its own."""

import json
import pathlib
import pickle
import tracemalloc
import zipfile

import numpy as np
import pytest

from ppkd.bridge.datasets import open_dataset
from ppkd.bridge.workspace import build_detector, scope
from ppkd.diagnosis.data import KINDS, scan_data
from ppkd.diagnosis.findings import ERROR
from ppkd.errors import UserError
from ppkd.files.tensor_files import read_tensors
from ppkd.files.torch_files import read_torch
from ppkd.files.yaml_io import clone, dump
from ppkd.methods import plan
from ppkd.recipe.recipe import load_recipe
from ppkd.recipe.targets import Target
from tests.fuzz.test_annotations import SOUND, coco_config, coco_folder  # noqa: F401  # fixtures
from tests.fuzz.test_grammars import detectors  # noqa: F401  # a fixture
from tests.fuzz.test_recipe import STUDENT, changed
from tests.helpers_torch import save_torch

TERM = {"student": "neck[*]", "student_connector": "align", "loss": "pkd"}


@pytest.mark.parametrize(
    "source, told",
    [
        ("head", "head: head returns no tensor, nor several; take one of the modules in it"),
        ("neck[*]\n", "is not a source"),
        ("neck[" + "9" * 5000 + "]", "is not a source"),
        ("neck[\u0663]", "is not a source"),
    ],
)
def test_sources(detectors, source, told):  # noqa: F811
    """They gave an AttributeError, a ValueError of Python's limit of digits, or what they do not say."""
    with pytest.raises(UserError, match=told):
        detectors[0].levels(source)


@pytest.mark.parametrize("text", ["1000000.0%", "1e-7%", "12.3456789%", "20%"])
def test_a_target_reads_what_it_writes(text):
    """From a million percent on it wrote an exponent, which it did not read, and it kept six digits."""
    target = Target.parse(text)
    assert Target.parse(target.text) == target


@pytest.mark.parametrize(
    "path, value, told",
    [
        (("distill_loss",), [None], "distill_loss has to be the name of a loss, found "),
        (("distill_loss",), {"a": 1}, "distill_loss has to be the name of a loss, found "),
        (("distill", "plugins"), 3, "distill.plugins has to be a path or a list of paths, found 3"),
        (("distill", "plugins"), {"a": 1}, "distill.plugins has to be a path or a list of paths, found "),
        (("distill", "terms", "a"), TERM | {"weight": 10**400}, "distill.terms.a.weight has to be a number from 0, "),
        (("distill", "terms", "a"), TERM | {"magnitude": 10**400}, "distill.terms.a.magnitude: 1"),
        (("distill", "teachers", "b"), {"config": STUDENT, "weight": 10**400}, "distill.teachers.b.weight has to be a"),
    ],
)
def test_slim_files(tmp_path, path, value, told):
    slim, config = tmp_path / "slim.yml", tmp_path / "student.yml"
    config.write_text(dump({"_BASE_": [STUDENT], "num_classes": 3, "dataset_dir": None}))
    slim.write_text(dump(changed([(path, value)], [])))
    with pytest.raises(UserError, match=f"^{slim}: {told}"):
        plan(load_recipe(str(config), str(slim)).method)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda c: c["annotations"][0]["bbox"].__setitem__(0, 10**400), id="a number beyond all floats"),
        pytest.param(lambda c: c.update(annotations=None), id="no list"),
        pytest.param(lambda c: c["annotations"].append({}), id="an empty entry"),
        pytest.param(lambda c: c["images"][1].update(id=[]), id="a list as an id"),
        pytest.param(lambda c: c["categories"][1].update(name=[]), id="a list as a name"),
    ],
)
def test_annotations_that_training_does_not_take(coco_config, coco_folder, change):  # noqa: F811
    """Each is told by the scan, and in one line by training."""
    path = coco_folder / "x.json"
    content = clone(SOUND)
    change(content)
    path.write_text(json.dumps(content))
    (scan,) = scan_data(coco_config)
    assert any(KINDS[kind][0] == ERROR for kind in scan.counts)
    with scope(coco_config), pytest.raises(UserError, match=r"^TrainDataset: .*x\.json"):
        open_dataset("TrainDataset", coco_config)


def test_annotations_nested_without_end(coco_config, coco_folder):  # noqa: F811
    path = coco_folder / "x.json"
    path.write_text("[" * 100_000)
    with pytest.raises(UserError, match=r"x\.json: broken JSON: "):
        scan_data(coco_config)
    with scope(coco_config), pytest.raises(UserError, match="broken JSON: "):
        open_dataset("TrainDataset", coco_config)


@pytest.mark.parametrize("suffix", [".pdparams", ".pth"])
def test_a_few_bytes_do_not_fill_the_memory(tmp_path, suffix):
    """A pickle that remembers a value under a large number, for which the unpickler in C makes a table."""
    path = tmp_path / f"x{suffix}"
    program = b"\x80\x02Nr" + (1 << 24).to_bytes(4, "little") + b"."
    if suffix == ".pth":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", program)
    else:
        path.write_bytes(program)
    tracemalloc.start()
    try:
        assert (read_torch if suffix == ".pth" else read_tensors)(str(path)) is None
        assert tracemalloc.get_traced_memory()[1] < 10e6
    finally:
        tracemalloc.stop()


def _cut_off(content):
    """The directory says that the bytes of an entry begin where the file is nearly over."""
    at = content.rindex(b"PK\x01\x02")
    where = content.rindex(b"PK\x03\x04")
    return content[: at + 42] + (where + 8).to_bytes(4, "little") + content[at + 46 :]


def _nothing_left(content):
    at = content.rindex(b"PK\x01\x02")
    sizes = (len(content) - content.rindex(b"PK\x03\x04") - 30).to_bytes(4, "little")
    return content[: at + 20] + sizes * 2 + content[at + 28 :]


def _encrypted(content):
    at = content.rindex(b"PK\x01\x02")
    return content[: at + 8] + b"\x01\x00" + content[at + 10 :]


@pytest.mark.parametrize("damage", [_cut_off, _nothing_left, _encrypted])
def test_entries_of_an_archive_that_cannot_be_read(tmp_path, damage):
    """What zipfile raises was told where the file is opened, and not where a tensor's bytes are asked for."""
    path = save_torch({"a": np.ones((2, 3), "f4")}, tmp_path / "x.pth")
    content = pathlib.Path(path).read_bytes()
    pathlib.Path(path).write_bytes(damage(content))
    with pytest.raises(UserError, match="damaged"):
        read_torch(path)["a"].numpy()


@pytest.mark.parametrize("name", [{"a": 1}, ["RetinaNet"], 3, None])
def test_an_architecture_that_is_no_name(name):
    """It was an unhashable type, where it was one."""
    with pytest.raises(UserError, match=r"the name of a class of ppdet was expected, found "):
        build_detector({"architecture": name})
    with pytest.raises(UserError, match=r"the name of a class of ppdet was expected, found None"):
        build_detector({})


@pytest.mark.parametrize(
    "program",
    [
        pytest.param(b"\x80\x05C\x02ab\x98.", id="of bytes"),
        pytest.param(b"\x80\x05\x96\x02\x00\x00\x00\x00\x00\x00\x00ab\x98.", id="of a bytearray"),
        pytest.param(pickle.dumps(np.ones(2, "f4"), 2)[:-1] + b"\x98.", id="of an array"),
        pytest.param(b"\x80\x05\x97.", id="out of band"),
    ],
)
@pytest.mark.parametrize("suffix", [".pdparams", ".pth"])
def test_views_of_buffers_are_no_plain_values(tmp_path, suffix, program):
    """One byte changed made an array a memoryview, which whoever reads weights has no use for."""
    path = tmp_path / f"x{suffix}"
    if suffix == ".pth":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", program)
    else:
        path.write_bytes(program)
    with pytest.raises(UserError, match=f"x{suffix}: .*view of a buffer"):
        (read_torch if suffix == ".pth" else read_tensors)(str(path))

"""The bank by itself: what it gives back, and what it refuses."""

import json
import pathlib
import shutil

import numpy as np
import paddle
import pytest

from ppkd.detectors.context import Assignment
from ppkd.engine import bank as module
from ppkd.engine.bank import Bank, view_of
from ppkd.errors import UserError
from ppkd.files import write
from ppkd.recipe.bank import BankSpec, bank_of
from ppkd.terminal.log import logger

OF = {"weights of teacher": "abc", "TrainReader.batch_size": 8}
BATCH = {"image": np.ones([2, 3, 8, 8], "float32"), "im_shape": np.ones([2, 2], "float32"),
         "gt_bbox": np.ones([2, 1, 4], "float32")}  # fmt: skip


class Term:
    """A term that takes one map of a teacher."""

    label, teacher, keeps = "pkd.s8", "teacher", ["teacher neck[0]"]

    @staticmethod
    def to_keep(recorded):
        return {"teacher neck[0]": recorded}

    @staticmethod
    def from_kept(found):
        return [[found["teacher neck[0]"]]], False


def ask(bank, values, view=None, term=Term, given=None):
    """What the term gets, and whether the teacher was asked."""
    asked = []

    def run(terms):
        asked.append(1)
        return {"teacher": paddle.to_tensor(values)}, given

    view = view_of(bytes(16), BATCH) if view is None else view
    found, again = bank.taught(view, [term], [term], run, given is not None)
    if given is not None:
        return again, bool(asked)
    return found["pkd.s8"][0][0][0], bool(asked)


def opened(folder, of=None, dtype="float16", live=False):
    made = Bank(str(folder), of or OF, dtype, live)
    made.open()
    return made


@pytest.mark.parametrize("dtype, error", [("float16", 2**-11), ("bfloat16", 2**-8)])
def test_who_fills_gets_to_the_bit_what_who_reads_gets(dtype, error, tmp_path):
    values = np.random.RandomState(0).randn(2, 5, 7).astype("float32") * 10
    first, asked = ask(opened(tmp_path, dtype=dtype), values)
    second, again = ask(opened(tmp_path, dtype=dtype), values * 0)
    assert (asked, again) == (True, False)
    assert first.numpy().tobytes() == second.numpy().tobytes() != values.tobytes()
    assert first.dtype == paddle.float32 and np.abs(first.numpy() / values - 1).max() <= error


def test_bfloat16_rounds_to_nearest_and_halves_to_even(tmp_path):
    halves = np.array([0x3F808000, 0x3F818000, 0x3F808001, 0x3F807FFF, 0x80000000], "uint32")
    found, _ = ask(opened(tmp_path, dtype="bfloat16"), halves.view("float32"))
    assert (found.numpy().view("uint32") == [0x3F800000, 0x3F820000, 0x3F810000, 0x3F800000, 0x80000000]).all()


def test_what_float16_has_not_is_kept_in_float32(tmp_path):
    values = np.array([1e5, 1 / 3], "float32")
    for _ in range(2):
        found, _ = ask(opened(tmp_path), values)
        assert found.numpy().tobytes() == values.tobytes()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_handed_on_and_not_kept(value, dtype, tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(logger(), "warning", lambda text, *values: told.append(text % values))
    bank = opened(tmp_path, dtype=dtype)
    for _ in range(2):
        found, _ = ask(bank, np.array([1, value], "float32"))
        assert not np.isfinite(found.numpy()[1]) and not list(tmp_path.glob("*.view"))
    assert told == ["bank: the teacher gives what is not finite (teacher neck[0]): not kept, so it stays"]


def test_targets_that_a_teacher_assigned_are_kept_to_the_bit_but_for_their_scores(tmp_path):
    boxes = paddle.to_tensor([[[1 / 3, 2.0, 3000.1, 4.0]]])
    scores = paddle.to_tensor([[[0.1, 0.0]]])
    given = Assignment(paddle.to_tensor([[2]], "int64"), boxes, scores, 2)
    asked = []
    for _ in range(2):
        found, again = ask(opened(tmp_path), np.zeros(3, "float32"), given=given)
        asked.append(again)
        assert (found.boxes.numpy() == boxes.numpy()).all() and found.background == 2 and found.positive.item() == 0
        assert (found.labels.dtype, found.scores.dtype) == (paddle.int64, paddle.float32)
        assert found.scores.numpy().tolist() == [[[np.float16(0.1), 0]]]
    assert asked == [True, False]


@pytest.mark.parametrize("key", BATCH)
def test_other_images_or_sizes_are_not_read(key, tmp_path):
    ask(opened(tmp_path), np.zeros(3, "float32"))
    other = view_of(bytes(16), BATCH | {key: BATCH[key] * 2})
    found, asked = ask(opened(tmp_path), np.ones(3, "float32"), other)
    assert asked and found.numpy().tolist() == [1, 1, 1]
    assert len(list(tmp_path.glob("*.view"))) == 1  # in place of the former


def test_a_bank_of_something_else_is_refused_by_what_differs_or_left_alone(tmp_path, caplog):
    ask(opened(tmp_path), np.zeros(3, "float32"))
    for other, told in (
        (OF | {"weights of teacher": "xyz"}, "weights of teacher: abc there, xyz here"),
        (OF | {"seed": 1}, "seed: not set there, 1 here"),
    ):
        with pytest.raises(UserError, match=f"bank is of something else .{told}.; it is not read"):
            opened(tmp_path, other)
    with pytest.raises(UserError, match="kept as: float16 there, bfloat16 here"):
        opened(tmp_path, dtype="bfloat16")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    going_on = opened(tmp_path, OF | {"seed": 1}, live=True)
    found, asked = ask(going_on, np.full(3, 1 / 3, "float32"))
    assert asked and going_on.stops is None and "something else" in going_on.failure
    assert (found.numpy() == np.float16(1 / 3)).all()  # as it would be with a bank
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("links", [True, False])
@pytest.mark.parametrize("other", [OF, OF | {"seed": 1}, {"weights of teacher": "xyz"}])
def test_of_two_that_make_a_bank_at_once_the_first_says_whose_it_is(other, links, tmp_path, monkeypatch):
    """In the moment in which one of them is about to give its file the name, the other one has done so."""
    real = write._new_file

    def meanwhile(path):
        monkeypatch.setattr(write, "_new_file", real)
        opened(tmp_path, other)
        if not links:
            monkeypatch.setattr(write.os, "link", without)
        return real(path)

    def without(*_):
        raise PermissionError(1, "no links on this file system")

    monkeypatch.setattr(write, "_new_file", meanwhile)
    if other == OF:
        opened(tmp_path)
    else:
        with pytest.raises(UserError, match="the bank is of something else"):
            opened(tmp_path)
    assert json.loads((tmp_path / "bank.json").read_text())["of"] == other | {"kept as": "float16"}
    assert [path.name for path in tmp_path.iterdir()] == ["bank.json"]


@pytest.mark.parametrize("content", ["", "{}", '{"format": 9, "of": {}}', '{"format": 1, "of": []}', "[]", "\0"])
def test_a_folder_with_another_file_of_the_name_is_no_bank(content, tmp_path):
    (tmp_path / "bank.json").write_text(content)
    with pytest.raises(UserError, match="bank.json: not the file of a bank of this version"):
        opened(tmp_path)


def test_records_of_nobody_knows_what_are_refused(tmp_path):
    (tmp_path / "00.view").write_bytes(b"x")
    with pytest.raises(UserError, match="has records of a bank and no bank.json"):
        opened(tmp_path)


@pytest.mark.parametrize("live", [True, False])
def test_a_full_disk_is_told_once_and_nothing_is_lost(live, tmp_path, monkeypatch):
    def fail(path, *_):
        raise UserError(f"{path}: cannot be written: No space left on device")

    bank = opened(tmp_path, live=live)
    ask(bank, np.zeros(3, "float32"))
    monkeypatch.setattr(module, "write_record", fail)
    found, asked = ask(bank, np.full(3, 2.0, "float32"), view_of(b"1" * 16, BATCH))
    assert asked and found.numpy().tolist() == [2, 2, 2]
    assert "No space left" in bank.failure and (bank.stops is None) == live
    monkeypatch.undo()
    ask(bank, np.zeros(3, "float32"), view_of(b"2" * 16, BATCH))
    assert len(list(tmp_path.glob("*.view"))) == 1
    assert ask(bank, np.ones(3, "float32"))[1] is False  # what is there is read


def test_a_folder_that_is_removed_meanwhile_is_made_anew_whole(tmp_path):
    bank = opened(tmp_path / "bank")
    for again in (lambda: bank.missing(["00"]) == ["00"], lambda: ask(bank, np.zeros(3, "float32"))[1]):
        ask(bank, np.zeros(3, "float32"))
        shutil.rmtree(tmp_path / "bank")
        assert again()
        opened(tmp_path / "bank")  # by the next run
    for each in (opened(tmp_path / "bank", live=True), bank):
        there = {path.name for path in (tmp_path / "bank").glob("*.view")}
        content = (tmp_path / "bank" / "bank.json").read_text()
        (tmp_path / "bank" / "bank.json").unlink()
        assert ask(each, np.zeros(3, "float32"), view_of(b"1" * 16, BATCH))[1]
        assert "has records of a bank and no bank.json" in each.failure
        assert {path.name for path in (tmp_path / "bank").iterdir()} == there
        (tmp_path / "bank" / "bank.json").write_text(content)


def test_the_file_says_in_plain_words_what_it_is_of(tmp_path):
    opened(tmp_path)
    assert json.loads(pathlib.Path(tmp_path, "bank.json").read_text())["of"] == OF | {"kept as": "float16"}


@pytest.mark.parametrize(
    "given, message",
    [
        (8, "distill.bank has to be a mapping like {views: 8}, found 8"),
        ({"views": 0}, "bank.views has to be a number of views from 1, such as 8; found 0"),
        ({}, "bank.views has to be a number"),
        ({"views": 2, "gigabytes": 0}, "bank.gigabytes has to be a number above 0, such as 10; found 0"),
        ({"views": 2, "gigabytes": "10 GB"}, "bank.gigabytes has to be a number above 0"),
        ({"views": True}, "bank.views has to be a number"),
        ({"views": 2, "veiws": 2}, "bank has no key 'veiws'; nearest: views"),
        ({"views": 2, "dtype": "int8"}, "bank.dtype has to be one of float16, bfloat16"),
        ({"views": 2, "on_failure": "retry"}, "bank.on_failure has to be one of stop, live"),
        ({"views": 2, "folder": 3}, "bank.folder has to be the path of a folder"),
        ({"views": 2, "folder": ""}, "bank.folder has to be the path of a folder"),
    ],
)
def test_wrong_keys_are_told(given, message):
    with pytest.raises(UserError, match=f"x.yml: distill.{message.removeprefix('distill.')}"):
        bank_of({"bank": given}, "x.yml: distill")


def test_keys_come_back_as_they_were_given():
    for given in ({"views": 4}, {"views": 2, "folder": "x", "dtype": "bfloat16", "on_failure": "live"}):
        assert bank_of({"bank": given}, "x").keys == given
    assert bank_of({}, "x") is None and bank_of({"bank": {"views": 3}}, "x") == BankSpec(3)

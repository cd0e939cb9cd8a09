"""Records and recipes of runs, read back from a folder that somebody else may have written."""

import json

import pytest

from ppkd.errors import UserError
from ppkd.files.yaml_io import dump
from ppkd.terminal.log import logger
from ppkd.training.record import FILE, read_record
from ppkd.training.records import read_records

TRAIN = {"kind": "train", "epoch": 0, "step": 3, "lr": 0.01, "loss": 1.5, "fgd.s8": 0.2}
ODD = ["[1]", '"x"', "{", "null", json.dumps(TRAIN | {"step": "3"}), json.dumps(TRAIN | {"step": True}),
       json.dumps(TRAIN | {"step": -1}), json.dumps(TRAIN | {"loss": None}), json.dumps(TRAIN | {"fgd.s8": [1]}),
       json.dumps(TRAIN | {"kind": 1}), json.dumps({"kind": "train", "epoch": 1, "step": 1}), "[" * 9999,
       json.dumps(TRAIN | {"loss": 10**400})]  # fmt: skip


def test_lines_that_are_no_records_are_left_out_and_counted(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(logger(), "propagate", True)
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(f"{line}\n" for line in [json.dumps(TRAIN), *ODD, json.dumps(TRAIN)]) + '{"kind": "tr')
    assert read_records(str(path)) == [TRAIN, TRAIN]
    told = f"{path}: {len(ODD)} of {len(ODD) + 2} lines are no records of training and left out, the first is line 2"
    assert told in caplog.text
    path.write_bytes(json.dumps(TRAIN).encode() + b"\n\xff\xfe\n")
    assert read_records(str(path)) == [TRAIN]


RUN = {"architecture": "RetinaNet"}
METHOD = {"name": "FGD", "params": {}, "levels": None, "options": {}, "file": "slim.yml", "architecture": "RetinaNet"}


@pytest.mark.parametrize(
    "content, told",
    [
        ({"run": {}}, "run describes no detector"),
        ({"run": RUN | {"seed": "x"}}, "run: seed has to be a whole number, found 'x'"),
        ({"run": RUN | {"save_dir": 3}}, "run.save_dir has to be a path, found 3"),
        ({"run": RUN | {"TrainReader": [1]}}, "run: TrainReader has to be a mapping"),
        ({"run": RUN, "distill": 3, "teacher": RUN}, "distill has to be a mapping with the name of a method, found 3"),
        ({"run": RUN, "distill": METHOD | {"options": []}, "teacher": RUN}, "distill.options is of another kind"),
        ({"run": RUN, "distill": METHOD | {"levels": True}, "teacher": RUN}, "distill.levels is of another kind"),
        ({"run": RUN, "distill": METHOD | {"options": {"plugins": 3}}, "teacher": RUN}, "options.plugins has to be"),
        ({"run": RUN, "distill": METHOD, "teacher": 3}, "teacher describes no detector"),
        ({"run": RUN, "distill": METHOD | {"teachers": [1]}, "teacher": RUN}, "teachers has to be a mapping of"),
        ({"run": RUN, "distill": METHOD | {"teachers": {"teacher": {"weight": -1}}}, "teacher": RUN},
         "distill.teachers.teacher.weight has to be a number above 0"),
        ({"run": RUN, "distill": METHOD}, "has `distill:` and no teacher"),
        ({"run": RUN, "versions": [1]}, "versions has to be a mapping"),
    ],
)  # fmt: skip
def test_a_recipe_of_odd_values_is_refused_with_file_and_key(tmp_path, content, told):
    (tmp_path / FILE).write_text(dump(content))
    with pytest.raises(UserError) as caught:
        read_record(str(tmp_path))
    assert str(caught.value).startswith(f"{tmp_path / FILE}: ") and told in str(caught.value)

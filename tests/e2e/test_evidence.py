"""The programs of ``benchmarks/evidence``: what is left is run, kept once, and made a page of."""

import argparse
import contextlib
import fcntl
import json
import os
import pathlib
import subprocess

import pytest

from benchmarks.evidence import results, training
from benchmarks.evidence import run as program
from benchmarks.evidence.cost import of_arm
from benchmarks.evidence.page import page
from benchmarks.evidence.picture import draw, pyplot
from ppkd import cli, commands, methods
from ppkd.files.yaml_io import read_yaml
from ppkd.recipe.recipe import load_recipe
from tests.conftest import CONFIGS, ROOT

SLIM = {"slim": str(CONFIGS / "ppyoloe_fgd.yml")}
PLAN = {
    "sets": {"shapes": {
        "folder": "shapes", "student": str(CONFIGS / "ppyoloe_tiny.yml"), "teacher": str(CONFIGS / "ppyoloe_wide.yml"),
        "images": "train", "train": "annotations/instances_train.json", "val": "annotations/instances_train.json",
        "test": "annotations/instances_train.json", "epochs": 1, "teacher_epochs": 1,
    }},
    "arms": {"plain": {}, "fgd": SLIM, "fgd_first": {**SLIM, "options": ["distill.stop_epoch={third}"]},
             "wrong": {**SLIM, "options": ["distill.terms.fgd.weight=heavy"]}},
    "stages": [{"set": "shapes", "seeds": [0], "arms": ["plain", "fgd", "wrong"]}],
}  # fmt: skip


def arguments(tmp_path, **given):
    wanted = {"set": None, "arm": None, "seed": None, "again": False, "steps": None, **given}
    return argparse.Namespace(
        data=str(tmp_path), work=str(tmp_path / "work"), results=str(tmp_path / "results.json"), **wanted
    )


def run_of(args, arm="plain", plan=PLAN):
    return training.Run(plan, "shapes", arm, 0, args)


def test_a_teacher_is_that_of_the_last_epoch_where_only_the_test_split_could_tell_the_best(tmp_path):
    chosen = {**PLAN, "sets": {"shapes": {**PLAN["sets"]["shapes"], "val": "annotations/instances_val.json"}}}
    for plan, name in ((PLAN, "model_final"), (chosen, "best_model")):
        run = run_of(arguments(tmp_path), training.TEACHER, plan)
        assert os.path.basename(run.weights()) == f"{name}.pdparams"
        os.makedirs(run.output, exist_ok=True)
        records = [{"kind": "train", "epoch": 1, "step": 1, "lr": 0.1, "loss": 1.0, "seconds_per_step": 1.0}]
        records += [{"kind": "eval", "epoch": epoch, "step": epoch, "AP": ap} for epoch, ap in ((1, 0.5), (2, 0.4))]
        for each in (run, run_of(arguments(tmp_path), "fgd", plan)):
            os.makedirs(each.output, exist_ok=True)
            (pathlib.Path(each.output) / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
            (pathlib.Path(each.output) / "recipe.yml").touch()
        found = run_of(arguments(tmp_path), "fgd", plan)._found()
        assert found["teacher_AP"] == (0.4 if plan is PLAN else 0.5)
        assert found.get("test") == ({"AP": 0.4} if plan is PLAN else None)


@pytest.fixture
def commands_run(monkeypatch):
    """What would be a process of its own runs in this one; holds the commands."""
    seen = []

    def call(command, stdout, **options):
        seen.append(command)
        with contextlib.redirect_stderr(stdout):
            try:
                commands.train(cli.train_parser().parse_args(command[2:]))
            except Exception as error:
                print(f"ppkd: {error}", file=stdout)
                return 2
        return 0

    monkeypatch.setattr(subprocess, "call", call)
    return seen


def test_what_is_left_is_run_and_kept_once_and_failures_too(tmp_path, shapes, commands_run):
    (tmp_path / "shapes").symlink_to(shapes)
    args = arguments(tmp_path)
    assert program.sweep(PLAN, args) == 1, "one of the runs is wrong"
    assert [os.path.basename(c[3]) for c in commands_run] == ["ppyoloe_tiny.yml", "ppyoloe_wide.yml"] + [
        "ppyoloe_tiny.yml"
    ] * 2
    found = {record["arm"]: record for record in results.read(args.results)}
    assert set(found) == {"teacher", "plain", "fgd", "wrong"}
    assert found["fgd"]["steps"] == found["fgd"]["curve"][-1][0] == 6
    assert found["fgd"]["teacher_AP"] == found["teacher"]["AP"] and "teacher_AP" not in found["plain"]
    assert "heavy" in found["wrong"]["failed"]
    assert str(tmp_path) not in (tmp_path / "results.json").read_text(), "a folder of this machine"
    commands_run.clear()
    assert program.sweep(PLAN, args) == 0 and not commands_run, "all has been run, and what failed is not tried again"
    # As if the program had been killed between the end of a run and its record.
    results_before = found["plain"]
    (tmp_path / "results.json").write_text("[]")
    args.arm = "plain"
    assert program.sweep(PLAN, args) == 0 and results.read(args.results) == [results_before]


def test_a_teacher_whose_weights_are_given_is_measured_and_not_trained(tmp_path, shapes, commands_run, monkeypatch):
    (tmp_path / "shapes").symlink_to(shapes)
    (tmp_path / "weights").mkdir()
    asked = []

    def evaluate(command, **options):
        asked.append(command[-1])
        (tmp_path / "work" / "shapes" / "teacher" / "0" / "test.json").write_text('{"AP": 0.55, "size": 3}')

    monkeypatch.setattr(subprocess, "check_call", evaluate)
    given = {**PLAN["sets"]["shapes"], "given": "weights/theirs.pdparams"}
    plan = {**PLAN, "sets": {"shapes": given}, "stages": [{"set": "shapes", "seeds": [0], "arms": ["fgd"]}]}
    args = arguments(tmp_path)
    assert program.sweep(plan, args) == 1, "there are no such weights"
    assert commands_run == [] and asked == []
    assert "theirs.pdparams" in results.read(args.results)[0]["failed"]
    (tmp_path / "weights" / "theirs.pdparams").write_bytes(b"")
    args.again = True
    program.sweep(plan, args)
    theirs = tmp_path / "weights" / "theirs.pdparams"
    assert asked == [f"weights={theirs}"]
    assert f"teacher.pretrain_weights={theirs}" in commands_run[0]
    teacher = next(record for record in results.read(args.results) if record["arm"] == "teacher")
    assert teacher["AP"] == 0.55 and teacher["given"] == "theirs.pdparams" and "size" not in teacher
    assert "The teacher's AP on the test split: 55.0" in page([teacher, *runs("plain", 0.4, data="shapes")], plan, {})


def test_the_digest_of_a_recipe_is_that_of_another_machine(tmp_path):
    hidden = results.Hidden(WORK=tmp_path / "data" / "work", DATA=tmp_path / "data")
    assert hidden(f"a: {tmp_path}/data/work/x\nb: {tmp_path}/data/y") == "a: WORK/x\nb: DATA/y"


def test_a_run_that_another_process_has_is_left_to_it_and_its_pupils_wait(tmp_path, monkeypatch):
    args, ran, slept = arguments(tmp_path), [], []

    def call(command, pass_fds, **options):
        run = command[command.index("-o") + 1 :]
        ran.append(next(o for o in run if o.startswith("save_dir=")).split("/")[-2])
        return 2

    monkeypatch.setattr(subprocess, "call", call)
    run = run_of(args, "teacher")
    os.makedirs(run.folder)
    with open(os.path.join(run.folder, "lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)

        def sleep(seconds):
            slept.append(list(ran))
            assert len(slept) < 5, "it would wait for ever"
            fcntl.flock(lock, fcntl.LOCK_UN)

        monkeypatch.setattr(program.time, "sleep", sleep)
        (tmp_path / "work" / "shapes" / "plain" / "0").mkdir(parents=True)
        program.sweep(PLAN, args)
    assert slept == [["plain"]] and ran == ["plain", "teacher"], "nothing is taught by a teacher that failed"


def test_the_teacher_comes_along_with_the_arm_that_is_asked_for(tmp_path):
    """It was left out, and its pupil waited for it without a word."""
    for arm, expected in (("fgd", ["teacher", "fgd"]), ("plain", ["plain"]), ("teacher", ["teacher"])):
        assert [run.arm for run in program.runs_of(PLAN, arguments(tmp_path, arm=arm))] == expected


def test_a_stage_leaves_out_what_is_far_below_plain(tmp_path):
    plan = {**PLAN, "stages": [{"set": "shapes", "seeds": [1], "arms": ["plain", "fgd", "wrong"], "within": 3.0}]}
    args = arguments(tmp_path)

    def left():
        return [run.arm for run in program.runs_of(plan, args)]

    def end(arm, **what):
        results.write(args.results, {"data": "shapes", "arm": arm, "seed": 0, **what})

    assert left() == [], "the first seed is not there yet"
    end("plain", AP=0.45)
    end("fgd", AP=0.421)
    end("wrong", failed="exit 2")
    assert left() == ["plain", "teacher", "fgd"]
    end("fgd", AP=0.419)
    assert left() == ["plain"]


def test_a_stage_that_is_cut_is_made_where_its_set_is_asked_for_and_the_page_says_why(tmp_path):
    plan = {**PLAN, "stages": [{"set": "shapes", "seeds": [1], "arms": ["plain"], "cut": "no time"}]}
    assert [run.arm for run in program.runs_of(plan, arguments(tmp_path))] == []
    assert [run.arm for run in program.runs_of(plan, arguments(tmp_path, set="shapes"))] == ["plain"]
    assert page([], plan, {}).endswith("- shapes, seed 1: plain; cut: no time\n")


def test_a_third_of_the_epochs_is_put_into_an_arm(tmp_path):
    command = run_of(
        arguments(tmp_path), "fgd_first", {**PLAN, "sets": {"shapes": {**PLAN["sets"]["shapes"], "epochs": 48}}}
    )
    assert "distill.stop_epoch=16" in command.command()


def test_the_labels_of_an_arm_are_made_by_the_teacher_before_it_is_trained(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(subprocess, "call", lambda command, **options: seen.append(command) or 1)
    plan = {**PLAN, "arms": {"labels": {"labels": True}}}
    plan["sets"] = {"shapes": {**PLAN["sets"]["shapes"], "unlabelled": "annotations/u.json"}}
    run = run_of(arguments(tmp_path), "labels", plan)
    assert run.taught and run.train() == 1
    assert len(seen) == 1 and seen[0][3] == "label"  # a training without them would be of something else
    assert seen[0][seen[0].index("--images") + 1] == str(tmp_path / "shapes" / "annotations" / "u.json")
    data = plan["sets"]["shapes"]
    assert seen[0][-2:] == [f"train_annotations={data['train']}", f"val_annotations={data['val']}"]
    made = seen[0][seen[0].index("--output") + 1]
    monkeypatch.setattr(subprocess, "call", lambda command, **options: seen.append(command) or 0)
    run.train(steps=1)
    assert f"train_annotations={made}" in seen[-1] and "--slim_config" not in seen[-1]


def test_every_arm_is_a_recipe(tmp_path):
    plan = read_yaml(str(ROOT / "benchmarks" / "evidence" / "arms.yml"))
    assert {arm for stage in plan["stages"] for arm in stage["arms"]} == set(plan["arms"])
    assert {stage["set"] for stage in plan["stages"]} <= set(plan["sets"])
    for name, arm in [*(("bccd", arm) for arm in plan["arms"]), *((name, "plain") for name in plan["sets"])]:
        run = training.Run(plan, name, arm, 0, arguments(tmp_path))
        command = run.command()
        slim = command[command.index("--slim_config") + 1] if "--slim_config" in command else None
        given = command[command.index("-o") + 1 :]
        options = [option for option in given if not option.startswith(("dataset_dir", "train_", "val_"))]
        recipe = load_recipe(command[3], slim, [*options, "num_classes=3"])
        assert recipe.student["epoch"] == run.epochs and (recipe.method is None) == (not slim)
        if slim:
            methods.plan(recipe.method)


def runs(arm, *scores, data="d"):
    common = {"data": data, "student": "s.yml", "arm": arm, "seconds_per_step": 1.0}
    return [{**common, "seed": i, "AP": ap, "curve": [[9, ap / 2], [20, ap]]} for i, ap in enumerate(scores)]


def rows_of(text):
    return {line.split(" | ")[0].strip("| "): line.split(" | ") for line in reversed(text.splitlines()) if "| " in line}


def test_helping_is_what_the_protocol_says():
    text = page([*runs("plain", 0.4, 0.41, 0.39), *runs("better", 0.42, 0.432, 0.411),
                 *runs("little", 0.403, 0.413, 0.393), *runs("wide", 0.5, 0.41, 0.39),
                 *runs("worse", 0.38, 0.391, 0.369), *runs("once", 0.5),
                 {"data": "d", "student": "s.yml", "arm": "lost", "seed": 0, "failed": "exit 1: why"}],
                PLAN, {})  # fmt: skip
    rows = rows_of(text)
    words = {arm: rows[arm][5] for arm in ("better", "little", "wide", "worse", "once", "plain")}
    assert words == {"better": "**helps**", "little": "not told", "wide": "not told",
                     "worse": "**hurts**", "once": "one seed", "plain": ""}  # fmt: skip
    assert "Failed: lost, seed 0: exit 1: why" in text
    head = text.partition("## d, s")[0]
    assert "| d | better | 3 | +2.1, +1.9 to +2.3 | **helps** |  |  |" in head and "| d | worse | 3 | " in head
    assert "Of one seed, which says nothing yet: once (d, +10.0)." in head


def test_the_page_says_what_is_missing_and_whether_plain_had_converged():
    plan = {"sets": {"d": {}, "half": {"teacher_of": "d"}}, "arms": {}, "stages": [
        {"set": "d", "seeds": [0, 1], "arms": ["plain", "fgd", "equal_time"]},
        {"set": "half", "seeds": [0], "arms": ["plain"]},
    ]}  # fmt: skip
    nothing = page([], plan, {})
    assert "- d, seed 0 1: plain, fgd, equal_time" in nothing and "nothing can be said" in nothing
    teacher = {"data": "d", "student": "t.yml", "arm": "teacher", "seed": 0, "curve": [[5, 0.55], [9, 0.54]]}
    records = [teacher, *runs("plain", 0.4, 0.42), *runs("equal_time", 0.412, 0.43), *runs("plain", 0.3, data="half")]
    text = page(records, plan, {"d": {"equal_time": 1.9}, "half": {"plain": 2.0}})
    tested = page([{**teacher, "test": {"AP": 0.52}}, *records[1:]], plan, {})
    assert "The teacher's AP on the test split: 52.0" in tested
    assert text.endswith("## Not run\n\n- d, seed 0 1: fgd\n") and text.count("The teacher's AP: 55.0") == 2
    assert "gains over `plain`: +1.1, -0.2 to +2.4; more than 1 AP: plain had not converged" in text
    assert text.split("| equal_time |")[1].splitlines()[0].endswith("| 1.90 |")
    # The middle of each curve is one of its two evaluations.
    assert text.split("| plain |")[2].splitlines()[0].split(" | ")[2:5] == ["20.5"] * 3
    assert "plain had converged" in page([*runs("plain", 0.4), *runs("equal_time", 0.409)], plan, {})


def test_the_page_says_which_teacher_taught_where_one_was_trained_anew():
    plan = {"sets": {"d": {}}, "arms": {}, "stages": []}
    teacher = {"data": "d", "student": "t.yml", "arm": "teacher", "seed": 0, "curve": [[9, 0.54]], "test": {"AP": 0.52}}
    taught = [{**run, "teacher_AP": 0.5 if run["seed"] < 2 else 0.52} for run in runs("fgd", 0.3, 0.3, 0.3)]
    told = "The teacher's AP on the test split"
    assert f"{told}, trained more than once: 50.0 (seeds 0, 1), 52.0 (seeds 2)." in page(
        [teacher, *runs("plain", 0.2), *taught], plan, {}
    )
    assert f"{told}: 52.0." in page([teacher, *runs("plain", 0.2), taught[2]], plan, {})


def test_the_page_says_what_plain_reaches_in_the_time_of_a_taught_run():
    longer = [*runs("equal_time_first", 0.45, 0.46, 0.44), *runs("equal_time", 0.5)]
    taught = [*runs("pkd_first", 0.43, 0.42), *runs("pkd_doc", 0.48)]
    text = page([*runs("plain", 0.4, 0.4, 0.4), *taught, *longer], PLAN, {})
    assert "| d | pkd_first | 2 | +2.5, -3.9 to +8.9 | not told | -3.0, -15.7 to +9.7 | not told |" in text
    assert rows_of(text)["pkd_first"][6:8] == ["-3.0, -15.7 to +9.7", "not told"]
    assert rows_of(text)["pkd_doc"][6:8] == ["-2.0", "one seed"]
    assert rows_of(text)["equal_time"][6:8] == ["", ""]
    banked = [*runs("plain", 0.4), *longer, *runs("pkd_first_bank8", 0.46), *runs("pkd_first_bank16", 0.46)]
    as_long = "pkd_first_bank8", "pkd_first_bank16"
    assert [rows_of(page(banked, PLAN, {}))[arm][6] for arm in as_long] == ["+1.0", "+1.0"]
    longer_here = {**PLAN, "sets": {"d": {"as_long": {"pkd_first_bank8": "equal_time_first"}}}}
    banked += runs("equal_time_bank8", 0.43)
    assert rows_of(page(banked, longer_here, {}))["pkd_first_bank8"][6] == "+1.0"
    found = rows_of(page(banked, PLAN, {}))
    assert [found[arm][6] for arm in as_long] == ["+3.0", "+1.0"]
    assert not any(found[arm][8] for arm in as_long), "there is no live teacher's run"
    assert rows_of(page([*runs("plain", 0.4), *runs("pkd_first", 0.43)], PLAN, {}))["pkd_first"][6:8] == ["", ""]


def test_the_page_says_what_a_bank_loses():
    live = [*runs("pkd_first", 0.45, 0.46), *runs("pkd_first_bank8", 0.46, 0.44), *runs("equal_time", 0.4)]
    found = rows_of(page([*live, *runs("equal_time_bank8", 0.43)], PLAN, {}))
    assert found["pkd_first_bank8"][8] == "-0.5, -19.6 to +18.6"
    assert found["equal_time_bank8"][8] == found["pkd_first"][8] == ""


def test_the_picture_is_of_the_sets_with_several_seeds(tmp_path):
    curve = [[10, 0.1], [20, 0.3]]
    records = [{**run, "curve": curve} for run in (*runs("plain", 0.3, 0.3), *runs("ppyoloe_first", 0.3))]
    target = tmp_path / "curves.svg"
    assert not draw(records, str(target)) and not target.exists()
    taught = [{**run, "curve": [[10, 0.2], [20, 0.4]]} for run in runs("ppyoloe_first", 0.3, 0.3)]
    before = pyplot.get_fignums()
    assert draw([*records, *taught], str(target)) and target.exists()
    assert pyplot.get_fignums() == before, "a figure that is left open is held in memory"
    text = page(records, PLAN, {}, "curves.svg")
    assert "](curves.svg)" in text and "](" not in page(records, PLAN, {})


def test_the_page_shows_how_far_either_loss_moves_the_weights():
    (record,) = runs("stop", 0.4)
    text = page([{**record, "updates": [[0, 0.51, 0.8], [100, 0.25, None]]}, *runs("plain", 0.4)], PLAN, {})
    assert "| stop | 0: 0.51 0.80; 100: 0.25 |" in text and text.count("0: 0.51") == 1


def test_what_an_arm_costs_beside_plain():
    seconds = {(None, False): 2.0, ("pkd.yml", False): 3.0, ("pkd.yml", True): 2.2}
    first = {"slim": "pkd.yml", "options": ["distill.stop_epoch={third}"]}
    assert of_arm({}, seconds, 96) == 1 and of_arm({"slim": "pkd.yml"}, seconds, 96) == 1.5
    assert of_arm(first, seconds, 96) == pytest.approx(1 + 0.5 / 3) and of_arm({"times": 1.9}, seconds, 96) == 1.9
    banked = {**first, "options": [*first["options"], "distill.bank.views=8"]}
    assert of_arm(banked, seconds, 96) == pytest.approx(1 + (8 * 0.5 + 24 * 0.1) / 96)
    assert of_arm({**banked, "options": ["distill.bank.views=200"]}, seconds, 96) == 1.5


def test_a_set_may_have_every_third_image_of_the_training_split_alone(tmp_path):
    data = {"images": [{"id": i} for i in (5, 7, 9, 11)], "categories": [{"id": 1, "name": "a"}],
            "annotations": [{"id": i, "image_id": i} for i in (5, 7, 11)]}  # fmt: skip
    (tmp_path / "train.json").write_text(json.dumps(data))
    kept = json.loads(training.thinned(str(tmp_path / "train.json"), 3))
    assert [image["id"] for image in kept["images"]] == [5, 11]
    assert [box["id"] for box in kept["annotations"]] == [5, 11] and kept["categories"] == data["categories"]


def test_arms_with_few_labels_take_as_many_steps_and_the_teacher_labels_for_the_few(tmp_path):
    plan = read_yaml(str(ROOT / "benchmarks" / "evidence" / "arms.yml"))
    images = {"plain": 45, "ceiling": 900, "labels": 45 + 720}  # DeepPCB's: every fourth of 180, all, with labels made
    made = {arm: training.Run(plan, "deeppcb_45", arm, 0, arguments(tmp_path)) for arm in images}
    steps = {arm: run.epochs * (images[arm] // 8) for arm, run in made.items()}
    assert max(steps.values()) - min(steps.values()) < 0.02 * steps["plain"], steps
    for run in made.values():
        options = run.command()
        assert f"PPYOLOEHead.static_assigner_epoch={3 * run.epochs // 8}" in options
        schedule = next(o for o in options if o.startswith("LearningRate.schedulers="))
        assert json.loads(schedule.partition("=")[2])[1]["steps"] == 50
    few = f"train_annotations={tmp_path / 'work'}/every_4_instances_train_labelled180.json"
    assert few in made["labels"]._labelling(False)

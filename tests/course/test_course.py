"""A course: every part is an ordinary command, done once, and the whole goes on where it ended."""

import json
import os
import pathlib
import shutil
import signal

import pytest

from ppkd import cli
from ppkd.course import course as courses
from ppkd.course import follow
from ppkd.course.course import Wishes, compared, prepare, run
from ppkd.course.follow import Follower
from ppkd.course.methods import lines_of
from ppkd.course.parts import Part
from ppkd.course.process import start
from ppkd.course.sizes import propose
from ppkd.errors import UserError
from ppkd.files.write import alone
from ppkd.methods import plan
from ppkd.recipe.auto import SCHEDULE
from ppkd.recipe.recipe import load_recipe
from ppkd.terminal.log import logger
from tests.conftest import CONFIGS


class Commands:
    """In place of processes: notes each command, and leaves what it makes; the one whose name `fails` fails."""

    def __init__(self, monkeypatch):
        self.run, self.fails, self.makes, self.says = [], None, {}, {}
        monkeypatch.setattr(follow, "start", self.start)
        monkeypatch.setattr(courses, "has_gpu", lambda: False)

    def start(self, words, log, append=False):
        os.makedirs(os.path.dirname(log), exist_ok=True)
        name = pathlib.Path(log).stem
        self.run.append(name)
        made = pathlib.Path(self.makes[name])
        made.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(self.says.get(name, {"AP": 0.5})) if made.suffix == ".json" else ""
        if name == self.fails:
            pathlib.Path(log).write_text("a line\nppkd: error: no room on the disk\n")
        if name != self.fails or name in self.says:
            made.write_text(text)
        self.returncode = int(name == self.fails)
        return self

    def poll(self):
        return self.returncode

    def course(self, wishes):
        made = prepare(wishes)
        self.makes = {part.name: part.makes for part in made.parts}
        self.run.clear()
        return made


@pytest.fixture
def commands(monkeypatch):
    return Commands(monkeypatch)


@pytest.fixture
def wishes(shapes, tmp_path):
    def make(**more):
        given = {"data": str(shapes), "output": str(tmp_path / "out"), "epochs": 2, **more}
        return Wishes(**given)

    return make


ALL = ["data", "teacher", "doctor", "taught_seed0", "eval_teacher", "eval_taught_seed0", "report"]


def test_each_part_is_a_command_that_the_parsers_and_the_files_take(wishes, commands):
    course = commands.course(wishes(baseline=True, seeds=2))
    names = [part.name for part in course.parts]
    students = ["taught_seed0", "taught_seed1", "plain_seed0", "plain_seed1"]
    evaluated = [f"eval_{name}" for name in ("teacher", *students)]
    assert names == ["data", "teacher", "doctor", *students, *evaluated, "compare", "report"]
    for part in course.parts:
        name, *rest = part.words
        args = cli.COMMANDS[name][0]().parse_args(rest)
        if hasattr(args, "config"):
            recipe = load_recipe(args.config, getattr(args, "slim_config", None), args.opt)
            assert recipe.student["num_classes"] == 6 and recipe.student["eval_size"] == [96, 96]
            if recipe.method:
                plan(recipe.method)
                assert recipe.teachers["teacher"].weights.endswith("teacher/best_model.pdparams")
            if part.run:
                assert os.path.realpath(recipe.output_dir) == os.path.realpath(part.run)
                assert recipe.student["epoch"] == (4 if name == "teacher" or part.name == "teacher" else 2)
    run(course)
    assert commands.run == names


def test_photographs_without_labels_are_said_once_for_the_students_that_are_taught(wishes, commands, tmp_path, shapes):
    photos = tmp_path / "photos"
    shutil.copytree(os.path.join(shapes, "train"), photos)
    course = commands.course(wishes(unlabelled=str(photos), baseline=True, batch=16))
    for part in course.parts:
        if part.run:
            args = cli.train_parser().parse_args(part.words[1:])
            said = load_recipe(args.config, args.slim_config, args.opt).student.get("unlabelled")
            taught = part.name.startswith("taught")
            assert said == ({"images": str(photos), "ratio": 12 / 16} if taught else None), part.name
    shutil.copy(os.path.join(shapes, "val", os.listdir(os.path.join(shapes, "val"))[0]), photos / "mine.jpg")
    with pytest.raises(UserError, match="--unlabelled: 1 of 13 images are images of the validation set"):
        commands.course(wishes(unlabelled=str(photos), output=str(tmp_path / "other")))
    with pytest.raises(UserError, match="--unlabelled: nowhere: no such folder"):
        commands.course(wishes(unlabelled="nowhere", output=str(tmp_path / "third")))
    with pytest.raises(UserError, match="--unlabelled has to be an image folder.*found ''"):
        commands.course(wishes(unlabelled="", output=str(tmp_path / "third")))


def test_a_home_folder_of_photographs_is_found_again_by_the_files(wishes, commands, tmp_path, shapes, monkeypatch):
    """Where no shell has put it in: from Python, or behind an equals sign."""
    monkeypatch.setenv("HOME", str(tmp_path))
    shutil.copytree(os.path.join(shapes, "train"), tmp_path / "photos")
    course = commands.course(wishes(unlabelled="~/photos", batch=4))
    words = next(part.words for part in course.parts if part.name.startswith("taught"))
    args = cli.train_parser().parse_args(words[1:])
    said = load_recipe(args.config, args.slim_config, args.opt).student["unlabelled"]
    assert said["images"] == str(tmp_path / "photos")


def test_what_is_done_is_done_once_and_a_failed_part_is_where_it_goes_on(wishes, commands):
    course = commands.course(wishes())
    commands.fails = "taught_seed0"
    with pytest.raises(UserError, match=r"with the teacher failed: no room on the disk \(log: .*taught_seed0.txt\)"):
        run(course)
    assert commands.run == ALL[:4]
    commands.fails = None
    found = run(commands.course(wishes()))
    assert commands.run == ALL[3:]
    assert found["results"]["taught_seed0"]["AP"] == 0.5 and found["weights"].endswith("model_final.pdparams")
    run(commands.course(wishes()))
    assert commands.run == []


def test_the_time_of_a_part_counts_what_a_killed_call_has_spent_on_it(wishes, commands, monkeypatch):
    """Nothing is told of a kill: the seconds are kept now and then."""
    clock, kills = [0.0], [MemoryError]
    monkeypatch.setattr(follow.time, "time", lambda: clock[0])
    monkeypatch.setattr(follow.time, "sleep", lambda seconds: clock.__setitem__(0, clock[0] + 20))

    class Slow:
        returncode, polled = 0, 0

        def poll(self):
            self.polled += 1
            if kills and self.polled == 4:
                raise kills.pop()
            return None if self.polled < 4 else 0

    def begin(words, log, append=False):
        commands.start(words, log)
        return Slow()

    monkeypatch.setattr(follow, "start", begin)
    with pytest.raises(MemoryError):
        run(commands.course(wishes()))
    course = commands.course(wishes())
    run(course)
    assert course.state["parts"]["data"]["seconds"] == 120 and course.state["parts"]["doctor"]["seconds"] == 60
    assert course.state["begun"] == {}


def test_what_the_examinations_warn_of_is_said_where_the_course_is_followed(wishes, commands, caplog, monkeypatch):
    monkeypatch.setattr(logger(), "propagate", True)
    weak = {"id": "teacher-weak", "level": "warning", "text": "AP 7.4", "advice": "Train it longer."}
    twice = {"count": 3, "level": "warning", "examples": ["a.jpg"]}
    commands.says = {
        "doctor": {"findings": [weak, {**weak, "id": "student-random", "level": "note"}]},
        "data": {"data": {"TrainDataset": {"found": {"twice": twice, "empty": {**twice, "level": "note"}}}}},
    }
    run(commands.course(wishes()))
    told = dict.fromkeys(record.getMessage() for record in caplog.records if record.levelname == "WARNING")
    weak, twice = "[3/7] teacher-weak: AP 7.4. Train it longer.", "[1/7] TrainDataset: 3 of: twice, for example a.jpg"
    assert [*told] == [twice, weak]


def test_what_ends_a_course_is_said_with_its_cure_and_the_names_to_go_on_with(wishes, commands, caplog, monkeypatch):
    monkeypatch.setattr(logger(), "propagate", True)
    zero = {"id": "teacher-near-zero", "level": "error", "text": "AP50 0.0", "advice": "Train it longer."}
    course, commands.fails = commands.course(wishes()), "doctor"
    commands.says = {"doctor": {"findings": [zero, {**zero, "id": "dead-source"}, zero]}}
    with pytest.raises(UserError, match="with --waive teacher-near-zero,dead-source goes on all the same$"):
        run(course)
    assert "[3/7] teacher-near-zero: AP50 0.0. Train it longer." in caplog.messages


def test_sigterm_asks_the_part_once_and_waits_for_it(wishes, commands, monkeypatch):
    course = commands.course(wishes())
    asked, signals = [], [signal.SIGTERM]

    class Endless:
        returncode = None

        def poll(self):
            if signals:
                os.kill(os.getpid(), signals.pop())

        def terminate(self):
            asked.append("terminate")

        def wait(self):
            asked.append("wait")

    monkeypatch.setattr(follow, "start", lambda *_, **__: Endless())
    with pytest.raises(SystemExit) as ended:
        run(course)
    assert ended.value.code == 143 and asked == ["terminate", "wait"]
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_what_is_gone_is_made_again_and_an_edit_is_seen(wishes, commands, tmp_path):
    run(commands.course(wishes()))
    (tmp_path / "out" / "report" / "report.html").unlink()
    run(commands.course(wishes()))
    assert commands.run == ["report"]
    with (tmp_path / "out" / "student.yml").open("a") as file:
        file.write("snapshot_epoch: 2\n")
    run(commands.course(wishes()))
    assert commands.run == ["doctor", "taught_seed0", "eval_taught_seed0", "report"], "what depends on the file"
    run(commands.course(wishes()))
    assert commands.run == []
    assert "snapshot_epoch: 2" in (tmp_path / "out" / "student.yml").read_text()


def test_an_entry_that_is_none_is_a_part_that_is_not_done():
    parts = [Part(name, name, (), os.devnull) for name in "abcdef"]
    whole = {"of": courses._fingerprint(parts[-1]), "seconds": 1}
    done = dict(zip("abcdef", [7, [], {"of": "x"}, whole | {"seconds": "long"}, None, whole]))
    courses._forget(parts, done)
    assert done == {"f": whole}


def test_a_course_may_grow_and_not_become_another(wishes, commands, tmp_path):
    run(commands.course(wishes()))
    run(commands.course(wishes(baseline=True)))
    assert commands.run == ["plain_seed0", "eval_plain_seed0", "compare", "report"]
    with pytest.raises(UserError, match="holds a course of another epochs: 2 then, 3 now"):
        prepare(wishes(epochs=3))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("x")
    with pytest.raises(UserError, match=r"has other things in it \(thesis.tex\)"):
        prepare(wishes(output=str(tmp_path / "full")))


def test_a_folder_is_one_calls_while_it_lives(wishes, commands, tmp_path):
    """Whether the other one prepares, as `ppkd init` does, or is on its way."""
    made = prepare(wishes())
    before = {path: path.read_bytes() for path in (tmp_path / "out").iterdir() if path.is_file()}
    for call in (lambda: prepare(wishes()), lambda: prepare(wishes(seeds=2)), lambda: run(made)):
        with alone(made.folder), pytest.raises(UserError, match="another command is writing into .*out: wait until"):
            call()
    assert not commands.run and {path: path.read_bytes() for path in before} == before


def test_a_teacher_with_weights_is_not_trained(wishes, commands, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(logger(), "propagate", True)
    (tmp_path / "mine.pdparams").write_text("x")
    course = commands.course(wishes(teacher=f"ppyoloe_plus_teacher_custom={tmp_path}/mine.pdparams"))
    assert [part.name for part in course.parts] == [name for name in ALL if name != "teacher"]
    assert "proposed for this data" in caplog.text and "teacher_epochs" not in caplog.text
    recipe = load_recipe(str(tmp_path / "out" / "student.yml"), str(tmp_path / "out" / "slim.yml"))
    assert recipe.teachers["teacher"].weights == str(tmp_path / "mine.pdparams")
    with pytest.raises(UserError, match="nowhere.pdparams"):
        prepare(wishes(teacher="ppyoloe_plus_teacher_custom=nowhere.pdparams", output=str(tmp_path / "b")))


def yolo(shapes, folder):
    """The data set as YOLO has it, without a validation set of its own if there is but one split."""
    content = json.loads((shapes / "annotations" / "instances_train.json").read_text())
    (folder / "images").mkdir(parents=True)
    (folder / "labels").mkdir()
    names = [category["name"] for category in content["categories"]]
    (folder / "data.yaml").write_text(f"names: [{', '.join(names)}]\n")
    numbers = {category["id"]: i for i, category in enumerate(content["categories"])}
    for image in content["images"]:
        shutil.copy(shapes / "train" / image["file_name"], folder / "images")
        rows = []
        for box in (each for each in content["annotations"] if each["image_id"] == image["id"]):
            x, y, w, h = box["bbox"]
            shares = [(x + w / 2) / 64, (y + h / 2) / 64, w / 64, h / 64]
            rows.append(" ".join([str(numbers[box["category_id"]]), *(f"{n:.6f}" for n in shares)]))
        (folder / "labels" / pathlib.Path(image["file_name"]).with_suffix(".txt").name).write_text("\n".join(rows))
    return folder


def test_another_format_is_imported_once_and_its_images_stay(shapes, wishes, commands, tmp_path):
    data = yolo(pathlib.Path(shapes), tmp_path / "yolo")
    for _ in range(2):
        course = commands.course(wishes(data=str(data)))
    made = tmp_path / "out" / "data" / "annotations"
    assert sorted(path.name for path in made.iterdir()) == ["instances_train.json", "instances_val.json"]
    assert not (tmp_path / "out" / "data" / "images").exists() and len(list((data / "images").iterdir())) == 12
    config = load_recipe(course.trained[1].config, None, []).student
    first = json.loads((made / "instances_train.json").read_text())["images"][0]["file_name"]
    section = config["TrainDataset"]
    assert os.path.isfile(os.path.join(section["dataset_dir"], section["image_dir"], first))


def test_a_training_set_alone_gets_a_validation_set(shapes, wishes, commands, tmp_path):
    data = tmp_path / "one"
    shapes = pathlib.Path(shapes)
    shutil.copytree(shapes / "train", data / "train")
    shutil.copy(shapes / "annotations" / "instances_train.json", data / "train" / "_annotations.coco.json")
    commands.course(wishes(data=str(data)))
    assert (tmp_path / "out" / "data" / "annotations" / "instances_val.json").exists()


def test_coco_as_the_configs_take_it_is_used_as_it_lies(shapes, wishes, commands, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(logger(), "propagate", True)
    shapes, data = pathlib.Path(shapes), tmp_path / "ready"
    (data / "images").mkdir(parents=True)
    for split in ("train", "val"):
        for path in (shapes / split).iterdir():
            shutil.copy(path, data / "images" / path.name)
    shutil.copytree(shapes / "annotations", data / "annotations")
    os.rename(data / "annotations" / "instances_val.json", data / "annotations" / "instances_test.json")
    course = commands.course(wishes(data=str(data)))
    assert not (tmp_path / "out" / "data").exists()
    assert "there is no validation set, so AP is measured on the test set" in caplog.text
    assert load_recipe(course.trained[1].config).student["EvalDataset"]["anno_path"].endswith("instances_test.json")


@pytest.mark.parametrize("given, words", [
    ({"data": "nowhere"}, "nowhere: no such folder"), ({"student": "ppyoloe_plus_smal_custom"}, "--student .*nearest"),
    ({"teacher": "ppyoloe_plus_custom_fgd"}, "--teacher ppyoloe_plus_custom_fgd: is a slim file"),
    ({"method": "PKB"}, "--method PKB: there are auto, .*PKD"),
    ({"student": "coco_detection"}, "describes no detector"), ({"imgsz": 100}, "imgsz has to be a multiple of 32"),
])  # fmt: skip
def test_a_mistake_is_one_line_before_anything_is_made(given, words, wishes, commands, tmp_path):
    with pytest.raises(UserError, match=words):
        prepare(wishes(**given))
    assert {path.name for path in (tmp_path / "out").glob("*")} <= {"course.json"}


@pytest.mark.parametrize("wrong", ["nowhere", "photos"])
def test_after_a_wrong_path_the_right_one_is_taken(wrong, wishes, commands, tmp_path):
    (tmp_path / "photos").mkdir()
    with pytest.raises(UserError, match="no such folder|no image in it"):
        prepare(wishes(data=str(tmp_path / wrong)))
    prepare(wishes())


def test_what_was_imported_is_of_one_data_set(shapes, wishes, commands, tmp_path):
    data = yolo(pathlib.Path(shapes), tmp_path / "yolo")
    with pytest.raises(UserError, match="no such folder"):
        prepare(wishes(data=str(data), unlabelled="nowhere"))
    with pytest.raises(UserError, match="holds a course of another data"):
        prepare(wishes())


def test_what_failed_before_it_began_can_be_set_right(shapes, wishes, commands, tmp_path):
    broken = tmp_path / "broken"
    (broken / "images").mkdir(parents=True)
    shutil.copytree(f"{shapes}/annotations", broken / "annotations")
    (broken / "annotations" / "instances_val.json").write_text("{")
    with pytest.raises(UserError, match="instances_val.json: broken JSON"):
        prepare(wishes(data=str(broken), epochs=3))
    shutil.copy(f"{shapes}/annotations/instances_val.json", broken / "annotations")
    prepare(wishes(data=str(broken), epochs=4))
    assert "epochs: 4" in (tmp_path / "out" / "student.yml").read_text()


class Set:
    def __init__(self, train, side):
        self.train, self.side = train, side


@pytest.mark.parametrize("train, side, gpu, given, expected", [
    (296, 500, False, {}, (11, 24, 256, 8)), (12, 64, False, {}, (100, 200, 96, 3)),
    (296, 500, False, {"epochs": 3, "batch": 4, "imgsz": 320}, (3, 6, 320, 4)),
    (5000, 2000, True, {}, (8, 24, 256, 8)), (296, 500, False, {"epochs": 3, "teacher_epochs": 1}, (3, 1, 256, 8)),
])  # fmt: skip
def test_sizes_that_go_with_data_and_machine(train, side, gpu, given, expected):
    configs = [load_recipe(f"ppyoloe_plus_{name}_custom", None, ["num_classes=2"]) for name in ("small", "teacher")]
    sizes, told = propose(Set(train, side), *(recipe.student for recipe in configs), gpu, given)
    assert (sizes.epochs, sizes.teacher_epochs, sizes.imgsz, sizes.batch) == expected
    assert len(told) == 4 - len(given)


def test_a_cpu_gets_images_that_it_gets_through():
    config = load_recipe("ppyoloe_plus_s_custom", None, ["num_classes=2"]).student
    sides = [propose(Set(900, 1000), config, config, gpu, {})[0].imgsz for gpu in (False, True)]
    assert sides == [320, 640]


def test_methods_are_in_one_place_and_auto_teaches_for_a_third():
    names = ("ppyoloe_plus_small_custom", "ppyoloe_plus_teacher_custom")
    pair = [load_recipe(name, None, ["num_classes=2"]).student for name in names]
    lines, why = lines_of("auto", *pair)
    assert lines["slim_method"] == "PPYOLOEDistill" and "for the first third" in why
    assert lines["distill"] == {"inherit": True, **SCHEDULE}
    assert lines_of("fgd", *pair)[0]["FGDFeatureLoss"]["normalize"]
    other = load_recipe("gfl_r50_fpn_1x_coco").student
    lines, _ = lines_of("auto", other, other)
    assert (lines["slim_method"], lines["PKDFeatureLoss"]) == ("PKD", {"loss_weight": 6.0})
    assert lines["distill"] == {"inherit": True, **SCHEDULE}
    for method in ("ppyoloedistill", "ppyoloe_plus_custom_ppyoloe"):
        assert lines_of(method, *pair)[0]["distill"] == SCHEDULE
        assert lines_of(method, *pair, unlabelled=True)[0]["distill"] == {}, "nobody else teaches from these"
    assert lines_of("mgd", other, other)[0] == {"slim": "Distill", "slim_method": "MGD"}
    assert lines_of("ppyoloe_plus_custom_score_l2", *pair)[0]["distill"]["terms"]


def test_the_time_left_of_all_is_reckoned_by_the_trainings(tmp_path):
    """A hundred steps of a training of cost 200 took a hundred seconds: as much again, and 50 for the rest."""
    parts = [Part("a", "a", (), "", 200, str(tmp_path)), Part("b", "b", (), "", 50)]
    follower = Follower(str(tmp_path), parts, [])
    assert follower._whole() == ""
    record = {"kind": "train", "epoch": 0, "step": 100, "lr": 0.1, "loss": 1.0}
    record |= {"seconds_per_step": 1.0, "seconds_left": 100.0}
    (tmp_path / "metrics.jsonl").write_text(json.dumps(record) + "\n")
    share = follower._progress(parts[0])
    assert share == 0.5
    assert follower._whole(100, share * 200, share * 200) == "; about 2:30 left of all"


def test_without_news_the_time_left_does_not_grow(tmp_path, caplog, monkeypatch):
    """An evaluation, or a long epoch: the same record is read again and again."""
    monkeypatch.setattr(logger(), "propagate", True)
    parts = [Part("a", "a", (), "", 200, str(tmp_path)), Part("b", "b", (), "", 50)]
    follower = Follower(str(tmp_path), parts, [])
    record = {"kind": "train", "epoch": 0, "step": 100, "lr": 0.1, "loss": 1.0}
    record |= {"seconds_per_step": 1.0, "seconds_left": 100.0}
    (tmp_path / "metrics.jsonl").write_text(json.dumps(record) + "\n")
    for seconds in (100, 130, 240):
        follower._tell(parts[0], "[1/2]", seconds, 0.0)
    assert list(dict.fromkeys(caplog.messages)) == [
        f"[1/2] epoch 1, step 100 of 200, {left} left of it; about 2:30 left of all"
        for left in ("1:40", "1:10", "0:00")
    ]


def test_before_a_part_says_how_far_it_is_it_is_told_where_to_look(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(logger(), "propagate", True)
    part = Part("doctor", "an examination", (), "", 200)
    Follower("out", [part], [])._tell(part, "[1/1]", 16, 0.0)
    assert list(dict.fromkeys(caplog.messages)) == ["[1/1] at work for 0:16; what it prints: out/log/doctor.txt"]


@pytest.mark.parametrize("both, told", [
    (None, "+1.5 AP (95 % interval over images, one seed each -0.5 to +3.0): not told apart"),
    ([0.002, 0.03], "+1.5 AP (95 % interval over seeds and images +0.2 to +3.0): better"),
])  # fmt: skip
def test_what_the_comparison_says_is_said_at_the_end(both, told, tmp_path):
    assert compared(str(tmp_path)) == []
    row = {"name": "slim", "gain": 0.015, "interval_images": [-0.005, 0.03], "interval_seeds_and_images": both}
    row["verdict"] = "better" if both else "not told apart"
    (tmp_path / "checks").mkdir()
    (tmp_path / "checks" / "compare.json").write_text(json.dumps({"groups": [{"name": "plain"}, row]}))
    assert compared(str(tmp_path)) == [f"with the teacher against alone: {told}"]


def test_shipped_and_own_files_are_named_so_that_they_are_found(wishes, commands, tmp_path):
    commands.course(wishes(student=str(CONFIGS / "ppyoloe_tiny.yml"), imgsz=64))
    text = (tmp_path / "out" / "student.yml").read_text()
    assert f"_BASE_: [{CONFIGS / 'ppyoloe_tiny.yml'}]" in text
    assert "_BASE_: [ppyoloe_plus_teacher_custom.yml]" in (tmp_path / "out" / "teacher.yml").read_text()


@pytest.mark.parametrize("name", ["log", "log/teacher.txt"])
def test_what_a_part_prints_goes_through_no_link(name, tmp_path):
    mine, made = tmp_path / "mine", tmp_path / "output" / name
    (mine.mkdir if name == "log" else mine.touch)()
    made.parent.mkdir(parents=True)
    made.symlink_to(mine)
    with pytest.raises(UserError, match="links are not followed in writing"):
        start(["--help"], str(tmp_path / "output" / "log" / "teacher.txt"))
    assert name != "log" or not os.listdir(mine)

"""Mistakes that users make: one line that names the file or key and what would be right, and nothing left behind."""

import io
import json
import os
import re

import paddle
import pytest

from ppkd import cli
from ppkd.build import build_student
from ppkd.errors import UserError
from ppkd.recipe.recipe import load_recipe
from tests.conftest import CONFIGS
from tests.helpers_tools import OFFLINE, call, the_error, write

STUDENT = CONFIGS / "retinanet_tiny.yml"
SLIM = CONFIGS / "retinanet_fgd.yml"


@pytest.fixture(autouse=True)
def _nothing_left_behind(tmp_path, monkeypatch):
    """Whatever goes wrong, no output folder stays."""
    monkeypatch.chdir(tmp_path)
    for name, value in OFFLINE.items():
        monkeypatch.setenv(name, value)
    yield
    assert not (tmp_path / "output").exists()


@pytest.fixture
def train(shapes, teacher_weights):
    """Function that trains with a wrong argument, in this process, and returns the one line of the error."""

    def run(*overrides, config=STUDENT, slim=None, data=shapes, options=()):
        given = [f"dataset_dir={data}", *overrides]
        if slim is not None:
            options = ["--slim_config", slim, *options]
            # Before what the test sets: the last one counts.
            given.insert(0, f"teacher.pretrain_weights={teacher_weights['retinanet']}")
        return the_error(*call("train", "-c", config, *options, "-o", *given))

    return run


@pytest.fixture
def slim(tmp_path):
    """Function that writes a slim file with one thing changed."""

    def put(before, after):
        text = SLIM.read_text()
        assert before in text
        text = text.replace(before, after).replace("retinanet_wide.yml", str(CONFIGS / "retinanet_wide.yml"))
        return write(tmp_path / "slim.yml", text)

    return put


@pytest.fixture
def weights(shapes, tmp_path):
    """Path of weights of the tiny student with seven classes; the data set has six."""
    model = build_student(load_recipe(str(STUDENT), overrides=[f"dataset_dir={shapes}", "num_classes=7"]))
    paddle.save(model.state_dict(), str(tmp_path / "seven.pdparams"))
    return tmp_path / "seven.pdparams"


def test_a_decay_without_a_warm_up(train):
    message = train("LearningRate.schedulers=[{name: CosineDecay, max_epochs: 2}]")
    assert message.startswith("LearningRate.schedulers has one entry, and PaddleDetection takes a decay and after it")


# Files


def test_unknown_key_in_a_slim_file(train, slim):
    message = train(slim=slim("slim_method", "slim_metod"))
    assert re.match(r"\S*slim\.yml: unknown key 'slim_metod'; nearest: slim_method", message)


def test_unknown_parameter_of_the_method(train, slim):
    message = train(slim=slim("alpha_fgd", "alfa_fgd"))
    assert re.match(r"\S*slim\.yml: FGD has no parameter 'alfa_fgd'; nearest: alpha_fgd.*it has: .*temp", message)


def test_wrong_method(train, slim):
    message = train(slim=slim("slim_method: FGD", "slim_method: FDG"))
    assert re.match(r"\S*slim\.yml: slim_method: 'FDG' is no distillation method.*nearest: FGD.*known: .*FGD", message)


def test_a_wrong_method_is_told_before_data_and_weights_are_read(train, slim):
    message = train("num_classes=6", slim=slim("slim_method: FGD", "slim_method: FDG"), data="nowhere")
    assert "'FDG' is no distillation method" in message


def test_missing_config():
    message = the_error(*call("train", "-c", CONFIGS / "retinanet_tini.yml"))
    assert message.startswith(f"{CONFIGS}/retinanet_tini.yml: no such config file; nearest: retinanet_tiny.yml")


def test_missing_base(tmp_path):
    write(tmp_path / "retinanet.yml", "a: 1")
    path = write(tmp_path / "mine.yml", "_BASE_: [retinanett.yml]")
    message = the_error(*call("train", "-c", path))
    assert re.match(r"\S*mine\.yml:1: its _BASE_ 'retinanett\.yml' does not exist.*; nearest: retinanet\.yml", message)


def test_cyclic_base(tmp_path):
    write(tmp_path / "a.yml", "_BASE_: [b.yml]")
    message = the_error(*call("train", "-c", write(tmp_path / "b.yml", "_BASE_: [a.yml]")))
    assert re.match(r"\S*a\.yml:1: its _BASE_ 'b\.yml' leads back .*: (\S*b\.yml) -> \S*a\.yml -> \1$", message)


def test_broken_yaml(tmp_path):
    message = the_error(*call("train", "-c", write(tmp_path / "mine.yml", "epoch: 1\nsteps: [1, 2\nuse_gpu: true\n")))
    assert re.match(r"\S*mine\.yml:3: broken YAML: expected ',' or '\]'", message)


def test_slim_file_given_as_the_student(train):
    message = train(config=SLIM)
    assert message == f"{SLIM}: has `slim:` in it, so it is a slim file, which goes to --slim_config"


def test_student_given_as_the_slim_file(train):
    message = train(slim=STUDENT)
    assert message.startswith(f"{STUDENT}: no `slim: Distill` in it")
    assert message.endswith("it looks like a detector's own config, which goes to -c")


def test_a_config_that_cannot_train(tmp_path, shapes):
    path = write(tmp_path / "mine.yml", f"_BASE_: [{STUDENT}]\nepoch: null\n")
    message = the_error(*call("train", "-c", path, "-o", f"dataset_dir={shapes}"))
    assert re.match(r"\S*mine\.yml: no `epoch`, which training needs", message)


# Overrides


def test_unknown_override(train):
    assert train("epoc=3").startswith("-o: unknown key 'epoc'; nearest: epoch")


def test_override_without_equals_sign(train):
    assert train("epoch") == "-o 'epoch': expected key=value, for example -o epoch=12"


def test_wrong_class_in_an_override(train):
    message = train("OptimizerBuilder.regularizer=null", "RetinaHead.loss_class.name=FocalLos")
    assert message.startswith("RetinaNet: ppdet has no class 'FocalLos'; nearest: FocalLoss")


@pytest.mark.parametrize(
    "student, teacher, message",
    [
        ("neck.fpn_con", "neck[*]", "RetinaNet has no source 'neck.fpn_con'; nearest: neck.fpn_"),
        ("neck[*]", "nekc[0]", r"RetinaNet has no source 'nekc\[0\]'.*named sources: backbone\[i\], neck\[i\], head"),
        ("neck[7]", "neck[0]", r"neck returns 5 tensors; neck\[7\] does not exist"),
    ],
)
def test_source_that_does_not_exist(recipe, student, teacher, message):
    from ppkd.engine.model import DistillModel
    from ppkd.recipe.plan import Plan, TermSpec

    loaded = recipe("retinanet")
    models = [build_student(loaded), build_student(recipe("retinanet", distil=False))]
    with pytest.raises(UserError, match=message):
        DistillModel(models[0], {"teacher": models[1]}, Plan([TermSpec("mine", student, teacher, {"name": "fgd"})]))


# Weights


def test_teacher_without_weights(train):
    message = train("teacher.pretrain_weights=null", slim=SLIM)
    assert re.match(rf"{SLIM}: the teacher has no weights.*-o teacher\.pretrain_weights=PATH", message)


def test_teacher_weights_that_are_not_there(train):
    message = train("teacher.pretrain_weights=none.pdparams", slim=SLIM)
    assert re.match(r"teacher weights: no file none\.pdparams \(looked in /.*\)\. Give a path or a URL$", message)


def test_a_file_that_holds_no_weights(train, tmp_path):
    path = write(tmp_path / "text.pdparams", "no weights\n" * 9)
    message = train(f"teacher.pretrain_weights={path}", slim=SLIM)
    assert message.startswith(f"{path}: not a Paddle file, or a damaged one (")


def test_student_weights_of_another_family(train, tmp_path):
    paddle.save({"other.weight": paddle.ones([3])}, str(tmp_path / "other.pdparams"))
    message = train(f"pretrain_weights={tmp_path / 'other.pdparams'}")
    assert re.match(r"student weights \(pretrain_weights\): they do not fit RetinaNet: 0 of \d+ tensors", message)


def test_weights_of_another_number_of_classes_are_not_evaluated(run_tool, shapes, weights):
    done = run_tool("eval", "-c", STUDENT, "-o", f"dataset_dir={shapes}", f"weights={weights}")
    message = the_error(done.returncode, done.stderr)
    assert re.match(
        rf"weights do not fit the detector of -c: \d+ of \d+ tensors taken from {weights}; 2 of another shape: head\."
        r"retina_cls\.weight: \[21, 16, 3, 3\], model \[18, 16, 3, 3\].*\(of another num_classes\? -c has 6\)$",
        message,
    )


def test_no_weights_to_evaluate(shapes):
    message = the_error(*call("eval", "-c", STUDENT, "-o", f"dataset_dir={shapes}"))
    assert message == "no weights: give them with -o weights=PATH_OR_URL"


def test_teacher_weights_that_do_not_fit(run_tool, shapes, weights, tmp_path):
    done = run_tool("train", "-c", STUDENT, "--slim_config", SLIM, "-o", f"dataset_dir={shapes}",
                    f"teacher.pretrain_weights={weights}")  # fmt: skip
    message = the_error(done.returncode, done.stderr)
    assert re.match(
        r"teacher weights do not fit the teacher, the detector of the slim file's _BASE_: \d+ of \d+ tensors taken "
        rf"from {weights}; \d+ of another shape: neck\.\S+: \[16, \d+, 1, 1\], model \[24, \d+, 1, 1\]",
        message,
    )


# Data


def test_data_set_folder_that_is_not_there(train):
    message = train("num_classes=6", data="nowhere")
    assert re.match(
        r"TrainDataset: no data set folder at nowhere \(that is /.*/nowhere\), which has to hold train and "
        r"annotations/instances_train\.json\. .*-o dataset_dir=\.\.\. train_images=",
        message,
    )


def test_annotations_that_are_not_there(train):
    message = train("train_annotations=none.json")
    assert re.match(r"\S*/none\.json: no such annotation file.*Set dataset_dir and train_annotations", message)
    message = train("train_annotations=none.json", "num_classes=6")
    assert re.match(r"TrainDataset: no annotation file at \S*/none\.json", message)


@pytest.mark.parametrize(
    "content, message",
    [
        ('{"images": [', r"annotations\.json: broken JSON: Expecting value: line 1 column 13"),
        ('{"shapes": []}', r"not a COCO annotation file: no (images and no )?categories in it \(its keys are shapes\)"),
        ("[]", r"not a COCO annotation file: no (images and no )?categories in it \(it holds a list\)"),
    ],
)
@pytest.mark.parametrize("classes", ["auto", 6])
def test_annotations_of_another_format(train, tmp_path, content, message, classes):
    path = write(tmp_path / "annotations.json", content)
    assert re.search(message, train(f"train_annotations={path}", f"num_classes={classes}"))
    if classes != "auto":
        given = ["num_classes=6", f"val_annotations={path}", f"dataset_dir={tmp_path}", "val_images=."]
        evaluated = call("eval", "-c", STUDENT, "-o", *given)
        assert re.search("EvalDataset: .*" + message, the_error(*evaluated))


def test_an_entry_that_lacks_something(train, tmp_path, shapes):
    content = json.loads((tmp_path / shapes / "annotations/instances_train.json").read_text())
    del content["annotations"][0]["area"]
    path = write(tmp_path / "annotations.json", json.dumps(content))
    message = train(f"train_annotations={path}")
    assert message.startswith(f"TrainDataset: {path}: missing-key: ppdet and pycocotools need `area`: write width x")
    assert "annotation 1 of 000001.jpg: no `area`" in message


def test_image_folder_that_is_not_there(train):
    message = train("train_images=pictures")
    assert re.match(r"TrainDataset: no image folder at \S*/pictures\. Put it there, or point", message)


def test_image_folder_of_other_images(train):
    message = train("train_images=annotations")
    expected = r"TrainDataset: none of the 12 images of \S* is in \S*/annotations \(the first is 000001\.jpg\)"
    assert re.match(expected, message)


def test_images_without_any_box(train, tmp_path, shapes):
    content = json.loads((tmp_path / shapes / "annotations/instances_train.json").read_text())
    path = write(tmp_path / "annotations.json", json.dumps({**content, "annotations": []}))
    message = train(f"train_annotations={path}", "allow_empty=false")
    assert message.startswith(f"TrainDataset: {path}: nothing-kept: not one box is left to learn from")


def test_automatic_number_of_classes_without_annotations(train):
    message = train("train_annotations=null", "num_classes=auto")
    assert message.startswith("num_classes: auto counts the categories of the training annotations, and none are given")


def test_fewer_classes_than_the_data_set_has(train):
    message = train("num_classes=3")
    assert re.match(r"TrainDataset: .*6 categories, more than num_classes: 3; set -o num_classes=6", message)


# Output, resuming, inference


def test_output_folder_that_cannot_be(train, tmp_path, shapes):
    write(tmp_path / "file", "")
    message = train("save_dir=file/below")
    assert re.match(r"the output folder file/below/retinanet_tiny is not writable.*another with -o save_dir=", message)
    for tool, option in (("eval", "--json"), ("eval", "--output_eval"), ("infer", "--output_dir")):
        image = ["--infer_dir", tmp_path / shapes / "val"] if tool == "infer" else []
        code, errors = call(tool, "-c", STUDENT, *image, option, "file/below/it", "-o", f"dataset_dir={shapes}")
        assert re.match(rf"{option} file/below\S*: \S*/file is a file", the_error(code, errors))


def test_resuming_from_what_is_not_there(train):
    assert train(options=["-r", "none"]) == "-r none: no resume file none.resume"


def test_resuming_another_recipe(train, shapes):
    assert call("train", "-c", STUDENT, "--max_steps", 1, "-o", f"dataset_dir={shapes}", "save_dir=first") == (0, "")
    message = train(slim=SLIM, options=["-r", "first/retinanet_tiny/model_final"])
    assert message == "-r: the checkpoint is of a run with another --slim_config (or none)"


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--infer_img", "none.jpg"], "--infer_img none.jpg: no such file"),
        (["--infer_dir", "none"], "--infer_dir none: no such folder"),
        ([], "give --infer_img FILE or --infer_dir FOLDER"),
        (["--infer_dir", "."], "--infer_dir .: no image in it (.jpg, .jpeg, .png, .bmp, .webp, .tif, .tiff, .gif)"),
        (["--infer_img", str(STUDENT)], f"{STUDENT}: not an image that OpenCV can decode"),
    ],
)
def test_inference_without_images(shapes, arguments, message):
    assert the_error(*call("infer", "-c", STUDENT, *arguments, "-o", f"dataset_dir={shapes}")) == message


def _key_error(_):
    {}["gt_bbox\n\x1b[2J"]


def _no_such_file(_):
    with open("tracker/GMC-a.txt"):
        pass


def _two_lines(_):
    raise RuntimeError("one\ntwo\x1b[2J")


def _too_large(_):
    bytearray(1 << 62)


def test_too_little_memory_is_called_so(monkeypatch, capsys):
    monkeypatch.delenv("PPKD_TRACEBACK")
    with pytest.raises(SystemExit) as stop:
        cli.run(cli.hosts_parser(), _too_large, [])
    assert "there is not enough memory for it" in the_error(stop.value.code, capsys.readouterr().err)


@pytest.mark.parametrize("printed", ["a line at once", "lines " * 100000])
def test_what_is_printed_to_nobody_ends_without_a_word(printed, monkeypatch, capsys):
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stream, pytest.raises(SystemExit) as stop:
        monkeypatch.setattr("sys.stdout", stream)
        cli.run(cli.hosts_parser(), lambda _: print(printed), [])
    assert stop.value.code == 141 and not capsys.readouterr().err


def test_a_current_folder_that_is_gone(tmp_path, monkeypatch, capsys):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    (tmp_path / "here").rmdir()
    with pytest.raises(SystemExit) as stop:
        cli.main(["configs"])
    assert "the current folder has been removed" in the_error(stop.value.code, capsys.readouterr().err)


@pytest.mark.parametrize("encoding, seen", [("ascii", r"\u4e2d \xfc \udcff"), ("latin-1", r"\u4e2d ü \udcff"),
                                            ("utf-8", r"中 ü \udcff")])  # fmt: skip
def test_what_a_terminal_cannot_show_is_written_out(encoding, seen, monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr("sys.stdout", stream)
    cli.run(cli.hosts_parser(), lambda _: print("中 ü \udcff"), [])
    assert stream.buffer.getvalue().decode(encoding) == seen + "\n"


@pytest.mark.parametrize("option, told", [
    ("seed=99999999999999999999", "-o: seed is 99999999999999999999, more than"), ("epoch=1" + "0" * 40, "more than"),
    ("ema_decay=nan", "ema_decay has to be a number from 0 to 1, found 'nan'"), ("ema_decay=5", "from 0 to 1, found 5"),
    ("ema_decay=.nan", "from 0 to 1, found nan"), ("ema_decay=true", "from 0 to 1, found True"),
])  # fmt: skip
def test_numbers_that_nothing_can_count_with(option, told):
    with pytest.raises(UserError, match=re.escape(told)):
        load_recipe(str(STUDENT), overrides=["num_classes=6", option])


@pytest.mark.parametrize("given", ["nan", "-1", "1.5", "150%", "high"])
def test_a_score_to_draw_from_is_a_share(given, capsys):
    with pytest.raises(SystemExit):
        cli.main(["infer", "-c", "x.yml", "--draw_threshold", given])
    assert "--draw_threshold" in capsys.readouterr().err


@pytest.mark.parametrize("command", [_key_error, _no_such_file, _two_lines])
def test_what_nobody_foresaw_is_one_line_as_well(monkeypatch, capsys, command):
    """Values of a config go through all of ppdet and Paddle, up to the first step."""
    monkeypatch.delenv("PPKD_TRACEBACK")
    with pytest.raises(SystemExit) as stop:
        cli.run(cli.hosts_parser(), command, [])
    message = the_error(stop.value.code, capsys.readouterr().err)
    assert re.match(r"(KeyError|FileNotFoundError|RuntimeError): .*\(in .*test_bad_input\.py, line \d+\)", message)
    assert message.isprintable() and "PPKD_TRACEBACK=1" in message
    monkeypatch.setenv("PPKD_TRACEBACK", "1")
    with pytest.raises((KeyError, FileNotFoundError, RuntimeError)):
        cli.run(cli.hosts_parser(), command, [])

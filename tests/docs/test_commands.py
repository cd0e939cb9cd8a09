"""Every command of the READMEs and of docs/: it parses, and the files and keys that it names are there.

Quick ones are run here as well; for each kind of the others `ELSEWHERE` names the test that runs it.
"""

import inspect
import os
import re
import shlex
import subprocess

import pytest

from ppkd.errors import UserError
from ppkd.methods import plan
from ppkd.recipe.recipe import load_recipe
from tests.conftest import ROOT
from tests.helpers_docs import PAGES, blocks, commands, parsed, parser_of, spans
from tests.helpers_tools import call

# What a page calls a file that the reader has: the file that stands in for it here.
PLACEHOLDERS = {
    "student.yml": "configs/demo/ppyoloe_plus_student_shapes.yml",
    "teacher.yml": "configs/slim/distill/ppyoloe_plus_shapes_fgd.yml",
    "TRAINVAL.json": "annotations/instances_train.json",
}
# Folders of data that the reader has or that the demo makes: the generated data set stands in for them.
DATA = ("my_data", "BCCD", "dataset/shapes")
# Files that the reader has or gets, whose content no check here needs.
NOT_HERE = {
    "teacher.pdparams", "student.pdparams", "student.safetensors", "model.pth", "model.pdparams", "TEACHER.pdparams",
    "STUDENT.pdparams", "x.jpg", "gain.json", "found.json", "rows.json", "my_data/images",
    "annotations/instances_train.json",
    "annotations/instances_test.json",
}  # fmt: skip
# Folders of other projects.
THEIRS = {"configs/distill/mmdet/pkd", "configs/rtmdet/distillation", "configs/distillers/fgd/"}
MADE = ("output/", "pretrained/", "https://")

# Kinds of commands that take too long to be run here, and the tests that run them.
ELSEWHERE = {
    "train": "tests/e2e/test_train.py::test_distil_evaluate_infer",
    "train --resume": "tests/e2e/test_interrupted.py::test_many_kills_leave_no_trace",
    "launch": "tests/training/test_distributed.py::test_the_train_tool_on_two_ranks",
    "eval": "tests/e2e/test_train.py::test_distil_evaluate_infer",
    "infer": "tests/e2e/test_train.py::test_distil_evaluate_infer",
    "infer --infer_dir": "tests/e2e/test_tools.py::test_plain_training_then_inference_on_a_folder",
    "export": "tests/exporting/test_export.py::test_the_exported_student_of_a_distillation_is_the_plain_detector",
    "export --onnx": "tests/exporting/test_export.py::test_onnxruntime_gives_what_the_detector_gives",
    "convert": "tests/files/test_convert.py::test_a_whole_models_checkpoint_gives_the_student_that_detects_the_same",
    "doctor": "tests/diagnosis/test_command.py::test_errors_end_the_command_with_one",
    "distill": "tests/e2e/test_distill.py::"
        "test_one_command_killed_in_the_middle_ends_with_a_taught_student_and_a_report",
    "bank": "tests/training/test_banking.py::test_several_processes_fill_beforehand_what_the_run_would",
    "init": "tests/course/test_course.py::test_each_part_is_a_command_that_the_parsers_and_the_files_take",
    "explain": "tests/test_explain.py::test_the_command_prints_it_or_writes_it",
    "label": "tests/labelling/test_label.py::test_the_labels_are_right_where_the_teacher_is",
    "data": "tests/importing/test_formats.py::test_the_same_scene_comes_out_of_each_format",
    "report": "tests/reporting/test_report.py::test_the_command_writes_it_where_it_says",
    "compare": "tests/study/test_compare.py::test_the_command_prints_the_table_and_writes_json",
    "make demo": "tests/e2e/test_demo.py::test_demo_ends_with_results_and_picture_in_any_folder",
    "make": "tests/docs/test_commands.py::test_a_command_is_right",  # with make -n
    "pip": "tests/docs/test_commands.py::test_a_command_is_right",  # compared with setup.py and constraints.txt
    "pytest": "tests/docs/test_commands.py::test_a_command_is_right",  # these tests themselves
    "benchmarks/methods/seeds.py":
        "tests/e2e/test_benchmarks.py::test_methods_are_compared_over_seeds_and_a_sweep_goes_on",
    "benchmarks/run.py": "tests/e2e/test_benchmarks.py::test_rows_of_losses_are_measured_beside_ppdet",
    "benchmarks/training/beside_ppdet.py":
        "tests/e2e/test_benchmarks.py::test_plain_training_is_measured_beside_ppdets_trainer",
    "benchmarks/engine/launches.py": "tests/engine/test_launches.py::test_a_part_of_a_step_launches_no_more_than",
    "benchmarks/losses/launches.py": "tests/engine/test_launches.py::test_a_loss_launches_no_more_than",
    "benchmarks/losses/on_a_gpu.py":
        "tests/losses/test_memory.py::test_a_gpu_holds_no_more_than_twice_what_the_cpu_does",
    "benchmarks/study/estimate.py": "tests/e2e/test_benchmarks.py::test_what_gpus_would_take_is_reckoned",
    "benchmarks/gpu_check.py": "tests/test_gpu_check.py::test_on_a_cpu_every_line_is_shown_or_said_not_to_be",
}
HERE = ("layers", "configs", "hosts")

# Slim files of the methods, and of two teachers: an option of the text is one of some of them.
SLIM = [
    None,
    PLACEHOLDERS["teacher.yml"],
    *(f"tests/configs/{name}.yml" for name in ("gfl_cwd", "gfl_ld", "ppyoloe_ppyoloe", "yolov3_yolov3")),
    "benchmarks/configs/shapes_pkd.yml",
    "configs/slim/distill/retinanet_from_two_teachers_coco_pkd.yml",
    "benchmarks/configs/shapes_matching.yml",
]
# Options whose names are those of a slim file that the same page shows, which another test reads.
OF_THE_PAGE = ("-o distill.teachers.other.weight=1",)

SHOWN = [command for page in PAGES for command in commands(page)]
ONCE = list({shlex.join(command.words): command for command in SHOWN}.values())


def script_of(words):
    """The script, or ``ppkd`` and its subcommand, that a command runs, and its arguments; None for other programs."""
    words = words[2:] if words[:3] == ["python", "-m", "ppkd"] else words
    if words[0] == "ppkd":
        return f"ppkd {words[1]}", words[2:]
    scripts = [place for place, word in enumerate(words) if word.endswith(".py")]
    return (words[scripts[0]], words[scripts[0] + 1 :]) if words[0] == "python" and scripts else (None, [])


def kind_of(words):
    """The key of `ELSEWHERE`, or the name in `HERE`, of a command."""
    script, arguments = script_of(words)
    if script is None:
        name = " ".join(words[:2])
        return name if name in ELSEWHERE else words[2] if words[:2] == ["python", "-m"] else words[0]
    if "paddle.distributed.launch" in words:
        return "launch"
    name = re.sub(r"^ppkd |^tools/|\.py$", "", script) if script.startswith(("ppkd ", "tools/")) else script
    name = "export" if name == "export_model" else name
    options = {"-r": "--resume"} | {option: option for option in ("--onnx", "--infer_dir")}
    return " ".join([name, *(options[word] for word in arguments if word in options)])


@pytest.fixture(scope="module")
def clone(tmp_path_factory, shapes):
    """A folder with all that a clone of the repository has, and with the data that the pages take for granted."""
    folder = tmp_path_factory.mktemp("clone")
    for path in ROOT.iterdir():
        if path.name not in ("dataset", "output", ".git"):
            (folder / path.name).symlink_to(path)
    for name in DATA:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).symlink_to(shapes)
    return folder


@pytest.fixture
def _in_clone(clone, monkeypatch):
    monkeypatch.chdir(clone)


def stands_in(word):
    """What is here in place of what the reader has, in one word of a command."""
    key, separator, value = word.rpartition("=") if not word.startswith("-") else ("", "", word)
    return f"{key}{separator}{PLACEHOLDERS.get(value, value)}"


def names_a_file(word):
    if re.search(r"[{}\[\]*]|^-|: |^\d+/\d+$", word):
        return False
    return "/" in word or re.search(r"\.(yml|py|json|pdparams|jpg)$", word)


@pytest.mark.parametrize("command", ONCE, ids=lambda command: f"{command.page}: {command.text[:60]}")
@pytest.mark.usefixtures("_in_clone")
def test_a_command_is_right(command):
    words = [stands_in(word) for word in command.words]
    for word in command.words[1:]:
        value = word.rpartition("=")[2]
        known = value in NOT_HERE or value in PLACEHOLDERS or value.startswith(MADE)
        assert known or not names_a_file(value) or os.path.exists(value), f"{command.page} names {value}"
    script, arguments = script_of(words)
    if script is not None:
        check_script(script, arguments)
    if "paddle.distributed.launch" in words:
        from paddle.distributed.launch.context import args_envs

        options = [word for word in words[: words.index(script)] if word.startswith("--")]
        assert options and all(f'"{option}"' in inspect.getsource(args_envs) for option in options)
    elif words[0] == "make":
        done = subprocess.run(["make", "-n", *words[1:]], cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    elif words[0] == "pip":
        check_pip(words)
    else:
        assert script is not None or words[:3] == ["python", "-m", "pytest"], f"no check for {command.text}"


def check_script(script, arguments):
    """The script's own parser takes the arguments, and the files and keys are those of a recipe."""
    given = parsed(script, arguments)
    if not hasattr(given, "config"):
        return
    slim = getattr(given, "slim", None) or [getattr(given, "slim_config", None)]
    for each in slim:
        check_recipe(given.config, each and each.rpartition("=")[2], given.opt)


def check_recipe(config, slim, options):
    """Raises `UserError` where a file or a key is not there."""
    recipe = load_recipe(config, slim, options)
    if recipe.method is not None:
        plan(recipe.method)


def check_pip(words):
    """Extras are those of setup.py, and versions those that are tested."""
    pins = [(ROOT / name).read_text(encoding="utf-8") for name in ("constraints.txt", "setup.py", "Makefile")]
    for word in words[2:]:
        if extras := re.search(r"^\.\[([\w,]+)\]$", word):
            assert all(f'"{extra}": [' in pins[1] for extra in extras[1].split(","))
        elif "==" in word:
            name, _, version = word.partition("==")
            assert f"{word}\n" in pins[0] or (word in pins[1] or f"{name}==$(" in pins[2] and version in pins[2])
        else:
            assert word in (".", "-e", "--no-deps", "--force-reinstall", "PaddleDetection"), word


def test_every_kind_is_run_by_a_test():
    kinds = {kind_of(command.words) for command in SHOWN}
    assert kinds <= {*ELSEWHERE, *HERE}
    assert {*ELSEWHERE, *HERE} <= kinds, "kinds that no page shows any more"
    for test in ELSEWHERE.values():
        file, name = test.split("::")
        assert f"\ndef {name}(" in (ROOT / file).read_text(encoding="utf-8"), test


@pytest.mark.parametrize(
    "command", [each for each in ONCE if kind_of(each.words) in HERE], ids=lambda command: command.text[:90]
)
@pytest.mark.usefixtures("_in_clone")
def test_a_quick_command_runs(command, capsys):
    name, *arguments = [stands_in(word) for word in command.words[1:]]
    code, errors = call(name, *arguments)
    assert code == 0, errors
    assert len(capsys.readouterr().out.splitlines()) > 10


def loads_somewhere(options):
    """Whether some method's pair of files takes these ``-o`` values."""
    last = None
    for slim in SLIM:
        try:
            check_recipe(PLACEHOLDERS["student.yml"], slim, options)
            return None
        except UserError as error:
            last = error
    return last


OPTIONS = sorted({
    words for page in PAGES for words in [
        *(span for span in spans(page.read_text(encoding="utf-8"))),
        *(block.strip() for block in blocks(page.read_text(encoding="utf-8"))),
    ] if re.match(r"-o [\w\"]", words) and not re.search(r"\b(key|KEY|NAME|PATH)\b|=$|\.\.\.|\*|/data/mine", words)
    and words not in OF_THE_PAGE
})  # fmt: skip


@pytest.mark.parametrize("text", OPTIONS)
@pytest.mark.usefixtures("_in_clone")
def test_an_option_that_a_page_mentions_is_one(text):
    words = shlex.split(text)[1:]
    assert loads_somewhere([word for word in words if "=" in word]) is None


def test_what_the_text_calls_a_command_is_one():
    """`` `ppkd report RUN` ``: the command, its options, and the files of this repository that the text names."""
    for page in PAGES:
        for span in spans(page.read_text(encoding="utf-8")):
            where = f"{page.name}: `{span}`"
            if match := re.match(r"(?:python )?((?:tools|benchmarks)/\w+\.py)\b(.*)|ppkd (\w+)(.*)", span):
                script, rest = (match[1], match[2]) if match[1] else (f"ppkd {match[3]}", match[4])
                text = parser_of(script).format_help()
                for option in re.findall(r"(?<!\S)\[?(--\w+|-[a-z])\b", rest):
                    assert re.search(rf"(?<![\w-]){option}\b", text), where
            elif match := re.match(r"make (\w+)", span):
                assert f"\n{match[1]}:" in (ROOT / "Makefile").read_text(encoding="utf-8"), where
            elif re.fullmatch(r"(?:configs|benchmarks|tests|tools|ppkd|docs)/[\w/.-]+", span) and span not in THEIRS:
                assert (ROOT / span).exists(), where


def test_slim_files_that_pages_show_are_read(tmp_path):
    found = 0
    for page in PAGES:
        for block in blocks(page.read_text(encoding="utf-8")):
            if base := re.search(r"^_BASE_: \[(\S+\.yml)\]", block, re.M):
                path = next((ROOT / "configs").rglob(base[1]))
                file = tmp_path / f"{found}.yml"
                file.write_text(block.replace(base[1], str(path)), encoding="utf-8")
                check_recipe(str(ROOT / "configs/retinanet/retinanet_r50_fpn_2x_coco.yml"), str(file), [])
                found += 1
    assert found >= 3


def test_both_readmes_say_the_same():
    english, chinese = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "README_cn.md"))
    assert [command.words for command in commands(PAGES[0])] == [command.words for command in commands(PAGES[1])]
    assert len(commands(PAGES[0])) > 10
    links = [sorted(re.findall(r"\]\(([^)]+)\)", text)) for text in (english, chinese)]
    assert [link for link in links[0] if link != "README_cn.md"] == [link for link in links[1] if link != "README.md"]
    assert sorted(spans(english)) == sorted(spans(chinese))
    tables = [[line.count("|") for line in text.splitlines() if line.startswith("|")] for text in (english, chinese)]
    assert tables[0] == tables[1] and english.count("\n## ") == chinese.count("\n## ")
    numbers = [sorted(re.findall(r"\d+\.\d+", text)) for text in (english, chinese)]
    assert numbers[0] == numbers[1]

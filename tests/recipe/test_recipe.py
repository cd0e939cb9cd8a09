"""Two files and -o: who may set what, and who wins."""

import os

import pytest

from ppkd.errors import UserError
from ppkd.files.yaml_io import dump, read_yaml
from ppkd.methods import plan
from ppkd.recipe.auto import SCHEDULE
from ppkd.recipe.recipe import load_recipe, parse_overrides
from tests.conftest import CONFIGS
from tests.helpers_tools import write

STUDENT = """
architecture: RetinaNet
epoch: 12
log_iter: 20
snapshot_epoch: 1
save_dir: output
num_classes: 3
pretrain_weights: student.pdparams
norm_type: bn
LearningRate: {base_lr: 0.01, schedulers: [{name: CosineDecay, max_epochs: 12}]}
TrainReader: {batch_size: 2, shuffle: true}
ResNet: {depth: 18}
"""

# A teacher's file as PaddleDetection has them: a whole run of its own, which must not reach the student's.
TEACHER = """
architecture: GFL
epoch: 24
log_iter: 99
save_dir: teacher_output
weights: output/teacher/model_final
num_classes: 80
pretrain_weights: backbone.pdparams
norm_type: sync_bn
use_ema: true
LearningRate: {base_lr: 0.5}
TrainReader: {batch_size: 16}
ResNet: {depth: 101, variant: d}
"""

SLIM = """
_BASE_: [teacher.yml]
pretrain_weights: teacher.pdparams
slim: Distill
slim_method: FGD
distill_loss: FGDFeatureLoss
distill_loss_name: [neck_f_4, neck_f_3, neck_f_2]
FGDFeatureLoss: {temp: 0.5, alpha_fgd: 1e-3}
"""


@pytest.fixture
def files(tmp_path):
    """Function that loads a recipe from the three files; `slim` is added to the slim file."""
    student = write(tmp_path / "student.yml", STUDENT)
    write(tmp_path / "teacher.yml", TEACHER)

    def load(*overrides, slim="", distil=True):
        return load_recipe(student, write(tmp_path / "slim.yml", SLIM + slim) if distil else None, overrides)

    return load


def test_the_teachers_files_leave_the_run_and_the_student_untouched(files):
    """Invariant 9: the student's effective config is untouched by the teacher's files."""
    alone, distilled = files(distil=False), files()
    assert distilled.student == alone.student
    assert distilled.name == alone.name == "student"
    assert distilled.output_dir == alone.output_dir == os.path.join("output", "student")
    assert distilled.origin == alone.origin
    (note,) = distilled.notes
    assert note.startswith("not applied to the run, since the bases of")
    assert "LearningRate" in note and "epoch" in note and "ResNet" not in note


def test_the_slim_files_base_is_the_teacher(files):
    teacher = files().teachers["teacher"]
    assert teacher.config["architecture"] == "GFL"
    assert teacher.config["ResNet"] == {"depth": 101, "variant": "d"}
    assert teacher.config["norm_type"] == "sync_bn"
    assert teacher.weights == "teacher.pdparams"


def test_what_the_slim_file_itself_says_about_the_run_overrides_and_is_noted(files, tmp_path):
    loaded = files(slim="epoch: 6\nTrainReader: {batch_size: 4}\nLearningRate: {base_lr: 0.02}\n")
    assert loaded.student["epoch"] == 6
    assert loaded.student["TrainReader"] == {"batch_size": 4, "shuffle": True}
    assert loaded.student["LearningRate"]["base_lr"] == 0.02
    assert loaded.student["LearningRate"]["schedulers"] == [{"name": "CosineDecay", "max_epochs": 12}]
    slim = str(tmp_path / "slim.yml")
    assert loaded.notes[1:] == [
        f"{key}: set by the slim file {slim}, overriding -c" for key in ("epoch", "TrainReader", "LearningRate")
    ]
    assert loaded.notes[0].startswith("not applied to the run")
    assert loaded.origin["epoch"] == slim
    assert loaded.origin["log_iter"] == str(tmp_path / "student.yml")
    teacher = loaded.teachers["teacher"].config
    assert teacher["epoch"] == 24, "the run's keys of the slim file are not the teacher's"


def test_what_the_slim_file_itself_says_about_a_detector_is_the_teachers(files):
    loaded = files(slim="ResNet: {depth: 50}\nnorm_type: gn\n")
    assert loaded.teachers["teacher"].config["ResNet"] == {"depth": 50, "variant": "d"}
    assert loaded.teachers["teacher"].config["norm_type"] == "gn"
    assert loaded.student["ResNet"] == {"depth": 18}
    assert loaded.student["norm_type"] == "bn"


def test_the_teacher_has_the_students_classes_unless_the_slim_file_itself_says_otherwise(files):
    assert files().teachers["teacher"].config["num_classes"] == 3
    assert files("num_classes=7").teachers["teacher"].config["num_classes"] == 7
    assert files(slim="num_classes: 80").teachers["teacher"].config["num_classes"] == 80
    assert files("teacher.num_classes=20").teachers["teacher"].config["num_classes"] == 20
    assert files(slim="num_classes: auto").teachers["teacher"].config["num_classes"] == 3
    assert files(slim="num_classes: 80").student["num_classes"] == 3


def test_plain_overrides_set_run_and_student_and_win_over_both_files(files):
    loaded = files("epoch=1", "ResNet.depth=34", "norm_type=sync_bn", slim="epoch: 6")
    assert (loaded.student["epoch"], loaded.student["ResNet"]) == (1, {"depth": 34})
    assert loaded.origin["epoch"] == "-o"
    teacher = loaded.teachers["teacher"].config
    assert (teacher["ResNet"], teacher["norm_type"]) == ({"depth": 101, "variant": "d"}, "sync_bn")


def test_overrides_of_the_teacher(files):
    loaded = files("teacher.pretrain_weights=mine.pdparams", "teacher.ResNet.depth=152")
    teacher = loaded.teachers["teacher"]
    assert teacher.weights == "mine.pdparams"
    assert teacher.config["ResNet"] == {"depth": 152, "variant": "d"}
    assert loaded.student["pretrain_weights"] == "student.pdparams"
    assert loaded.student["ResNet"] == {"depth": 18}


def test_overrides_of_the_method(files):
    method = files("distill.alpha_fgd=1e-2", "distill.stop_epoch=9", "distill.inherit=false").method
    assert method.name == "FGD"
    assert method.params == {"temp": 0.5, "alpha_fgd": 0.01}
    assert method.options == {"stop_epoch": 9, "inherit": False}
    assert method.levels == 3


def test_a_distill_block_in_the_slim_file_is_split_into_parameters_and_options(files):
    method = files("distill.temp=0.8", slim="distill: {start_epoch: 2, beta_fgd: 0.1, temp: 0.7}").method
    assert method.params == {"temp": 0.8, "alpha_fgd": 0.001, "beta_fgd": 0.1}
    assert method.options == {"start_epoch": 2}
    assert plan(files(slim="distill: {start_epoch: 2}").method).terms[0].schedule.start == 2


@pytest.mark.parametrize("none", ["null", "None", "~"])
def test_none_on_the_command_line(files, none):
    loaded = files(f"pretrain_weights={none}", f"teacher.pretrain_weights={none}")
    assert loaded.student["pretrain_weights"] is None
    assert loaded.teachers["teacher"].weights is None


def test_numbers_with_an_exponent_are_numbers(files):
    assert files("LearningRate.base_lr=1e-3").student["LearningRate"]["base_lr"] == 1e-3
    assert files().method.params["alpha_fgd"] == 1e-3


def test_a_slim_file_inherits_from_another_slim_file(files, tmp_path):
    """Upstream: KeyError 'slim'."""
    files()
    child = write(
        tmp_path / "child.yml",
        "_BASE_: [slim.yml]\nepoch: 3\nFGDFeatureLoss: {temp: 0.9}\npretrain_weights: better.pdparams\n",
    )
    loaded = load_recipe(str(tmp_path / "student.yml"), child)
    assert (loaded.method.name, loaded.method.levels) == ("FGD", 3)
    assert loaded.method.params == {"temp": 0.9, "alpha_fgd": 0.001}
    teacher = loaded.teachers["teacher"]
    assert (teacher.config["architecture"], teacher.weights) == ("GFL", "better.pdparams")
    assert loaded.student["epoch"] == 3
    assert "FGDFeatureLoss" not in teacher.config and "slim" not in teacher.config


def test_a_slim_file_without_slim_method_is_named_by_its_loss(tmp_path):
    student = write(tmp_path / "student.yml", STUDENT)
    write(tmp_path / "teacher.yml", TEACHER)
    slim = "_BASE_: [teacher.yml]\nslim: Distill\ndistill_loss: DistillYOLOv3Loss\nDistillYOLOv3Loss: {weight: 1000}\n"
    method = load_recipe(student, write(tmp_path / "slim.yml", slim)).method
    assert (method.name, method.params, method.levels) == ("DistillYOLOv3Loss", {"weight": 1000}, None)


def test_the_recipe_reads_back_as_a_config(files, tmp_path):
    """recipe.yml in the output folder: each of its parts can be given to -c again."""
    loaded = files("epoch=2", "LearningRate.base_lr=1e-5")
    text = dump({"run": loaded.student} | {k: t.config for k, t in loaded.teachers.items()})
    back = read_yaml(write(tmp_path / "recipe.yml", text))
    assert back == {"run": loaded.student, "teacher": loaded.teachers["teacher"].config}
    again = load_recipe(write(tmp_path / "again.yml", dump(back["run"])))
    assert again.student == loaded.student


def test_overrides_are_parsed_into_nested_mappings():
    assert parse_overrides(["a.b=1", "a.c=[x, 2]", "d="]) == {"a": {"b": 1, "c": ["x", 2]}, "d": None}
    assert parse_overrides(["a=b=c"]) == {"a": "b=c"}
    assert parse_overrides(None) == {}


@pytest.mark.parametrize(
    "overrides, message",
    [
        (["epoc=3"], "-o: unknown key 'epoc'; nearest: epoch"),
        (["epoch"], r"-o 'epoch': expected key=value, for example -o epoch=12"),
        (["=3"], "expected key=value"),
        (["a=1", "a.b=2"], "a is given a value and fields at once"),
        (["epoch=many"], "-o: epoch has to be a whole number, found 'many'"),
        (["log_iter=-1"], "log_iter has to be a whole number"),
        (["epoch.x=1"], "-o: epoch is 12 and has no fields to set"),
        (["LearningRate.schedulers.0.max_epochs=5"], "-o: LearningRate.schedulers is a list: give it whole"),
        (["TrainReader.shuffle.x=1"], "-o: TrainReader.shuffle is True and has no fields to set"),
        (["teacher=x"], "-o teacher=x: has fields to set, for example -o teacher.pretrain_weights=PATH"),
        (["teacher.pretrain_weight=x"], r"-o teacher\.\*: unknown key 'pretrain_weight'; nearest: pretrain_weights"),
        (["teacher.LearningRate.base_lr.x=1"], "-o teacher: LearningRate.base_lr is 0.5 and has no fields"),
        (["distill=x"], "-o distill=x: has fields to set"),
        (["FGDFeatureLoss.temp=1"], "-o FGDFeatureLoss: set the method's parameters with -o distill.NAME=value"),
        (["slim_method=CWD"], "-o slim_method: set the method's parameters with"),
    ],
)
def test_wrong_overrides(files, overrides, message):
    with pytest.raises(UserError, match=message):
        files(*overrides)


@pytest.mark.parametrize("override", ["teacher.pretrain_weights=x", "distill.temp=1"])
def test_overrides_of_a_teacher_that_is_not_there(files, override):
    with pytest.raises(UserError, match="need --slim_config: without it there is no teacher"):
        files(override, distil=False)


@pytest.mark.parametrize(
    "slim, message",
    [
        ("slim_metod: FGD", r"slim\.yml: unknown key 'slim_metod'; nearest: slim_method"),
        ("TrainReder: {}", "unknown key 'TrainReder'; nearest: TrainReader"),
        ("distill: yes", "distill has to be a mapping of options, found True"),
        ("epoch: {a: 1}", "epoch is 12 and has no fields to set"),
    ],
)
def test_wrong_slim_files(files, slim, message):
    with pytest.raises(UserError, match=message):
        files(slim=slim)


@pytest.mark.parametrize(
    "before, after, message",
    [
        ("slim: Distill", "slim: Pruner", "`slim: Pruner` is not distillation; ppkd handles `slim: Distill`"),
        ("slim: Distill", "", "no `slim: Distill` in it or its bases.*it looks like a detector's own config"),
        ("_BASE_: [teacher.yml]", "", "its _BASE_ describes no teacher"),
        ("FGDFeatureLoss: {", "FGDFeatureLoss: 3 #", "FGDFeatureLoss has to be a mapping of parameters, found 3"),
        ("[neck_f_4, neck_f_3, neck_f_2]", "neck_f_4", "distill_loss_name has to be a list.*found 'neck_f_4'"),
        ("slim_method: FGD\ndistill_loss: FGDFeatureLoss\n", "FGDFeatureLos: {}\n#", "unknown key 'FGDFeatureLos'"),
    ],
)
def test_slim_files_that_are_none(tmp_path, before, after, message):
    assert before in SLIM
    student = write(tmp_path / "student.yml", STUDENT)
    write(tmp_path / "teacher.yml", TEACHER)
    with pytest.raises(UserError, match=message):
        load_recipe(student, write(tmp_path / "slim.yml", SLIM.replace(before, after)))


def test_a_slim_file_that_names_no_method(files, tmp_path):
    files()
    slim = write(tmp_path / "slim.yml", "_BASE_: [teacher.yml]\nslim: Distill\n")
    with pytest.raises(UserError, match="without `slim_method`, `distill_loss`, or `terms` or"):
        load_recipe(str(tmp_path / "student.yml"), slim)


def test_files_given_to_the_wrong_option(files, tmp_path):
    files()
    student, slim = str(tmp_path / "student.yml"), str(tmp_path / "slim.yml")
    with pytest.raises(UserError, match=r"slim\.yml: has `slim:` in it, so it is a slim file, which goes to --slim_c"):
        load_recipe(slim)
    with pytest.raises(UserError, match="student.yml: no `slim: Distill`.*looks like a detector's own config"):
        load_recipe(student, student)
    derived = write(tmp_path / "derived.yml", "_BASE_: [student.yml]\n")
    with pytest.raises(UserError, match="looks like a detector's own config, which goes to -c"):
        load_recipe(student, derived)


def test_a_config_without_a_detector(tmp_path):
    with pytest.raises(UserError, match="no `architecture`, so there is no detector to build"):
        load_recipe(write(tmp_path / "a.yml", "epoch: 1"))


# PaddleDetection's way of merging, on request


def test_upstream_merge_lets_the_teachers_bases_set_the_run(files, tmp_path):
    loaded = files("distill.upstream_merge=true")
    slim = str(tmp_path / "slim.yml")
    # What describes a run ...
    assert (loaded.student["epoch"], loaded.student["use_ema"]) == (24, True)
    assert loaded.student["LearningRate"]["base_lr"] == 0.5
    assert loaded.student["TrainReader"] == {"batch_size": 16, "shuffle": True}
    assert loaded.origin["epoch"] == slim
    # ... and nothing of the detector.
    assert (loaded.student["architecture"], loaded.student["ResNet"]) == ("RetinaNet", {"depth": 18})
    assert loaded.student["num_classes"] == 3
    assert loaded.student["pretrain_weights"] == "student.pdparams"
    assert loaded.method.options == {"upstream_merge": True}


def test_upstream_merge_names_the_output_after_the_slim_file(files):
    assert files().name == "student"
    merged = files("distill.upstream_merge=true")
    assert merged.name == "slim"
    assert merged.output_dir == os.path.join("teacher_output", "slim")


def test_upstream_merge_notes_every_key_that_differs(files, tmp_path):
    plain, merged = files(distil=False), files("distill.upstream_merge=true")
    differing = {key for key, value in merged.student.items() if plain.student.get(key) != value}
    noted = {note.split(": set by the bases of ")[0] for note in merged.notes}
    assert {"epoch", "log_iter", "save_dir", "use_ema", "LearningRate", "TrainReader"} <= noted
    assert differing <= noted and "snapshot_epoch" not in noted
    slim = str(tmp_path / "slim.yml")
    assert all(note.endswith(f"set by the bases of {slim} (distill.upstream_merge)") for note in merged.notes)


def test_overrides_and_the_slim_file_itself_win_over_the_merged_bases(files):
    loaded = files("distill.upstream_merge=true", "epoch=1", "TrainReader.batch_size=3", slim="log_iter: 7\nepoch: 6\n")
    assert (loaded.student["epoch"], loaded.student["log_iter"]) == (1, 7)
    assert loaded.student["TrainReader"] == {"batch_size": 3, "shuffle": True}
    assert loaded.origin["epoch"] == "-o"
    assert loaded.student["LearningRate"]["base_lr"] == 0.5
    assert loaded.teachers["teacher"].config["epoch"] == 24, "merging shares no mapping with the teacher's config"
    assert loaded.teachers["teacher"].config["TrainReader"] == {"batch_size": 16}


def test_upstream_merge_may_stand_in_the_slim_file_and_is_true_or_false(files):
    assert files(slim="distill: {upstream_merge: true}").student["epoch"] == 24
    assert files("distill.upstream_merge=false", slim="distill: {upstream_merge: true}").student["epoch"] == 12
    with pytest.raises(UserError, match=r"slim\.yml: distill\.upstream_merge has to be true or false, found 'maybe'"):
        files("distill.upstream_merge=maybe")


def test_keys_that_are_not_applied_are_told_in_one_note(files, tmp_path):
    loaded = files()
    keys = "LearningRate, TrainReader, epoch, log_iter, save_dir, use_ema"
    assert loaded.notes == [
        f"not applied to the run, since the bases of {tmp_path / 'slim.yml'} describe the teacher: {keys} "
        "(PaddleDetection applies them; -o distill.upstream_merge=true does so here)"
    ]


# Localisation distillation's parameters, which PaddleDetection keeps in the student's head

LD_HEAD = (
    "LDGFLHead:\n  loss_class: {name: QualityFocalLoss}\n"
    "  loss_ld: {name: KnowledgeDistillationKLDivLoss, loss_weight: 0.5, T: 8}\n"
    "  loss_kd: {name: KnowledgeDistillationKLDivLoss, loss_weight: 7, T: 3}\n"
)
LD_SLIM = "_BASE_: [teacher.yml]\npretrain_weights: teacher.pdparams\nslim: Distill\nslim_method: LD\n"


@pytest.fixture
def ld(tmp_path):
    """Function that gives the loss of LD's one term: from the student's file, the slim file's own keys and ``-o``."""

    def load(student="", slim="", overrides=()):
        write(tmp_path / "teacher.yml", TEACHER)
        student = write(tmp_path / "student.yml", STUDENT + student)
        loaded = load_recipe(student, write(tmp_path / "slim.yml", LD_SLIM + slim), overrides)
        (term,) = plan(loaded.method).terms
        return term.loss, loaded

    return load


def test_ld_has_the_published_parameters_by_default(ld):
    loss, _ = ld()
    assert [loss[f"{part}_weight"] for part in ("ld", "vlr", "kd")] == [0.25, 0.25, 10.0]
    assert [loss[f"{part}_temp"] for part in ("ld", "vlr", "kd")] == [10, 10, 2]


def test_ld_takes_its_parameters_from_the_students_head(ld):
    loss, loaded = ld(LD_HEAD)
    assert [loss[f"{part}_weight"] for part in ("ld", "vlr", "kd")] == [0.5, 0.25, 7]
    assert [loss[f"{part}_temp"] for part in ("ld", "vlr", "kd")] == [8, 10, 3]
    assert "loss_class" not in loaded.method.params
    assert loaded.student["LDGFLHead"]["loss_kd"]["T"] == 3, "the student's own config stays"


def test_ld_parameters_of_the_slim_file_win_over_the_students_head(ld):
    loss, loaded = ld(LD_HEAD, "LDGFLHead:\n  loss_kd: {loss_weight: 9}\n")
    assert (loss["kd_weight"], loss["kd_temp"], loss["ld_weight"]) == (9, 3, 0.5)
    assert loaded.student["LDGFLHead"]["loss_kd"]["loss_weight"] == 7


def test_ld_parameters_on_the_command_line_win_over_both_files(ld):
    loss, _ = ld(LD_HEAD, "LDGFLHead:\n  loss_kd: {loss_weight: 9}\n", ["distill.loss_kd.loss_weight=11"])
    assert (loss["kd_weight"], loss["kd_temp"]) == (11, 3)
    loss, _ = ld(LD_HEAD, "", ["LDGFLHead.loss_kd.T=5"])
    assert (loss["kd_weight"], loss["kd_temp"]) == (7, 5), "the student's head as -o set it"


def test_other_methods_do_not_read_the_ld_head(files, tmp_path):
    files()
    student = write(tmp_path / "student.yml", STUDENT + LD_HEAD)
    assert load_recipe(student, str(tmp_path / "slim.yml")).method.params == {"temp": 0.5, "alpha_fgd": 0.001}


@pytest.mark.parametrize(
    "given, told",
    [
        ("save_dir=[a]", "save_dir has to be a folder"), ("use_gpu=maybe", "use_gpu has to be true or false"),
        ("use_ema=[1]", "use_ema has to be true or false"), ("metric=[COCO]", "metric has to be text"),
        ("print_params={a: 1}", "print_params has to be true or false"), ("norm_type=[x]", "norm_type has to be text"),
        ("weights=[1]", "weights has to be a path or a URL"),
        ("pretrain_weights={a: b}", "pretrain_weights has to be a path or a URL"),
    ],
)  # fmt: skip
def test_values_of_another_kind_are_refused(given, told):
    with pytest.raises(UserError, match=f"-o: {told}, found"):
        load_recipe(str(CONFIGS / "ppyoloe_tiny.yml"), None, [given])


@pytest.fixture
def auto_file(tmp_path):
    def write(teacher, **more):
        path = tmp_path / "auto.yml"
        path.write_text(dump({"_BASE_": [teacher], "slim": "Distill", "slim_method": "Auto", **more}))
        return str(path)

    return write


def test_the_method_may_be_left_to_ppkd(auto_file):
    """The same as the file that it stands for, with what fits of the teacher's weights to start from."""
    pair, options = ("ppyoloe_plus_tiny_custom", "ppyoloe_plus_teacher_custom"), ["num_classes=2"]
    found = load_recipe(pair[0], auto_file(pair[1]), options)
    named = load_recipe(pair[0], "ppyoloe_plus_custom_ppyoloe", options)
    assert (found.method.name, found.method.params) == ("PPYOLOEDistill", named.method.params)
    assert found.method.options == named.method.options | {"inherit": True}
    assert {key: named.method.options[key] for key in SCHEDULE} == SCHEDULE
    assert found.teachers["teacher"].config == named.teachers["teacher"].config
    made = plan(found.method)
    assert made.hand_over is not None and {term.schedule.stop for term in made.terms} == {2}, "of five epochs"
    assert any(note.startswith("slim_method: Auto: PPYOLOEDistill, as ppyoloe_plus") for note in found.notes)


@pytest.mark.parametrize("bank", [{"views": 8}, None])
def test_a_bank_of_ones_own_has_what_it_says(bank, auto_file):
    """Auto's limit, of which the file says nothing, would drop a bank that was asked for."""
    slim = auto_file("ppyoloe_plus_teacher_custom", distill={"bank": bank})
    assert load_recipe("ppyoloe_plus_tiny_custom", slim, ["num_classes=2"]).method.options["bank"] == bank


def test_from_images_without_labels_it_teaches_to_the_end(auto_file, tmp_path):
    slim = auto_file("ppyoloe_plus_teacher_custom")
    found = load_recipe("ppyoloe_plus_tiny_custom", slim, ["num_classes=2", f"unlabelled={tmp_path}"])
    assert found.method.options["inherit"] and not SCHEDULE.keys() & found.method.options.keys()
    own = tmp_path / "own.yml"
    own.write_text(f"_BASE_: [ppyoloe_plus_tiny_custom.yml]\nunlabelled: {tmp_path}\n")
    without = load_recipe(str(own), slim, ["num_classes=2", "unlabelled=null"])
    assert SCHEDULE.keys() & without.method.options.keys(), "what -o takes away is not there"


def test_of_other_detectors_it_is_the_neck_and_the_files_own_options_win(auto_file):
    own = {"inherit": False, "loss_weight": 3}
    gfl, slim = "gfl_r50_fpn_1x_coco", auto_file("gfl_r101vd_fpn_mstrain_2x_coco", distill=own)
    method = load_recipe(gfl, slim).method
    assert (method.name, method.params, method.options["inherit"]) == ("PKD", {"loss_weight": 3}, False)
    assert load_recipe(gfl, slim, ["distill.loss_weight=2"]).method.params == {"loss_weight": 2}


def test_an_empty_distill_says_nothing(auto_file):
    """As one whose lines are all commented out: it took all of the choice away, and the log told of the choice."""
    pair, options = ("ppyoloe_plus_tiny_custom", "ppyoloe_plus_teacher_custom"), ["num_classes=2"]
    without = load_recipe(pair[0], auto_file(pair[1]), options).method.options
    assert SCHEDULE.keys() <= without.keys()
    assert load_recipe(pair[0], auto_file(pair[1], distill=None), options).method.options == without


def test_the_section_of_the_loss_that_auto_chooses_is_read(auto_file):
    gfl = ("gfl_r50_fpn_1x_coco", "gfl_r101vd_fpn_mstrain_2x_coco")
    slim = auto_file(gfl[1], PKDFeatureLoss={"loss_weight": 9})
    assert load_recipe(gfl[0], slim).method.params == {"loss_weight": 9}


def test_auto_and_a_loss_is_a_contradiction(auto_file):
    slim = auto_file(
        "gfl_r101vd_fpn_mstrain_2x_coco", distill_loss="PKDFeatureLoss", PKDFeatureLoss={"loss_weight": 1.0}
    )
    with pytest.raises(UserError, match="auto.yml: distill_loss: `slim_method: Auto` chooses the loss"):
        load_recipe("gfl_r50_fpn_1x_coco", slim)


@pytest.mark.parametrize(
    "own, options, weights",
    [
        ("", [], "output/mine/model_final"),
        ("weights: output/ppyoloe_plus_tiny_custom/best_model\n", [], "output/ppyoloe_plus_tiny_custom/best_model"),
        ("", ["weights=output/ppyoloe_plus_tiny_custom/model_final"], "output/ppyoloe_plus_tiny_custom/model_final"),
        ("_BASE_: [other.yml]\n", [], "https://of.nobody/models/other.pdparams"),
    ],
)
def test_weights_that_a_base_names_of_its_own_run_are_those_of_this_one(own, options, weights, tmp_path):
    """`ppkd eval` took those of another model, if they were there, and told it by no more than a path."""
    (tmp_path / "other.yml").write_text(f"_BASE_: [ppyoloe_plus_tiny_custom]\nweights: {weights}\n")
    (tmp_path / "mine.yml").write_text(own if "_BASE_" in own else f"_BASE_: [ppyoloe_plus_tiny_custom]\n{own}")
    assert load_recipe(str(tmp_path / "mine.yml"), None, [*options, "num_classes=3"]).student["weights"] == weights
    tiny = load_recipe("ppyoloe_plus_tiny_custom", None, ["num_classes=3"])
    assert tiny.student["weights"] == "output/ppyoloe_plus_tiny_custom/model_final"


@pytest.mark.parametrize(
    "own, options, weights",
    [
        ("", [], "/runs/mine/model_final"),
        ("weights: output/mine/best_model\n", [], "/runs/mine/best_model"),
        ("weights: ./output/mine/best_model\n", [], "/runs/mine/best_model"),
        ("save_dir: here/\nweights: here/mine/best_model\n", [], "/runs/mine/best_model"),
        ("weights: kept/mine/best_model\n", [], "kept/mine/best_model"),
        ("weights: output/other/best_model\n", [], "output/other/best_model"),
        ("", ["weights=output/mine/model_final"], "output/mine/model_final"),
    ],
)
def test_weights_of_ones_own_run_are_where_runs_are_put(own, options, weights, tmp_path):
    """With the `save_dir` that a run was trained with `ppkd eval` took the weights of another one, in output/."""
    (tmp_path / "mine.yml").write_text(f"_BASE_: [ppyoloe_plus_tiny_custom]\n{own}")
    given = [*options, "num_classes=3", "save_dir=/runs"]
    assert load_recipe(str(tmp_path / "mine.yml"), None, given).student["weights"] == weights

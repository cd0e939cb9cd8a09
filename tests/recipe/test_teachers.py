"""Several teachers for one student: each with its own config, weights, weight and size of images."""

import os

import paddle
import pytest

from ppkd.build import build_model
from ppkd.errors import UserError
from ppkd.recipe.recipe import load_recipe
from ppkd.recipe.teachers import read_teachers
from tests.conftest import CONFIGS, training_batch
from tests.helpers_tools import call, the_error, write
from tests.helpers_training import count_calls, differing, fit

MIMIC = "    a: {student: 'neck[*]', student_connector: align, loss: mimic}\n"


@pytest.fixture
def two(shapes, teacher_weights, tmp_path):
    """Function that loads a PP-YOLOE student with two named teachers, PP-YOLOE and RetinaNet."""

    def load(*overrides, terms=MIMIC, one="", other="", more="", base=""):
        text = (
            f"{base}slim: Distill\ndistill:\n  teachers:\n"
            f"    one: {{config: {CONFIGS}/ppyoloe_wide.yml, pretrain_weights: {teacher_weights['ppyoloe']}{one}}}\n"
            f"    other: {{config: {os.path.relpath(CONFIGS, tmp_path)}/retinanet_wide.yml,"
            f" pretrain_weights: {teacher_weights['retinanet']}{other}}}\n"
            f"{more}  terms:\n{terms}"
        )
        path = write(tmp_path / "slim.yml", text)
        given = [f"dataset_dir={shapes}", f"save_dir={tmp_path / 'out'}", *overrides]
        return load_recipe(str(CONFIGS / "ppyoloe_tiny.yml"), path, given)

    return load


def values(losses):
    return {key: float(value) for key, value in losses.items() if key.startswith("a.")}


def test_a_term_goes_to_each_teacher_and_the_log_names_them(two):
    model = build_model(two())
    assert [term.label for term in model.terms] == [f"a.{t}.s{s}" for t in ("one", "other") for s in (32, 16, 8)]
    channels = {term.teacher: term.pairs[0][1][0].channels for term in model.terms if term.label.endswith("s8")}
    assert channels["one"] != channels["other"], "each term records its own teacher"
    assert set(model.teachers) == {"one", "other"}


def test_each_sees_its_own_maps_and_has_its_weight(two):
    def losses(**entries):
        loaded = two(**entries)
        paddle.seed(3)
        return values(build_model(loaded)(training_batch(loaded)))

    even, uneven = losses(), losses(one=", weight: 3", other=", weight: 0.5")
    for name, value in even.items():
        assert value > 0
        assert uneven[name] == pytest.approx(value * (3 if ".one." in name else 0.5), rel=1e-5)


def test_from_restricts_a_term_and_a_teacher_without_terms_is_not_run(two):
    loaded = two(terms=MIMIC.replace("loss", "from: other, loss"))
    model, batch = build_model(loaded), training_batch(loaded)
    calls = {name: count_calls(teacher.backbone) for name, teacher in model.teachers.items()}
    assert set(values(model(batch))) == {f"a.other.s{s}" for s in (8, 16, 32)}
    assert {name: len(made) for name, made in calls.items()} == {"one": 0, "other": 1}


def test_two_teachers_that_are_the_same_are_one_of_twice_the_weight(shapes, teacher_weights, tmp_path):
    entry = f"{{config: {CONFIGS}/ppyoloe_wide.yml, pretrain_weights: {teacher_weights['ppyoloe']}}}"

    def loss(names, weight):
        term = f"    a: {{student: 'head.cls[*]', loss: bckd_cls, weight: {weight}}}\n"
        entries = "".join(f"    {name}: {entry}\n" for name in names)
        slim = write(tmp_path / "slim.yml", f"slim: Distill\ndistill:\n  teachers:\n{entries}  terms:\n{term}")
        loaded = load_recipe(str(CONFIGS / "ppyoloe_tiny.yml"), slim, [f"dataset_dir={shapes}"])
        paddle.seed(3)
        return float(build_model(loaded)(training_batch(loaded))["loss"])

    assert loss(["x", "y"], 1) == pytest.approx(loss(["x"], 2), rel=1e-6)


def test_the_teacher_of_base_comes_first_and_is_called_teacher(two, teacher_weights):
    base = f"_BASE_: [{CONFIGS}/ppyoloe_wide.yml]\npretrain_weights: {teacher_weights['ppyoloe']}\n"
    loaded = two(base=base, more="  inherit: one\n")
    assert list(loaded.teachers) == ["teacher", "one", "other"]
    model = build_model(loaded)
    assert {term.teacher for term in model.terms} == {"teacher", "one", "other"}


def test_a_students_images_are_normalised_for_each_teacher_in_its_way(two):
    model = build_model(two())
    assert set(model.preparations) == {"other"}, "RetinaNet subtracts ImageNet's mean, PP-YOLOE does not"


def test_a_larger_image_and_levels_by_what_a_cell_shows(two):
    loaded = two(one=", input_scale: 2", terms=MIMIC.replace("loss", "from: one, loss"))
    model, batch = build_model(loaded), training_batch(loaded)
    pairs = {ours.source: theirs.source for term in model.terms for ((ours,), (theirs,)) in term.pairs}
    assert pairs == {"neck[1]": "neck[0]", "neck[2]": "neck[1]"}, "stride 16 shows what the student's 8 does"
    sizes = []
    model.teachers["one"].backbone.register_forward_pre_hook(lambda layer, x: sizes.append(x[0]["image"].shape))
    model(dict(batch))
    height, width = batch["image"].shape[2:]
    assert sizes == [[2, 3, 2 * height, 2 * width]]


def test_sizes_stay_multiples_of_32(two):
    loaded = two(other=", input_scale: 1.3", terms=MIMIC.replace("loss", "from: other, loss"))
    model, batch = build_model(loaded), training_batch(loaded)
    sizes = []
    model.teachers["other"].backbone.register_forward_pre_hook(lambda layer, x: sizes.append(x[0]["image"].shape))
    model(dict(batch))
    (shape,) = sizes
    assert all(side % 32 == 0 and abs(side - 1.3 * was) <= 16 for side, was in zip(shape[2:], batch["image"].shape[2:]))


def test_boxes_are_not_compared_in_cells_of_another_size(two):
    term = "    a: {student: ['head.cls[*]', 'head.ltrb[*]'], loss: bckd, from: one}\n"
    with pytest.raises(UserError, match=r"a: head\.ltrb\[0\] is counted in cells, .* of 32 pixels, the .* of 21\."):
        build_model(two(terms=term, one=", input_scale: 1.5"))
    loaded = two(terms=term, one=", input_scale: 2")
    model = build_model(loaded)
    assert [ours.stride for (ours, _), _ in model.terms[0].pairs] == [16, 8]
    losses = model(training_batch(loaded))
    assert float(losses["a.one.iou"]) > 0


def test_a_batch_has_boxes_of_the_students_size_whatever_the_teachers(two):
    term = "    a: {student: 'neck[*]', student_connector: align, loss: fgd, from: one}\n"
    loaded = two(one=", input_scale: 2", terms=term)
    paddle.seed(3)
    model, batch = build_model(loaded), training_batch(loaded)
    assert all(float(v) >= 0 for v in values(model(batch)).values())
    assert values(model(dict(batch)))["a.one.s8.fg"] > 0


def test_training_leaves_all_teachers_alone_and_resumes(two):
    loaded = two("TrainReader.batch_size=4", "epoch=1")
    trainer = fit(loaded, max_steps=1)
    half = os.path.join(loaded.output_dir, "model_final")
    assert not any(p.trainable for teacher in trainer.distill.teachers.values() for p in teacher.parameters())
    before = {name: teacher.state_dict() for name, teacher in build_model(loaded).teachers.items()}
    second = fit(loaded, resume=half)
    for name, teacher in second.distill.teachers.items():
        assert differing(before[name], teacher.state_dict()) == []
    whole = fit(two("TrainReader.batch_size=4", "epoch=1", f"save_dir={loaded.student['save_dir']}_whole"))
    assert differing(second.student.state_dict(), whole.student.state_dict()) == []


def test_the_assigner_may_be_any_teacher_that_assigns(two):
    term = "    a: {student: ['head.cls[*]', 'head.box_dist[*]'], loss: ppyoloe, from: one}\n"
    assert build_model(two(terms=term, more="  assigner: one\n"))._assigner == "one"
    assert build_model(two(terms=term, more="  assigner: teacher\n"))._assigner == "one", "the first"
    with pytest.raises(UserError, match="assigner: there is no teacher 'oen'; nearest: one"):
        build_model(two(terms=term, more="  assigner: oen\n"))
    with pytest.raises(UserError, match=r"assigner: one sees images of another size \(input_scale\)"):
        build_model(two(terms=term, more="  assigner: one\n", one=", input_scale: 2"))


def test_the_student_inherits_from_the_one_that_is_named(two):
    model = build_model(two(more="  inherit: one\n"))
    assert model is not None
    with pytest.raises(UserError, match="distill.inherit has to be true, false or the name of a teacher, found 'oen'"):
        build_model(two(more="  inherit: oen\n"))


@pytest.mark.parametrize(
    "teachers, message",
    [
        ({"x": {}}, r"distill\.teachers\.x lacks config: the path of the teacher's config file"),
        ({"a b": {"config": "x.yml"}}, "no name for a teacher"),
        ({"student": {"config": "x.yml"}}, "no name for a teacher"),
        ({"x": {"config": "nowhere.yml"}}, "nowhere.yml: no such config file"),
        ({"x": {"config": str(CONFIGS / "gfl_cwd.yml")}}, "is a slim file; give the teacher's own config"),
        ({"x": {"config": str(CONFIGS / "runtime.yml")}}, "describes no detector"),
        ({"x": {"config": str(CONFIGS / "gfl_wide.yml"), "wieght": 1}}, r"x: unknown key 'wieght'; nearest: weight"),
        ({"x": {"config": str(CONFIGS / "gfl_wide.yml"), "weight": 0}}, r"x\.weight has to be a number above 0"),
        ({"x": {"config": str(CONFIGS / "gfl_wide.yml"), "input_scale": "big"}}, r"x\.input_scale has to be a number"),
        ([1], r"distill\.teachers has to be a mapping from a name"),
        (None, "its _BASE_ describes no teacher"),
    ],
)
def test_wrong_teachers_are_told(teachers, message):
    with pytest.raises(UserError, match=message):
        read_teachers({}, {}, {}, teachers, {}, "x.yml")


def test_a_teacher_without_weights_is_told_with_the_key_to_set(two, tmp_path):
    with pytest.raises(UserError, match=r"one has no weights.*-o distill\.teachers\.one\.pretrain_weights=PATH"):
        build_model(two("distill.teachers.one.pretrain_weights=null"))


def test_the_weights_that_a_teachers_own_file_names_are_not_taken(tmp_path):
    """They are what its training began with: a backbone's, as a rule."""
    file = write(tmp_path / "teacher.yml", f"_BASE_: [{CONFIGS}/gfl_wide.yml]\npretrain_weights: imagenet.pdparams\n")
    assert read_teachers({}, {}, {}, {"x": {"config": file}}, {}, "x.yml")["x"].weights is None
    given = {"x": {"config": file, "pretrain_weights": "mine.pdparams"}}
    assert read_teachers({}, {}, {}, given, {}, "x.yml")["x"].weights == "mine.pdparams"


def test_keys_of_which_teacher(two, shapes, tmp_path):
    two()
    slim = tmp_path / "slim.yml"
    given = ["-c", CONFIGS / "ppyoloe_tiny.yml", "--slim_config", slim, "-o", f"dataset_dir={shapes}"]
    message = the_error(*call("train", *given, "teacher.pretrain_weights=x"))
    assert "-o teacher.pretrain_weights: of which teacher?" in message and "one, other" in message


def test_keys_of_a_teachers_config_are_set_in_its_entry(two):
    loaded = two(other=", num_classes: 7")
    assert loaded.teachers["other"].config["num_classes"] == 7
    assert loaded.teachers["one"].config["num_classes"] == loaded.student["num_classes"]

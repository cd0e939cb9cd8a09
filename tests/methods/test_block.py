"""The ``distill:`` block as a user writes it: what it may say, and what it refuses."""

import paddle
import pytest

from ppkd.bridge.workspace import build_detector
from ppkd.build import build_model
from ppkd.detectors.context import Context
from ppkd.engine.model import DistillModel
from ppkd.errors import UserError
from ppkd.methods import plan
from ppkd.methods.block import plan_block, term_block, with_users_terms
from ppkd.recipe.method import MethodSpec
from ppkd.recipe.plan import Plan, TermSpec
from ppkd.recipe.recipe import load_recipe
from ppkd.recipe.schedules import Schedule
from ppkd.recipe.targets import Target
from ppkd.training.trainer import Trainer
from tests.conftest import CONFIGS, training_batch
from tests.helpers_tools import write
from tests.helpers_training import QUICK

NECK = {"student": "neck[*]", "loss": "mimic"}


def terms(**given):
    method = MethodSpec("terms", options={"terms": given}, file="x.yml", epochs=12)
    return {spec.name: spec for spec in plan(method).terms}


def test_the_shortest_term_takes_the_same_source_of_both_and_a_weight_of_1():
    assert terms(a=NECK) == {"a": TermSpec("a", "neck[*]", "neck[*]", {"name": "mimic"}, schedule=Schedule(epochs=12))}


def test_every_key_of_a_term_is_read():
    spec = terms(a={
        "student": "neck[s8]", "teacher": "neck[s16]",
        "student_connector": ["align", {"name": "generate", "lambda_": 0.5}], "teacher_connector": "standardise",
        "loss": {"name": "cwd", "tau": 4}, "weight": 10, "magnitude": "20%",
        "magnitude_steps": 7, "from": "big", "max_levels": 2, "trained": False, "start_epoch": 1, "stop_epoch": 9,
        "decay": "cosine", "final_weight": 0.1, "warmup_epochs": 2,
    })["a"]  # fmt: skip
    assert spec == TermSpec(
        "a", "neck[s8]", "neck[s16]", {"name": "cwd", "tau": 4}, ["align", {"name": "generate", "lambda_": 0.5}],
        "standardise", 10, Target(0.2, True, 7), Schedule(1, 9, "cosine", 0.1, 2, 12), ("big",), 2, False,
    )  # fmt: skip
    (again,) = terms(a=term_block(spec)).values()
    assert again == spec, "and written back"


def test_a_magnitude_of_several_epochs_is_read_and_written_back():
    spec = terms(a={**NECK, "magnitude": {0: "20%", "75%": "5%"}})["a"]
    assert spec.magnitude == Target(0.2, True, later=((9, 0.05),)) and term_block(spec)["magnitude"] == {
        0: "20%",
        9: "5%",
    }
    assert terms(a=term_block(spec))["a"] == spec


def test_a_terms_own_schedule_goes_before_the_one_of_all():
    method = MethodSpec("terms", options={"terms": {"a": NECK, "b": {**NECK, "stop_epoch": 3}}, "stop_epoch": 5})
    assert [spec.schedule.stop for spec in plan(method).terms] == [5, 3]


def test_a_term_of_a_methods_name_changes_it_and_others_are_added():
    given = {"fgd": {"magnitude": 0.5, "loss": {"temp": 0.8}}, "extra": NECK}
    first, second = plan(MethodSpec("FGD", options={"terms": given}, file="x.yml")).terms
    assert (first.name, first.loss["temp"], first.loss["alpha"], first.magnitude) == ("fgd", 0.8, 1e-3, Target(0.5))
    assert second.name == "extra"


def test_another_loss_for_a_methods_term_takes_none_of_the_former_ones_parameters():
    (spec,) = plan(MethodSpec("FGD", options={"terms": {"fgd": {"loss": {"name": "pkd"}}}}, file="x.yml")).terms
    assert spec.loss == {"name": "pkd"} and spec.student_connector == "align"


def test_a_plan_written_as_a_block_gives_the_same_plan():
    made = Plan([TermSpec("a", ("x", "y"), ("x", "z"), {"name": "ld"}, weight=2)], ("neck", "head"), 0.5, "big", "big")
    block = plan_block(made)
    assert (block["inherit"], block["alpha"], block["assigner"]) == ("big", 0.5, "big")
    again = with_users_terms(Plan([]), MethodSpec("terms", options=block))
    assert again.terms == made.terms


@pytest.mark.parametrize(
    "given, message",
    [
        ({"loss": "mimic"}, r"distill\.terms\.a lacks student: every term"),
        ({"student": "neck[*]"}, r"distill\.terms\.a lacks loss"),
        ({**NECK, "wieght": 3}, r"distill\.terms\.a has no key 'wieght'; nearest: weight"),
        ({**NECK, "loss": "mimik"}, r"a\.loss: unknown loss 'mimik'; nearest: mimic.*known: .*cwd"),
        ({**NECK, "loss": {"tau": 3}}, r"a\.loss: a loss is a name or {name: \.\.\., parameters}"),
        ({**NECK, "loss": {"name": "cwd", "tua": 3}}, r"a\.loss: loss cwd has no parameter 'tua'; nearest: tau"),
        ({**NECK, "student": 3}, r"a\.student has to be a source such as neck\[\*\]"),
        ({**NECK, "teacher": ["a", "b"]}, r"as many sources of the teacher as of the student"),
        ({**NECK, "student_connector": "aling"}, r"a\.student_connector: unknown connector 'aling'; nearest: align"),
        ({**NECK, "student_connector": [{"name": "align", "bais": 1}]},
         r"connector align has no parameter 'bais'; nearest: bias; it has: always, bias"),
        ({**NECK, "student_connector": {"name": "resize", "to": 3}},
         r"connector resize has no parameter 'to'; it has none"),
        ({**NECK, "weight": -1}, r"a\.weight has to be a number from 0, found -1"),
        ({**NECK, "weight": "much"}, r"a\.weight has to be a number from 0, found 'much'"),
        ({**NECK, "magnitude": "twenty"}, r"a\.magnitude: 'twenty' is neither a number nor a share such as 20%"),
        ({**NECK, "magnitude": 0}, r"a\.magnitude: 0 is not above 0"),
        ({**NECK, "magnitude": {0: "20%", "late": "5%"}}, r"a\.magnitude has to be an epoch number from 0 or a share"),
        ({**NECK, "magnitude": {5: "20%"}}, r"a\.magnitude: .* does not say what goes from epoch 0 on"),
        ({**NECK, "magnitude_steps": 10}, r"a\.magnitude_steps needs distill\.terms\.a\.magnitude"),
        ({**NECK, "max_levels": 0}, r"a\.max_levels has to be a whole number from 1"),
        ({**NECK, "trained": "no way"}, r"a\.trained has to be true or false"),
        ({**NECK, "from": 3}, r"a\.from has to be the name of a teacher"),
        ({**NECK, "decay": "cosin"}, r"distill\.terms\.a\.decay has to be one of"),
        ({**NECK, "stop_epoch": -1}, r"distill\.terms\.a\.stop_epoch has to be an epoch number"),
        (3, r"distill\.terms\.a has to be a mapping"),
    ],
)  # fmt: skip
def test_a_wrong_term_is_told_in_one_line(given, message):
    with pytest.raises(UserError, match=f"^x.yml: .*{message}"):
        terms(a=given)


def test_wrong_blocks_are_told():
    with pytest.raises(UserError, match=r"distill\.terms has to be a mapping from a term's name"):
        plan(MethodSpec("terms", options={"terms": [NECK]}, file="x.yml"))
    with pytest.raises(UserError, match=r"'a b' is no name for a term"):
        terms(**{"a b": NECK})
    with pytest.raises(UserError, match=r"x\.yml: no term"):
        terms()
    with pytest.raises(UserError, match=r"distill\.alpha has to be above 0"):
        plan(MethodSpec("terms", {"alpha": 0}, options={"terms": {"a": NECK}}, file="x.yml"))
    for key, meant in (("alhpa", "alpha"), ("trems", "terms")):
        with pytest.raises(UserError, match=rf"x\.yml: distill has no key '{key}'; nearest: {meant}"):
            plan(MethodSpec("terms", {key: 1}, options={"terms": {"a": NECK}}, file="x.yml"))
    with pytest.raises(UserError, match="FGD has no parameter 'stop_epcoh'; nearest: stop_epoch, .*it has: alpha_fgd"):
        plan(MethodSpec("FGD", {"stop_epcoh": 1}, file="x.yml"))


@pytest.fixture
def built(shapes, teacher_weights, tmp_path):
    """Function that builds the model of a RetinaNet slim file with the given ``distill:`` block."""

    def build(block, *overrides, family="retinanet"):
        text = f"_BASE_: [{CONFIGS}/{family}_wide.yml]\nslim: Distill\ndistill:\n{block}"
        given = [f"dataset_dir={shapes}", f"teacher.pretrain_weights={teacher_weights[family]}", *overrides]
        loaded = load_recipe(str(CONFIGS / f"{family}_tiny.yml"), write(tmp_path / "slim.yml", text), given)
        return build_model(loaded), loaded

    return build


def test_one_line_expands_over_the_levels_by_stride(built):
    model, loaded = built("  terms:\n    a: {student: 'neck[*]', student_connector: align, loss: mimic}\n")
    assert [term.label for term in model.terms] == ["a.s8", "a.s16", "a.s32", "a.s64", "a.s128"]
    losses = model(training_batch(loaded))
    own = float(losses["loss_cls"] + losses["loss_reg"])
    assert float(losses["loss"]) == pytest.approx(own + sum(float(losses[t.label]) for t in model.terms), rel=1e-5)


def test_module_paths_are_sources(built):
    model, _ = built(
        "  terms:\n    a: {student: backbone.stages.0, teacher: backbone.stages.1, student_connector: [align, resize],"
        " loss: {name: l2, div_element: true}}\n", family="ppyoloe",
    )  # fmt: skip
    (term,) = model.terms
    sources = [level.source for side in term.pairs[0] for level in side]
    assert sources == ["backbone.stages.0[0]", "backbone.stages.1[0]"]


@pytest.mark.parametrize("name", ["loss", "kind", "lr"])
def test_a_term_is_not_called_as_a_record_calls_something_else(name):
    """As ``loss`` it stood in the place of the whole, and training went by the term alone."""
    terms = {name: {"student": "head.cls[*]", "loss": "crosskd_cls"}}
    with pytest.raises(UserError, match=rf"x\.yml: distill\.terms\.{name}: in a run's records {name} is something"):
        plan(MethodSpec("FGD", options={"terms": terms}, file="x.yml"))


def test_a_term_is_not_called_as_the_students_own_loss(recipe):
    loaded = recipe(QUICK, overrides=["distill.terms.loss_cls={student: 'head.cls[*]', loss: crosskd_cls}"])
    message = r"distill\.terms\.loss_cls: a loss of the student's own has this name"
    with Trainer.open(loaded, max_steps=1) as trainer, pytest.raises(UserError, match=message):
        trainer.run()


@pytest.mark.parametrize(
    "sources, loss, message",
    [
        ("neck[*]", "score_l2", r"compares 2 sources, features, class logits; found 'neck\[\*\]'"),
        (["a", "b", "c"], "ld", "compares 2 sources, class logits, edge logits; found"),
        (["a", "b"], "yolov3", "compares 3 sources, boxes, objectness, class logits; found"),
        ("a", "detr_match", "compares 2 sources, class logits, boxes; found 'a'"),
        (["a", "b"], "pkd", r"compares one source; found \('a', 'b'\)"),
    ],
)
def test_a_loss_that_would_get_other_numbers_of_sources_is_told_before_any_step(sources, loss, message):
    terms = {"t": {"student": sources, "loss": loss}}
    with pytest.raises(UserError, match=rf"x\.yml: distill\.terms\.t\.student: loss {loss} {message}"):
        plan(MethodSpec("FGD", options={"terms": terms}, file="x.yml"))


@pytest.mark.parametrize(
    "block, message",
    [
        ("{a: {student: 'nekc[*]', loss: mimic}}",
         r"slim\.yml: distill\.terms\.a: the student's RetinaNet has no source 'nekc\[\*\]'; nearest: neck"),
        ("{a: {student: 'neck[*]', teacher: neck.fpn_res9, loss: mimic}}",
         r"no source 'neck\.fpn_res9'; nearest: neck\.fpn"),
        ("{a: {student: 'neck[*]', loss: mimic}}",
         r"slim\.yml: distill\.terms\.a: the student's neck\[0\] has 16 channels, the teacher's .* 24"),
        ("{a: {student: ['neck[*]', 'head.cls[*]'], student_connector: align, loss: score_l2}}",
         r"a: connectors are for a term of one source a side"),
        ("{a: {student: 'neck[*]', from: big, loss: mimic}}", r"distill\.terms\.a\.from: there is no teacher 'big'"),
        ("{a: {student: ['neck[*]', 'neck[0]'], loss: ld}}",
         r"a: the student's sources have different numbers of levels"),
    ],
)  # fmt: skip
def test_what_does_not_fit_the_models_is_told_when_the_run_is_built(block, message, built):
    with pytest.raises(UserError, match=message):
        built(f"  terms: {block}\n")


def test_a_terms_key_can_be_set_on_the_command_line(built):
    model, _ = built(
        "  terms: {a: {student: 'neck[*]', student_connector: align, loss: mimic}}\n", "distill.terms.a.weight=7"
    )
    assert model.terms[0].weight(0) == 7


def test_a_mistyped_name_of_a_methods_term_is_answered_with_the_names(shapes):
    with pytest.raises(UserError, match=r"distill\.terms\.fdg lacks student and loss: .*; nearest: fgd"):
        plan(MethodSpec("FGD", options={"terms": {"fdg": {"weight": 3}}}, file="x.yml"))


@pytest.mark.parametrize("key", ["terms", "teachers", "plugins"])
def test_a_key_at_the_top_level_is_told_where_it_belongs(key, shapes, tmp_path):
    slim = write(tmp_path / "slim.yml", f"_BASE_: [{CONFIGS}/retinanet_wide.yml]\nslim: Distill\n{key}: {{}}\n")
    with pytest.raises(UserError, match=f"slim.yml: `{key}:` belongs below `distill:`"):
        load_recipe(str(CONFIGS / "retinanet_tiny.yml"), slim, [f"dataset_dir={shapes}"])


def test_slim_files_inherit_terms(shapes, tmp_path):
    write(tmp_path / "base.yml", f"_BASE_: [{CONFIGS}/retinanet_wide.yml]\nslim: Distill\ndistill:\n  terms:\n"
          "    a: {student: 'neck[*]', loss: mimic, weight: 2}\n")  # fmt: skip
    slim = write(tmp_path / "slim.yml", "_BASE_: [base.yml]\ndistill: {terms: {a: {weight: 3}}}\n")
    loaded = load_recipe(str(CONFIGS / "retinanet_tiny.yml"), slim, [f"dataset_dir={shapes}"])
    (spec,) = plan(loaded.method).terms
    assert (spec.weight, spec.loss) == (3, {"name": "mimic"})
    assert loaded.method.origin["terms.a.weight"] == slim
    assert loaded.method.origin["terms.a.loss"].endswith("base.yml")


def test_equal_maps_and_no_connector_give_0(built):
    model, loaded = built("  terms: {a: {student: 'head.cls[*]', loss: {name: kl, tau: 2.0}}}\n")
    x = paddle.rand([1, model.terms[0].pairs[0][0][0].channels, 4, 4])
    (value,) = model.terms[0]([[x]], [[x]], Context({})).values()
    assert float(value) == 0


ONE_CLASS = [("ppyoloe", "maps", 1), ("gfl", "heads", 1), ("ppyoloe", "maps", 2)]


@pytest.mark.parametrize("family, method, classes", ONE_CLASS)
def test_a_loss_between_classes_is_refused_where_there_is_one(family, method, classes, recipe):
    """When the run is built, not in its first step."""
    term = 'distill.terms.a={student: "head.cls[*]", loss: {name: dkd, tau: 2.0}}'
    loaded = recipe(family, method, overrides=[] if method == "heads" else [term])
    steps = plan(loaded.method)
    models = [build_detector({**loaded.student, "num_classes": classes}) for _ in range(2)]
    if classes > 1:
        DistillModel(models[0], {"teacher": models[1]}, steps)
        return
    message = r"distill.terms.\w+.loss: dkd compares classes with each other and needs 2 or more; num_classes is 1"
    with pytest.raises(UserError, match=message):
        DistillModel(models[0], {"teacher": models[1]}, steps)

"""Matching Guided Distillation: sums before a ReLU, when channels are matched, and how."""

import itertools
import pickle
from types import SimpleNamespace

import numpy as np
import paddle
import pytest
from paddle import nn

from ppkd.build import build_model, build_student
from ppkd.detectors import detector_for
from ppkd.detectors.recorders import Recorder
from ppkd.engine.channel_matching import Match, assign
from ppkd.engine.connectors import Norm
from ppkd.engine.sides import Moment
from ppkd.engine.updates import Updates
from ppkd.errors import UserError
from ppkd.losses.partial_l2 import negative_margins, partial_l2, reduce_maps, reduce_margins
from ppkd.methods import plan
from ppkd.recipe.method import MethodSpec
from tests.conftest import CONFIGS, training_batch
from tests.helpers_training import differing

# Sums before a ReLU as sources


@pytest.mark.parametrize("family", ["resnet", "faster_rcnn"])
def test_a_stage_before_its_relu_is_a_source_of_a_resnet(family, recipe):
    given = ["FasterRCNN.backbone=ResNet", "ResNet={depth: 50, variant: d, num_stages: 4, return_idx: [0, 1, 2, 3]}"]
    loaded = recipe(family, distil=False, overrides=given if family != "resnet" else ["ResNet.std_senet=true"])
    model = build_student(loaded)
    adapter = detector_for(model)
    levels = adapter.levels("backbone.pre_relu[*]")
    assert [level.stride for level in levels] == [4, 8, 16, 32][: len(levels)] and len(levels) >= 2
    assert pickle.loads(pickle.dumps(levels[0].tap)) == levels[0].tap
    paths = [path for level in levels for path in level.tap.paths]
    for training in (True, False):
        model.train() if training else model.eval()
        with Recorder(model, [*paths, "backbone"]) as recorder:
            adapter.run(training_batch(loaded), {"backbone"})
        for level, after in zip(levels, recorder.outputs["backbone"][0], strict=True):
            before = recorder.take(level.tap)
            assert (paddle.nn.functional.relu(before) == after).all() and bool((before < 0).any())
    norms = [adapter.norm_before(level) for level in levels]
    assert all((norm is None) == (family == "resnet") for norm in norms), "with an SE layer nothing is known"
    if family != "resnet":
        block = list(model.backbone.res_layers[1].children())[-1]
        assert norms[1] is block.branch2c.norm


def test_its_gradient_is_that_of_the_sum(recipe):
    model = build_student(recipe("resnet", distil=False))
    level = detector_for(model).levels("backbone.pre_relu[1]")[0]
    model.train()
    batch = {"image": paddle.rand([1, 3, 32, 32])}
    gradients = []
    for plus in (True, False):
        with Recorder(model, [*level.tap.paths, "backbone"]) as recorder:
            model.backbone(batch)
        taken = recorder.take(level.tap)
        made = taken if plus else recorder.outputs["backbone"][0][1]
        # The ReLU's own gradient is 1 where something is left and 0 elsewhere.
        (made * (taken > 0).astype("float32") if plus else made).square().sum().backward()
        gradients.append({n: p.grad.numpy() for n, p in model.backbone.named_parameters() if p.grad is not None})
        model.clear_gradients()
    assert gradients[0].keys() == gradients[1].keys() and len(gradients[0]) > 10
    for name, expected in gradients[1].items():
        np.testing.assert_allclose(gradients[0][name], expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def test_other_backbones_have_none(recipe):
    with pytest.raises(UserError, match=r"no source 'backbone\.pre_relu\[\*\]'"):
        detector_for(build_student(recipe("retinanet", distil=False))).levels("backbone.pre_relu[*]")


def test_the_norm_of_a_module_is_none_if_a_relu_follows(recipe):
    adapter = detector_for(build_student(recipe("resnet", distil=False)))
    paths = (f"backbone.res2.res2b.{name}" for name in ("branch2a", "branch2b", "branch2b.norm"))
    first, last, bare = (adapter.levels(path)[0] for path in paths)
    assert adapter.norm_before(first) is None
    assert adapter.norm_before(last) is adapter.norm_before(bare) is adapter.model.backbone.res2.res2b.branch2b.norm
    assert adapter.norm_before(adapter.levels("neck[0]")[0]) is None


# When


def by_hand(age, every, until, later, track):
    """Age of the last beginning, by looking at all ages."""
    begins = [a for a in range(age + 1) if a % (every if a < until else later) == 0 or a == 0]
    return begins[-1]


@pytest.mark.parametrize("given", [(5, 20, 31, 3), (4, 10, 7, 4), (1, 3, 2, 1), (6, 0, 6, 2)])
def test_updates_begin_and_end_when_they_are_due(given):
    updates = Updates(*given)
    for age in range(100):
        begin = by_hand(age, *given)
        seen = age - begin + 1
        early = begin == 0 and seen in (1, 2, 4, 8) and seen < given[3]
        assert updates.begin(age) == begin, age
        found = (updates.looks(age), updates.early(age), updates.over(age))
        assert found == (seen <= given[3], early, seen >= given[3]), age


def test_the_authors_updates():
    ends = [age for age in range(1000, 100000) if Updates().over(age) > Updates().over(age - 1)]
    assert ends == [begin + 999 for begin in (5000, 10000, 15000, 31000, 62000, 93000)]


@pytest.mark.parametrize(
    "given", [{"every": 0}, {"track": 1.5}, {"until": -1}, {"later": True}, {"every": 9, "track": 10}]
)
def test_updates_that_cannot_be_are_refused(given):
    with pytest.raises(ValueError, match="expected"):
        Updates(**given)


# How


@pytest.mark.parametrize("single", [False, True])
def test_channels_are_matched_at_the_least_total_cost(single):
    distances = np.random.default_rng(0).uniform(0, 4, (3, 7))
    groups = 1 if single else 2
    found = assign(distances, 1, single)
    assert found.shape == (groups, 3) and (np.sort(found, axis=0) == found).all()
    columns = 7 if single else 6  # the teacher's last channel is left out
    rows = np.arange(3 * groups) % 3
    ways = itertools.permutations(range(columns), 3 * groups)
    least = min(distances[rows, list(way)].sum() for way in ways)
    assert distances[rows, found.flatten()].sum() == pytest.approx(least, abs=1e-3)


def test_equal_channels_in_another_order_are_found():
    maps = paddle.randn([2, 6, 4, 4])
    order = np.random.default_rng(0).permutation(6)
    made = Match(6, None, sides(6, None), margin=False, track=3)
    for age in range(3):
        out = made(*at(maps, paddle.to_tensor(maps.numpy()[:, order]), age))
    assert (out.numpy() == maps.numpy()[:, order]).all()
    assert float(made.images) == 6 and made.assignment.flatten().tolist() == order.tolist()


def sides(channels, norm):
    """What a `Match` looks at: the student's channels, and the norm before the teacher's map."""
    return SimpleNamespace(student=SimpleNamespace(channels=channels), teacher=SimpleNamespace(norm=norm))


def at(theirs, ours, age):
    return theirs, Moment(ours, age)


def norm_of(channels):
    norm = nn.BatchNorm2D(channels)
    norm.weight.set_value(paddle.linspace(-1, 2, channels))
    norm.bias.set_value(paddle.linspace(-3, 1, channels))
    return norm


def test_an_update_looks_at_its_batches_only_and_later_ones_change_nothing():
    made = Match(8, None, sides(4, norm_of(8)), update_every=4, track=2)
    shown = [(paddle.randn([2, 8, 3, 3]), paddle.randn([2, 4, 3, 3])) for _ in range(8)]
    seen = []
    for age, (theirs, ours) in enumerate(shown):
        made(*at(theirs, ours, age))
        seen.append((float(made.images), made.assignment.numpy().tolist()))
    assert [images for images, _ in seen] == [2, 4, 4, 4, 2, 4, 4, 4]
    assert seen[1][1] == seen[4][1] != seen[5][1] == seen[7][1]
    fresh = Match(8, None, sides(4, norm_of(8)), update_every=4, track=2)
    for age in (4, 5):
        fresh(*at(*shown[age], age))
    assert fresh.assignment.numpy().tolist() == seen[7][1]


def test_the_state_holds_what_an_update_has_seen_so_far():
    made, other = (Match(8, None, sides(4, norm_of(8)), update_every=4, track=3) for _ in range(2))
    shown = [(paddle.randn([2, 8, 3, 3]), paddle.randn([2, 4, 3, 3])) for _ in range(7)]
    for age in range(6):
        made(*at(*shown[age], age))
    other.set_state_dict(made.state_dict())
    before = made.assignment.numpy().tolist()
    outs = [one(*at(*shown[6], 6)) for one in (made, other)]
    assert (outs[0] == outs[1]).all() and differing(made.state_dict(), other.state_dict()) == []
    assert float(other.images) == 6
    assert made.assignment.numpy().tolist() != before, "the update was made of what came before and after"


def test_batches_that_are_missing_or_not_finite_are_not_counted():
    made, other = (Match(8, None, sides(4, norm_of(8)), update_every=4, track=3) for _ in range(2))
    shown = [(paddle.randn([2, 8, 3, 3]), paddle.randn([2, 4, 3, 3])) for _ in range(8)]
    for age in (0, 1, 2, 3, 5, 7):  # without the first of the second update, and without the one that it is due at
        made(*at(*shown[age], age))
    assert float(made.images) == 2, "what the first update saw is not the second's"
    for age in (0, 4, 5, 6):
        maps = shown[age] if age in (0, 5) else [x * np.nan for x in shown[age]]
        other(*at(*maps, age))
    for name in ("distances", "images", "assignment", "margins"):
        assert (getattr(made, name) == getattr(other, name)).all(), name


def test_without_an_image_there_is_no_update():
    made = Match(8, None, sides(4, norm_of(8)), update_every=1, track=1)
    before = made.assignment.clone(), made.margins.clone()
    made(*at(paddle.full([2, 8, 3, 3], np.nan), paddle.randn([2, 4, 3, 3]), 0))
    assert (made.assignment == before[0]).all() and (made.margins == before[1]).all() and float(made.images) == 0


@pytest.mark.parametrize("reducer", ["amp", "sp", "rd", "sm"])
def test_what_comes_out_is_what_the_pieces_make(reducer):
    norm = norm_of(8)
    made = Match(8, None, sides(4, norm), reducer=reducer, track=1)
    theirs, ours = paddle.randn([2, 8, 3, 3]), paddle.randn([2, 4, 3, 3])
    ours.stop_gradient = theirs.stop_gradient = False
    paddle.seed(3)
    out = made(*at(theirs, ours, 0))
    paddle.seed(3)
    margins = negative_margins(norm.weight, norm.bias)
    reduced = reduce_maps(theirs, made.assignment, reducer)
    expected = paddle.maximum(reduced, reduce_margins(margins, made.assignment, reducer))
    assert out.stop_gradient and (out == expected).all() and (out != reduced).any()
    assert list(made.parameters()) == [], "the teacher's norm is none of its own"
    made.let_go()
    assert (made(*at(theirs, ours, 1)) >= reduced.min()).all()


def test_a_teacher_of_another_size_is_resized_before_it_is_matched():
    made = Match(8, None, sides(4, None), margin=False)
    assert made(*at(paddle.randn([2, 8, 6, 8]), paddle.randn([2, 4, 3, 4]), 0)).shape == [2, 4, 3, 4]


def test_random_drop_draws_anew_for_every_value():
    made = Match(8, None, sides(4, None), reducer="rd", margin=False)
    theirs = paddle.randn([2, 8, 8, 8])
    outs = [made(*at(theirs, theirs[:, :4], age)).numpy() for age in (0, 5)]
    assert (outs[0] != outs[1]).mean() > 0.3
    members = theirs.numpy()[:, made.assignment.numpy()]  # (N, G, S, H, W)
    shares = [(outs[1] == members[:, g]).mean() for g in (0, 1)]
    assert sum(shares) == pytest.approx(1) and min(shares) > 0.4


def test_margins_are_means_of_negative_values():
    drawn = np.random.default_rng(0).standard_normal(2_000_000)
    for scale, shift in ((1.0, 0.5), (-2.0, -1.0), (0.5, 1.0)):
        values = abs(scale) * drawn + shift
        found = negative_margins(paddle.to_tensor([scale]), paddle.to_tensor([shift]))
        assert float(found) == pytest.approx(values[values < 0].mean(), rel=1e-2)
    far = negative_margins(paddle.to_tensor([1.0, 0.0, 0.0]), paddle.to_tensor([4.0, -2.0, 2.0]))
    np.testing.assert_allclose(far.numpy(), [-3, -2, 0], atol=1e-6)


def test_only_what_a_relu_lets_through_or_should_have_cut_off_counts():
    student, teacher = paddle.to_tensor([[3.0, -3.0, 1.0, 2.0]]), paddle.to_tensor([[1.0, -1.0, -1.0, 5.0]])
    assert float(partial_l2(student.reshape([1, 4, 1, 1]), teacher.reshape([1, 4, 1, 1]))) == 4 + 0 + 4 + 9


@pytest.mark.parametrize(
    "given, message",
    [
        ({"channels": 3}, "the student has 4 channels and the teacher 3"),
        ({"reducer": "mean"}, "reducer is 'mean', expected one of amp, sp, rd, sm"),
        ({"margin": True}, "comes from no batch norm; set margin: false"),
        ({"track": 0}, "track is 0, expected"),
    ],
)
def test_a_matching_that_cannot_be_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        Match(**{"channels": 8, "target": 8, "sides": sides(4, None), "margin": False, **given})


@pytest.mark.parametrize(
    "given, message", [({"kind": "ln"}, "expected gn, bn or sync_bn"), ({"groups": 3}, "expected a divisor")]
)
def test_a_norm_that_cannot_be_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        Norm(8, None, **given)


def test_norms_normalise():
    x = paddle.randn([4, 8, 5, 5]) * 3 + 1
    grouped, batched = Norm(8, None, groups=2)(x).numpy(), Norm(8, None, kind="sync_bn")(x).numpy()
    np.testing.assert_allclose(grouped.reshape([4, 2, -1]).mean(-1), 0, atol=1e-5)
    np.testing.assert_allclose(batched.std(axis=(0, 2, 3)), 1, atol=1e-3)
    assert Norm(8, None, groups=4)(x.astype("float16")).dtype == paddle.float32


# The method


def test_the_authors_numbers_are_the_default():
    (term,) = plan(MethodSpec("MatchingGuided")).terms
    assert term.student == term.teacher == "backbone.pre_relu[s4,s8,s16,s32]"
    assert term.loss == {"name": "partial_l2", "factors": {4: 2e-8, 8: 2e-8, 16: 2e-7, 32: 2e-7}}
    assert term.student_connector == {"name": "norm", "kind": "gn", "groups": 32}
    assert term.teacher_connector == {
        "name": "match", "reducer": "amp", "margin": True, "update_every": 5000, "update_until": 20000,
        "update_later": 31000, "track": 1000,
    }  # fmt: skip


@pytest.mark.parametrize("student, variant", [("retinanet_r18_fpn_1x_coco", "b"), ("retinanet_r18vd_fpn_1x_coco", "d")])
def test_the_shipped_recipe_has_them_too(student, variant):
    from ppkd.recipe.recipe import load_recipe

    configs = CONFIGS.parents[1] / "configs"
    slim = str(configs / "slim/distill/retinanet_r50_coco_distill_matching.yml")
    loaded = load_recipe(str(configs / f"retinanet/{student}.yml"), slim)
    assert plan(loaded.method).terms == plan(MethodSpec("MatchingGuided", epochs=12)).terms
    student, teacher = loaded.student["ResNet"], loaded.teachers["teacher"].config["ResNet"]
    assert (student["depth"], student["variant"], student["freeze_at"], teacher["depth"]) == (18, variant, -1, 50)


@pytest.mark.parametrize(
    "params, message",
    [
        ({"stages": "s8"}, "stages has to be a list of strides such as"),
        ({"stages": [8, 8]}, "stages has to be"),
        ({"stages": [2, 4]}, r"factors is needed for stages of other strides than .*: \[2\]"),
        ({"factors": [1.0]}, "factors has to be a list of numbers from 0, one for each of stages"),
        ({"reducer": "max"}, "reducer has to be one of amp, sp, rd, sm"),
        ({"norm": "ln"}, "norm has to be one of gn, bn, sync_bn, none"),
    ],
)
def test_a_wrong_value_in_the_file_is_told(params, message):
    with pytest.raises(UserError, match=message):
        plan(MethodSpec("MatchingGuided", params, file="slim.yml"))


def test_stages_and_factors_are_chosen_by_the_file(recipe):
    given = ["distill.stages=[8]", "distill.factors=[0.5]", "distill.norm=none", "distill.reducer=sm"]
    (term,) = plan(MethodSpec("MatchingGuided", {"stages": [16]})).terms
    assert term.loss["factors"] == {16: 2e-7}
    model = build_model(recipe("resnet", "matching", overrides=given))
    (term,) = [term for term in model.terms if term.label.startswith("matching.")]
    assert term.label == "matching.s8" and term.loss.factors == {8: 0.5} and not list(term.parameters())


@pytest.mark.parametrize(
    "family, method, given, message",
    [
        ("resnet", "matching", ["distill.groups=48"], r"matching\.student_connector: connector norm: groups is 48"),
        ("resnet", "matching", ["distill.track=9"], r"matching\.teacher_connector: connector match: track is 9"),
        ("retinanet", "MatchingGuided", [], r"MatchingGuided needs backbone\.pre_relu, which the student's RetinaNet"),
    ],
)
def test_what_does_not_go_with_the_models_is_told(family, method, given, message, recipe):
    with pytest.raises(UserError, match=message):
        build_model(recipe(family, method, overrides=given))


def test_a_match_is_for_the_teachers_side(recipe):
    with pytest.raises(UserError, match="connector match is for the teacher's side"):
        build_model(recipe("resnet", "matching", overrides=["distill.terms.bare.student_connector=match"]))


def test_a_run_that_begins_late_matches_when_it_begins(recipe):
    given = ["distill.start_epoch=2", "distill.terms.bare.start_epoch=1"]
    model = build_model(recipe("resnet", "matching", overrides=given))
    model.train()
    model.batches, model.epoch = 3, 1
    batch = training_batch(recipe("resnet", "matching"))
    (bare, matching) = (
        next(term for term in model.terms if term.label == f"{name}.s8").connect_teacher[0].links[0]
        for name in ("bare", "matching")
    )
    model(dict(batch))
    assert (float(bare.images), float(matching.images)) == (2, 0)
    model.epoch = 2
    model(dict(batch))
    assert (float(bare.images), float(matching.images)) == (4, 2), "that of epoch 1 is not new any more"
    # The same batch twice and once; the student's map is looked at as it is, with a norm in the term or without.
    np.testing.assert_allclose(bare.distances.numpy(), 2 * matching.distances.numpy(), rtol=1e-6)
    assert not (bare.margins == -np.inf).any() and not (matching.margins == -np.inf).any()

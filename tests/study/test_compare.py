"""Comparing methods and seeds: groups, figures, intervals, and what is refused."""

import json
import math
import pathlib
import shutil
import statistics
from types import SimpleNamespace

import numpy as np
import pytest

from ppkd.bridge.weights import load_into
from ppkd.bridge.workspace import scope
from ppkd.build import build_student
from ppkd.data.shapes import generate
from ppkd.recipe.recipe import load_recipe
from ppkd.reporting.material import gather
from ppkd.reporting.summary import _interval, outcome
from ppkd.study import detections
from ppkd.study.bootstrap import Sample
from ppkd.study.compare import Group, _row, compare, comparison_table, grouped
from ppkd.study.detections import config_for, detect
from ppkd.study.runs import open_runs
from ppkd.training.evaluation import evaluate
from tests.conftest import ROOT
from tests.helpers_runs import SHIPPED, by_hand
from tests.helpers_tools import call, the_error

FGD = str(ROOT / "configs" / "slim" / "distill" / "ppyoloe_plus_shapes_fgd.yml")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return generate(tmp_path_factory.mktemp("compare") / "shapes", train=2, val=10, size=192, seed=3)


@pytest.fixture(scope="module")
def folders(tmp_path_factory, data):
    """Name -> folder: two plain runs far apart, two distilled ones that are better, one of another weight."""
    base = tmp_path_factory.mktemp("runs")
    teacher = [f"teacher.pretrain_weights={SHIPPED}"]
    distilled = {"slim": FGD, "more": teacher}
    return {
        "plain_0": by_hand(base / "plain_0", data, 0, 0.5),
        "plain_1": by_hand(base / "plain_1", data, 1, 0.3),
        "fgd_0": by_hand(base / "fgd_0", data, 0, 0.0, **distilled),
        "fgd_1": by_hand(base / "fgd_1", data, 1, 0.03, **distilled),
        "weak": by_hand(base / "weak", data, 0, 0.02, slim=FGD, more=[*teacher, "distill.loss_weight=0.5"]),
    }


@pytest.fixture(scope="module")
def found(folders):
    return compare(open_runs(folders.values()), resamples=200)


def test_ap_is_that_of_ppdets_own_evaluation(folders, found):
    run = open_runs([folders["fgd_1"]])[0]
    with scope(run.recipe.student) as table:
        model = build_student(run.recipe, load=False)
        load_into(model, run.weights, "weights")
        own = evaluate(model, table)
    measured = found["groups"][1]["runs"][1]
    assert own["AP"] > 0.2
    assert {key: measured[key] for key in own} == pytest.approx(own, abs=1e-9)


def test_groups_are_the_recipes_but_for_the_seed(found):
    names = ["plain", "ppyoloe_plus_shapes_fgd (no loss_weight)", "ppyoloe_plus_shapes_fgd (loss_weight=0.5)"]
    assert [group["name"] for group in found["groups"]] == names
    assert [[run["seed"] for run in group["runs"]] for group in found["groups"]] == [[0, 1], [0, 1], [0]]


def test_means_spreads_and_gains(found):
    plain, fgd, weak = found["groups"]
    aps = [[run["AP"] for run in group["runs"]] for group in found["groups"]]
    assert fgd["mean"]["AP"] == pytest.approx(statistics.mean(aps[1]))
    assert fgd["spread"] == pytest.approx(statistics.stdev(aps[1])) and weak["spread"] is None
    assert fgd["gain"] == pytest.approx(statistics.mean(aps[1]) - statistics.mean(aps[0])) and "gain" not in plain
    low, high = fgd["interval_images"]
    assert low < fgd["gain"] < high
    wide = fgd["interval_seeds_and_images"]
    assert wide[1] - wide[0] > high - low, "seeds that differ are a doubt more"
    assert weak["interval_seeds_and_images"] is None, "of one seed nothing is known about others"


def test_a_gain_is_called_one_only_where_0_is_outside(found):
    for group in found["groups"][1:]:
        low, high = group["interval_seeds_and_images"] or group["interval_images"]
        expected = "better" if low > 0 else "worse" if high < 0 else "not told apart"
        assert group["verdict"] == expected
    assert found["groups"][2]["verdict"] == "better"


def test_seeds_that_disagree_take_a_verdict_back():
    """On other images these weights would stay better; trained again they might not."""

    def group(*aps):
        noise = np.random.default_rng(0).normal(0, 0.001, size=500)
        runs = [SimpleNamespace(folder="", seed=seed) for seed in range(len(aps))]
        stats = [{"AP": ap, "AP50": ap} for ap in aps]
        return Group("", runs, stats, Sample(np.array(aps), np.array(aps)[:, None] + noise))

    base = group(0.30, 0.36, 0.31)
    row = _row(group(0.31, 0.37, 0.33), base, 0.95)
    assert row["interval_images"][0] > 0 and row["interval_seeds_and_images"][0] < 0
    assert row["verdict"] == "not told apart"
    assert _row(group(0.33), base, 0.95)["verdict"] == "better"
    assert _row(group(0.29), base, 0.95)["verdict"] == "worse"


def test_against_another_group_the_sign_turns(folders, found):
    runs = open_runs([folders[name] for name in ("plain_0", "plain_1", "fgd_0", "fgd_1")])
    turned = compare(runs, against="ppyoloe_plus_shapes_fgd", resamples=200)
    gain = turned["groups"][0]["gain"]
    assert gain == pytest.approx(-found["groups"][1]["gain"])
    low, high = found["groups"][1]["interval_images"]
    assert turned["groups"][0]["interval_images"] == pytest.approx([-high, -low])


def test_the_table_has_every_group_and_says_what_the_intervals_are_of(found):
    text = comparison_table(found)
    fgd = found["groups"][1]
    (line,) = (line for line in text.splitlines() if "no loss_weight" in line)
    assert f"{100 * fgd['gain']:+.1f}" in line and f"{100 * fgd['interval_images'][0]:+.1f} to" in line
    assert "better (one seed)" in text and "another training is not covered" in text
    assert "10 images, model_final.pdparams, 200 resamples" in text


def test_detections_are_computed_once(folders, found, monkeypatch):
    run = open_runs([folders["fgd_0"]])[0]

    def refuse(*args):
        raise AssertionError("built again")

    monkeypatch.setattr(detections, "build_detector", refuse)
    again = detect(config_for(run), run.weights, run.folder, "again")
    assert len(again.images) == 10 and again.results
    for change in ({"images": 3}, {"other": True}):
        config = config_for(run)
        if "other" in change:
            config["PPYOLOEHead"]["nms"]["score_threshold"] = 0.5
        with pytest.raises(AssertionError, match="built again"):
            detect(config, run.weights, run.folder, "changed", change.get("images"))


def test_detections_on_images_that_were_replaced_are_not_taken(data, tmp_path):
    """A validation image that is mended counts again; one of another picture is looked at."""
    moved = pathlib.Path(shutil.copytree(data, tmp_path / "data"))
    first, second = sorted((moved / "val").iterdir())[:2]
    whole = first.read_bytes()
    first.write_bytes(whole[:2000])
    folder = by_hand(tmp_path / "run", moved, more=["max_bad_images=20%"])
    (run,) = open_runs([folder])

    def seen():
        found = detect(config_for(run), run.weights, run.folder, "again")
        return found.images, [result for result in found.results if result["image_id"] == 2]

    images, boxes = seen()
    assert images == [*range(2, 11)] and boxes
    first.write_bytes(whole)
    assert seen() == ([*range(1, 11)], boxes)
    shutil.copy(sorted((moved / "val").iterdir())[2], second)
    assert seen()[1] != boxes
    assert len(list(pathlib.Path(folder, "detections").iterdir())) == 3


def test_a_report_gives_one_pair_the_same_interval(folders):
    runs = open_runs([folders["plain_1"], folders["fgd_1"]])
    (row,) = (row for row in compare(runs)["groups"] if "gain" in row)
    low, high = row["interval_images"]
    assert 0 < low < high
    material = gather(runs)
    sentence, facts, _ = outcome(material)
    told = f"{100 * low:+.1f} to {100 * high:+.1f}"
    assert facts[-1] == (f"{100 * row['gain']:+.1f}", f"AP gained by distillation, 95 % interval over images {told}")
    assert f"points (95 % interval over images {told})" in sentence
    report = _interval(material.best, material.plain)
    assert [report.low, report.high] == pytest.approx([low, high], abs=1e-12)


def test_fewer_images_are_the_first_ones(folders):
    run = open_runs([folders["fgd_0"]])[0]
    some = detect(config_for(run), run.weights, run.folder, "some", 3)
    every = detect(config_for(run), run.weights, run.folder, "all")
    assert some.images == every.images[:3]
    kept = [r for r in every.results if r["image_id"] in some.images]
    assert len(some.results) == len(kept)


def test_a_damaged_file_of_detections_is_told(folders, tmp_path, data):
    run = open_runs([by_hand(tmp_path / "run", data)])[0]
    detect(config_for(run), run.weights, run.folder, "first", 1)
    (path,) = (tmp_path / "run" / "detections").iterdir()
    path.write_text('{"kind": "bb')
    with pytest.raises(detections.UserError, match="damaged .*; remove it"):
        detect(config_for(run), run.weights, run.folder, "second", 1)


def test_the_command_prints_the_table_and_writes_json(folders, tmp_path, capsys):
    file = tmp_path / "made" / "found.json"
    given = [folders["plain_0"], folders["fgd_0"], "--resamples", 50, "--json", file]
    assert call("compare", *given)[0] == 0
    assert "compared with" in capsys.readouterr().out
    groups = json.loads(file.read_text())["groups"]
    assert [group["name"] for group in groups] == ["plain", "ppyoloe_plus_shapes_fgd"]
    assert math.isfinite(groups[1]["interval_images"][0])


def refused(folders, *args):
    return the_error(*call("compare", *args))


def test_what_cannot_be_compared_is_refused(folders, tmp_path, data):
    plain, fgd = folders["plain_0"], folders["fgd_0"]
    assert "given twice" in refused(folders, plain, plain)
    assert "no run without a teacher: say what to compare with: --against NAME" in refused(folders, fgd)
    message = refused(folders, plain, fgd, "--against", "ppyoloe_shapes_fgd")
    assert "no such group; nearest: ppyoloe_plus_shapes_fgd" in message
    twin = by_hand(tmp_path / "twin", data, 0, 0.1)
    assert "of the same recipe and seed (0): give one of them" in refused(folders, plain, twin)
    elsewhere = generate(tmp_path / "shapes", train=2, val=2, size=64, seed=9)
    other = by_hand(tmp_path / "other", elsewhere, slim=FGD, more=[f"teacher.pretrain_weights={SHIPPED}"])
    assert "its validation set is another than that of" in refused(folders, plain, other)


def test_folders_that_hold_no_run_are_told(folders, tmp_path):
    plain = folders["plain_0"]
    parent = str(tmp_path / "parent")
    (tmp_path / "parent").mkdir()
    (tmp_path / "parent" / "student").symlink_to(plain)
    assert f"no recipe.yml in it, so no run of training; did you mean {parent}/student?" in refused(folders, parent)
    assert "there is no such folder" in refused(folders, tmp_path / "nowhere")
    message = refused(folders, plain, "--weights", "best_model")
    assert "best_model.pdparams: no such weights; there is model_final (--weights)" in message
    assert "no such key; nearest: num_classes" in refused(folders, plain, "-o", "num_clases=3")


def test_a_moved_data_set_is_given_with_o(folders, tmp_path, data):
    moved = tmp_path / "moved"
    moved.symlink_to(data)
    run = open_runs([folders["plain_0"]], [f"EvalDataset.dataset_dir={moved}"])[0]
    assert detect(config_for(run), run.weights, str(tmp_path), "moved", 2).annotations.startswith(str(moved))


def test_labels_are_the_part_of_the_path_that_differs(folders, tmp_path):
    assert [run.label for run in open_runs([folders["plain_0"], folders["fgd_0"]])] == ["plain_0", "fgd_0"]
    same = []
    for name in ("a", "b"):
        (tmp_path / name / "student").mkdir(parents=True)
        for file in ("recipe.yml", "model_final.pdparams"):
            (tmp_path / name / "student" / file).symlink_to(pathlib.Path(folders["plain_0"]) / file)
        same.append(str(tmp_path / name / "student"))
    assert [run.label for run in open_runs(same)] == ["a", "b"]
    assert [run.label for run in open_runs(same[:1])] == ["student"]


def test_groups_of_other_lengths_are_two(folders, tmp_path):
    runs = open_runs([folders["plain_0"], folders["plain_1"]])
    runs[1].records = [{"kind": "train", "step": 9}]
    assert [group.name for group in grouped(runs)] == ["plain (steps=8)", "plain (steps=9)"]


def test_the_recipe_of_a_run_is_recorded_whole(folders, data):
    given = [f"dataset_dir={data}", f"teacher.pretrain_weights={SHIPPED}", "distill.loss_weight=0.5", "seed=0"]
    from ppkd.training.digest import digest
    from tests.helpers_runs import DEMO

    loaded = load_recipe(str(DEMO), FGD, given)
    run = open_runs([folders["weak"]])[0]
    assert digest(run.recipe, 1) == digest(loaded, 1)
    assert (run.recipe.method.file, run.seed, run.distilled) == (FGD, 0, True)
    from ppkd.bridge.host import record_of_host

    assert run.versions == record_of_host() and {"ppkd", "paddle", "ppdet", "cures"} <= run.versions.keys()

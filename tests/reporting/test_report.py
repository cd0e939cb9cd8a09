"""The report: complete, true to what was measured, and a file that loads nothing."""

import base64
import copy
import pathlib
import re
from unittest.mock import Mock

import numpy as np
import paddle
import pytest

from ppkd.bridge.weights import load_into
from ppkd.bridge.workspace import scope
from ppkd.build import build_student
from ppkd.files.yaml_io import clone
from ppkd.reporting import cost, maps, provenance, similarity, summary, write, write_report
from ppkd.reporting.document import Document, Section, Table
from ppkd.reporting.examples import samples
from ppkd.reporting.features import Pair, batches
from ppkd.reporting.html import render_html
from ppkd.reporting.learning import _curves, detection_loss, term_names, terms_in
from ppkd.reporting.material import Material, gather
from ppkd.reporting.similarity import Alignment
from ppkd.reporting.summary import outcome
from ppkd.study.bootstrap import Interval
from ppkd.study.runs import open_runs
from ppkd.training.evaluation import evaluate
from ppkd.training.trainer import Trainer
from tests.helpers_html import Page, loaded_from_elsewhere
from tests.helpers_runs import train
from tests.helpers_tools import call, the_error
from tests.helpers_training import differing

TITLES = [
    "Accuracy", "Precision and recall", "Learning curves", "Distillation terms", "Examples", "Maps",
    "Similarity of features", "Cost", "Recipe and versions",
]  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory, shapes, teacher_weights):
    """``{"plain": (folder, recipe), "distilled": ...}``: three steps each, FGD with CWD and a term of class scores."""
    base = tmp_path_factory.mktemp("trained")
    return {
        "plain": train(base / "plain", shapes, seed=3),
        "distilled": train(base / "distilled", shapes, teacher_weights["ppyoloe"], seed=3),
    }


@pytest.fixture(scope="module")
def runs(trained):
    return open_runs([folder for folder, _ in trained.values()])


@pytest.fixture(scope="module")
def material(runs):
    return gather(runs)


@pytest.fixture(scope="module")
def written(runs, material, tmp_path_factory):
    """Folder of a whole report."""
    folder = tmp_path_factory.mktemp("report")
    paths = write_report(runs, str(folder / "page.html"))
    assert [pathlib.Path(path).name for path in paths] == ["page.html", "page.md"]
    return folder


@pytest.fixture(scope="module")
def html(written):
    return (written / "page.html").read_text(encoding="utf-8")


# ---- the page ----------------------------------------------------------------------------------


def test_nothing_is_loaded_from_elsewhere(html):
    assert loaded_from_elsewhere(html) == []
    policies = [m["content"] for m in Page(html).of("meta") if m.get("http-equiv") == "Content-Security-Policy"]
    assert policies == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]


@pytest.mark.parametrize(
    "slip",
    [
        '<img src="http://x/a.png" alt="a">', '<img src="a.png" alt="a">', "<script>1</script>", '<a href="//x">a</a>',
        '<link rel="stylesheet" href="a.css">', "<style>@import 'a'</style>", "<style>p{background:url(a)}</style>",
        '<p onclick="x">a</p>', '<p style="background:url(a)">a</p>', '<meta http-equiv="refresh" content="0">',
        f'<img alt="a" src="data:image/svg+xml;base64,{base64.b64encode(b"<image/>").decode()}">',
    ],
)  # fmt: skip
def test_the_check_for_that_finds(slip):
    assert loaded_from_elsewhere(f"<html><body>{slip}</body></html>")


def test_every_image_says_what_it_shows_and_how_large_it_is(html):
    images = Page(html).of("img")
    assert len(images) > 40
    assert all(len(image["alt"]) > 15 for image in images)
    assert all(int(image["width"]) > 100 and int(image["height"]) > 50 for image in images)


def test_all_sections_are_there_and_the_links_lead_to_them(html):
    page = Page(html)
    assert page.text("h2") == TITLES
    anchors = [h["id"] for h in page.of("h2")]
    assert [link["href"] for link in page.of("a")] == [f"#{anchor}" for anchor in anchors]
    assert len(set(anchors)) == len(anchors)
    assert "class=missing" not in html, "everything was there to be shown"


def test_tags_are_closed_and_text_is_escaped(html, material):
    void = {"meta", "img", "input"}
    for tag in {tag for tag, _ in Page(html).tags} - void:
        assert len(re.findall(rf"<{tag}[ >]", html)) == html.count(f"</{tag}>"), tag
    evil = "<b>&\"'"
    text = render_html(
        Document(evil, evil, [evil], [(evil, evil)], [Section(evil, evil, [Table([evil], [[evil]])])], evil)
    )
    assert "<b>" not in text


def test_ap_is_that_of_ppdets_own_evaluation(html, material, runs):
    own = {}
    for subject in material.of("plain") + material.of("distilled"):
        with scope(subject.config) as table:
            model = build_student(subject.run.recipe, load=False)
            load_into(model, subject.weights, "weights")
            own[subject.name] = evaluate(model, table)
        assert subject.stats == pytest.approx(own[subject.name], abs=1e-9)
    rows = re.findall(r"<th scope=row>(.*?)</th>((?:<td>.*?</td>)+)", html)
    shown = {name: re.findall(r"<td>(.*?)</td>", cells) for name, cells in reversed(rows)}
    for subject in material.subjects:
        expected = [f"{100 * value:.1f}" if value >= 0 else "-" for value in subject.stats.values()]
        first = next(re.findall(r"<td>(.*?)</td>", cells) for name, cells in rows if name == subject.name)
        assert first == expected
    assert "distilled − plain" in shown


def test_markdown_tells_the_same_and_shows_the_same_pictures(written, html):
    text = (written / "page.md").read_text(encoding="utf-8")
    assert re.findall(r"^## (.*)", text, re.M) == TITLES
    linked = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", text)
    files = {f"page_pictures/{path.name}" for path in (written / "page_pictures").iterdir()}
    assert set(linked) == files and len(linked) == len(files) == len(Page(html).of("img"))
    (summary,) = re.findall(r"<p class=summary>(.*?)</p>", html)
    assert summary.replace("&#x27;", "'") in text


def test_the_recipe_stands_in_it_in_full(html, runs):
    for run in runs:
        recorded = (pathlib.Path(run.folder) / "recipe.yml").read_text()
        assert any(recorded.strip() == text.strip() for text in Page(html).text("pre"))


# ---- what is not there -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind, lacking", [("plain", "no run with a teacher"), ("distilled", "no run of the student alone")]
)
def test_what_is_missing_is_told_with_the_command_that_supplies_it(trained, tmp_path, monkeypatch, kind, lacking):
    (run,) = open_runs([trained[kind][0]])
    run.records = []
    slow = {"plain": (), "distilled": (maps, similarity)}[kind]
    monkeypatch.setattr(write, "_SECTIONS", [section for section in write._SECTIONS if section not in slow])
    write_report([run], str(tmp_path), images=3)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert page.text("h2") == [title for title in TITLES if title not in {section.TITLE for section in slow}]
    assert lacking in text and "Losses over steps: not recorded by" in text and "ppkd train" in text
    assert "what distillation gave cannot be said" in text
    assert "the first 3 of 6 validation images" in text
    assert loaded_from_elsewhere(text) == []


def test_without_the_adapters_the_maps_say_so(trained, tmp_path, monkeypatch):
    folder = tmp_path / "run"
    folder.mkdir()
    for name in ("recipe.yml", "metrics.jsonl", "model_final.pdparams"):
        (folder / name).symlink_to(pathlib.Path(trained["distilled"][0]) / name)
    monkeypatch.setattr(write, "_SECTIONS", [maps, provenance])
    write_report(open_runs([str(folder)]), str(tmp_path / "out"), images=2)
    text = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "model_final.resume is not there any more; what the distillation learned" in text
    assert Page(text).text("h2") == ["Maps", "Recipe and versions"], "the others stay"


def test_a_place_that_cannot_be_written_is_told_before_the_work(trained, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr("ppkd.reporting.write.gather", None)
    message = the_error(*call("report", trained["plain"][0], "--output", tmp_path / "file" / "report"))
    assert "cannot be made" in message


def test_a_run_without_its_method_is_refused(trained, tmp_path):
    text = (pathlib.Path(trained["distilled"][0]) / "recipe.yml").read_text()
    (tmp_path / "recipe.yml").write_text(text[: text.index("\ndistill:")] + "\n")
    message = the_error(*call("report", tmp_path))
    assert "has a teacher and no `distill:`" in message and "train it again" in message


# ---- what the sections measure -----------------------------------------------------------------


def test_the_student_before_is_the_one_that_training_began_with(trained, material, shapes, teacher_weights):
    pair = Pair(material.best)
    with Trainer.open(trained["distilled"][1]) as trainer:
        first = [trainer.student.state_dict(), trainer.distillation.state_dict()]
        assert differing(first, [pair.model.student.state_dict(), pair.model.distillation.state_dict()]) == []
    began = {k: v.numpy().copy() for k, v in pair.model.student.state_dict().items()}
    pair.finish(connectors=True)
    ended = paddle.load(material.best.weights)
    assert differing(ended, dict(pair.model.student.state_dict())) == []
    assert differing(began, ended) != []
    resumed = paddle.load(material.best.weights.replace(".pdparams", ".resume"))["terms"]
    assert differing(resumed, pair.model.distillation.state_dict()) == []


def test_batches_are_of_the_images_that_were_chosen_in_their_order(material):
    ids = [material.subjects[0].found.images[i] for i in (4, 1, 3)]
    config = material.plain.config
    found = [int(i) for batch in batches(config, ids) for i in batch["im_id"].numpy().reshape(-1)]
    assert found == ids


def test_boxes_on_maps_are_in_pixels_of_the_networks_input(material):
    """The validation images have 64 x 64 pixels; here the network is to see 32 wide and 96 high ones."""
    subject = copy.copy(material.plain)
    subject.config = clone(subject.config)
    (resize,) = (t["Resize"] for t in subject.config["EvalReader"]["sample_transforms"] if "Resize" in t)
    resize.update(target_size=[96, 32], keep_ratio=False)
    number = next(i for i in subject.found.images if material.coco.imgToAnns[i])
    inputs = maps.Inputs(material, subject, [number])
    boxes = [entry["bbox"] for entry in material.coco.imgToAnns[number]]
    expected = [[x * 0.5, y * 1.5, (x + w) * 0.5, (y + h) * 1.5] for x, y, w, h in boxes]
    assert inputs.boxes[0].numpy()[0] == pytest.approx(np.array(expected), rel=1e-5)
    assert inputs.batches[0]["image"].shape[2:] == [96, 32]
    assert inputs.pictures[0].extent == (0, 64, 64, 0) and inputs.pictures[0].pixels.shape == (64, 64)


def test_cka_is_that_of_the_kernel_formula_batch_by_batch():
    """Kornblith et al., equations 2 and 3 with linear kernels: HSIC of the centred Gram matrices."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(2, 1, (40, 5)), rng.normal(size=(40, 7))
    y[:, :3] += 2 * x[:, :3]
    found = Alignment()
    for part in (slice(0, 13), slice(13, 40)):
        found.add(x[part], y[part])
    centre = np.eye(40) - 1 / 40
    hsic = lambda a, b: np.trace(a @ a.T @ centre @ b @ b.T @ centre)  # noqa: E731
    assert found.value() == pytest.approx(hsic(x, y) / np.sqrt(hsic(x, x) * hsic(y, y)), rel=1e-9)
    assert 0.2 < found.value() < 0.95
    turned = Alignment()
    turned.add(x, 3 * x @ np.linalg.qr(rng.normal(size=(5, 5)))[0] + 1)
    assert turned.value() == pytest.approx(1, abs=1e-9)


def test_detection_loss_and_terms_add_up_to_the_loss(runs):
    run = runs[1]
    names = term_names(run)
    assert set(names) == {"fgd", "cwd", "cls"}
    for record, (step, own) in zip(run.of_kind("train"), detection_loss(run), strict=True):
        parts = terms_in(record, names)
        assert {key.split(".")[0] for key in parts} == set(names) and len(parts) >= 3 * 4 + 3 + 1
        assert step == record["step"] and own + sum(parts.values()) == pytest.approx(record["loss"], rel=1e-6)
        own_parts = record["loss_cls"] + 2.5 * record["loss_iou"] + 0.5 * record["loss_dfl"]
        assert own > 0 and own == pytest.approx(own_parts, rel=1e-5)
    assert [own for _, own in detection_loss(runs[0])] == [r["loss"] for r in runs[0].of_kind("train")]


def test_the_detection_loss_goes_on_where_terms_end_and_boxes_of_the_teacher_are_none_of_it(
    tmp_path, shapes, teacher_weights
):
    """PP-YOLOE's own distillation scales the whole loss by 1/8, while terms are on."""
    more = ["epoch=2", "distill.stop_epoch=1", f"unlabelled={shapes}/train"]
    boxes = "distill.pseudo_boxes={threshold: 0.01, stop_epoch: 2}"
    given = {"slim": "ppyoloe_ppyoloe.yml", "terms": [boxes], "more": more}
    folder, _ = train(tmp_path, shapes, teacher_weights["ppyoloe"], **given)
    (run,) = open_runs([folder])
    records = run.of_kind("train")
    assert any(terms_in(record, term_names(run)) for record in records[:3]) and "pseudo_boxes" in records[0]
    assert not any(terms_in(record, term_names(run)) for record in records[3:])
    for record, (_, own) in zip(records, detection_loss(run), strict=True):
        own_parts = record["loss_cls"] + 2.5 * record["loss_iou"] + 0.5 * record["loss_dfl"]
        assert own == pytest.approx(own_parts, rel=1e-4)


def test_the_curve_of_ap_begins_before_training(material):
    """With what the weights find that the run began with: here those that it ended with, as it happens."""
    for subject in (material.plain, material.best):
        known = copy.deepcopy(subject.run)
        known.recipe.student["pretrain_weights"] = subject.weights
        known.recipe.method and known.recipe.method.options.update(inherit=False)
        begun = copy.copy(subject)
        begun.run = known
        curves, unknown = _curves([begun], material)
        (points,) = curves.values()
        assert points[0] == (0, pytest.approx(100 * subject.stats["AP"], abs=1e-9)) and unknown == []
        assert [epoch for epoch, _ in points] == [0, 1]
        known.recipe.student["pretrain_weights"] = "gone.pdparams"
        curves, unknown = _curves([begun], material)
        assert [epoch for epoch, _ in curves[begun.name]] == [1] and "gone.pdparams" in unknown[0]


@pytest.mark.parametrize("low, high, chance", [(-0.01, 0.03, True), (0.01, 0.03, False), (-0.03, -0.01, False)])
def test_what_chance_may_have_done_is_said_beside_the_number(low, high, chance, material, monkeypatch):
    monkeypatch.setattr(summary, "_interval", lambda best, plain: Interval(low, high))
    sentence, facts, _ = outcome(material)
    assert ("not told from chance" in sentence) == ("not told from chance" in facts[-1][1]) == chance


@pytest.mark.parametrize(
    "ahead, gain, said",
    [(0.4, 0.1, True), (0.002, 0.1, False), (-0.1, 0.1, False), (0.4, -0.1, False), (0.4, 0, False)],
)
def test_the_way_to_a_teacher_is_reckoned_where_there_is_one(ahead, gain, said, material, monkeypatch):
    monkeypatch.setattr(summary, "_interval", lambda best, plain: Interval(-0.1, 0.1))
    changed = copy.copy(material)
    changed.subjects = [copy.copy(subject) for subject in (material.teacher, material.plain, material.best)]
    for subject, ap in zip(changed.subjects, (0.3 + ahead, 0.3, 0.3 + gain)):
        figures = subject.stats | {"AP": ap}
        subject.matches = Mock(stats=lambda figures=figures: figures)
    sentence, facts, _ = outcome(changed)
    assert ("of the way to the teacher's" in sentence) == said
    assert facts[-1][0] == f"{100 * gain:+.1f}"


@pytest.mark.parametrize("size, said", [(96, True), ([32, 64], True), (64, False)])
def test_a_teacher_that_is_judged_on_images_of_another_size_is_called_so(size, said, material):
    teacher, *others = (copy.copy(subject) for subject in material.subjects)
    teacher.config = {**teacher.config, "EvalReader": clone(teacher.run.recipe.student["EvalReader"])}
    resize = next(step for step in teacher.config["EvalReader"]["sample_transforms"] if "Resize" in step)["Resize"]
    resize |= {"target_size": size, "keep_ratio": False}
    changed = Material(material.runs, [teacher, *others], coco=material.coco)
    assert any("is that on images of" in remark for remark in outcome(changed)[2]) == said


def test_examples_are_those_that_differ_most(material):
    chosen = samples(material)
    assert len(chosen) == 6 and all(
        sample["detections"].keys() == {"teacher", "plain", "distilled"} for sample in chosen
    )


@pytest.mark.parametrize("said", [[96, 96], [32, 128]])
def test_a_teacher_whose_file_says_another_size_is_measured_on_the_students_images(material, said):
    teacher, *others = (copy.copy(subject) for subject in material.subjects)
    teacher.config = {**teacher.config, "eval_size": said}
    [table] = cost.section(Material(material.runs, [teacher, *others], coco=material.coco)).blocks
    rows = {row[0]: row for row in table.rows}
    assert len(rows) == 3 and float(rows[teacher.name][3]) > 0


def test_runs_that_are_not_alike_are_called_so(material):
    assert not any("Not like for like" in remark or "different seeds" in remark for remark in outcome(material)[2])
    other = copy.copy(material.plain)
    other.run = copy.deepcopy(other.run)
    other.run.recipe.student |= {"seed": 5, "epoch": 12}
    changed = Material(material.runs, [material.teacher, other, material.best], coco=material.coco)
    remarks = outcome(changed)[2]
    assert (
        "Not like for like: beside distillation the plain and the distilled run differ in epoch: 12 and 1." in remarks
    )
    assert "The two runs have different seeds: 5 and 3." in remarks


def test_of_several_students_the_best_are_named_and_that_they_were_chosen(material):
    better, keys = copy.copy(material.plain), list(material.plain.stats)
    better.name = "plain: other"
    better.matches = Mock(stats=lambda: dict.fromkeys(keys, 0.9), resampled=lambda draws: np.full(len(draws), 0.9))
    several = Material(material.runs, [material.teacher, material.plain, better, material.best], coco=material.coco)
    assert several.plain is better
    sentence, _, remarks = outcome(several)
    assert "the best of 2 plain students (other) 90.0" in sentence
    assert any("chosen by these same images" in remark for remark in remarks)
    two = Material(material.runs, [material.plain, material.best, material.best], coco=material.coco)
    sentence = outcome(two)[0]
    assert sentence.startswith("The best of 2 distilled students") and ", the plain student " in sentence


def test_the_command_writes_it_where_it_says(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(write, "_SECTIONS", [provenance])
    assert call("report", trained["plain"][0], "--images", 2, "--output", "there")[0] == 0
    assert (tmp_path / "there" / "report.html").is_file() and (tmp_path / "there" / "report.md").is_file()


def test_the_maps_of_fgd_and_cwd_are_drawn_for_every_level(html):
    captions = Page(html).text("figcaption")
    for wanted in (
        "mask of the objects",
        "attention, teacher",
        "attention, student before",
        "attention, student after",
    ):
        assert captions.count(wanted) == 2 * 3, "two images, three levels"
    titles = [title for title in Page(html).text("h3") if "channel" in title]
    assert len(titles) == 2 * 3 * 2 and captions.count("student after") == len(titles)

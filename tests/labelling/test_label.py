"""`ppkd label`: a teacher is measured, then labels photographs; what a killed run has done is kept."""

import json
import os
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import ppkd
from ppkd import cli, commands
from ppkd.bridge.annotation_file import read_annotations
from ppkd.bridge.datasets import open_dataset
from ppkd.bridge.made_labels import made_labels
from ppkd.bridge.workspace import scope
from ppkd.diagnosis.data import as_text, scan_data
from ppkd.errors import UserError
from ppkd.files.download import sha256
from ppkd.files.lock import held_alone
from ppkd.labelling import work
from ppkd.labelling.label import _Made
from ppkd.labelling.place import check_place, remove_unfinished
from ppkd.labelling.teacher import open_teacher
from ppkd.recipe.recipe import load_recipe
from ppkd.reporting.provenance import section
from ppkd.study.samples import match
from ppkd.study.thresholds import GIVEN, Threshold
from tests.conftest import CONFIGS
from tests.labelling.conftest import TEACHER
from tests.models.onnx_file import detector


@pytest.fixture(scope="module")
def labelled(sets, tmp_path_factory):
    """What labelling the photographs, one of them broken, has made."""
    photos, folder = tmp_path_factory.mktemp("photos") / "photos", tmp_path_factory.mktemp("out")
    shutil.copytree(sets / "photos", photos)
    (photos / "broken.jpg").write_bytes(b"\xff\xd8 no image")
    return ppkd.label(sets / "labelled", TEACHER, photos, folder / "labels.json", add_labelled=True), photos


def boxes(content, image_id):
    found = [a for a in content["annotations"] if a["image_id"] == image_id]
    corners = [[a["bbox"][0], a["bbox"][1], a["bbox"][0] + a["bbox"][2], a["bbox"][1] + a["bbox"][3]] for a in found]
    return [(*c, a["category_id"], a.get("score", 1.0)) for c, a in zip(corners, found)]


def test_the_labels_are_right_where_the_teacher_is(labelled, sets):
    made, photos = labelled
    content, truth = read_annotations(made.file, ()), read_annotations(str(sets / "truth.json"), ())
    ours = {os.path.basename(i["file_name"]): i["id"] for i in content["images"] if "train_" not in i["file_name"]}
    right = total = objects = 0
    for entry in truth["images"]:
        if entry["file_name"] in ours:
            theirs = [box[:5] for box in boxes(truth, entry["id"])]
            found = boxes(content, ours[entry["file_name"]])
            right += sum(match(theirs, found)[1])
            total, objects = total + len(found), objects + len(theirs)
    assert total > 10 and right / total > 0.7 and right / objects > 0.5
    assert made.ap > 0.3 and list(made.thresholds) == [c["name"] for c in content["categories"]]


def test_no_label_reaches_beyond_its_image(labelled):
    content = read_annotations(labelled[0].file, ())
    sizes = {entry["id"]: (entry["width"], entry["height"]) for entry in content["images"]}
    made = [(*a["bbox"], sizes[a["image_id"]]) for a in content["annotations"] if "score" in a]
    at_the_edge = 0
    for x, y, w, h, (width, height) in made:
        assert x >= 0 and y >= 0 and x + w <= width + 1e-6 and y + h <= height + 1e-6 and w > 0 and h > 0
        at_the_edge += x == 0 or y == 0 or x + w == width or y + h == height
    assert at_the_edge, "of these some did"
    assert work._inside([-8, 400, 20, 20], 300, 300) is None and work._inside([5, 6, 7, 8], 20, 20) == [5, 6, 7, 8]


def test_scores_thresholds_and_where_they_are_from_stand_in_the_file(labelled):
    made, _ = labelled
    content = read_annotations(made.file, ())
    names = {c["id"]: c["name"] for c in content["categories"]}
    scored = [a for a in content["annotations"] if "score" in a]
    assert len(scored) == made.counts["boxes"] > 0
    assert all(a["score"] >= made.thresholds[names[a["category_id"]]]["score"] for a in scored)
    told = content["info"]["ppkd_label"]
    assert told["teacher"]["sha256"] == sha256(TEACHER.partition("=")[2]) and told["sample"]["AP"] == made.ap
    assert told["thresholds"] == made.thresholds and told["images"] == made.counts
    assert str(made.counts["boxes"]) in made_labels(content)


def test_bad_images_are_left_out_and_counted(labelled):
    made, _ = labelled
    names = [entry["file_name"] for entry in read_annotations(made.file, ())["images"]]
    assert made.counts["bad"] == 1 and made.counts["listed"] == 11 and not [n for n in names if "broken" in n]
    assert made.counts["labelled"] + made.counts["empty"] + made.counts["bad"] == made.counts["listed"]


@pytest.mark.parametrize("name", ["a.png", "./a.png", "{}/a.png"])
def test_what_cannot_be_transformed_is_bad_however_it_is_named(name, tmp_path, monkeypatch):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")

    def fails(model, table, counter):
        counter.add([(os.path.join(tmp_path, "a.png"), "no room")], 1)
        return "bbox", []

    monkeypatch.setattr(work, "run_detector", fails)
    name = name.format(tmp_path)
    made = work._detect(None, SimpleNamespace(config={}, categories=[]), str(tmp_path), [name])
    assert made == {"images": [], "bad": {name: "no room"}}


def test_nothing_but_the_file_and_the_picture_is_left(labelled):
    made, _ = labelled
    assert sorted(os.listdir(os.path.dirname(made.file))) == ["labels.json", "labels.png"]
    with Image.open(made.picture) as picture:
        assert min(picture.size) > 200 and np.asarray(picture.convert("L")).std() > 10


def test_training_reads_it_with_the_labelled_images_and_says_what_it_is(labelled, sets, caplog):
    made, _ = labelled
    given = [f"dataset_dir={sets / 'labelled'}", *(f"{k}={v}" for k, v in made.training.items()), "val_images=images"]
    config = load_recipe(str(CONFIGS / "ppyoloe_tiny.yml"), None, given).student
    with caplog.at_level("INFO", "ppkd"), scope(config):
        dataset = open_dataset("TrainDataset", config)
    assert len(dataset.roidbs) == 8 + made.counts["labelled"]
    assert all(os.path.isfile(record["im_file"]) for record in dataset.roidbs)
    assert "found by a teacher" in caplog.text
    scans = scan_data(config)
    assert scans[0].counts["made-labels"] == 1 and "made-labels" in as_text(scans[:1])


def test_labels_that_were_made_are_no_truth_to_evaluate_on(labelled, sets):
    made, _ = labelled
    given = [f"dataset_dir={sets / 'labelled'}", "train_images=images", f"val_images={made.training['train_images']}",
             f"val_annotations={made.file}"]  # fmt: skip
    scans = scan_data(load_recipe(str(CONFIGS / "ppyoloe_tiny.yml"), None, given).student)
    assert scans[1].counts["made-validation-labels"] == 1 and not scans[0].counts["made-labels"]


def test_a_run_that_was_killed_goes_on_and_ends_the_same(labelled, sets, tmp_path, monkeypatch):
    made, photos = labelled
    monkeypatch.setattr(work, "PART", 4)
    detect, calls = work._detect, []

    def dies(model, teacher, folder, names):
        calls.append(names)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return detect(model, teacher, folder, names)

    given = (sets / "labelled", TEACHER, photos, tmp_path / "labels.json")
    monkeypatch.setattr(work, "_detect", dies)
    with pytest.raises(KeyboardInterrupt):
        ppkd.label(*given, add_labelled=True)
    assert not (tmp_path / "labels.json").exists() and (tmp_path / "labels.unfinished").is_dir()
    again = ppkd.label(*given, add_labelled=True)
    assert [len(names) for names in calls] == [4, 4, 4, 3] and calls[1] == calls[2]
    theirs, ours = read_annotations(made.file, ()), read_annotations(again.file, ())
    assert theirs == ours and not (tmp_path / "labels.unfinished").exists()


def test_the_command_takes_what_it_says(sets, tmp_path, monkeypatch):
    seen = []
    nothing = ppkd.api.Labels("", "", 0, {}, {}, {})
    monkeypatch.setattr("ppkd.labelling.label", lambda wishes: seen.append(wishes) or nothing)
    words = ["d", "--teacher", "t=w", "--images", "i", "--output", "o.json", "--least_ap", "35%", "--imgsz", "320"]
    commands.label(cli.label_parser().parse_args(words))
    assert seen[0].least_ap == 0.35 and seen[0].options == ("imgsz=320",) and seen[0].images == "i"


def test_options_name_the_files_of_a_folder_that_is_laid_out_otherwise(sets, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(sets / "labelled" / "images", data / "pictures")
    for split, name in (("train", "few.json"), ("val", "checked.json")):
        shutil.copy(sets / "labelled" / "annotations" / f"instances_{split}.json", data / name)
    files = ["train_annotations=few.json", "val_annotations=checked.json"]
    images = ["train_images=pictures", "val_images=pictures"]
    teacher = open_teacher(str(data), TEACHER, [*files, *images])
    assert (len(teacher.trained), len(teacher.validated)) == (8, 16)
    assert teacher.annotations == str(data / "few.json") and all("/pictures/" in path for path in teacher.trained)
    for some in (files[:1], images):
        with pytest.raises(UserError, match="-o train_annotations=FILE val_annotations=FILE names files"):
            open_teacher(str(data), TEACHER, some)
    with pytest.raises(UserError, match="images"):
        open_teacher(str(data), TEACHER, files)


def refused(sets, match, **more):
    given = {"data": sets / "labelled", "teacher": TEACHER, "images": sets / "photos", "output": "labels.json"}
    with pytest.raises(UserError, match=match):
        ppkd.label(**given | more)
    assert not os.path.exists("labels.json") and not os.path.exists("labels.png")


def test_what_is_wrong_is_one_line_and_nothing_is_written(sets, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "list.txt").write_text("../elsewhere.jpg\n")
    refused(sets, "no image in it", images=tmp_path / "empty")
    refused(sets, "no such folder or file", images=tmp_path / "nowhere")
    refused(sets, "lead out of", images=tmp_path / "list.txt")
    refused(sets, "give its weights", teacher="ppyoloe_plus_teacher_shapes")
    refused(sets, "ends in .json", output="labels.txt")
    solo = f"{CONFIGS / 'solov2_tiny.yml'}={TEACHER.partition('=')[2]}"
    refused(sets, "SOLOv2 finds masks without boxes", teacher=solo)
    refused(sets, "no class 'cat'", threshold={"cat": 0.5})
    refused(sets, "from 0 to 1", threshold=1.5)
    refused(sets, "instances_train.json", data=tmp_path / "empty")
    inside = tmp_path / "inside"
    inside.mkdir()
    shutil.copy(next((sets / "labelled" / "images").glob("val_*")), inside / "mine.jpg")
    refused(sets, "validation set, by their content", images=inside)
    shutil.rmtree(inside)
    shutil.copytree(sets / "labelled" / "images", inside, ignore=shutil.ignore_patterns("val_*"))
    refused(sets, "all 8 images are training images", images=inside)


def test_nothing_but_labels_of_before_is_written_over(labelled, sets, tmp_path):
    """Annotations that people have drawn are not, nor is a photograph that has the picture's name."""
    made, photos = labelled
    own, photo, notes = tmp_path / "own.json", tmp_path / "mine.png", tmp_path / "notes.json"
    shutil.copy(sets / "labelled" / "annotations" / "instances_train.json", own)
    Image.new("RGB", (8, 8)).save(photo)
    notes.write_text("to do")
    before = {path: path.read_bytes() for path in (own, photo, notes)}
    for output, named in ((own, own), (tmp_path / "mine.json", photo), (notes, notes)):
        with pytest.raises(UserError, match=f"{named} is there already and is not of ppkd label"):
            ppkd.label(sets / "labelled", TEACHER, photos, output)
    assert {path: path.read_bytes() for path in sorted(tmp_path.iterdir())} == before
    shutil.copy(made.picture, tmp_path / "again.png")  # of a run that was killed behind it
    check_place(str(tmp_path / "again.json"))
    shutil.copy(made.file, tmp_path / "again.json")
    (tmp_path / "again.png").write_bytes(b"")
    check_place(str(tmp_path / "again.json"))


def test_a_folder_of_somebody_is_not_taken_for_an_unfinished_run(sets, tmp_path):
    """It would be removed at the end, with all that is in it."""
    given = (sets / "labelled", TEACHER, sets / "photos")
    for name in ("folder", "deep", "link", "file"):
        (tmp_path / name).mkdir()
    (tmp_path / "folder" / "labels.unfinished").mkdir()
    (tmp_path / "folder" / "labels.unfinished" / "thesis.txt").write_text("mine")
    (tmp_path / "deep" / "labels.unfinished" / "detections").mkdir(parents=True)
    (tmp_path / "deep" / "labels.unfinished" / "detections" / "mine.txt").write_text("mine")
    (tmp_path / "link" / "labels.unfinished").symlink_to(tmp_path / "file")
    (tmp_path / "file" / "labels.unfinished").write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    for name, told in (("folder", "thesis.txt"), ("deep", "mine.txt"), ("link", "unfinished"), ("file", "unfinished")):
        with pytest.raises(UserError, match=f"{name}.*{told} is there already and is not of ppkd"):
            ppkd.label(*given, tmp_path / name / "labels.json", sample=4)
    assert sorted(tmp_path.rglob("*")) == before


def test_what_somebody_puts_into_a_runs_folder_meanwhile_stays(tmp_path):
    (tmp_path / "detections").mkdir()
    for name in ("part_1.json", ".part_1.json.ppkd-0a", ".ppkd.lock", "detections/a.json", "notes.txt"):
        (tmp_path / name).write_text("")
    remove_unfinished(str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("name", ["labels.json", "other.json"])
def test_labels_of_one_name_are_made_by_one_command_at_a_time(name, sets, tmp_path):
    with held_alone(tmp_path / "labels.unfinished"):
        if name == "labels.json":
            with pytest.raises(UserError, match="another run .* is writing .*another folder with --output"):
                ppkd.label(sets / "labelled", TEACHER, sets / "photos", tmp_path / name, sample=4)
        else:
            ppkd.label(sets / "labelled", TEACHER, sets / "photos", tmp_path / name, sample=4)
    assert (tmp_path / name).exists() == (name != "labels.json")


def test_a_teacher_below_the_gate_labels_nothing(sets, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused(sets, r"its AP on 4 labelled images is .*, below 99", sample=4, least_ap=0.99)


def test_the_stand_in_for_nothing_at_all_is_no_label():
    """Detectors of two stages have a box of score 0 in images without any."""
    images = [{"results": [{"category_id": 1, "score": score, "bbox": [0, 0, 1, 1]} for score in (0.0, 0.2)]}]
    teacher = SimpleNamespace(categories=[{"id": 1, "name": "disc"}])
    made = _Made(teacher, None, images, {"disc": Threshold(0.0, GIVEN, 1)})
    assert (made.boxes, made.labelled) == (1, 1)


def test_a_teacher_that_finds_nothing_in_the_photographs_is_told(sets, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "grey").mkdir()
    Image.new("RGB", (192, 192), (128, 128, 128)).save(tmp_path / "grey" / "a.png")
    refused(sets, "of 1 images none has a detection", images=tmp_path / "grey", sample=4, least_ap=0, threshold=0.999)


def test_a_teacher_of_other_classes_is_refused(sets, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    weights = tmp_path / "teacher.pdparams"
    shutil.copy(TEACHER.partition("=")[2], weights)
    names = [c["name"] for c in json.loads((sets / "truth.json").read_text())["categories"]]
    for other, told in (([names[1], names[0], *names[2:]], "another order"), ([*names[:-1], "cat"], "other classes")):
        (tmp_path / "teacher.names.yml").write_text(f"names: {json.dumps(other)}\n")
        refused(sets, told, teacher=f"ppyoloe_plus_teacher_shapes={weights}")


def test_the_report_says_which_runs_learned_from_made_labels(labelled, sets, tmp_path):
    made, _ = labelled
    (tmp_path / "recipe.yml").write_text("run: {}\n")

    def run(path):
        recipe = SimpleNamespace(student={"TrainDataset": {"dataset_dir": str(sets), "anno_path": path}})
        given = {"distilled": False, "steps": 1, "seed": 0, "versions": {}, "folder": tmp_path}
        return SimpleNamespace(label=path, recipe=recipe, **given)

    found = section(SimpleNamespace(runs=[run(made.file), run("truth.json"), run("gone.json")], subjects=[]))
    rows = next(block.rows for block in found.blocks if getattr(block, "caption", "").startswith("Training labels"))
    assert [row[0] for row in rows] == [made.file] and "found by a teacher" in rows[0][1]


def test_a_detector_given_as_onnx_labels_too(sets, tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime")
    monkeypatch.chdir(tmp_path)
    # The same on every image, in shares of it: what reaches the threshold is a label.
    boxes, scores, labels = [[0.25, 0.25, 0.5, 1.0], [0.0, 0.0, 0.5, 0.5]], [0.9, 0.3], [1, 0]
    (tmp_path / "x.onnx").write_bytes(detector(boxes, scores, labels, (1, 3, 64, 64)))
    keys = {"detections.layout": "split", "detections.unit": "fraction", "detections.names": ["Disc", "Square", "x"]}
    given = {"least_ap": 0.0, "threshold": "0.5"}
    made = ppkd.label(sets / "labelled", "x.onnx", sets / "photos", "labels.json", opt=keys, **given)
    content = json.loads((tmp_path / "labels.json").read_text())
    names = {each["id"]: each["name"] for each in content["categories"]}
    assert made.counts["labelled"] == made.counts["boxes"] == len(content["images"]) == 10
    sizes = {each["id"]: (each["width"], each["height"]) for each in content["images"]}
    for each in content["annotations"]:
        width, height = sizes[each["image_id"]]
        assert names[each["category_id"]] == "square" and each["score"] == pytest.approx(0.9, abs=1e-3)
        assert each["bbox"] == pytest.approx([0.25 * width, 0.25 * height, 0.25 * width, 0.75 * height], abs=0.05)
    told = content["info"]["ppkd_label"]["teacher"]
    assert told["weights"] == "x.onnx" and told["sha256"] == sha256(str(tmp_path / "x.onnx"))
    nameless = {"detections.layout": "split"}
    for opt, error in ({}, "how do detections lie in its outputs"), (nameless, "neither the file nor detections.names"):
        with pytest.raises(UserError, match=error):
            ppkd.label(sets / "labelled", "x.onnx", sets / "photos", "more.json", opt=opt, **given)
    with pytest.raises(UserError, match="detections.size"):
        ppkd.label(sets / "labelled", "x.onnx", sets / "photos", "more.json", opt=keys, imgsz=96, **given)

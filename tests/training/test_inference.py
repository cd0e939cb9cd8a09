"""Inference and evaluation with files that cannot be read: each costs only itself, and is told."""

import json
import os
import resource
import shutil

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from ppkd.bridge.bad_images import BadImages
from ppkd.bridge.images import decode, fault
from ppkd.bridge.workspace import scope
from ppkd.build import build_student
from ppkd.errors import UserError
from ppkd.files.write import alone
from ppkd.recipe.recipe import load_recipe
from ppkd.training import inference
from ppkd.training.evaluation import evaluate
from ppkd.training.inference import Detection, find_images, in_words, infer
from tests.bridge.test_coco import ap, opened
from tests.conftest import CONFIGS, enliven

STUDENT = str(CONFIGS / "retinanet_tiny.yml")


@pytest.fixture(scope="module")
def detector(shapes):
    return enliven(build_student(load_recipe(STUDENT, None, [f"dataset_dir={shapes}"])))


@pytest.fixture
def copied(shapes, tmp_path):
    """A copy of the data set, and the paths of its validation images."""
    folder = tmp_path / "copied"
    shutil.copytree(shapes, folder)
    return folder, sorted((folder / "val").iterdir())


def config_of(folder, *more):
    return load_recipe(STUDENT, None, [f"dataset_dir={folder}", "EvalReader.batch_size=2", *more]).student


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def evaluated(detector, config, out, **options):
    with scope(config) as table:
        return evaluate(detector, table, str(out), **options)


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("harm", [cut, lambda path: path.write_bytes(b""), lambda path: path.unlink()])
def test_evaluation_leaves_out_what_cannot_be_read(harm, workers, detector, copied, tmp_path, caplog):
    folder, images = copied
    for path in images[1:4]:  # of three batches one is smaller, and one is empty
        harm(path)
    config = config_of(folder, "max_bad_images=60%", f"worker_num={workers}")
    results = evaluated(detector, config, tmp_path / "out")
    found = json.loads((tmp_path / "out" / "bbox.json").read_text())
    truth = opened(folder / "annotations" / "instances_val.json", COCO)
    gone = {path.name for path in images[1:4]}
    seen = [number for number, image in truth.imgs.items() if image["file_name"] not in gone]
    assert len(seen) == 3 and {entry["image_id"] for entry in found} <= set(seen)
    assert list(results.values()) == pytest.approx(ap(truth, found, seen)[:6], abs=1e-6)


def test_too_many_end_an_evaluation_and_not_a_training(detector, copied, tmp_path):
    folder, images = copied
    cut(images[2])
    config = config_of(folder)
    with pytest.raises(UserError, match=rf"1 of 6 validation images .*: {images[2]}: truncated.*=17% would go on"):
        evaluated(detector, config, tmp_path / "out")
    bad = BadImages(config, "validation", ends=False)
    assert evaluated(detector, config, tmp_path / "out", bad=bad) and list(bad.found) == [str(images[2])]


def test_parameters_are_counted_where_that_is_asked_for(detector, shapes, tmp_path):
    config = config_of(shapes, "print_params=true")
    assert evaluated(detector, config, tmp_path / "out")


def test_a_set_of_which_nothing_can_be_read(detector, copied, tmp_path):
    folder, images = copied
    for path in images:
        cut(path)
    with pytest.raises(UserError, match="not one validation image can be read, the first: .*truncated"):
        evaluated(detector, config_of(folder, "max_bad_images=100%"), tmp_path / "out")


def detected(detector, config, images, out, **options):
    with scope(config) as table:
        return infer(detector, table, [str(path) for path in images], 0.0, str(out), save_results=True, **options)


def test_one_bad_file_costs_only_itself(detector, copied, tmp_path):
    folder, images = copied
    whole = detected(detector, config_of(folder), images, tmp_path / "whole")
    cut(images[0])
    images[3].write_text("no picture")
    bad = detected(detector, config_of(folder), images, tmp_path / "out")
    assert not whole and list(bad) == [str(images[0]), str(images[3])]
    assert bad[str(images[0])] == "truncated" and "not an image" in bad[str(images[3])]
    assert sorted(x.name for x in (tmp_path / "out").glob("*.jpg")) == [images[n].name for n in (1, 2, 4, 5)]
    before, after = (json.loads((tmp_path / x / "bbox.json").read_text()) for x in ("whole", "out"))
    assert after == [entry for entry in before if entry["image_id"] not in (0, 3)] and after


@pytest.mark.parametrize("scores, words", [
    ([("car", 0.92), ("man", 0.7), ("car", 0.55), ("car", 0.3)], "2 car (0.92, 0.55), 1 man (0.70)"),
    ([("car", 0.31)], "nothing from a score of 0.5 on; the best score is 0.31 (car)"),
    ([], "nothing from a score of 0.5 on"),
    ([("car", 0.0031)], "nothing from a score of 0.5 on; the best score is 0.003 (car)"),
    ([("car", 0.9)] * 6, "6 car (0.90, 0.90, 0.90, 0.90, ...)"),
])  # fmt: skip
def test_a_line_says_what_was_found(scores, words):
    assert in_words([Detection(name, 1, score, None) for name, score in scores], 0.5) == words


def test_results_have_names_and_what_is_told_is_what_is_written(detector, copied, tmp_path, capsys):
    folder, images = copied
    told = {}
    detected(detector, config_of(folder), images, tmp_path / "out", tell=told.__setitem__, visualize=False)
    assert "index" not in capsys.readouterr().out, "pycocotools' noise"
    entries = json.loads((tmp_path / "out" / "bbox.json").read_text())
    listed = json.loads((folder / "annotations/instances_val.json").read_text())["categories"]
    names = {category["id"]: category["name"] for category in listed}
    assert all(entry["category"] == names[entry["category_id"]] for entry in entries)
    for number, path in enumerate(images):
        own = [entry for entry in entries if entry["image_id"] == number]
        assert {entry["file_name"] for entry in own} == {path.name}
        found = told[str(path)]
        assert [d.score for d in found] == sorted((entry["score"] for entry in own), reverse=True)
        assert {d.name for d in found} == {entry["category"] for entry in own}
    assert not list((tmp_path / "out").glob("*.jpg"))


@pytest.mark.parametrize("save_results", [False, True])
def test_a_full_disk_ends_it_in_a_line_and_leaves_nothing_half_written(detector, copied, tmp_path, save_results):
    folder, images = copied
    large = images[0].with_name("z.png")  # behind the others; too large for what is left
    Image.fromarray(np.random.RandomState(0).randint(0, 255, (300, 300, 3), "uint8")).save(large)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, limits[1]))
    try:
        with scope(config_of(folder)) as table, pytest.raises(UserError, match=r"z\.png: cannot be written: ") as told:
            infer(detector, table, [str(images[0]), str(large)], 0.0, str(tmp_path / "out"), save_results)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "\n" not in str(told.value)
    (left,) = (tmp_path / "out").iterdir()
    assert left.name == images[0].name and Image.open(left).convert("RGB").size == (64, 64)


def test_what_is_drawn_on_is_what_was_detected_on(detector, shapes, tmp_path, monkeypatch):
    """A photograph on its side, 16 bits, and a film: none of them was seen as Pillow opens it."""
    image = Image.fromarray(np.random.RandomState(0).randint(0, 255, (40, 64, 3), "uint8"))
    exif = Image.Exif()
    exif[0x0112] = 6
    image.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "a.jpg", exif=exif)
    Image.fromarray((np.arange(40 * 64).reshape(40, 64) * 25).astype("uint16")).save(tmp_path / "b.png")
    image.save(tmp_path / "c.gif", save_all=True, append_images=[image.rotate(180)])
    images = find_images(None, str(tmp_path))
    drawn = []
    monkeypatch.setattr(inference, "_save", lambda picture, *_: drawn.append(np.asarray(picture)))
    with scope(config_of(shapes)) as table:
        assert not infer(detector, table, images, 2.0, str(tmp_path / "out"))  # no score is so high: nothing is drawn
    assert [x.shape for x in drawn] == [(40, 64, 3)] * 3
    assert all((pixels == decode(path)[:, :, ::-1]).all() for pixels, path in zip(drawn, images))


@pytest.mark.parametrize("target", ["loop.jpg", "nowhere.jpg", "x" * 300, "a.png/below.jpg", "/dev/null"])
def test_a_link_that_leads_to_no_file_costs_only_itself(target, detector, shapes, tmp_path):
    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    (tmp_path / "loop.jpg").symlink_to(target)
    images = find_images(None, str(tmp_path))
    assert images == [str(tmp_path / name) for name in ("a.png", "loop.jpg")]
    with scope(config_of(shapes)) as table:
        assert list(infer(detector, table, images, 0.5, str(tmp_path / "out"))) == images[1:]


@pytest.mark.parametrize("make, told", [
    (os.mkfifo, "is a named pipe (FIFO), not a file"), (lambda path: path.symlink_to("loop.jpg"), "missing"),
    (lambda path: path.symlink_to("/dev/zero"), "is a device, not a file"),
])  # fmt: skip
def test_an_image_that_is_none_is_told_what_it_is(make, told, tmp_path):
    make(tmp_path / "loop.jpg")
    (path,) = find_images(str(tmp_path / "loop.jpg"), None)
    assert told in fault(path)
    with pytest.raises(UserError, match="is a folder; --infer_dir takes it"):
        find_images([path, str(tmp_path)], None)


def test_what_a_folder_holds_beside_images_is_told(tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(inference.logger(), "warning", lambda text, *values: told.append(text % values))
    for name in ("a.JPG", "b.webp", "c.heic", "d.pdf", ".hidden.jpg"):
        (tmp_path / name).touch()
    (tmp_path / "more").mkdir()
    assert [path[-6:] for path in find_images(None, str(tmp_path))] == ["/a.JPG", "b.webp"]
    assert [text.split(": ", 1)[1] for text in told] == [
        "folders in it are not looked into: more",
        "left out, for their endings are no image's: c.heic, d.pdf",
    ]
    with pytest.raises(UserError, match=r"no image in it \(.*\); more below it are not looked into"):
        shutil.rmtree(tmp_path / "more")
        (tmp_path / "only" / "more").mkdir(parents=True)
        find_images(None, str(tmp_path / "only"))


@pytest.mark.parametrize("saved", [False, True])
def test_pictures_of_two_commands_do_not_mix_in_a_folder(saved, detector, copied, tmp_path):
    folder, images = copied
    (tmp_path / "out").mkdir()
    refused = pytest.raises(UserError, match="out: wait until it has ended")
    with scope(config_of(folder)) as table, alone(str(tmp_path / "out")), refused:
        infer(detector, table, [str(images[0])], 0.0, str(tmp_path / "out"), saved)
    assert list((tmp_path / "out").iterdir()) == []

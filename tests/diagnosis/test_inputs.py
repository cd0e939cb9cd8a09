"""Images that are normalised otherwise than somebody thinks."""

import numpy as np
import paddle
import pytest

from ppkd.bridge.normalisation import Normalisation
from ppkd.diagnosis.findings import ERROR, NOTE, WARNING, Findings
from ppkd.diagnosis.inputs import check_batch, check_readers
from tests.diagnosis.conftest import IMAGENET, grave, the_finding


def test_readers_that_normalise_differently(built):
    evaluated = f"EvalReader.sample_transforms={IMAGENET.replace('[{', '[{Decode: {}}, {')}"
    subject, findings = built(evaluated)
    check_readers(subject, findings)
    found = the_finding(findings, "train-eval-normalisation")
    assert "trains on images with pixels divided by 255 and is evaluated on images with ImageNet's" in found.text


def test_what_the_wrapper_translates_is_only_noted(built):
    reader = f"teacher.TrainReader.batch_transforms={IMAGENET}"
    readers = [reader, *(f"teacher.{name}.sample_transforms={IMAGENET}" for name in ("EvalReader", "TestReader"))]
    subject, findings = built(*readers)
    told = check_readers(subject, findings)
    assert not grave(findings) and "teacher-input-translated" in findings.ids(NOTE)
    assert told["teachers"] == {"teacher": "ImageNet's mean and deviation"}


def test_a_teacher_whose_own_readers_differ(built):
    subject, findings = built(f"teacher.EvalReader.sample_transforms={IMAGENET}")
    check_readers(subject, findings)
    assert the_finding(findings, "train-eval-normalisation").level == WARNING


def test_a_teacher_without_any_reader(built):
    subject, findings = built()
    for name in ("TrainReader", "EvalReader", "TestReader"):
        del subject.teachers[0].spec.config[name]
    check_readers(subject, findings)
    assert the_finding(findings, "normalisation-unknown").level == WARNING


def test_images_that_are_normalised_twice(stepped):
    steps = "[{BatchRandomResize: {target_size: 96, random_size: false, random_interp: false, keep_ratio: false}}, "
    once = "{NormalizeImage: {mean: [0.0, 0.0, 0.0], std: [1.0, 1.0, 1.0], norm_type: none}}"
    findings, _ = stepped(f"TrainReader.batch_transforms={steps}{once}, {once}, {{Permute: {{}}}}, {{PadGT: {{}}}}]")
    texts = [item.text for item in findings.items if item.id == "input-range"]
    assert [text.split(" gets")[0] for text in texts] == ["the student", "the teacher"]


def test_colours_that_augmentation_has_changed_are_no_finding():
    """ppdet's RandomDistort multiplies brightness, contrast and saturation, and clips nothing."""
    findings, plain = Findings(), Normalisation(1.0, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    pixels = paddle.to_tensor(np.random.RandomState(0).rand(2, 3, 8, 8).astype("float32")) * 255
    for low, high in ((-120.0, 700.0), (0.0, 255.0)):
        check_batch("it", low + pixels / 255 * (high - low), plain, findings)
    assert findings.ids(ERROR) == []


@pytest.mark.parametrize("scale, expected", [(1.0, []), (1 / 255, ["input-range"]), (255.0, ["input-range"])])
def test_values_out_of_range(scale, expected):
    norm = Normalisation(1 / 255, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    pixels = paddle.to_tensor(np.random.RandomState(0).rand(2, 3, 8, 8).astype("float32"))
    findings = Findings()
    check_batch("it", (pixels - 0.45) / 0.225 * scale, norm, findings)
    assert findings.ids(ERROR) == expected

"""Boxes of teachers of all kinds: how many classes they tell, what they ask for, images in which they find nothing."""

from types import SimpleNamespace

import cv2
import numpy as np
import paddle
import pytest

from ppkd.bridge.ground_truth import FRAME
from ppkd.build import build_student
from ppkd.engine.pseudo_boxes import _detected
from ppkd.errors import UserError
from ppkd.recipe.recipe import load_recipe
from ppkd.training.trainer import Trainer
from tests.conftest import CONFIGS
from tests.helpers_training import FOUR, QUICK


@pytest.fixture
def photos(tmp_path):
    """Four images of noise, and four in which there is nothing at all."""
    (tmp_path / "photos").mkdir()
    draw = np.random.default_rng(0)
    for number in range(8):
        pixels = draw.integers(0, 255, (64, 64, 3)) * (number % 2)
        cv2.imwrite(str(tmp_path / "photos" / f"{number}.png"), pixels.astype("uint8"))
    return tmp_path / "photos"


@pytest.fixture
def opened(shapes, photos, tmp_path):
    """Function that opens a run of two families in which nothing but the teacher's boxes teaches."""

    def open_run(student, teacher):
        weights = tmp_path / "weights.pdparams"
        paddle.seed(7)
        wide = load_recipe(str(CONFIGS / f"{teacher}_wide.yml"), overrides=[f"dataset_dir={shapes}"])
        paddle.save(build_student(wide, load=False).state_dict(), str(weights))
        slim = tmp_path / "slim.yml"
        boxes = "distill: {terms: {}, pseudo_boxes: {threshold: 0.0}}"
        slim.write_text(f"_BASE_: [{CONFIGS}/{teacher}_wide.yml]\nslim: Distill\n{boxes}\n")
        given = [FOUR, f"dataset_dir={shapes}", f"save_dir={tmp_path / 'run'}", f"unlabelled={photos}",
                 f"teacher.pretrain_weights={weights}"]  # fmt: skip
        return Trainer.open(load_recipe(str(CONFIGS / f"{student}_tiny.yml"), str(slim), given))

    return open_run


@pytest.mark.parametrize("teacher", ["detr", "centernet", "ssd", "ttfnet", "sparse_rcnn", "mask_rcnn"])
def test_a_teacher_of_the_same_classes_is_taken_whatever_its_layers_count(teacher, opened):
    with opened(QUICK, teacher) as trainer:
        losses = trainer.distill({**next(trainer._batches(0, 0)), "epoch_id": 0})
        assert trainer.distill.boxes.least.shape == [6] and np.isfinite(float(losses["pseudo_boxes"]))


def test_sizes_by_the_names_of_learned_boxes_are_of_the_frame_width_first():
    """Sparse R-CNN's readers tell them so, of the image without its padding; a teacher may see it larger."""

    class Seen(paddle.nn.Layer):
        def forward(self, inputs):
            self.inputs = inputs
            return {"bbox": paddle.zeros([2, 6]), "bbox_num": paddle.to_tensor([1, 1])}

    detector = SimpleNamespace(model=Seen())
    batch = {"image": paddle.zeros([2, 3, 96, 128]), FRAME: paddle.to_tensor([[60, 100], [96, 90]])}

    def double(seen):
        return {**seen, "image": paddle.zeros([2, 3, 192, 256])}

    for prepare, times in ((None, 1), (double, 2)):
        assert len(_detected(detector, batch, prepare)) == 2
        told = {key: detector.model.inputs[key].numpy() for key in ("img_whwh", "ori_shape", "scale_factor_whwh")}
        assert (told["img_whwh"] == np.array([[100, 60, 100, 60], [90, 96, 90, 96]]) * times).all()
        assert (told["ori_shape"] == np.array([[60, 100], [96, 90]]) * times).all()
        assert (told["scale_factor_whwh"] == 1).all()


def test_masks_of_a_teacher_do_not_stand_in_the_way_of_an_image_without_boxes(opened, monkeypatch):
    """ppdet's mask head raises, or gives an image those of another, where one of several images has no box."""
    with opened(QUICK, "mask_rcnn") as trainer:
        teacher = trainer.distill.teachers["teacher"]
        sizes, forward = [], type(teacher)._forward
        monkeypatch.setattr(
            type(teacher), "_forward", lambda self: sizes.append(len(self.inputs["image"])) or forward(self)
        )
        teacher.bbox_post_process.nms.score_threshold = 0.99
        losses = trainer.distill({**next(trainer._batches(0, 0)), "epoch_id": 0})
        assert np.isfinite(float(losses["pseudo_boxes"])) and sizes == [1] * 4
        assert trainer.distill.boxes.counted.tolist() == [4, 0, 0]


@pytest.mark.parametrize(
    ("student", "teacher", "told"),
    [
        ("mask_rcnn", "mask_rcnn", "MaskRCNN learns masks, which a teacher's boxes do not have"),
        (QUICK, "solov2", "SOLOv2 .teacher. detects nothing: it has no boxes"),
    ],
)
def test_masks_are_refused_where_boxes_are_wanted(student, teacher, told, opened):
    with pytest.raises(UserError, match=told), opened(student, teacher):
        pass

"""What RTMDet's training images go through and ppdet has no transform for (arXiv 2212.07784, section 3.4).

MMYOLO's numbers: a mosaic of four images on a canvas of twice the size, a random part of it at a random scale, and a
mixture of two such images. MMYOLO draws the other images from caches of the last ones; here a sample depends on seed,
epoch and index alone, so a mosaic's other three come from the whole data set, and a mixture's second from the batch.
"""

import random

import cv2
import numpy as np
from ppdet.data import transform
from ppdet.data.transform.operators import BaseOperator, Mosaic, register_op

FILL = 114
# What a sample has of each box, beside the box.
_OF_BOXES = ("gt_class", "is_crowd", "difficult", "gt_score")


def register():
    """ppdet looks transforms up in its package by name; nothing but importing this module is needed otherwise."""
    for kind in (MosaicCanvas, RandomRatioResize, RandomWindow, BatchMixup):
        setattr(transform, kind.__name__, kind)


@register_op
class MosaicCanvas(Mosaic):
    """Four images, each scaled to fit `size`, around a random point of a canvas of twice that size.

    The reader's ``mosaic_epoch`` says until when ppdet's data sets hand out lists of samples; a single one is left as
    it is.

    Args:
        size: height and width, in pixels.
    """

    def __init__(self, size=(640, 640)):
        super().__init__(input_dim=list(size), enable_mixup=False)

    def __call__(self, sample, context=None):
        if not isinstance(sample, (list, tuple)):
            return sample
        height, width = self.input_dim
        centre = [int(random.uniform(0.5 * side, 1.5 * side)) for side in (width, height)]
        canvas = np.full((2 * height, 2 * width, 3), FILL, "uint8")
        parts = []
        for place, one in enumerate(sample[:4]):
            one = _scaled(one, min(height / one["image"].shape[0], width / one["image"].shape[1]))
            h, w = one["image"].shape[:2]
            (x1, y1, x2, y2), (left, top, right, bottom) = self.get_mosaic_coords(place, *centre, w, h, height, width)
            canvas[y1:y2, x1:x2] = one["image"][top:bottom, left:right]
            one["gt_bbox"] = one["gt_bbox"] + np.array([x1 - left, y1 - top] * 2, "float32")
            parts.append(one)
        merged = {**sample[0], "image": canvas, **_joined(parts)}
        return _within(merged, 2 * width, 2 * height)


@register_op
class RandomRatioResize(BaseOperator):
    """Scale an image so that it fits a frame that is a random factor times as large as the given one.

    Args:
        size: height and width of the frame, in pixels.
        ratio: least and greatest factor.
    """

    def __init__(self, size=(1280, 1280), ratio=(0.5, 2.0)):
        super().__init__()
        self.size, self.ratio = list(size), list(ratio)

    def apply(self, sample, context=None):
        factor = random.uniform(*self.ratio)
        height, width = sample["image"].shape[:2]
        return _scaled(sample, min(self.size[0] * factor / height, self.size[1] * factor / width))


@register_op
class RandomWindow(BaseOperator):
    """A random part of an image, no larger than `size`; boxes are cut to it, and those outside of it dropped.

    Args:
        size: height and width, in pixels.
        attempts: how often a part is drawn until it has a box. If none has, the last one goes on without.
    """

    def __init__(self, size=(640, 640), attempts=10):
        super().__init__()
        self.size, self.attempts = list(size), attempts

    def apply(self, sample, context=None):
        height, width = sample["image"].shape[:2]
        h, w = min(height, self.size[0]), min(width, self.size[1])
        for _ in range(self.attempts):
            y, x = random.randint(0, height - h), random.randint(0, width - w)
            boxes = sample["gt_bbox"] - np.array([x, y, x, y], "float32")
            part = _within({**sample, "gt_bbox": boxes}, w, h)
            if len(part["gt_bbox"]):
                break
        part["image"] = np.ascontiguousarray(sample["image"][y : y + h, x : x + w])
        return _sized(part)


@register_op
class BatchMixup(BaseOperator):
    """Mix each image of a batch with another one of it, as it was before; the boxes of both stay.

    A batch transform, before boxes are padded; all images have to be of one size.

    Args:
        alpha: both parameters of the beta distribution that the share of an image is drawn from.
        prob: how often an image is mixed.
    """

    def __init__(self, alpha=32.0, prob=1.0):
        super().__init__()
        self.alpha, self.prob = alpha, prob

    def __call__(self, samples, context=None):
        if len(samples) < 2:
            return samples
        mixed = []
        for i, one in enumerate(samples):
            if np.random.uniform() >= self.prob:
                mixed.append(one)
                continue
            other = samples[(i + np.random.randint(1, len(samples))) % len(samples)]
            share = np.random.beta(self.alpha, self.alpha)
            image = one["image"].astype("float32") * share + other["image"].astype("float32") * (1 - share)
            mixed.append({**one, "image": image, **_joined([one, other])})
        return mixed


def _scaled(sample, factor):
    """A copy of the sample with image and boxes `factor` times as large."""
    height, width = sample["image"].shape[:2]
    size = max(int(width * factor + 0.5), 1), max(int(height * factor + 0.5), 1)
    image = cv2.resize(sample["image"], size, interpolation=cv2.INTER_LINEAR)
    ratios = np.array([size[0] / width, size[1] / height] * 2, "float32")
    return _sized({**sample, "image": image, "gt_bbox": sample["gt_bbox"] * ratios})


def _sized(sample):
    """The sample with what ppdet says about the size of its image."""
    height, width = sample["image"].shape[:2]
    return {**sample, "h": height, "w": width, "im_shape": np.array([height, width], "float32")}


def _within(sample, width, height):
    """The sample with its boxes cut to an image of this size, without those of which nothing is left."""
    boxes = sample["gt_bbox"].copy()
    boxes[:, 0::2] = boxes[:, 0::2].clip(0, width)
    boxes[:, 1::2] = boxes[:, 1::2].clip(0, height)
    kept = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    return {**sample, "gt_bbox": boxes[kept], **{key: sample[key][kept] for key in _OF_BOXES if key in sample}}


def _joined(samples):
    """The boxes of several samples, and what belongs to each."""
    keys = [key for key in ("gt_bbox", *_OF_BOXES) if all(key in sample for sample in samples)]
    return {key: np.concatenate([sample[key] for sample in samples]) for key in keys}

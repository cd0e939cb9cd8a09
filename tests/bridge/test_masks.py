"""Run lengths are checked before pycocotools gets them, and become outlines of the same pixels for training."""

import json
import random

import numpy as np
import pytest
from pycocotools import mask as coco_masks

from ppkd.bridge.masks import is_sound, outlines, unpacked
from ppkd.bridge.workspace import import_ppdet


def blobs(seed, height=37, width=53):
    """A mask without holes: a few rectangles, some of them one pixel wide."""
    draw, mask = random.Random(seed), np.zeros((height, width), "uint8")
    y = 0
    while y < height - 6:  # a column of them, which touch by sides and corners or not at all
        tall, x = draw.randint(1, 5), draw.randint(0, width - 2)
        mask[y : y + tall, x : x + draw.randint(1, width - x)] = 1
        y += tall + draw.choice([0, 0, 2])
    return mask


def packed(mask):
    runs = coco_masks.encode(np.asfortranarray(mask))
    return {"size": runs["size"], "counts": runs["counts"].decode()}


def listed(mask):
    flat = mask.flatten(order="F")
    ends = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff([0, *ends, flat.size]).tolist()
    return {"size": list(mask.shape), "counts": counts if not flat[0] else [0, *counts]}


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize("write", [packed, listed])
def test_outlines_are_of_the_same_pixels(write, seed):
    mask = blobs(seed)
    runs = json.loads(json.dumps(write(mask)))
    assert is_sound(runs, *mask.shape)
    parts = coco_masks.frPyObjects(outlines(runs), *mask.shape)
    assert (coco_masks.decode(coco_masks.merge(parts)) == mask).all()


def test_the_ends_of_an_image():
    mask = np.ones((5, 7), "uint8")
    assert sorted(zip(*[iter(outlines(listed(mask))[0])] * 2)) == [(0, 0), (0, 5), (7, 0), (7, 5)]
    assert outlines(listed(mask * 0)) == []


@pytest.mark.parametrize("seed", range(5))
def test_packed_run_lengths_are_those_of_pycocotools(seed):
    mask = np.random.RandomState(seed).rand(300, 200) > (0.5, 0.999, 0.001, 0.1, 0.9)[seed]
    assert unpacked(packed(mask.astype("uint8"))["counts"]) == listed(mask)["counts"]


GOOD = packed(blobs(0))["counts"]
BAD = {
    "too long": GOOD + "1", "cut off": GOOD[:-1], "nothing": "", "other signs": "zzz~~~", "blanks": GOOD + " ",
    "endless": "o" * 500, "far beyond": "ooooooooo0", "number": 5, "negative": [-1, 37 * 53 + 1], "floats": [37.0 * 53]
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_run_lengths_that_are_none(case):
    assert not is_sound({"size": [37, 53], "counts": BAD[case]}, 37, 53)
    assert is_sound({"size": [37, 53], "counts": GOOD}, 37, 53)
    assert not is_sound({"size": [53, 37], "counts": GOOD}, 37, 53)


def test_ppdet_draws_targets_from_polygons_alone():
    """Once this fails, run lengths need not become outlines."""
    import_ppdet()
    from ppdet.modeling.proposal_generator.target import rasterize_polygons_within_box

    runs, box = packed(blobs(1)), np.array([0, 0, 53, 37], "float32")
    drawn = rasterize_polygons_within_box([np.array(part) for part in outlines(runs)], box, 28)
    assert 0.1 < float(np.mean(np.asarray(drawn))) < 1
    with pytest.raises((TypeError, ValueError, AttributeError, KeyError)):
        rasterize_polygons_within_box(runs, box, 28)

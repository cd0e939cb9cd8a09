"""Two views of an image: as the reader makes it, and with other colours, blur or holes, in the same place and size."""

import copy

import numpy as np

from ppkd.bridge.ground_truth import CONSUMERS
from ppkd.bridge.random_state import random_state_kept
from ppkd.errors import UserError, nearest

# Key of the second view in a batch.
STRONG = "ppkd_strong"
# Of ppdet's transforms those that need no boxes and move nothing.
NAMES = ("RandomColorJitter", "RandomGaussianBlur", "RandomGrayscale", "RandomDistort", "RandomErasing",
         "RandomErasingCrop")  # fmt: skip
# As PaddleDetection's semi-supervised readers have it.
DEFAULT = (
    {"RandomColorJitter": {"prob": 0.8, "brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1}},
    {"RandomGaussianBlur": {"prob": 0.5, "sigma": [0.1, 2.0]}},
    {"RandomGrayscale": {"prob": 0.2}},
)
_WHERE = "UnlabelledReader.strong"
# From here on pixels are no colours from 0 to 255 any more.
_BEHIND = ("NormalizeImage", "Permute")


def add_strong_view(reader, transforms):
    """Let every batch of a reader have a second view of its images, under `STRONG`.

    Flips, crops and sizes of both are the same; what the first one draws is what it would draw alone.

    Args:
        reader: ppdet's; changed in place.
        transforms: list of mappings from a name in `NAMES` to its parameters.

    Raises:
        UserError: another transform, or parameters that it does not have.
    """
    from ppdet.data.reader import Compose

    _check(transforms)
    try:
        strong = Compose([{name: dict(given or {})} for each in transforms for name, given in each.items()])
    except Exception as error:
        raise UserError(f"{_WHERE}: {type(error).__name__}: {error}") from None
    steps = reader._sample_transforms.transforms_cls
    place = next((i for i, step in enumerate(steps) if type(step).__name__ in _BEHIND), len(steps))
    steps.insert(place, _Sample(strong, tuple(steps[place:])))
    steps = reader._batch_transforms.transforms_cls
    steps.insert(0, _Batch([step for step in steps if not _of_boxes(type(step).__name__)]))


def _check(transforms):
    fine = isinstance(transforms, (list, tuple)) and all(isinstance(each, dict) for each in transforms)
    if not fine or not all(isinstance(given, dict | None) for each in transforms for given in each.values()):
        raise UserError(f"{_WHERE} has to be a list such as [{{RandomGrayscale: {{prob: 0.2}}}}], found {transforms!r}")
    for name in (name for each in transforms for name in each):
        if name not in NAMES:
            raise UserError(
                f"{_WHERE}: {name} is none of the transforms that leave everything in its place"
                f"{nearest(str(name), NAMES)}; these are {', '.join(NAMES)}"
            )


def _of_boxes(name):
    return name in CONSUMERS or name.startswith("Gt2")


class _Sample:
    """The step of a sample; those behind it draw for both views the same."""

    def __init__(self, strong, rest):
        self._strong, self._rest = strong, rest

    def __call__(self, sample):
        image = sample["image"]
        with random_state_kept(of_paddle=False):
            other = {"image": np.clip(image, 0, 255).astype("uint8")}
            other = np.clip(self._strong(other)["image"], 0, 255).astype(image.dtype)
        with random_state_kept(of_paddle=False):
            made = _copy(sample, other)
            for step in self._rest:
                made = step(made)
        sample[STRONG] = made["image"]
        return sample


class _Batch:
    """The step of a batch: the second views through all that the reader does to images."""

    def __init__(self, steps):
        self._steps = steps

    def __call__(self, samples):
        made = [_copy(sample, sample.pop(STRONG)) for sample in samples]
        with random_state_kept(of_paddle=False):
            for step in self._steps:
                made = step(made)
        for sample, other in zip(samples, made):
            sample[STRONG] = other["image"]
        return samples


def _copy(sample, image):
    """A sample with another image; steps write into boxes."""
    return {**copy.deepcopy({key: value for key, value in sample.items() if key != "image"}), "image": image}

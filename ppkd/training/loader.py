"""Feeds ppdet's readers so that a batch depends on seed, epoch and index only."""

import contextlib
import itertools
import os
import threading
from functools import partial

import numpy as np
from paddle import distributed as dist
from paddle.io import DataLoader, Dataset, DistributedBatchSampler
from paddle.io.dataloader.dataloader_iter import _DataLoaderIterSingleProcess

from ppkd.bridge.bad_images import BAD, STAND_IN, BadImages, Checked, marked, told
from ppkd.bridge.datasets import files_of
from ppkd.bridge.ground_truth import keep_ground_truth
from ppkd.bridge.images import BadImage
from ppkd.bridge.random_state import random_state_kept
from ppkd.engine.bank import VIEW, view_of
from ppkd.errors import UserError
from ppkd.files.records import digest_of
from ppkd.terminal.log import logger
from ppkd.training.seeds import number_of, sample_seed, seed_augmentation

_SEED_KEY = "ppkd_seed"
_MIXING = ("Mixup", "Cutmix", "Mosaic")
_SHARED_MEMORY = "/dev/shm"


class TrainLoader:
    """Epochs of training batches from a ppdet reader and data set.

    ppdet's own loader draws augmentations from one global stream, so a batch depends on everything drawn before it
    and on the number of workers. Here every sample has a seed of its own: the same batch comes out whatever the
    workers do, and a run can start in any epoch.

    An image that cannot be read is left out of its batch, which is smaller by it: neither the order of the others nor
    the number of batches depends on it, on any rank. A batch of which nothing is left comes as an empty dict; or, with
    several ranks, which wait for each other in every step, as one image in its place, marked with `STAND_IN` so that it
    counts nothing.

    Args:
        reader: ppdet's TrainReader (transforms, batch size, shuffling).
        dataset: a parsed ppdet data set.
        workers: loading processes; 0 loads in the training process.
        seed: seed of the run.
        bad: `bad_images.BadImages` of the run, which counts those that are left out.
        what: the data set in messages.
        reads: the reader's key, for messages.

    Attributes:
        files: paths of the images.
        views: how many views of each image there are, or None for one an epoch. Epoch E then has the batches of view
            ``E % views``, and an order of its own; each bears its `bank.VIEW`.
        images: how many there are.
        pixels: of a batch's images on the mean, where the reader draws their size; else None.
        stage: number of the reader within a run, by which views of two are told apart.

    Raises:
        UserError: fewer images than one batch has; too many of them missing. The same from `epoch` for unreadable ones.
    """

    def __init__(self, reader, dataset, workers, seed, bad=None, what="the training set", reads="TrainReader"):
        keep_ground_truth(reader._batch_transforms, reader._sample_transforms)
        dataset.set_transform(Checked(reader._sample_transforms))
        dataset.set_kwargs(**reader.kwargs)
        self._dataset, self._bad, self.files = dataset, bad or BadImages(), files_of(dataset)
        self.views, self.stage, self.pixels = None, 0, _mean_pixels(reader._batch_transforms.transforms_cls)
        missing = getattr(dataset, "missing_images", [])
        self.images = len(dataset.roidbs)
        self._images = self.images + len(missing)
        self._bad.add([(file, "missing") for file in missing], self._images)
        self._seeded = _Seeded(dataset, seed, reads)
        self._sampler = Order(
            self._seeded, seed, batch_size=reader.batch_size, shuffle=reader.shuffle, drop_last=reader.drop_last
        )
        if len(self._sampler) < 1:
            raise UserError(
                f"{what} has {len(dataset)} images, fewer than one batch of {reader.batch_size}; set a smaller "
                + ("TrainReader.batch_size" if what == "the training set" else f"{what}.ratio")
            )
        self._loader = DataLoader(
            dataset=self._seeded,
            batch_sampler=self._sampler,
            collate_fn=_SeededCollate(reader._batch_transforms, self._seeded, reads),
            num_workers=workers,
            return_list=False,
            use_shared_memory=bool(reader.use_shared_memory) and workers > 0 and _shared_memory_is_enough(),
        )

    def __len__(self):
        return len(self._sampler)

    def mixes(self, number):
        """Names of the transforms that put several images into one in epoch `number`: these have no views."""
        last = {name: getattr(self._dataset, f"{name.lower()}_epoch", -1) for name in _MIXING}
        return [name for name, end in last.items() if end == 0 or number < end]

    def names(self, number):
        """The names of the views in epoch `number`, one a batch, in their order; between epochs, and with `views`.

        None stands for a batch of images that are all known to be bad: there is nothing to see in it.
        """
        self._sampler.go_to(number, views=self.views)
        seeds = partial(sample_seed, self._seeded.seed, number % self.views)
        bad = {index for index, file in enumerate(self.files) if file in self._bad.found}
        return [None if bad.issuperset(batch) else _name(self.stage, map(seeds, batch)) for batch in self._sampler]

    def epoch(self, number, begin=0, only=None):
        """Iterate over the batches of epoch `number` (from 0), from batch `begin` on; those before are not read.

        Args:
            number, begin: see above.
            only: numbers of the batches that are wanted, or None for all.
        """
        views = None if self.views is None or self.mixes(number) else self.views
        self._dataset.set_epoch(number)
        self._seeded.epoch, self._seeded.stage = (number, None) if views is None else (number % views, self.stage)
        self._sampler.go_to(number, begin, views, only)
        batches = iter(self._loader)
        try:
            for batch in batches:
                self._count_bad(batch)
                yield batch
        except SystemError as error:
            if "Blocking queue is killed" not in str(error):
                raise
            # The worker process has printed what it met; only that it ended reaches this one.
            raise UserError(
                "a loading process failed: a training batch cannot be made. Its message stands above; with "
                "-o worker_num=0 the message names the images"
            ) from error
        finally:
            _end(batches)

    def _count_bad(self, batch):
        if bad := told(batch):
            self._bad.add(bad, self._images)


def _mean_pixels(transforms):
    sizes = next((step.target_size for step in transforms if getattr(step, "random_size", False)), None)
    if not isinstance(sizes, (list, tuple)) or not sizes:
        return None
    return float(np.mean([np.prod(size) if np.ndim(size) else size * size for size in sizes]))


def _shared_memory_is_enough():
    """Whether batches can go through shared memory: as with ppdet, where one GB or more of it is free.

    A container has 64 MB of it if nothing is said, and a process that runs out of it is ended by a bus error.
    """
    try:
        room = os.statvfs(_SHARED_MEMORY)
    except OSError:  # another system's, which has no such place
        return True
    if room.f_bavail * room.f_frsize >= 2**30:
        return True
    logger().warning("less than 1 GB of shared memory is free (%s): batches come without it, slower", _SHARED_MEMORY)
    return False


# How many processes may be lost while they are ended.
_LOST_AT_MOST = 100


def _end(batches):
    """End loading where an epoch is left before its end: Paddle's thread would wait, with its batches, for ever."""
    if getattr(batches, "_thread_done_event", None) is None or batches._blocking_queue is None:
        return
    # Not by Paddle's own way: with a single process it sleeps for a second where a moment is enough, with several it
    # ends them first, and the thread then waits for the rest of what one of them was writing.
    batches._thread_done_event.set()
    batches._blocking_queue.close()
    parts = [lambda: batches._thread.join(timeout=30)]
    if not isinstance(batches, _DataLoaderIterSingleProcess):
        parts.append(batches._try_shutdown_all)
    for part in parts:
        for _ in range(_LOST_AT_MOST):
            try:
                part()
                break
            except SystemError:  # of Paddle, for each process that was lost, which is told where batches are taken
                continue


class Order(DistributedBatchSampler):
    """Which images are in which batch of an epoch, on this rank.

    Paddle's own shuffles by the epoch alone, so that runs of several seeds would all see the same batches. With seed 0
    it is Paddle's own order, which is PaddleDetection's too.

    Args:
        dataset: of a known length.
        seed: of the run.
        options: Paddle's: ``batch_size``, ``shuffle``, ``drop_last``, ``num_replicas``, ``rank``.
    """

    def __init__(self, dataset, seed, **options):
        super().__init__(dataset, **options)
        self._seed, self._begin, self._only, self._anew = seed, 0, None, None

    def go_to(self, epoch, begin=0, views=None, only=None):
        """Iterate over the batches of `epoch` next, from batch `begin` on.

        Args:
            epoch, begin: see above.
            views: if given, epochs that are so far apart have the same batches, each time in another order: what is in
                a batch says what size it gets, and how its images are padded.
            only: numbers of the batches that are wanted, or None for all.
        """
        place = epoch if views is None else epoch % views
        self.set_epoch(number_of(self._seed, place) if self._seed else place)  # what Paddle seeds its generator with
        self._begin, self._only = begin, only
        again = views is not None and self.shuffle and epoch >= views
        self._anew = number_of(self._seed, epoch, views) if again else None

    def __iter__(self):
        batches = super().__iter__()
        if self._anew is not None:
            batches = list(batches)
            batches = [batches[i] for i in np.random.RandomState(self._anew).permutation(len(batches))]
        batches = itertools.islice(batches, self._begin, None)
        return (batch for i, batch in enumerate(batches, self._begin) if self._only is None or i in self._only)


# Without workers Paddle reads in a thread, one a stream, and the generators that are seeded here are the process's. So
# what is seeded and drawn for a sample is done by one thread at a time.
_drawing = threading.RLock()


def _draw_anew():
    global _drawing
    _drawing = threading.RLock()


os.register_at_fork(after_in_child=_draw_anew)  # a worker may be made while a thread of its parent draws


class _Seeded(Dataset):
    def __init__(self, dataset, seed, what="TrainReader"):
        super().__init__()
        self._dataset, self.seed, self.epoch, self.stage, self._what = dataset, seed, 0, None, what

    def __len__(self):
        return len(self._dataset)

    def __getitem__(self, index):
        with _drawing:
            return self._drawn(index)

    def _drawn(self, index):
        seed = sample_seed(self.seed, self.epoch, index)
        seed_augmentation(seed)
        try:
            sample = self._dataset[index]
        except BadImage as bad:
            return {_SEED_KEY: seed, BAD: (str(bad.file), bad.reason)}
        if not isinstance(sample, dict):  # ppdet has drawn several images, and no transform has made one of them
            keys = (f"{name.lower()}_epoch" for name in _MIXING)
            given = [key for key in keys if getattr(self._dataset, key, -1) >= 0]
            raise UserError(
                f"{self._what}: {', '.join(given)}: several images are drawn for one, and none of sample_transforms "
                f"({', '.join(_MIXING)}) puts them together; set it to -1"
            )
        sample[_SEED_KEY] = seed
        return sample

    def stand_in(self):
        """The first image of the data set that can be read, as a sample."""
        for index in range(len(self)):
            sample = self[index]
            if BAD not in sample:
                del sample[_SEED_KEY]
                return sample
        raise UserError(f"{self._what}: not one image can be read")


class _SeededCollate:
    def __init__(self, transforms, images, reads="TrainReader"):
        self._transforms, self._images, self._reads = transforms, images, reads

    def __call__(self, samples):
        with _drawing:
            return self._drawn(samples)

    def _drawn(self, samples):
        seeds = [sample.pop(_SEED_KEY) for sample in samples]
        seed_augmentation(seeds[0] ^ 0x5EED)
        bad = [sample[BAD] for sample in samples if BAD in sample]
        samples = [sample for sample in samples if BAD not in sample]
        alone = not samples and dist.get_world_size() > 1
        if alone:
            samples = [self._images.stand_in()]
        images = [int(np.ravel(sample["im_id"])[0]) for sample in samples if "im_id" in sample]
        try:
            batch = self._transforms(samples) if samples else {}
        except Exception as error:
            raise UserError(
                f"{self._reads}: a batch cannot be made of the images with the ids {images}: {type(error).__name__}: "
                f"{error}"
            ) from error
        if alone:
            batch[STAND_IN] = np.zeros([1], "float32")
        elif batch and self._images.stage is not None:
            batch[VIEW] = view_of(bytes.fromhex(_name(self._images.stage, seeds)), batch)
        return marked(batch, bad)


def _name(stage, seeds):
    """The name of a view of the images with these seeds."""
    return digest_of(np.array([stage, *seeds], "<u8").tobytes()).hex()


@contextlib.contextmanager
def undisturbed():
    """A block that may draw random numbers in the midst of training: nothing that is drawn after it is another."""
    with _drawing, random_state_kept():
        yield

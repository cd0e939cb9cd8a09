"""Training images that cannot be read: skipped, counted, and too many for the run to go on."""

import contextlib
import json
import logging
import os
import re
import traceback

import numpy as np

from ppkd.bridge.images import BadImage, decodable, fault
from ppkd.bridge.readers import begun_by
from ppkd.errors import UserError
from ppkd.files.write import append
from ppkd.terminal.log import logger

KEY, DEFAULT = "max_bad_images", "1%"
# Where nothing else is set, so many are no reason to end, as long as they are no tenth of the data set.
_HANDFUL, _TENTH = 5, 0.1
FILE = "bad_images.txt"
# Key of a batch that holds nothing but an image in place of its own, all of which were bad.
STAND_IN = "ppkd_stand_in"
BAD = "ppkd_bad"
_NAMED = 8


class BadImages:
    """The bad images that a run has met.

    Args:
        config: the run's config: ``max_bad_images`` is the share of a data set that may be bad, ``1%`` or 0.01.
        what: ``training`` or ``validation``.
        ends: whether more than that share ends the run.

    Attributes:
        found: path -> reason, in the order in which they were met.
        text: the share as the config has it.

    Raises:
        UserError: ``max_bad_images`` is no share.
    """

    def __init__(self, config=None, what="training", ends=True):
        self._what, self._ends = what, ends
        given = (config or {}).get(KEY, DEFAULT)
        self._share, self.text = share(given), given
        self._handful = 0 if KEY in (config or {}) else _HANDFUL
        self.found, self._folder = {}, None

    def add(self, images, total):
        """Count images.

        Args:
            images: ``(path, reason)`` pairs.
            total: size of the data set.

        Raises:
            UserError: more than the allowed share of the data set is bad; names them.
        """
        new = {file: reason for file, reason in images if file not in self.found}
        if not new:
            return
        self.found |= new
        for file, reason in list(new.items())[:_NAMED]:
            logger().warning("skipped: %s image %s: %s", self._what, file, reason)
        if len(new) > _NAMED:
            logger().warning("skipped: %d %s images more", len(new) - _NAMED, self._what)
        self._write(new)
        if not self._ends or self.allows(len(self.found), total):
            return
        first = "; ".join(f"{file}: {reason}" for file, reason in list(self.found.items())[:_NAMED])
        rest = len(self.found) - _NAMED
        more = "" if rest <= 0 else f"; and {rest} more" + (f" ({self._folder}/{FILE})" if self._folder else "")
        raise UserError(
            f"{len(self.found)} of {total} {self._what} images cannot be read or transformed, more than {KEY}: "
            f"{self.text} allows: {first}{more}. ppkd doctor --data -c ... lists all that are bad; "
            f"-o {KEY}={-(-100 * len(self.found) // total)}% would go on without them"
        )

    def allows(self, bad, total):
        """Whether a run goes on with so many bad ones among `total` images."""
        return bad <= max(self._share * total, min(self._handful, _TENTH * total))

    def keep_in(self, folder):
        """Write the list of all, those met already included, into `folder`; None writes nothing."""
        self._folder = folder
        if folder is not None:
            with contextlib.suppress(OSError):
                os.remove(os.path.join(folder, FILE))
        self._write(self.found)

    def state(self):
        """What resuming needs."""
        return dict(self.found)

    def restore(self, state):
        """Count those of `state` as met; None is a state of before there was any."""
        self.found |= state or {}

    def _write(self, images):
        if self._folder is None or not images:
            return
        with contextlib.suppress(UserError):
            append(os.path.join(self._folder, FILE), "".join(f"{path}\t{why}\n" for path, why in images.items()))


def share(value):
    """A share as a number in 0..1.

    Raises:
        UserError: it is none.
    """
    try:
        text = str(value).strip()
        number = float(text[:-1]) / 100 if text.endswith("%") else float(text)
    except ValueError:
        number = -1.0
    if isinstance(value, bool) or not 0 <= number <= 1:
        raise UserError(f"{KEY} has to be a share such as {DEFAULT} or 0.01, found {value!r}")
    return number


class Checked:
    """ppdet's sample transforms, which say which image failed.

    OpenCV, which ppdet decodes with, fills what is missing of a truncated JPEG with grey and says nothing, so the bytes
    are looked at first.

    Args:
        transforms: ppdet's ``Compose``.

    Attributes:
        transforms_cls: its transforms, under ppdet's name.
    """

    def __init__(self, transforms):
        self._transforms, self.transforms_cls = transforms, transforms.transforms_cls
        first = next(iter(self.transforms_cls), None)
        self._reads = type(first).__name__ == "Decode"
        # A bad image is told once, and not with a traceback for every time that it is met.
        logging.getLogger("reader").addFilter(_no_traceback)

    def __call__(self, sample):
        """Transform a sample, or the list of samples that a mixture is made of.

        Raises:
            BadImage: one of the files cannot be read, or the transforms failed.
        """
        parts = sample if isinstance(sample, (list, tuple)) else [sample]
        files = [part.get("im_file") for part in parts]
        if self._reads:
            for part in parts:
                if "image" not in part:
                    part["image"] = decodable(part.pop("im_file"))
        try:
            return self._transforms(sample)
        except Exception as error:
            for file in files:
                if file and (reason := fault(file)):
                    raise BadImage(file, reason) from error
            raise BadImage(files[0], f"cannot be transformed: {_told(error)}") from error


def _told(error):
    """What an error of a transform says, with the line that it is of where it says nothing itself."""
    said = str(error)
    if not said and (frames := traceback.extract_tb(error.__traceback__)):
        said = f"{frames[-1].line} (in {os.path.basename(frames[-1].filename)}, line {frames[-1].lineno})"
    return f"{type(error).__name__}: {said}"


@contextlib.contextmanager
def checked_readers():
    """A block in which ppdet's readers begin to load so that they leave out images that cannot be read.

    Their batches are smaller by these and name them under `BAD`, as `told` reads it; a batch of nothing else holds only
    that. ppdet's own end the loading process, or detect on an image that is half grey.
    """

    def with_checks(load, reader, *args, **options):
        reader._sample_transforms = _Marking(reader._sample_transforms)
        reader._batch_transforms = _Sorting(reader._batch_transforms)
        return load(reader, *args, **options)

    with begun_by(with_checks):
        yield


class _Marking(Checked):
    def __call__(self, sample):
        try:
            return super().__call__(sample)
        except BadImage as bad:
            return {BAD: (str(bad.file), bad.reason)}


class _Sorting:
    def __init__(self, transforms):
        self._transforms = transforms

    def __call__(self, samples):
        bad = [sample[BAD] for sample in samples if BAD in sample]
        samples = [sample for sample in samples if BAD not in sample]
        return marked(self._transforms(samples) if samples else {}, bad)


def marked(batch, bad):
    """A batch with the ``(path, reason)`` pairs of images that are left out of it."""
    # As bytes, for nothing but arrays comes through; absent if there is none, for reading it would cost a wait.
    return {**batch, BAD: np.frombuffer(json.dumps(bad).encode(), "uint8").copy()} if bad else batch


def told(batch):
    """The pairs that `marked` put into a batch; they are taken out of it."""
    return [tuple(pair) for pair in json.loads(batch.pop(BAD).numpy().tobytes())] if BAD in batch else []


def _no_traceback(record):
    return not record.getMessage().startswith("fail to map sample transform")


@contextlib.contextmanager
def missing_images():
    """A block in which ppdet parses annotations; yields the list of image files that it leaves out as missing.

    ppdet says so in a line of the log for each, which are kept back.
    """
    found, source = [], logging.getLogger("ppdet.data.source")
    names = [name for name in logging.root.manager.loggerDict if name.startswith(source.name)]

    def note(record):
        match = re.match(r"Illegal image file: (.*), and it will be ignored", record.getMessage(), re.S)
        if match:
            found.append(match[1])
        return not match

    loggers = [logging.getLogger(name) for name in names]
    levels = [log.level for log in loggers]
    for log in loggers:
        log.addFilter(note)
        log.setLevel(min(log.level, logging.WARNING))
    try:
        yield found
    finally:
        for log, level in zip(loggers, levels):
            log.removeFilter(note)
            log.setLevel(level)

"""A bank of what teachers have said of views of images, so that they need not be asked again."""

import contextlib
import json
import os
import shutil
from dataclasses import fields

import numpy as np
import paddle

from ppkd.detectors.context import Assignment
from ppkd.errors import UserError
from ppkd.files.records import STAMP, digest_of, read_record, write_record
from ppkd.files.regular import open_file
from ppkd.files.write import make_folder, remove_leftovers, replacing, write_text
from ppkd.terminal.log import logger

# Key of a batch that is a view: the record's name, and the stamp of what is seen in it, as bytes.
VIEW = "ppkd_view"
FILE, SUFFIX = "bank.json", ".view"
# Bytes that are left free for what else a run writes: its checkpoints.
ROOM = 1 << 28
_FORMAT = 1
_ASSIGNED, _FIELDS = "assigned ", tuple(field.name for field in fields(Assignment))
# What says that a batch is the one that a record is of: what teachers see, and what targets are assigned by.
_SEEN = ("image", "im_shape", "gt_bbox", "gt_class")


class Bank:
    """A folder with a record a batch of a view, of all that terms take of the teachers.

    Any number of processes may read and fill it at once: records are written whole, and two of one name are equal.
    What is given back is what was kept, also by who fills: a run with a full bank and one that fills it are the same to
    the bit.

    Args:
        folder: path; it is made if there is none.
        of: what it is a bank of: plain values by name, in words that a message can use.
        dtype: ``float16`` or ``bfloat16``. A tensor that has values beyond float16 is kept in float32.
        live: whether the teacher goes on when the bank cannot be used, or nothing be written any more.
        anew: whether a bank of something else in the folder, which a former run has left there, is removed.

    Attributes:
        failure: why nothing is written any more, or None.
    """

    def __init__(self, folder, of, dtype="float16", live=False, anew=False):
        self.folder, self.failure, self._dtype, self._live, self._anew = folder, None, dtype, live, anew
        of = json.loads(json.dumps({**of, "kept as": dtype}, sort_keys=True, default=str))
        self._seal = digest_of(json.dumps([_FORMAT, of], sort_keys=True).encode())
        self._content, self._closed = {"format": _FORMAT, "of": of}, False
        self._told, self._told_infinite = False, False

    def open(self):
        """Make the folder, or see whose it is. Where the teacher goes on, what is wrong with it is told alone.

        Raises:
            UserError: the folder has a bank of something else, or cannot be made.
        """
        try:
            make_folder(self.folder)
            try:
                self._open(self._content)
            except UserError:
                if not self._anew:
                    raise
                self.remove()
                logger().info("bank: %s had one of something else, of a former run: it is removed", self.folder)
                make_folder(self.folder)
                self._open(self._content)
        except UserError as error:
            self._closed = True
            if not self._live:
                raise
            self._fail(error)

    def _open(self, content):
        path = os.path.join(self.folder, FILE)
        if not os.path.lexists(path):
            if any(name.endswith(SUFFIX) for name in os.listdir(self.folder)):
                raise UserError(f"{self.folder}: has records of a bank and no {FILE}: of what is not known; remove it")
            # Of two processes that open it at once the first says whose it is.
            with replacing(path, keep=True) as temporary:
                write_text(temporary, json.dumps(content, indent=1) + "\n")
        theirs, ours = self._theirs(), content["of"]
        if not isinstance(theirs, dict):
            raise UserError(f"{path}: not the file of a bank of this version; remove the folder, or give another")
        if differing := [key for key in sorted(ours.keys() | theirs.keys()) if ours.get(key) != theirs.get(key)]:
            told = "; ".join(f"{key}: {_shown(theirs, key)} there, {_shown(ours, key)} here" for key in differing[:3])
            more = f" and {len(differing) - 3} more" if len(differing) > 3 else ""
            raise UserError(
                f"{self.folder}: the bank is of something else ({told}{more}); it is not read: remove it, or give "
                "another distill.bank.folder"
            )

    def _theirs(self):
        """What the folder's bank is of; None where there is none, or not of this version."""
        try:
            with open_file(os.path.join(self.folder, FILE), encoding="utf-8") as file:
                found = json.load(file)
            return found["of"] if found["format"] == _FORMAT else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def is_begun(self):
        """Whether there is a bank of the very same, before `open`: this run's, or one that others fill."""
        return self._theirs() == self._content["of"]

    def missing(self, names):
        """Those of the records' names of which there is no file.

        Raises:
            UserError: the folder was removed meanwhile and cannot be made anew.
        """
        self._see_to_folder()
        there = set() if self._closed else set(os.listdir(self.folder))
        return [name for name in names if name + SUFFIX not in there]

    def _see_to_folder(self):
        # Records without the file that says what they are of would be refused, and the run could not go on with them.
        if not os.path.lexists(os.path.join(self.folder, FILE)):
            logger().warning("bank: %s was removed: it is made anew", self.folder)
            self.open()

    def remove(self):
        """Remove what this bank has written, and the folder if nothing else is in it; returns how many bytes it was."""
        size = 0
        with contextlib.suppress(OSError):
            if self._closed:
                return 0
            remove_leftovers(self.folder)
            records = [name for name in os.listdir(self.folder) if name.endswith(SUFFIX)]
            for name in [*records, FILE]:  # whoever is ended here leaves no records of which is not known what they are
                path = os.path.join(self.folder, name)
                with contextlib.suppress(FileNotFoundError):  # by another process of this run
                    length = os.path.getsize(path)
                    os.remove(path)
                    size += length
            os.rmdir(self.folder)
        return size

    def _see_to_room(self):
        try:
            free = shutil.disk_usage(self.folder).free
        except OSError:  # what cannot be told is found when it is written
            return
        if free < ROOM:
            raise UserError(f"{self.folder}: the disk is nearly full, its last {ROOM >> 20} MiB are left alone")

    def is_whole(self, name):
        """Whether a record is there as it was written."""
        return read_record(self._path(name), self._seal) is not None

    def taught(self, view, terms, every, run, assigned=False):
        """What terms take of their teachers in a view: read, or asked for and kept.

        Args:
            view: the batch's `VIEW`.
            terms: those of the step.
            every: all whose inputs a record has.
            run: function from terms to what was recorded of each teacher, by its name, and an `Assignment` or None.
            assigned: whether the step takes this as well.

        Returns:
            ``(label of a term -> its tensors, as `terms.Term.from_kept` gives them, the assignment or None)``.
        """
        name, stamp = _parted(view)
        found = self._read(name, stamp)
        if found is None:
            found = self._kept(name, stamp, every, run)
        tensors = {}
        for term in terms:
            tensors |= {key: _tensor(found[key]) for key in term.keeps if key not in tensors}
        given = Assignment(**{key: _tensor(found[_ASSIGNED + key]) for key in _FIELDS}) if assigned else None
        return {term.label: term.from_kept(tensors) for term in terms}, given

    def _read(self, name, stamp):
        found = None if self._closed else read_record(self._path(name), self._seal)
        if found is not None and found[0] == stamp:
            return found[1]
        if not self._told and not self._closed and os.path.lexists(self._path(name)):
            self._told = True  # once: where images have changed it is every one
            what = "damaged" if found is None else "of other images or boxes"
            logger().warning("bank: %s is %s: not read, but made anew", self._path(name), what)
        return None

    def _kept(self, name, stamp, every, run):
        arrays = kept(every, *run(every), self._dtype)
        if infinite := [name for name, array in arrays.items() if not _finite(array)]:
            if not self._told_infinite:
                self._told_infinite = True
                logger().warning("bank: the teacher gives what is not finite (%s): not kept, so it stays", infinite[0])
        elif self.failure is None:
            try:
                self._see_to_folder()
                if self.failure is None:
                    self._see_to_room()
                    write_record(self._path(name), arrays, self._seal, stamp)
            except UserError as error:
                self._fail(error)
        return arrays

    def _fail(self, error):
        self.failure = str(error)
        if self._live:
            logger().warning("bank: %s; the teacher goes on where a view is missing", error)

    @property
    def stops(self):
        """Why the run has to stop, or None."""
        return None if self._live else self.failure

    def _path(self, name):
        return os.path.join(self.folder, name + SUFFIX)


def view_of(name, batch):
    """What a batch has under `VIEW`.

    Args:
        name: `STAMP` bytes.
        batch: arrays by name.
    """
    seen = [np.ascontiguousarray(batch[key]) for key in _SEEN if key in batch]
    shapes = repr([(array.shape, str(array.dtype)) for array in seen]).encode()
    return np.frombuffer(name + digest_of(shapes, *seen), "uint8").copy()


def _parted(view):
    data = np.asarray(view).tobytes()
    return data[:STAMP].hex(), data[STAMP:]


def kept(terms, recorded, given, dtype="float16"):
    """What a record has of a view, as arrays by name.

    Args:
        terms: all whose inputs it has.
        recorded: of each teacher, by its name.
        given: `Assignment` or None.
        dtype: see `Bank`.
    """
    tensors = {}
    for term in terms:
        tensors |= {key: x for key, x in term.to_keep(recorded[term.teacher]).items() if key not in tensors}
    arrays = {key: _array(x, dtype) for key, x in tensors.items()}
    if given is not None:
        values = {key: getattr(given, key) for key in _FIELDS}
        # Places in the image are told to a fraction of a pixel, which no lower type does.
        arrays |= {_ASSIGNED + key: _array(x, dtype if key == "scores" else None) for key, x in values.items()}
    return arrays


def _array(tensor, dtype):
    """A tensor, or a number, as it is kept."""
    array = tensor.numpy() if isinstance(tensor, paddle.Tensor) else np.asarray(tensor)
    if array.dtype.kind != "f" or dtype is None:
        return array
    array = array.astype("float32")
    if dtype == "bfloat16":  # the upper half of a float32, rounded to nearest, halves to even
        bits = array.view("uint32")
        low = ((bits + (0x7FFF + ((bits >> 16) & 1))) >> 16).astype("uint16")
        return np.where(np.isfinite(array), low, (bits >> 16).astype("uint16"))
    with np.errstate(over="ignore"):
        low = array.astype("float16")
    return low if np.isfinite(low).all() else array


def _tensor(array):
    """The tensor, or the number, of what is kept."""
    if not array.shape and array.dtype.kind == "i":
        return int(array)
    if array.dtype == np.uint16:
        array = (array.astype("uint32") << 16).view("float32")
    return paddle.to_tensor(array.astype("float32") if array.dtype == np.float16 else np.array(array))


def _finite(array):
    if array.dtype == np.uint16:
        return bool(((array & 0x7F80) != 0x7F80).all())
    return array.dtype.kind != "f" or bool(np.isfinite(array).all())


def _shown(values, key):
    text = str(values[key]) if key in values else "not set"
    return text if len(text) <= 60 else text[:57] + "..."

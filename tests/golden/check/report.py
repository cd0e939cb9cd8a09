"""Golden fixtures: compare the losses with numbers that reference implementations produced.

A directory of fixtures holds one folder a method, and in it ``*.npz`` files, one a case, with the
arrays ``in_*``, ``param_*``, ``mask_*`` (inputs), ``out_*``, ``grad_*``, ``extra_*`` (expected) and
``meta`` (a JSON object whose ``hyper`` are the hyper-parameters). What is computed from the inputs
of a folder stands in :mod:`tests.golden.check.runners`.
"""

import json
import math
import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

KINDS = ("value", "term", "extra", "gradient")


class GoldenError(Exception):
    """A fixture that cannot be read, or that lacks something; the message names file and array."""


class _Hyper(dict):
    """The hyper-parameters of a case; a missing one is a :class:`GoldenError`."""

    def __init__(self, path, values):
        super().__init__(values)
        self.path = path

    def __missing__(self, name):
        raise GoldenError(f"{self.path}: 'meta' has no hyper-parameter '{name}'")


class Case:
    """One fixture file: arrays by name, what stands in ``meta``, and of that the hyper-parameters in ``hyper``.

    Raises:
        GoldenError: the file, one of its arrays or ``meta`` cannot be read.
    """

    def __init__(self, path):
        self.path = path
        self._arrays = _read_arrays(path)
        try:
            self.meta = json.loads(str(self["meta"][0]))
            self.hyper = _Hyper(path, self.meta.get("hyper", {}))
        except (ValueError, AttributeError, TypeError, IndexError) as error:
            raise GoldenError(f"{path}: array 'meta' is not one JSON object ({error!r})") from None

    def __getitem__(self, name):
        if name not in self._arrays:
            raise GoldenError(f"{self.path}: array '{name}' is missing")
        return self._arrays[name]

    def __contains__(self, name):
        return name in self._arrays

    @property
    def names(self):
        """The names of all arrays."""
        return list(self._arrays)

    def numbered(self, prefix):
        """The arrays ``prefix0``, ``prefix1``, ... up to the first that does not exist."""
        arrays = [self[f"{prefix}0"]]
        while f"{prefix}{len(arrays)}" in self:
            arrays.append(self[f"{prefix}{len(arrays)}"])
        return arrays


def _read_arrays(path):
    try:
        with np.load(path, allow_pickle=False) as file:
            names = file.files
            arrays = {}
            for name in names:
                arrays[name] = _read_array(path, file, name)
            return arrays
    except (OSError, ValueError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        # AttributeError: a bare .npy under the name .npz loads as an array, which has no files.
        raise GoldenError(f"{path}: not a readable npz file ({error})") from None


def _read_array(path, file, name):
    try:
        return file[name]
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise GoldenError(f"{path}: array '{name}' cannot be read ({error})") from None


@dataclass
class Comparison:
    """One compared number or array: its kind (of ``KINDS``), error and the limit for it."""

    kind: str
    name: str
    error: float
    tolerance: float

    @property
    def ok(self):
        return self.error <= self.tolerance


@dataclass
class CaseResult:
    """What came of one case; of a whole folder (``case`` is empty) if that has no loss yet."""

    folder: str
    case: str = ""
    comparisons: list = field(default_factory=list)
    problem: str = ""

    @property
    def known(self):
        return bool(self.case)

    @property
    def ok(self):
        return not self.problem and all(entry.ok for entry in self.comparisons)

    def largest(self, kind):
        """The largest error among the comparisons of ``kind``; None if there is none."""
        return max((entry.error for entry in self.comparisons if entry.kind == kind), default=None)

    def __str__(self):
        if not self.known:
            return f"{self.folder}: no loss yet"
        head = f"{self.folder}/{self.case}"
        if self.problem:
            return f"{head:<22} FAILED  {self.problem}"
        errors = [(kind, self.largest(kind)) for kind in KINDS]
        line = "  ".join(f"{kind} {error:.1e}" for kind, error in errors if error is not None)
        bad = [
            f"{entry.kind} {entry.name} is off by {entry.error:.1e}, allowed {entry.tolerance:.0e}"
            for entry in self.comparisons
            if not entry.ok
        ]
        return f"{head:<22} {'FAILED' if bad else 'ok':<6}  {line}" + "".join(
            f"\n    {text}" for text in bad
        )


def relative_error(ours, reference):
    """``max|ours - reference| / max|reference|``, absolute where the reference is zero.

    Infinite where the shapes differ, or ours is missing or not finite.
    """
    if ours is None:
        return math.inf
    ours = np.asarray(ours, dtype=np.float64)
    reference = np.asarray(reference, dtype=np.float64)
    if ours.shape != reference.shape or not np.isfinite(ours).all():
        return math.inf
    if reference.size == 0:
        return 0.0
    gap = float(np.abs(ours - reference).max())
    return gap / (float(np.abs(reference).max()) or 1.0)


def run_case(path, runner):
    """Compare one file; trouble of any sort becomes the ``problem`` of the result."""
    result = CaseResult(path.parent.name, path.stem)
    try:
        for kind, name, ours, reference, tolerance in runner(Case(path)):
            result.comparisons.append(
                Comparison(kind, name, relative_error(ours, reference), tolerance)
            )
        if not result.comparisons:
            result.problem = f"{path}: nothing was compared"
    except GoldenError as error:
        result.problem = str(error)
    except Exception as error:  # arrays of a wrong shape raise anything; the next case must run
        result.problem = f"{path}: {type(error).__name__}: {error}"
    return result


def check(directory):
    """Check every fixture under ``directory``.

    Args:
        directory: holds one folder a method, named as in the table of ``golden_runners``.

    Returns:
        One :class:`CaseResult` a case, sorted by folder and file, and one for each folder that no
        loss is known for.

    Raises:
        NotADirectoryError: there is no such directory.
    """
    from tests.golden.check.runners import RUNNERS

    directory = Path(directory)
    if not directory.is_dir():
        raise NotADirectoryError(f"{directory}: no such directory")
    results = []
    for folder in sorted(path for path in directory.iterdir() if path.is_dir()):
        runner = RUNNERS.get(folder.name)
        paths = sorted(folder.glob("*.npz"))
        if runner is not None:
            results.extend(run_case(path, runner) for path in paths)
        elif paths:
            results.append(CaseResult(folder.name))
    return results


def report(directory, write=print):
    """Check ``directory``, write one line a case, and return the exit status.

    0: all known cases are within tolerance. 1: one is not, or cannot be read. 2: nothing was
    checked, as the directory is not there or holds no case of a known loss.
    """
    try:
        results = check(directory)
    except NotADirectoryError as error:
        write(f"error: {error}")
        return 2
    for result in results:
        write(str(result))
    cases = [result for result in results if result.known]
    if not cases:
        write(f"error: {directory}: holds no case of a known loss (expected DIR/<loss>/*.npz)")
        return 2
    failed = sum(not result.ok for result in cases)
    write(f"{len(cases)} cases checked, {failed} failed")
    return 1 if failed else 0

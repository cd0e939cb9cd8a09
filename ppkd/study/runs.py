"""A folder that training has left, read back: its recipe, its records and its weights."""

import os

from ppkd.errors import UserError, nearest
from ppkd.files.yaml_io import merge
from ppkd.recipe.recipe import parse_overrides
from ppkd.recipe.shape import check_shape
from ppkd.recipe.teachers import check_fields
from ppkd.training.digest import digest
from ppkd.training.record import FILE, read_record
from ppkd.training.records import read_records

WEIGHTS = ("model_final", "best_model", "last")


class Run:
    """A finished (or at least evaluated) run.

    Args:
        folder: the output folder of ``tools/train.py``.
        overrides: ``key=value`` strings, over what ``recipe.yml`` says: data or weights that have been moved since.
        weights: which of its weights are meant: one of `WEIGHTS`.

    Attributes:
        folder: as given.
        label: short name among others, set by `open_runs`.
        recipe: `recipe.Recipe`.
        versions: what ran, by name; empty if it was not recorded.
        weights: path of the weights.
        which: the name among `WEIGHTS`.

    Raises:
        UserError: no run there, or not these weights.
    """

    def __init__(self, folder, overrides=(), weights="model_final"):
        self.folder, self.label = folder, os.path.basename(os.path.abspath(folder))
        if not os.path.exists(os.path.join(folder, FILE)):
            raise UserError(f"{folder}: no {FILE} in it, so no run of training{_found_below(folder)}")
        self.recipe, self.versions = read_record(folder)
        _override(self.recipe, overrides)
        self.which, self.weights = weights, os.path.join(folder, f"{weights}.pdparams")
        if not os.path.isfile(self.weights):
            there = [name for name in WEIGHTS if os.path.isfile(os.path.join(folder, f"{name}.pdparams"))]
            hint = f"there is {', '.join(there)} (--weights)" if there else "has it ended? `ppkd train -r auto` goes on"
            raise UserError(f"{self.weights}: no such weights; {hint}")
        records = os.path.join(folder, "metrics.jsonl")
        self.records = read_records(records) if os.path.exists(records) else []

    @property
    def distilled(self):
        """Whether a teacher took part."""
        return self.recipe.method is not None

    @property
    def seed(self):
        """Its seed; 0 if none was set, as in training."""
        return int(self.recipe.student.get("seed") or 0)

    @property
    def steps(self):
        """Steps that it took, or None without records."""
        return max((record["step"] for record in self.records), default=None)

    def of_kind(self, kind):
        """Records of ``train`` or ``eval``, in order."""
        return [record for record in self.records if record["kind"] == kind]

    def identity(self):
        """All that its result depends on but for the seed: key -> value. Runs of equal identity differ by chance."""
        found = digest(self.recipe, 1) | {"steps": self.steps}
        found.pop("seed", None)
        # The teacher's weights by name alone: the same file may be reached by several paths.
        return {k: os.path.basename(str(v)) if k.endswith("pretrain_weights") and v else v for k, v in found.items()}


def open_runs(folders, overrides=(), weights="model_final"):
    """The `Run` of each folder, with labels that tell them apart.

    Raises:
        UserError: as `Run`; the same folder twice.
    """
    runs = [Run(folder, overrides, weights) for folder in folders]
    parts = [os.path.realpath(run.folder).split(os.sep) for run in runs]
    for i, run in enumerate(runs):
        if parts[i] in parts[:i]:
            raise UserError(f"{run.folder}: given twice")
        run.label = _shortest(parts[i], parts[:i] + parts[i + 1 :])
    return runs


def _shortest(path, others):
    """The last part of a path that no other has in the same place from the end, or the whole path."""
    for back in range(1, len(path)):
        if all(other[-back] != path[-back] for other in others if len(other) >= back):
            return path[-back]
    return os.sep.join(path)


def _override(recipe, overrides):
    given = parse_overrides(overrides)
    for name, spec in recipe.teachers.items():
        values = given.pop(name, {})
        if not isinstance(values, dict):
            raise UserError(f"-o {name}={values}: has fields to set, for example -o {name}.num_classes=3")
        check_fields(spec.config, values, f"-o {name}")
        merge(spec.config, values)
        check_shape(spec.config, dict.fromkeys(values, f"-o {name}"))
        spec.weights = spec.config.get("pretrain_weights")
    for key in given:
        if key not in recipe.student:
            names = [*recipe.student, *recipe.teachers]
            raise UserError(f"-o {key}: the run's recipe.yml has no such key{nearest(key, names)}")
    check_fields(recipe.student, given, "-o")
    merge(recipe.student, given)
    check_shape(recipe.student, dict.fromkeys(given, "-o"))


def _found_below(folder):
    """The runs one level below, which are what is meant more often than not."""
    if not os.path.isdir(folder):
        return " (there is no such folder)"
    below = [os.path.join(folder, n) for n in sorted(os.listdir(folder))]
    below = [path for path in below if os.path.isfile(os.path.join(path, FILE))]
    return f"; did you mean {' '.join(below[:3])}?" if below else ""

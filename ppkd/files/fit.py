"""How the tensors of a file and of a model agree, and why they do not."""

from dataclasses import dataclass

# A head has a multiple of the classes and so many more outputs: background (R-CNN), box and objectness (YOLOv3).
_BESIDE_CLASSES = (0, 1, 5)
_PARTS = 4  # of a model that are named


@dataclass
class Fit:
    """How the tensors of a checkpoint and of a model agree.

    Attributes:
        missing: names that only the model has.
        unexpected: names that only the checkpoint has.
        unfit: name -> (checkpoint's shape, model's shape) where they differ.
        total: number of the model's tensors.
    """

    missing: list
    unexpected: list
    unfit: dict
    total: int

    @property
    def complete(self):
        return not (self.missing or self.unexpected or self.unfit)

    def __str__(self):
        shapes = [f"{name}: {file}, model {model}" for name, (file, model) in self.unfit.items()]
        text = f"{self.total - len(self.missing) - len(self.unfit)} of {self.total} tensors fit"
        kinds = (("missing", self.missing), ("unexpected", self.unexpected), ("of another shape", shapes))
        for what, names in kinds:
            if names:
                text += f"; {len(names)} {what}: {', '.join(names[:4])}{', ...' if len(names) > 4 else ''}"
        return text


def compare(arrays, model):
    """Compare names and shapes of `arrays` (name -> array) with those of a ppdet model; returns a `Fit`."""
    own = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
    unfit = {k: (list(arrays[k].shape), shape) for k, shape in own.items() if k in arrays}
    unfit = {name: pair for name, pair in unfit.items() if pair[0] != pair[1]}
    return Fit([k for k in own if k not in arrays], [k for k in arrays if k not in own], unfit, len(own))


def misfit(fit, num_classes):
    """What of a `Fit` does not, with the likeliest reason."""
    return f"{fit} ({_reason(fit, num_classes)})"


def _reason(fit, num_classes):
    """The likeliest reason for which a checkpoint does not fit, in a few words."""
    names = [*fit.missing, *fit.unexpected, *fit.unfit]
    if len(fit.missing) == fit.total:
        return "not one name in common: another architecture?"
    if len(names) == len(fit.unfit):
        counts = [_class_counts(*pair, num_classes) for pair in fit.unfit.values()] if num_classes else []
        common = set.intersection(*counts) if counts else set()
        if common:
            seems = f"it seems to have {common.pop()}, " if len(common) == 1 else ""
            return f"of another num_classes? {seems}-c has {num_classes}"
    parts = sorted({name.split(".")[0] for name in names})
    if len(parts) > _PARTS:
        parts = [*parts[:_PARTS], "others"]
    return f"another {' and '.join(parts)} than in -c? depth, width and kind have to be the same"


def _class_counts(file, model, num_classes):
    """Numbers of classes that would explain the shape in the file, given the model's shape and its number."""
    axis = 1 if len(model) == 2 else 0  # linear layers are [in, out], convolutions [out, in, height, width]
    if [n for i, n in enumerate(file) if i != axis] != [n for i, n in enumerate(model) if i != axis]:
        return set()
    found = set()
    for beside in _BESIDE_CLASSES:
        times, rest = divmod(model[axis], num_classes + beside)
        if not rest and file[axis] % times == 0 and file[axis] // times > beside:
            found.add(file[axis] // times - beside)
    return found

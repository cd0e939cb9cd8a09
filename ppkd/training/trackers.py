"""Where the records of a run also go, through the libraries of others, none of which ppkd needs otherwise."""

import contextlib
import hashlib
import importlib
import os

from ppkd.errors import UserError, nearest

# Of a record, what is no curve.
_PLACE = ("kind", "step", "epoch")


class VisualDL:
    """VisualDL's log.

    Args:
        folder: for its files.
    """

    def __init__(self, folder):
        self._writer = _library("visualdl", "visualdl").LogWriter(folder)

    def add(self, record):
        """Take a record of ``metrics.jsonl``."""
        for name, value in _curves(record):
            self._writer.add_scalar(name, value, record["step"])

    def close(self):
        """Write what is left."""
        self._writer.close()


class TensorBoard(VisualDL):
    """TensorBoard's log: ``tensorboard --logdir FOLDER`` shows it."""

    def __init__(self, folder):
        self._writer = _library("tensorboard.summary", "tensorboard").Writer(folder)


class WeightsAndBiases:
    """A run of Weights & Biases; ``WANDB_MODE=offline`` sends nothing, ``WANDB_PROJECT`` names the project.

    Args:
        folder: of the run: the same folder is the same run there, also where it was ended in between.
        name: what it is called.
        config: plain values to show beside it.
    """

    def __init__(self, folder, name, config):
        wandb = _library("wandb", "wandb")
        number = hashlib.sha256(os.path.realpath(folder).encode()).hexdigest()[:12]
        project = os.environ.get("WANDB_PROJECT", "ppkd")
        self._run = wandb.init(project=project, name=name, id=number, resume="allow", dir=folder, config=config)

    def add(self, record):
        """Take a record of ``metrics.jsonl``."""
        self._run.log(dict(_curves(record)) | {"epoch": record["epoch"]}, step=record["step"])

    def close(self):
        """Send what is left."""
        self._run.finish()


NAMES = ("visualdl", "tensorboard", "wandb")


def open_trackers(names, folder, recipe):
    """The trackers of a run.

    Args:
        names: some of `NAMES`.
        folder: of the run, in which their files lie.
        recipe: `recipe.Recipe`.

    Raises:
        UserError: an unknown name, a library that is not installed, or one that refuses.
    """
    made = []
    for name in dict.fromkeys(names):
        if name not in NAMES:
            raise UserError(f"--track {name}: there are {', '.join(NAMES)}{nearest(name, NAMES)}")
        place = os.path.join(folder, name)
        try:
            if name == "wandb":
                made.append(WeightsAndBiases(folder, os.path.relpath(folder), _plain(recipe.student)))
            else:
                made.append({"visualdl": VisualDL, "tensorboard": TensorBoard}[name](place))
        except UserError:
            raise
        except Exception as error:  # no login, no network, a library of another version
            raise UserError(f"--track {name}: {type(error).__name__}: {' '.join(str(error).split())[:200]}") from error
    return made


def _library(module, package):
    with contextlib.suppress(ImportError):
        return importlib.import_module(module)
    raise UserError(f"--track {package}: its library cannot be imported: pip install {package}")


def _curves(record):
    return [
        (f"{record['kind']}/{key}", value) for key, value in record.items()
        if key not in _PLACE and isinstance(value, (int, float)) and not isinstance(value, bool)
    ]  # fmt: skip


def _plain(config):
    return {key: value for key, value in config.items() if isinstance(value, (str, int, float, bool))}

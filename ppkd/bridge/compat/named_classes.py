"""ppdet looks what a config names up in whole modules: ``setup_logger`` is as good a transform as ``Resize``."""

import types

from ppkd.bridge import judged
from ppkd.bridge.gate import ABSENT, Asked, Namespace


def look_classes_up_among_the_judged():
    """Show ppdet's readers, data sets and optimizers the classes of `judged` where they look up what a config names.

    ``sample_transforms: [{setup_logger: {name: x, output: any/where}}]`` made folders and files.

    Needed for: paddledet 2.6.0.
    """
    from ppdet.data import reader
    from ppdet.data.source import dataset
    from ppdet.optimizer import optimizer

    _show(reader, "transform", judged.TRANSFORMS, "sample_transforms or batch_transforms")
    _show(dataset, "source", judged.DATASETS, "a data set's `name`")
    _show(optimizer, "optimizer", judged.OPTIMIZERS, "OptimizerBuilder.optimizer.type")
    _show(optimizer, "regularizer", judged.REGULARIZERS, "OptimizerBuilder.regularizer.type")
    schedules = Namespace(optimizer, judged.SCHEDULES, "LearningRate.schedulers")
    optimizer.sys = types.SimpleNamespace(modules={optimizer.__name__: schedules})
    builder = optimizer.OptimizerBuilder
    _try("sample_transforms", lambda: reader.Compose([{ABSENT: {}}]))
    _try("batch_transforms", lambda: reader.BatchCompose([{ABSENT: {}}]))
    _try("data sets", lambda: dataset.CommonDataset(name=ABSENT))
    _try("LearningRate.schedulers", lambda: optimizer.LearningRate(schedulers=[{"name": ABSENT}]))
    _try("OptimizerBuilder.optimizer", lambda: builder(regularizer=None, optimizer={"type": ABSENT})(0.1))
    _try("OptimizerBuilder.regularizer", lambda: builder(regularizer={"type": ABSENT, "factor": 1})(0.1))


def _show(module, name, known, where):
    found = getattr(module, name)
    if not isinstance(found, Namespace):
        setattr(module, name, Namespace(found, known, where))


def _try(place, build):
    """Check that ppdet looks a name up in the `Namespace` that it was shown: this one it can find nowhere else."""
    try:
        build()
    except Asked:
        return
    except Exception:  # whatever it did instead
        pass
    raise AttributeError(f"{place}: names are looked up in another way")

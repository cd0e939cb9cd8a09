"""ppdet looks what a config names up in whole modules: ``setup_logger`` is as good a transform as ``Resize``."""

import types

from ppkd.bridge import judged
from ppkd.bridge.gate import Namespace


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


def _show(module, name, known, where):
    found = getattr(module, name, None)
    if found is not None and not isinstance(found, Namespace):
        setattr(module, name, Namespace(found, known, where))

"""ppdet's own trainer, which evaluates, detects and exports here; it never trains."""

import contextlib

from ppkd.bridge.workspace import built_from_config, import_ppdet
from ppkd.errors import UserError


def trainer_of(config, mode):
    """ppdet's ``Trainer`` in the current scope.

    Args:
        config: a copy of ppdet's global config, with the model under ``model``; the trainer changes it.
        mode: ``eval`` on the EvalDataset, or ``test``.

    Raises:
        UserError: there is no image of the validation set any more; readers, data sets or metrics cannot be made.
    """
    from ppdet.engine import Trainer

    with built_from_config(f"what the detector is to {'be evaluated' if mode == 'eval' else 'detect'} with"):
        try:
            # Clones make a path of it, whether they train or not.
            config.setdefault("save_dir", "output")
            return Trainer(config, mode)
        except AssertionError as error:  # of a data set that has lost its images meanwhile
            if mode != "eval":
                raise
            raise UserError(f"EvalDataset: {' '.join(str(error).split())}: are its images there?") from error


def metrics_of_detections(trainer, images, folder):
    """The metrics of a trainer in mode ``test``, which write into `folder` what they are given and score nothing.

    Args:
        trainer: ppdet's.
        images: paths; an image's id is its place.
        folder: where the result files go.
    """
    trainer.mode = "_test"
    trainer.cfg.update(save_prediction_only=True, output_eval=folder, imid2path=dict(enumerate(images)))
    trainer._init_metrics()
    return trainer._metrics


def exportable():
    """What ppdet exports: an architecture whose name has one of these texts in it."""
    import_ppdet()
    from ppdet.engine.export_utils import TRT_MIN_SUBGRAPH

    return list(TRT_MIN_SUBGRAPH)


@contextlib.contextmanager
def graphs_of(batch):
    """A block in which graphs that ppdet exports take this number of images; None leaves it alone."""
    from ppdet.engine import trainer

    specs = trainer.InputSpec
    if batch is not None:
        trainer.InputSpec = lambda shape, name: specs([batch, *shape[1:]], name=name)
    try:
        yield
    finally:
        trainer.InputSpec = specs

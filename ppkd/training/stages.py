"""Later parts of a run with a reader of their own: ``stages: [{epoch: 280, TrainReader: {...}}]``."""

from ppkd.bridge.bad_images import BadImages
from ppkd.bridge.datasets import open_dataset
from ppkd.bridge.workspace import built_from_config, create, scope
from ppkd.errors import UserError, nearest
from ppkd.files.yaml_io import clone, merge
from ppkd.recipe.plan import UNLABELLED
from ppkd.recipe.pseudo_boxes import NAME as PSEUDO_BOXES
from ppkd.training.loader import TrainLoader
from ppkd.training.unlabelled import Unlabelled

_KEYS = ("epoch", "TrainReader")


class Stages:
    """The loaders of a run, one a stage, each made when its first epoch comes.

    Args:
        config: the run's config. What a stage's ``TrainReader`` says is merged over the run's own.
        seed: seed of the run.
        boxed: whether a teacher's boxes are the labels of images without any.

    Attributes:
        bad: `bad_images.BadImages`, those of all stages.
        unlabelled: `unlabelled.Unlabelled`, or None.
        views: function from an epoch to how many views of each image it is one of (see `loader.TrainLoader`), or None.

    Raises:
        UserError: a stage with an unknown key, no epoch, epochs out of order, or another batch size.
    """

    def __init__(self, config, seed, boxed=False):
        self._config, self._seed = config, seed
        self._stages = _checked(config)
        self._open, self._loader, self._beside = None, None, None
        self.bad, self.views = BadImages(config), lambda epoch: None
        self.unlabelled = Unlabelled(config, seed, boxed) if config.get(UNLABELLED) else None

    @classmethod
    def of(cls, recipe, seed):
        """Those of a `recipe.Recipe`.

        Raises:
            UserError: as the constructor, or images without labels and no teacher.
        """
        config, method = recipe.student, recipe.method
        if config.get(UNLABELLED) and method is None:
            raise UserError(f"{UNLABELLED}: needs a teacher (--slim_config): without one nothing can be learned of it")
        return cls(config, seed, bool(method and method.options.get(PSEUDO_BOXES) not in (None, False)))

    def loader(self, epoch):
        """The `TrainLoader` of an epoch."""
        current = sum(stage["epoch"] <= epoch for stage in self._stages)
        if current != self._open:
            self._loader = self._beside = None  # its data set goes before the next comes
            (self._loader, self._beside), self._open = self._make(current), current
        self._loader.views, self._loader.stage = self.views(epoch), current
        return self._loader

    def rest(self, epoch, epochs):
        """The epochs from `epoch` on that have the same reader, of a run of `epochs`."""
        return range(epoch, min([stage["epoch"] for stage in self._stages if stage["epoch"] > epoch] + [epochs]))

    def batches(self, epoch, begin=0, beside=True):
        """Iterate over the batches of an epoch, from batch `begin` on.

        Args:
            epoch, begin: from 0.
            beside: whether images without labels stand beside them, where the run has any.
        """
        loader = self.loader(epoch)
        batches = loader.epoch(epoch, begin)
        if not beside or self._beside is None:
            return batches
        return self.unlabelled.beside(batches, self._beside, epoch * len(loader) + begin)

    def _make(self, current):
        config = clone(self._config)
        for stage in self._stages[:current]:
            merge(config, {"TrainReader": clone(stage.get("TrainReader") or {})})
        with scope(config):
            dataset = open_dataset("TrainDataset", config)
            workers = int(config.get("worker_num") or 0)
            reader = create("TrainReader")
            with built_from_config("TrainReader"):
                loader = TrainLoader(reader, dataset, workers, self._seed, self.bad)
        return loader, self.unlabelled and self.unlabelled.loader(config, dataset.data_fields)


def _checked(config):
    stages = config.get("stages") or []
    if not isinstance(stages, list) or not all(isinstance(stage, dict) for stage in stages):
        raise UserError(f"stages has to be a list like [{{epoch: 280, TrainReader: {{...}}}}], found {stages!r}")
    before = 0
    for stage in stages:
        for key in stage:
            if key not in _KEYS:
                raise UserError(f"stages: unknown key {key!r}{nearest(key, _KEYS)}; a stage has {', '.join(_KEYS)}")
        epoch = stage.get("epoch")
        if isinstance(epoch, bool) or not isinstance(epoch, int) or epoch <= before:
            raise UserError(f"stages: every stage needs a first `epoch`, one after the other from 1; found {epoch!r}")
        before = epoch
        sizes = [(reader or {}).get("batch_size") for reader in (config["TrainReader"], stage.get("TrainReader"))]
        if sizes[1] not in (None, sizes[0]):
            raise UserError(f"stages: TrainReader.batch_size is {sizes[0]}, but {sizes[1]} from epoch {epoch} on")
    return stages

"""A second stream of images, without labels, beside the training batches: ``unlabelled:`` and ``UnlabelledReader:``."""

import hashlib

from ppkd.bridge.bad_images import BadImages
from ppkd.bridge.box_targets import BoxTargets
from ppkd.bridge.own_data import finds_masks
from ppkd.bridge.strong_view import DEFAULT, add_strong_view
from ppkd.bridge.unlabelled import KEY, dataset_of, find_photographs
from ppkd.bridge.workspace import built_from_config, create, scope
from ppkd.errors import UserError, nearest
from ppkd.files.yaml_io import clone, merge
from ppkd.recipe.keys import is_number
from ppkd.recipe.plan import UNLABELLED
from ppkd.recipe.pseudo_boxes import NAME as PSEUDO_BOXES
from ppkd.terminal.log import logger
from ppkd.training.loader import TrainLoader
from ppkd.training.seeds import other_seed

_KEYS = ("images", "image_dir", "ratio")
_READER = "UnlabelledReader"


class Unlabelled:
    """Batches of images without labels, a fixed number of images beside every training batch.

    All of the images are gone through in an order of their own, anew as often as it takes: which images stand beside a
    batch depends on the seed and on how many batches were before, so nothing has to be kept for resuming.

    Args:
        config: the run's config.
        seed: of the run.
        boxed: whether a teacher's boxes are their labels: the student then sees them in a strong view.

    Attributes:
        photographs: `unlabelled.Photographs`.
        size: images of a batch, on one rank.
        bad: `bad_images.BadImages`.
        seen: images so far, on this rank.

    Raises:
        UserError: anything wrong with ``unlabelled:``.
    """

    def __init__(self, config, seed, boxed=False):
        given = config[UNLABELLED]
        given = given if isinstance(given, dict) else {"images": given}
        for key in given:
            if key not in _KEYS:
                raise UserError(f"{UNLABELLED} has no key {key!r}{nearest(str(key), _KEYS)}; it has {', '.join(_KEYS)}")
        ratio = given.get("ratio", 1)
        if not is_number(ratio) or ratio <= 0:
            raise UserError(f"{UNLABELLED}.ratio has to be a number above 0, found {ratio!r}")
        if boxed and finds_masks(config):
            raise UserError(
                f"distill.{PSEUDO_BOXES}: {config.get('architecture')} learns masks, which a teacher's boxes do not "
                "have: terms do without (leave pseudo_boxes out)"
            )
        allowed = config.get("allow_outside") is True
        self.photographs = find_photographs(given.get("images"), UNLABELLED, given.get("image_dir"), allowed)
        self.size = max(1, round(ratio * config["TrainReader"].get("batch_size", 1)))
        self.bad, self.seen = BadImages(config, "unlabelled"), 0
        self._seed, self._boxed, self._targets = other_seed(seed), boxed, None
        labelled = config["TrainReader"].get("batch_size", 1)
        logger().info("%s: %d images, %d of them beside %d labelled ones", UNLABELLED, len(self.photographs.names),
                      self.size, labelled)  # fmt: skip

    @property
    def digest(self):
        """Of the names of the images: other ones stand beside other batches."""
        return hashlib.sha256("\0".join(self.photographs.names).encode("utf-8", "surrogateescape")).hexdigest()

    def loader(self, config, fields):
        """The `loader.TrainLoader` of the stream.

        Args:
            config: the run's; ``UnlabelledReader`` is merged over ``TrainReader``.
            fields: ``data_fields`` of the training set.
        """
        reader = merge(clone(config["TrainReader"]), clone(config.get(_READER) or {}))
        if "batch_size" in (config.get(_READER) or {}):
            raise UserError(f"{_READER}.batch_size: {UNLABELLED}.ratio says how many images are beside a batch")
        reader["batch_size"], strong = self.size, reader.pop("strong", None)
        if strong and not self._boxed:
            raise UserError(f"{_READER}.strong goes with distill.pseudo_boxes: else there is one view")
        with scope(config | {"TrainReader": reader}):
            made = self._reader(config)
            with built_from_config(_READER):
                if self._boxed and (strong := DEFAULT if strong is None else strong):
                    add_strong_view(made, strong)
                dataset = dataset_of(self.photographs, fields)
                workers = int(config.get("worker_num") or 0)
                loader = TrainLoader(made, dataset, workers, self._seed, self.bad, UNLABELLED, _READER)
        self._targets = made
        return loader

    @staticmethod
    def _reader(config):
        try:
            return create("TrainReader")
        except UserError as error:
            if not config.get(_READER):
                raise
            raise UserError(f"{_READER} (what it leaves out is TrainReader's): {error}") from error

    def with_boxes(self, batch, found):
        """A batch of the stream with boxes, as its current reader makes them; see `box_targets.BoxTargets`."""
        if not isinstance(self._targets, BoxTargets):
            self._targets = BoxTargets(self._targets)
        return self._targets(batch, found)

    def beside(self, batches, loader, before):
        """Batches with one of images without labels under `unlabelled.KEY`.

        Args:
            batches: of the training set.
            loader: of `loader`.
            before: how many batches of the run were before these.
        """
        stream = _endless(loader, before)
        try:
            for batch in batches:
                batch[KEY] = next(stream)
                self.seen += int(batch[KEY]["image"].shape[0]) if "image" in batch[KEY] else 0
                yield batch
        finally:
            stream.close()

    def state(self):
        """What resuming needs: what was counted."""
        return {"seen": self.seen, "bad": self.bad.state()}

    def restore(self, state):
        """Go on counting as `state` says; None is a state of a run without such images."""
        self.seen = (state or {}).get("seen", 0)
        self.bad.restore((state or {}).get("bad"))


def tell_end(model, epochs):
    """Warn where images without labels are of no use any more before a run ends: a shipped file's terms have an end."""

    def on(epoch):
        boxes = model.boxes is not None and model.boxes.factor(epoch) > 0
        return boxes or any(term.weight(epoch) > 0 for term in model.terms)

    last = max(filter(on, range(epochs)), default=-1) + 1
    if last < epochs:
        cure = "-o distill.stop_epoch=null teaches on"
        logger().warning("unlabelled: of no use after epoch %d of %d, where the last term ends; %s", last, epochs, cure)


def _endless(loader, before):
    epoch, begin = divmod(before, len(loader))
    while True:
        yield from loader.epoch(epoch, begin)
        epoch, begin = epoch + 1, 0

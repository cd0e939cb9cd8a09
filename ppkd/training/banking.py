"""The bank of a run (``distill.bank``): what it takes is said before, and the teacher goes once all is in it."""

import os
import shutil

from paddle import distributed as dist

from ppkd.bridge.normalisation import OF_TEACHERS, Normalisation
from ppkd.bridge.workspace import scope
from ppkd.build import build_model, build_teachers
from ppkd.engine.bank import ROOM, VIEW, Bank
from ppkd.errors import UserError
from ppkd.files.records import digest_of
from ppkd.files.regular import open_file
from ppkd.methods import plan
from ppkd.terminal.log import counted, duration, logger
from ppkd.training.bank_size import epochs_of_views, in_words, measured, never_read, too_large
from ppkd.training.contents import PREFIX, contents
from ppkd.training.device import empty_cache
from ppkd.training.digest import digest
from ppkd.training.loader import undisturbed
from ppkd.training.precision import Precision
from ppkd.training.sharing import gathered
from ppkd.training.stages import Stages

FOLDER = "bank"


class Banking:
    """Lets a run's model read from a bank what teachers have said, and fill it.

    Args:
        recipe: `recipe.Recipe`.
        model: `model.DistillModel`, which is given the bank.
        stages: `stages.Stages`, whose batches become views.
        precision: `precision.Precision`.

    Attributes:
        bank: `bank.Bank`, which `open` gives to the model.
    """

    def __init__(self, recipe, model, stages, precision):
        self.spec = model.bank_spec
        self._recipe, self._model, self._stages, self._precision = recipe, model, stages, precision
        self._epochs = int(recipe.student.get("epoch") or 1)
        self._told = {}
        live, own = self.spec.on_failure == "live", self.spec.folder is None
        folder = self.spec.folder or os.path.join(recipe.output_dir, FOLDER)
        self.bank = Bank(folder, self._of(), self.spec.dtype, live, anew=live and own)

    def open(self):
        """From now on batches are views, and the model has the bank.

        Raises:
            UserError: the folder has a bank of something else.
        """
        self.bank.open()
        self._stages.views = lambda epoch: self.spec.views if self._on(epoch) else None
        self._model.asked.bank, self._model.asked.recall = self.bank, self._recall

    def of_no_use(self):
        """Why the run goes on without this bank, or None; the same on all ranks, and when it is resumed.

        Raises:
            UserError: it would be too large, and the live teacher is not to go on.
        """
        begun = self.bank.is_begun()  # by others as well, or by this run before it was resumed: of use in any case
        if gathered(begun)[0] if dist.get_world_size() > 1 else begun:
            return None
        views = epochs_of_views(self._model, self._stages, self._epochs)
        if views and self.spec.folder is None and (why := never_read(self.spec.views, views)):
            return why
        if (why := self.too_large(views)) and self.spec.on_failure != "live":
            raise UserError(f"distill.bank: {why}; on_failure: live goes on without")
        return why

    def too_large(self, views):
        """Why it would take more than it may, or None; of `bank_size.epochs_of_views`."""
        return too_large(self.spec, self._model, self._stages, self._precision, views)

    def _of(self):
        """What the bank is of: teachers, what terms take of them, and how images are made into views."""
        names = tuple(f"{name}." for name in self._recipe.teachers)
        every = digest(self._recipe, 1)
        kept = {
            key: value
            for key, value in every.items()
            if key.split(".")[0] in ("seed", "TrainReader", "stages") or key.startswith(names)
        }
        files = {k: v for k, v in contents(self._recipe).items() if k.startswith(f"{PREFIX}TrainDataset.")}
        of = {k: v for k, v in kept.items() if not k.endswith(("pretrain_weights", "shared_memory", ".weight"))} | files
        self._weights = {name: _weights(model) for name, model in self._model.teachers.items()}
        of |= {f"weights of {name}": digest for name, digest in self._weights.items()}
        for name, spec in self._recipe.teachers.items():  # its readers are none of the run's, and say what it sees
            of[f"images of {name}"] = str(Normalisation.of(spec.config, OF_TEACHERS))
        of["assigner"] = self._model.asked.assigner
        of["terms"] = sorted({name for term in self._model.banked for name in term.keeps})
        if any(term.spec.teacher_connector != "none" for term in self._model.banked):  # what is kept is behind it
            of |= {key: value for key, value in every.items() if key.startswith("distill.plugins.")}
        if self._precision.on:
            of["precision"] = [str(getattr(self._precision, key)) for key in ("level", "dtype", "_of_teachers")]
        return of

    def _recall(self):
        with undisturbed():
            teachers = build_teachers(self._recipe, self._model)
        self._precision.prepare_teachers(teachers.values())
        for name, model in teachers.items():
            if self._weights[name] != _weights(model):
                raise UserError(f"{name}: its weights are others than when the run began")
        return teachers

    def _on(self, epoch):
        # Where no teacher is asked there is nothing to keep, and an image is seen anew every time.
        over = self._model.distillation.over
        return any(term.weight(epoch) and not over(term, epoch) for term in self._model.terms)

    def taught(self, epoch):
        """Whether a term is on in an epoch and its batches are views: names of what mixes images are told once."""
        if not self._on(epoch):
            return False
        loader = self._stages.loader(epoch)
        if mixing := loader.mixes(epoch):
            if self._told.get("mixing") != mixing:
                _tell(self.spec)(
                    "distill.bank: from epoch %d on the live teacher stays: %s makes one image of several",
                    epoch + 1, " and ".join(mixing),
                )  # fmt: skip
            self._told["mixing"] = mixing
        return not mixing

    def enter(self, epoch):
        """Begin an epoch: say what its reader's views will take, once, and let teachers go whose views are all there.

        Raises:
            UserError: they do not fit on the disk, and the live teacher is not to go on.
        """
        if not self.taught(epoch):
            return
        if self.bank.failure:
            return
        missing = self._missing(epoch)
        stage = self._stages.loader(epoch).stage
        if missing and self._told.get("stage") != stage:
            self._told["stage"] = stage
            self.announce(epoch, missing)
        if not missing and len(self._model.asked):
            self._model.asked.let_go()
            empty_cache()
            logger().info("epoch %d: every view is in the bank, the teacher is let go", epoch + 1)

    def _rest(self, epoch):
        """The epochs of an epoch's reader that are still to come and have views."""
        return [number for number in self._stages.rest(epoch, self._epochs) if self.taught(number)]

    def _views(self, epoch):
        """The views of an epoch's reader that are still to come: one epoch of each."""
        return {number % self.spec.views: number for number in reversed(self._rest(epoch))}

    def _missing(self, epoch):
        loader = self._stages.loader(epoch)
        names = (name for number in self._views(epoch).values() for name in loader.names(number))
        return self.bank.missing([name for name in names if name is not None])

    def announce(self, epoch, missing):
        """Say what the views that are missing will take of the disk, and what they will save.

        Args:
            epoch: one with their reader.
            missing: their names.

        Raises:
            UserError: they do not fit, and the live teacher is not to go on.
        """
        loader = self._stages.loader(epoch)
        views = self._views(epoch)
        size, seconds, images = measured(self._model, self._precision, loader, epoch, self.spec.dtype)
        batches = len(loader) * len(views)
        wanted, free = size * len(missing) * dist.get_world_size(), shutil.disk_usage(self.bank.folder).free
        rest = self._rest(epoch)
        steps, end = len(loader) * len(rest), rest[-1] + 1
        logger().info(
            "bank: %s of %d images, %d of %d batches there; the others take about %s (%s an image and view), "
            "%s are free in %s; the teacher takes %.2f s a batch: about %s of it in this run are saved%s",
            counted(len(views), "view"), loader.images, batches - len(missing), batches, in_words(wanted),
            in_words(size / images), in_words(free), self.bank.folder, seconds,
            duration(max(0, steps - len(missing)) * seconds),
            self._after(end, len(rest) / max(len(views), 1)),
        )  # fmt: skip
        if steps <= batches == len(missing):  # of a run that goes on some are there, and only what is left is counted
            logger().warning(
                "distill.bank: with %s in so many epochs none is seen twice", counted(self.spec.views, "view")
            )
        if wanted + ROOM <= free:
            return
        fit = int(max(free - ROOM, 0) / (wanted / len(missing) * len(loader)))
        text = (
            f"distill.bank: {len(missing)} batches of views take about {in_words(wanted)}, and {in_words(free)} are "
            f"free in {self.bank.folder} ({in_words(ROOM)} of it are left alone): "
            + (f"views: {fit} would fit" if fit else "not one view would fit")
        )
        if self.spec.on_failure != "live":
            raise UserError(f"{text}; on_failure: live fills what it can")
        logger().warning("%s; the teacher goes on where a view is missing", text)

    def _after(self, end, times):
        if end == self._epochs:  # seen so often an image teaches less: docs/bank.md
            return f"; to the run's end, each {times:.0f} times: distill.stop_epoch ends them earlier" * (times > 1)
        return "" if self._on(end) else f"; after epoch {end} there are no views"

    @property
    def stops(self):
        """Why the run has to stop, or None."""
        return self.bank.stops

    def leave(self):
        """End the run: its own bank goes, which would stay unseen on the disk; in a folder that was named it stays."""
        if self.spec.folder is None and (size := self.bank.remove()):
            logger().info("bank: the run has ended, its %s are removed (distill.bank.folder keeps one)", in_words(size))

    def fill(self, shard=(0, 1), follow=None):
        """Ask the teachers about every view of the run that is not there, or not whole.

        Args:
            shard: ``(i, n)``: of all batches every n-th, from number i on.
            follow: function from batches, text and total to the batches, that shows how far it is.

        Returns:
            How many batches of views were filled, and how many were there.

        Raises:
            UserError: they do not fit, or cannot be written.
        """
        filled = there = 0
        done = set()
        for epoch in range(self._epochs):
            if not self.taught(epoch):
                continue
            loader = self._stages.loader(epoch)
            if (place := (loader.stage, epoch % self.spec.views)) in done:
                continue
            if not any(stage == loader.stage for stage, _ in done) and (missing := self._missing(epoch)):
                self.announce(epoch, missing)
            done.add(place)
            mine = {
                number: name
                for number, name in enumerate(loader.names(epoch))
                if name is not None and number % shard[1] == shard[0]
            }
            wanted = {number for number, name in mine.items() if not self.bank.is_whole(name)}
            there += len(mine) - len(wanted)
            batches = loader.epoch(epoch, only=wanted)
            for batch in follow(batches, f"view {place[1] + 1}", len(wanted)) if follow else batches:
                if VIEW in batch:
                    batch["epoch_id"] = epoch
                    with self._precision.context():
                        self._model.fill(batch)
                    filled += 1
                if self.bank.failure:
                    raise UserError(f"{self.bank.failure}; what is in the bank stays")
        return filled, there


class NoBank:
    """In place of a `Banking` for a run that has none."""

    stops = None

    def enter(self, epoch):
        """An epoch begins."""

    def leave(self):
        """The run has ended."""


def banking_of(recipe, model, stages, precision, epoch):
    """The `Banking` of a run that stands at an epoch; `NoBank` where it has none, and why is told.

    Raises:
        UserError: as `Banking` and `Banking.enter`.
    """
    if model is None or model.bank_spec is None:
        return NoBank()
    if model.bound:
        tell = _tell(model.bank_spec)
        tell("distill.bank: the live teacher stays, and there are no views: %s", "; ".join(model.bound))
        return NoBank()
    banking = Banking(recipe, model, stages, precision)
    if why := banking.of_no_use():
        logger().warning("distill.bank: none; the teacher is asked in every step: %s", why)
        return NoBank()
    banking.open()
    if epoch < banking._epochs:
        model.distillation.enter(epoch)  # resumed, terms may have ended by themselves, and then need no views
        banking.enter(epoch)
    return banking


def fill_bank(recipe, shard, amp, follow):
    """Fill the bank of a recipe beforehand.

    Args:
        recipe: `recipe.Recipe`.
        shard, follow: see `Banking.fill`.
        amp: whether the run will be in mixed precision.

    Returns:
        ``(folder, batches of views filled, those that were there)``.

    Raises:
        UserError: the recipe has no bank, or one that would not be used; as `Banking.fill`.
    """
    steps = recipe.method and plan(recipe.method)
    if steps is None or steps.bank is None:
        raise UserError("bank: the recipe has none: -o distill.bank.views=8 beside --slim_config gives it one")
    with scope(recipe.student):
        stages = Stages.of(recipe, int(recipe.student.get("seed") or 0))
        model = build_model(recipe, load=False)
        if model.bound:
            raise UserError(f"bank: this recipe keeps the live teacher: {'; '.join(model.bound)}")
        precision = Precision(recipe.student, amp)
        precision.prepare_teachers(model.teachers.values())
        model.compute_teachers(precision.of_teachers)
        banking = Banking(recipe, model, stages, precision)
        if why := banking.too_large(epochs_of_views(model, stages, banking._epochs)):
            raise UserError(f"bank: {why}")
        banking.open()
        if banking.bank.failure:
            raise UserError(banking.bank.failure)
        if not any(map(banking.taught, range(banking._epochs))):
            raise UserError(
                f"bank: no epoch of this run ({counted(banking._epochs, 'epoch')}) has views: no term is on in it "
                "(start_epoch), or its images are mixed to the end"
            )
        return banking.bank.folder, *banking.fill(shard, follow)


def _tell(spec):
    """How that there is no bank is told: to who wants one in any case as a warning."""
    return logger().info if spec.on_failure == "live" else logger().warning


def _weights(model):
    """A digest of all that a model computes with."""
    if (session := getattr(model, "session", None)) is not None:  # of a file that ONNX Runtime has
        with open_file(session.path, "rb") as file:
            return digest_of(file.read()).hex()
    state = sorted(model.state_dict().items())
    return digest_of(*(part for name, x in state for part in (name.encode(), x.numpy().tobytes()))).hex()

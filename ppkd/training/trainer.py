"""The training loop: ppdet's readers, optimizers and metrics around a plain or a distilled student."""

import contextlib
import operator
import os

import paddle
from paddle import distributed as dist

from ppkd.bridge.class_names import names_of_training, tell_taught, tell_unused
from ppkd.bridge.compat.loader_processes import lost_processes_are_told
from ppkd.bridge.datasets import tell_same_images
from ppkd.bridge.operators import check_operators
from ppkd.bridge.sizes import EVAL_SIZE, check_sizes, reader_size
from ppkd.bridge.unlabelled import refuse_validation_images
from ppkd.bridge.workspace import create, scope
from ppkd.build import build_model
from ppkd.detectors import detector_for
from ppkd.engine.model import DistillModel
from ppkd.engine.parallel import distribute
from ppkd.errors import UserError
from ppkd.files.lock import held_alone
from ppkd.recipe.plan import UNLABELLED
from ppkd.terminal.log import counted, logger
from ppkd.terminal.progress import follow
from ppkd.training import checkpoint
from ppkd.training.averaging import Averaging
from ppkd.training.banking import banking_of
from ppkd.training.batch_size import BatchSize, count
from ppkd.training.contents import PREFIX, contents
from ppkd.training.device import empty_cache
from ppkd.training.digest import digest
from ppkd.training.learning_rate import learning_rate
from ppkd.training.meters import Meters
from ppkd.training.numerics import Numerics
from ppkd.training.of_ranks import OfRanks
from ppkd.training.optimizing import Moving
from ppkd.training.parts import Parts
from ppkd.training.patience import Patience
from ppkd.training.precision import Precision
from ppkd.training.restart import Restart
from ppkd.training.resuming import state_to_go_on
from ppkd.training.runlog import RunLog
from ppkd.training.saving import Saving
from ppkd.training.seeds import seed_everything, seed_step
from ppkd.training.stages import Stages
from ppkd.training.standing import Standing
from ppkd.training.step import Step
from ppkd.training.stopping import Stopped, StopRequest
from ppkd.training.telling import Telling
from ppkd.training.unlabelled import tell_end
from ppkd.training.update import Update
from ppkd.training.validation import Validation
from ppkd.training.weights import Weights


class Trainer:
    """Trains what a recipe describes. Use as ``with Trainer.open(recipe) as trainer: trainer.run()``.

    Args:
        recipe: `recipe.Recipe`.
        table: ppdet's global config inside `workspace.scope`.
        batch_size: `batch_size.BatchSize`.
        validate: evaluate after every snapshot and keep the best weights.
        resume: checkpoint to go on from, ``auto`` for the newest of the output folder that can be read, or None.
        force: go on with a checkpoint of another recipe.
        max_steps: stop after so many steps, or None.
        amp: mixed precision on a device that has it.
        vdl_dir: folder for VisualDL logs, or None.
        trackers: names in `trackers.NAMES`.
        thresholds: of `pseudo_boxes`, class -> least score, None for one without boxes; those that the recipe gives do
            not have to be among them. Rank 0's count.

    Attributes:
        student: ppdet model.
        distill: the `model.DistillModel` around it, or None in plain training.
        distillation: its `distillation.Distillation`, or None.
        standing: `standing.Standing`.
        saving: `saving.Saving`.

    Raises:
        UserError: anything missing or unfit, before any training.
    """

    def __init__(
        self, recipe, table, batch_size, validate=False, resume=None, force=False, max_steps=None, amp=False,
        vdl_dir=None, trackers=(), thresholds=None,
    ):  # fmt: skip
        self.recipe, self.config, self._max_steps = recipe, recipe.student, max_steps
        self.rank, self.ranks = dist.get_rank(), dist.get_world_size()
        self.output_dir = recipe.output_dir
        self.seed = int(self.config.get("seed") or 0)
        self._images, self._epochs = batch_size.real, count(self.config, "epoch", None)
        self._snapshot_steps = count(self.config, "snapshot_steps", 0)
        check_sizes(recipe, reader_size(self.config, "EvalReader"), EVAL_SIZE)  # what is trained is evaluated some day
        self.patience = Patience(self.config, validate)
        self.digest, self.names = digest(recipe, self.ranks), names_of_training(self.config)
        tell_unused(self.config)
        self._stages = Stages.of(recipe, self.seed)
        if self._stages.unlabelled:
            self.digest[PREFIX + UNLABELLED] = self._stages.unlabelled.digest
        state = state_to_go_on(recipe, resume, force, self.digest, self.names)
        if validate:
            validated = Validation.check(recipe)
        loader = self._stages.loader(state["epoch"] if state else 0)
        if validate and self.rank == 0:
            tell_same_images(loader.files, validated)
            if self._stages.unlabelled:
                refuse_validation_images(self._stages.unlabelled.photographs.paths, validated, UNLABELLED)
        self.standing = Standing(len(loader), batch_size.accumulate)
        # Initial weights are the first that is drawn.
        seed_everything(self.seed)
        model = build_model(recipe, load=state is None)
        self.digest |= contents(recipe)  # now that weights of an address are here too
        tell_taught(recipe, self.names)
        self.distill = model if isinstance(model, DistillModel) else None
        self.student, self.distillation = (model.student, model.distillation) if self.distill else (model, None)
        check_operators(self.student)
        if self.distill is not None:
            self.distill.batches = self.standing.batches
            if self._stages.unlabelled:
                tell_end(self.distill, int(self.config.get("epoch") or 1))
            if self.distill.boxes is not None:
                self.distill.boxes.begin(self._stages.unlabelled.with_boxes, self.names, thresholds)
        self.lr = learning_rate(self.config, self.standing.steps)
        self.optimizer = create("OptimizerBuilder", self.lr, model)
        self.precision = Precision(self.config, amp)
        # Changes the types of weights, which all that follows holds.
        self.precision.prepare(self.student, self.optimizer, self.distill.teachers.values() if self.distill else ())
        if self.distill is not None:
            self.distill.compute_teachers(self.precision.of_teachers)
        self._update = Update(self.optimizer, self.lr, model.parameters(), self.distill, self.precision)
        self.averaging = Averaging(self.student, self.config, self.precision)
        detector = detector_for(self.student)
        self.numerics = Numerics(
            self.config, model, detector, self.output_dir, self.seed, self.rank, self.reload, self.precision.scales
        )
        of_ranks = OfRanks(self.distillation)
        self._restart = Restart(self.config, self.distill, self._update, self.averaging, self.standing)
        # By their names in a resume file, in the order of restoring: what a rank has of its own goes over "terms".
        parts = Parts({
            "student": Weights(self.student, "student (-c)", self.averaging.own, self.precision.whole),
            "terms": Weights(self.distillation, "method or teacher (--slim_config)"),
            "of_ranks": of_ranks,
            "optimizer": self._update.optimizing,
            "moments": self._update.moments,
            "moving": Moving(model.parameters()),
            "ema": self.averaging,
            "restart": self._restart,
            "detector": detector,
            "scaler": self.precision,
            "numerics": self.numerics,
            "patience": self.patience,
            "bad_images": self._stages.bad,
        })  # fmt: skip
        if self._stages.unlabelled:
            parts[UNLABELLED] = self._stages.unlabelled
        marks = {"digest": self.digest, "names": self.names}
        self.saving = Saving(self.config, self.output_dir, self.rank, marks, self.student, self.standing, parts)
        if state is not None:
            self.saving.restore(state)
        self._banking = banking_of(recipe, self.distill, self._stages, self.precision, self.epoch)
        # What was recorded after the step that the run goes on from will be recorded anew.
        self._log = RunLog(self.output_dir, recipe, self.rank == 0, vdl_dir, self.names, trackers)
        self._log.rewind(self.step if state is not None else -1)
        made = (table, self.standing, self.student, self.names, self._log, self.patience)
        self._validation = Validation(recipe, *made) if validate else None
        self._stages.bad.keep_in(self.output_dir if self.rank == 0 else None)
        # Makes new layers around the same tensors: after what is restored by layers and their names.
        if self._uses_sync_bn():
            paddle.nn.SyncBatchNorm.convert_sync_batchnorm(self.student)
        self.model = distribute(model)
        if state is not None:  # once more, for it gives all ranks what the first one has
            of_ranks.restore(state.get("of_ranks"))
        self._step = Step(
            self.model, self._update, self.precision, self.averaging, self.numerics, self._restart, self.standing
        )
        self._stop = StopRequest(self.ranks == 1)
        self._telling = Telling(self._log, self.standing, self._epochs, self._rate, self.rank == 0)

    epoch, batch, step = (property(operator.attrgetter(f"standing.{name}")) for name in ("epoch", "batch", "step"))

    @property
    def loader(self):
        """The `TrainLoader` of the current epoch."""
        return self._stages.loader(self.epoch)

    @classmethod
    @contextlib.contextmanager
    def open(cls, recipe, **options):
        """A context manager that holds ppdet's global config, and the run's folder, while the trainer lives."""
        batch_size = BatchSize(recipe.student, dist.get_world_size())  # may scale the learning rate
        with contextlib.ExitStack() as stack:
            if dist.get_rank() == 0:  # which writes, for all of its run
                stack.enter_context(held_alone(recipe.output_dir))
            trainer = cls(recipe, stack.enter_context(scope(recipe.student)), batch_size, **options)
            stack.callback(trainer._log.close)
            yield trainer

    @lost_processes_are_told()
    def run(self):
        """Train to the last epoch (or `max_steps`, or a signal that asks to stop).

        Returns:
            The last evaluation's results, or an empty dict without `validate`.

        Raises:
            Stopped: a signal came; everything is saved.
        """
        epochs = self._epochs
        meters = Meters(self._left(epochs), int(self.config.get("log_iter") or 20), self._images)
        results = self._validation.evaluate_what_was_not(self.precision.whole) if self._validation else {}
        with self._stop:
            while self.epoch < epochs and not self._reached_max() and not self.patience.over():
                self._train_epoch(epochs, meters)
                finished = self.epoch == epochs or self._reached_max()
                whole = self.batch == 0 and self.epoch % int(self.config.get("snapshot_epoch") or 1) == 0
                if finished or whole:
                    results = self._snapshot("model_final" if finished else str(self.epoch - 1))
                if self._banking.stops and not finished:
                    self.saving.save(checkpoint.LAST)
                    raise UserError(f"{self._banking.stops}; all else is saved: go on with --resume auto")
                if self._stop.signal is not None and not finished:
                    self.saving.save(checkpoint.LAST)
                    raise Stopped(self._stop.signal, os.path.join(self.output_dir, checkpoint.LAST))
        if self.epoch < epochs and self.patience.over():
            logger().info(
                "epoch %d: no better AP since %s (patience)", self.epoch, counted(self.patience.since, "evaluation")
            )
            self.saving.save("model_final")
            self.saving.keep_newest("model_final")
        if self.ranks > 1:
            dist.barrier()
        if self.epoch == epochs or self.patience.over():
            self._banking.leave()
        return results

    def _left(self, epochs):
        """Steps that this run has still to take."""
        at = self.standing
        left = (epochs - at.epoch) * at.steps - at.batch // at.accumulate
        return min(left, self._max_steps - self.step) if self._max_steps else left

    def _train_epoch(self, epochs, meters):
        """Train from batch `self.batch` to the end of the epoch, or to where the run is to stop."""
        self.model.train()
        if self.distill is not None and self.distill.enter(self.epoch):
            logger().info("epoch %d: distillation is over, the teacher is let go", self.epoch + 1)
            empty_cache()
        self._banking.enter(self.epoch)
        meters.start()
        at = self.standing
        if at.batch == 0 and (restarted := self._restart.begin_epoch()):
            self._log.add({"epoch": at.epoch, "step": at.step, **restarted})
        batches = self._batches(at.epoch, at.batch)
        for batch in follow(batches, f"epoch {at.epoch + 1}/{epochs}", at.batches, at.batch):
            meters.data_ready()
            batch["epoch_id"] = at.epoch
            seed_step(self.seed, at.epoch, at.batch, self.rank)
            if self.distill is not None:
                self.distill.timed = meters.due(ahead=1) or at.batch + 1 == at.batches
                self.distill.batch = at.batch
                self.distill.watched = at.watched and at.batch == 0
            losses, whole = self._train_batch(batch), at.ends_step
            if found := (self.distill.take_pulls() if self.distill else {}) | self._update.lengths.take():
                self._log.add({"kind": "gradients", "epoch": self.epoch, "step": self.step, **found})
            at.advance()
            meters.add(losses, self.distill and self.distill.teacher_seconds, whole)
            if whole and self._after_step(meters):
                break
        if at.batch == at.batches:
            at.end_epoch()

    def _after_step(self, meters):
        """Log and save where they are due; whether the run is to stop here."""
        ends = self.batch == self.standing.batches
        if meters.due() or ends or self._reached_max():
            self._report(meters)
        elif meters.silent():
            self._telling.tell(meters.so_far())
        if self._snapshot_steps and self.step % self._snapshot_steps == 0:
            self.saving.save(checkpoint.LAST)
        return self._reached_max() or self._stop.signal is not None or bool(self._banking.stops)

    def _train_batch(self, batch):
        return self._step.train(batch)

    def _report(self, meters):
        counts = {"skipped_steps": self.numerics.skipped, "bad_images": len(self._stages.bad.found)}
        if beside := self._stages.unlabelled:
            counts |= {"unlabelled_images": beside.seen, "bad_unlabelled_images": len(beside.bad.found)}
            counts |= self.distill.boxes.counts() if self.distill.boxes else {}
        self._telling.report(meters.read() | self._update.clipping.read(), counts)
        self.numerics.check()

    def _rate(self):
        return float(self.lr()) * self._restart.factor()

    def reload(self, epoch, batch):
        """A batch once more."""
        return next(self._batches(epoch, batch))

    def _batches(self, epoch, begin):
        beside = self.distill is not None and self.distill.takes(UNLABELLED)
        return self._stages.batches(epoch, begin, beside)

    def _snapshot(self, name):
        """Save weights and resume state, of which no more than `keep` stay; evaluate if asked."""
        with self.averaging.applied():
            self.standing.to_evaluate = name if self._validation else None
            self.saving.write(name)
            self.saving.keep_newest(name)
            return self._validation.evaluate() if self._validation else {}

    def state(self):
        """What resuming needs, as `saving.Saving` has it."""
        return self.saving.state()

    def _reached_max(self):
        return self._max_steps is not None and self.step >= self._max_steps

    def _uses_sync_bn(self):
        return self.ranks > 1 and self.config.get("norm_type") == "sync_bn" and paddle.get_device().startswith("gpu")

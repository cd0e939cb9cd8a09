"""The training loop: ppdet's readers, optimizers and metrics around a plain or a distilled student."""

import json
import math
import os

import paddle
from paddle import distributed as dist
from paddle.utils import unique_name

from ppkd import checkpoint
from ppkd.build import build_model, student_of, terms_of
from ppkd.datasets import open_dataset
from ppkd.errors import UserError
from ppkd.evaluation import check_reader, evaluate, summary
from ppkd.loader import TrainLoader, seed_everything, seed_step
from ppkd.log import logger
from ppkd.meters import Meters
from ppkd.workspace import create, scope
from ppkd.yaml_io import dump


class Trainer:
    """Trains what a recipe describes. Use as ``with Trainer.open(recipe) as trainer: trainer.run()``.

    Args:
        recipe: `recipe.Recipe`.
        table: ppdet's global config inside `workspace.scope`.
        validate: evaluate after every snapshot and keep the best weights.
        resume: checkpoint to go on from, or None.
        max_steps: stop after so many steps, or None.
        amp: mixed precision on a device that has it.
        vdl_dir: folder for VisualDL logs, or None.

    Raises:
        UserError: anything missing or unfit, before any training.
    """

    def __init__(self, recipe, table, validate=False, resume=None, max_steps=None, amp=False, vdl_dir=None):
        self.recipe, self.config, self._table = recipe, recipe.student, table
        self._validate, self._max_steps = validate, max_steps
        self.rank, self.ranks = dist.get_rank(), dist.get_world_size()
        self.output_dir = recipe.output_dir
        self.seed = int(self.config.get("seed") or 0)
        state = checkpoint.load(resume) if resume else None
        if validate:
            check_reader(self.config)
            open_dataset("EvalDataset", self.config)  # broken annotations are told now, not after the first epoch
        dataset = open_dataset("TrainDataset", self.config)
        seed_everything(self.seed)
        model = build_model(recipe, load=state is None)
        self.student, self.terms = student_of(model), terms_of(model)
        self.loader = TrainLoader(create("TrainReader"), dataset, int(self.config.get("worker_num") or 0), self.seed)
        self.lr = create("LearningRate", len(self.loader))
        _warn_of_short_decay(self.config)
        self.optimizer = create("OptimizerBuilder", self.lr, model)
        self.ema = self._build_ema() if self.config.get("use_ema") else None
        self.epoch = self.step = 0
        self._best = -1.0
        if state is not None:
            self._restore(state)
        self._amp = amp and self._can_mix()
        self._scaler = paddle.amp.GradScaler(
            enable=self._amp, init_loss_scaling=self.config.get("init_loss_scaling", 1024)
        )
        if self._amp and state is not None and state["scaler"]:
            self._scaler.load_state_dict(state["scaler"])
        self._make_output_dir()
        self._vdl = _open_vdl(vdl_dir) if vdl_dir and self.rank == 0 else None
        if self._uses_sync_bn():
            paddle.nn.SyncBatchNorm.convert_sync_batchnorm(self.student)
        self.distill = model if self.terms is not None else None
        # What gets a gradient changes from step to step: terms have epochs, and a box branch idles without a box.
        unused = bool(self.config.get("find_unused_parameters", True))
        self.model = paddle.DataParallel(model, find_unused_parameters=unused) if self.ranks > 1 else model

    @classmethod
    def open(cls, recipe, **options):
        """A context manager that holds ppdet's global config while the trainer lives."""
        return _Opened(cls, recipe, options)

    def run(self):
        """Train to the last epoch (or `max_steps`).

        Returns:
            The last evaluation's results, or an empty dict without `validate`.
        """
        epochs = int(self.config["epoch"])
        total = (epochs - self.epoch) * len(self.loader)
        total = min(total, self._max_steps - self.step) if self._max_steps else total
        meters = Meters(total, int(self.config.get("log_iter") or 20), self._batch_size())
        results = {}
        for epoch in range(self.epoch, epochs if not self._reached_max() else 0):
            self._train_epoch(epoch, epochs, meters)
            self.epoch = epoch + 1
            finished = self.epoch == epochs or self._reached_max()
            if finished or self.epoch % int(self.config.get("snapshot_epoch") or 1) == 0:
                results = self._snapshot("model_final" if finished else str(epoch))
            if finished:
                break
        if self.ranks > 1:
            dist.barrier()
        return results

    def _train_epoch(self, epoch, epochs, meters):
        self.model.train()
        if self.distill is not None:
            self.distill.epoch = epoch
        meters.start()
        for index, batch in enumerate(self.loader.epoch(epoch)):
            meters.data_ready()
            batch["epoch_id"] = epoch
            seed_step(self.seed, epoch, index, self.rank)
            losses = self._train_step(batch)
            self.step += 1
            meters.add(losses)
            if meters.due() or self._reached_max():
                self._log(meters, epoch, epochs, index)
            if self._reached_max():
                return

    def _train_step(self, batch):
        with paddle.amp.auto_cast(
            enable=self._amp,
            custom_white_list=self.config.get("custom_white_list"),
            custom_black_list=self.config.get("custom_black_list"),
            level="O1",
        ):
            losses = self.model(batch)
        loss = self._scaler.scale(losses["loss"]) if self._amp else losses["loss"]
        loss.backward()
        # Paddle numbers an optimizer's tensors, made in its first step, through the whole process; counted afresh,
        # the state that resuming reads has the same names whatever was trained before in either process.
        with unique_name.guard():
            if self._amp:
                self._scaler.minimize(self.optimizer, loss)
            else:
                self.optimizer.step()
        self.optimizer.clear_grad()
        self.lr.step()
        if self.ema is not None:
            self.ema.update()
        return losses

    def _log(self, meters, epoch, epochs, index):
        record = {"kind": "train", "epoch": epoch, "step": self.step, "lr": float(self.optimizer.get_lr())}
        record.update(meters.read())
        if self.rank == 0:
            for line in meters.lines(record, f"epoch {epoch + 1}/{epochs} step {index + 1}/{len(self.loader)}"):
                logger().info(line)
        self._record(record)
        broken = [k for k, v in record.items() if not math.isfinite(v if isinstance(v, (int, float)) else 0)]
        if broken:
            raise UserError(
                f"step {self.step}: not finite any more: {', '.join(broken)}. Checkpoints in {self.output_dir} are "
                "as they were. Lower the learning rate or the terms' weights, or set OptimizerBuilder.clip_grad_by_norm"
            )

    def _record(self, record):
        if self.rank:
            return
        with open(os.path.join(self.output_dir, "metrics.jsonl"), "a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        if self._vdl is not None:
            for key, value in record.items():
                if isinstance(value, (int, float)) and key not in ("step", "epoch"):
                    self._vdl.add_scalar(f"{record['kind']}/{key}", value, self.step)

    def _snapshot(self, name):
        """Save weights and resume state; evaluate if asked; keep the best weights."""
        if self.rank:
            return {}
        raw = {k: v.clone() for k, v in self.student.state_dict().items()} if self.ema is not None else None
        if raw is not None:
            self.student.set_state_dict({**raw, **self.ema.apply()})
        try:
            weights = self.student.state_dict()
            checkpoint.save(self.output_dir, name, weights, self.state(raw))
            logger().info("saved %s", os.path.join(self.output_dir, name + ".pdparams"))
            if not self._validate:
                return {}
            results = evaluate(self.student, self._table)
            logger().info("epoch %d: %s", self.epoch, summary(results))
            self._record({"kind": "eval", "epoch": self.epoch, "step": self.step, **results})
            score = next(iter(results.values()), 0.0)
            if score > self._best:
                self._best = score
                checkpoint.save(self.output_dir, "best_model", weights, None)
            return results
        finally:
            if raw is not None:
                self.student.set_state_dict(raw)

    def state(self, raw=None):
        """Everything that resuming needs beside the student's saved weights.

        Args:
            raw: the student's own tensors where the saved ones are EMA's.
        """
        return {
            "epoch": self.epoch,
            "step": self.step,
            "best": self._best,
            "student": raw if raw is not None else self.student.state_dict(),
            "terms": self.terms.state_dict() if self.terms is not None else None,
            "optimizer": self.optimizer.state_dict(),
            "moving": [p.name for p in self._learned() if p.grad is not None],
            "ema": self.ema and {"step": self.ema.step, "epoch": self.ema.epoch, "tensors": self.ema.state_dict},
            "scaler": self._scaler.state_dict() if self._amp else None,
        }

    def _restore(self, state):
        if (state["terms"] is None) != (self.terms is None):
            raise UserError("-r: the checkpoint is of a run with another --slim_config (or none)")
        _restore_exactly(self.student, state["student"], "student (-c)")
        if self.terms is not None:
            _restore_exactly(self.terms, state["terms"], "method or teacher (--slim_config)")
        self.optimizer.set_state_dict(state["optimizer"])
        # Clearing leaves zeros for a gradient, and with them a parameter goes on by momentum and decay through steps
        # that do not reach it; without any it would stand still.
        for p in self._learned():
            if p.name in state["moving"]:
                p.grad = paddle.zeros_like(p)
        if self.ema is not None and state["ema"] is not None:
            self.ema.resume(state["ema"]["tensors"], state["ema"]["step"])
            self.ema.epoch = state["ema"]["epoch"]
        self.epoch, self.step, self._best = int(state["epoch"]), int(state["step"]), float(state["best"])
        logger().info("resumed after epoch %d, step %d", self.epoch, self.step)

    def _learned(self):
        return [*self.student.parameters(), *(self.terms.parameters() if self.terms is not None else [])]

    def _build_ema(self):
        from ppdet.optimizer import ModelEMA

        ema = ModelEMA(
            self.student,
            decay=self.config.get("ema_decay", 0.9998),
            ema_decay_type=self.config.get("ema_decay_type", "threshold"),
            cycle_epoch=self.config.get("cycle_epoch", -1),
            ema_black_list=self.config.get("ema_black_list"),
            ema_filter_no_grad=self.config.get("ema_filter_no_grad", False),
        )
        # It holds the student's own tensors for what is on its black list, and would freeze them at a snapshot.
        for name in ema.ema_black_list:
            del ema.state_dict[name]
        return ema

    def _make_output_dir(self):
        if self.rank:
            return
        try:
            os.makedirs(self.output_dir, exist_ok=True)
            with open(os.path.join(self.output_dir, "recipe.yml"), "w", encoding="utf-8") as file:
                file.write(dump({"run": self.config} | {k: t.config for k, t in self.recipe.teachers.items()}))
        except OSError as error:
            raise UserError(
                f"the output folder {self.output_dir} is not writable: {error}. Choose another with -o save_dir=..."
            ) from error

    def _reached_max(self):
        return self._max_steps is not None and self.step >= self._max_steps

    def _batch_size(self):
        return int(self.config["TrainReader"].get("batch_size", 1)) * self.ranks

    def _can_mix(self):
        if paddle.get_device().startswith("cpu"):
            logger().warning("--amp: Paddle has no mixed precision for training on the CPU; going on in float32")
            return False
        return True

    def _uses_sync_bn(self):
        return self.ranks > 1 and self.config.get("norm_type") == "sync_bn" and paddle.get_device().startswith("gpu")


class _Opened:
    def __init__(self, cls, recipe, options):
        self._cls, self._recipe, self._options = cls, recipe, options
        self._scope = scope(recipe.student)

    def __enter__(self):
        table = self._scope.__enter__()
        try:
            return self._cls(self._recipe, table, **self._options)
        except BaseException:
            self._scope.__exit__(None, None, None)
            raise

    def __exit__(self, *exception):
        self._scope.__exit__(None, None, None)


def _warn_of_short_decay(config):
    """Say so if the learning rate reaches its end before the run does: `-o epoch=` does not move it."""
    for scheduler in (config.get("LearningRate") or {}).get("schedulers") or []:
        ends = scheduler.get("max_epochs") if isinstance(scheduler, dict) else None
        if ends is not None and ends < int(config["epoch"]):
            logger().warning(
                "the learning rate ends after epoch %d of %d: set LearningRate.schedulers along with epoch",
                ends, int(config["epoch"]),
            )  # fmt: skip


def _restore_exactly(layer, tensors, what):
    missing, unexpected = layer.set_state_dict(tensors)
    if missing or unexpected:
        raise UserError(f"-r: the checkpoint is of another {what}; these do not fit: {[*missing, *unexpected][:4]}")


def _open_vdl(folder):
    from visualdl import LogWriter

    return LogWriter(folder)

"""Evaluates a detector with ppdet's readers and metrics."""

import contextlib
import itertools
import tempfile
import time

import paddle

from ppkd.bridge import gate, judged
from ppkd.bridge.bad_images import BadImages, checked_readers, missing_images, told
from ppkd.bridge.coco_reading import only
from ppkd.bridge.compat.loader_processes import lost_processes_are_told
from ppkd.bridge.operators import check_operator_of_metric
from ppkd.bridge.own_data import finds_masks
from ppkd.bridge.ppdet_trainer import trainer_of
from ppkd.bridge.sizes import EVAL_SIZE, fitting, follow_images, reader_size
from ppkd.bridge.voc import is_voc
from ppkd.detectors.found import check_post_process
from ppkd.errors import UserError
from ppkd.files.write import filling
from ppkd.terminal.log import duration, hushed, logger
from ppkd.terminal.progress import progress
from ppkd.training.sharing import SharedMetric, gathered, parts_of_readers

# Order of pycocotools' summary.
_COCO_STATS = ("AP", "AP50", "AP75", "APs", "APm", "APl")


def check_reader(config):
    """Refuse what ppdet's evaluation does not do.

    Raises:
        UserError: several images a batch for a detector with masks: ppdet gives images the masks of others as soon as
            one of the batch has no detection, and SOLOv2 looks at the first image only; a metric that nobody judged,
            or that is of another format than the validation set.
    """
    gate.check(str(config.get("metric")), where="metric", known=judged.METRICS)
    check_metric(config)
    size = (config.get("EvalReader") or {}).get("batch_size", 1)
    if finds_masks(config) and size != 1:
        raise UserError(
            f"EvalReader.batch_size is {size}, but ppdet evaluates masks of one image a batch only: set "
            "-o EvalReader.batch_size=1"
        )


def check_metric(config):
    """Refuse a metric that cannot read the validation set's annotations.

    Raises:
        UserError: ``COCO`` with a set of PASCAL VOC, ``VOC`` with one in COCO's format, or ``RBOX`` with one whose
            turned boxes are not read; names both keys. Or what it needs is not compiled.
    """
    section, metric = config.get("EvalDataset"), config.get("metric")
    fields = section.get("data_fields") if isinstance(section, dict) else None
    if metric == "RBOX" and "gt_poly" not in (fields or ()):
        raise UserError(
            "metric: RBOX compares turned boxes, which EvalDataset.data_fields does not list (gt_poly): set "
            "-o metric=COCO, or add gt_poly"
        )
    check_operator_of_metric(metric)
    of_voc = is_voc(section)
    of_coco = not of_voc and isinstance(section, dict) and str(section.get("anno_path") or "").endswith(".json")
    for given, wrong, format, right in (("VOC", of_coco, "COCO's", "COCO"), ("COCO", of_voc, "PASCAL VOC's", "VOC")):
        if metric == given and wrong:
            raise UserError(
                f"metric: {metric} does not go with EvalDataset, which is in {format} format "
                f"({section.get('anno_path')}): set -o metric={right}"
            )


@lost_processes_are_told()
def evaluate(model, table, output_dir=None, bad=None, shared=False):
    """Evaluate `model` on the EvalDataset of the current scope.

    Images that are missing or cannot be read are left out, told, and do not count in COCO's metric.

    Args:
        model: a ppdet detector; left in the mode it was in.
        table: ppdet's global config as `workspace.scope` yielded it.
        output_dir: folder for ``bbox.json``; None keeps no file.
        bad: `bad_images.BadImages` that counts those that are left out; None ends at more than ``max_bad_images``.
        shared: whether all processes do it together, each its part of the images, with equal models; the results are
            then those of all on each of them.

    Returns:
        ``{"AP": .., "AP50": .., "AP75": .., "APs": .., "APm": .., "APl": ..}`` for the COCO metric (fractions; -1
        where the set has no such object), ``{"mAP": ..}`` for others. Those of masks are ``mask_AP`` and so on, beside
        the boxes' or, for SOLOv2, alone.

    Raises:
        UserError: too many of the images are bad; see `found.check_post_process`.
    """
    check_post_process(model)
    training = model.training
    # ppdet writes the detections itself.
    with filling(output_dir) if output_dir is not None else tempfile.TemporaryDirectory() as folder:
        config = table.copy()
        config["model"], config["output_eval"] = model, folder
        # ppdet's trainer would make an average of its own, as large as the model, and weights of a lower type.
        config["use_ema"] = config["amp"] = False
        config["classwise"] = False  # it would draw curves into the current folder; `classwise` has them
        count_parameters(model, config)
        parts = parts_of_readers() if shared else contextlib.nullcontext()
        with parts, checked_readers(), missing_images() as missing, hushed():
            engine = trainer_of(config, "eval")
        for metric in engine._metrics:
            _know_all_classes(metric, config.get("num_classes", 80))
        if shared:
            engine._metrics = [SharedMetric(metric) for metric in engine._metrics]
        batches = _Readable(engine, missing, BadImages(table, "validation") if bad is None else bad, shared)
        counted = only(batches.ids) if table.get("metric") == "COCO" else contextlib.nullcontext()
        follow_images(model)
        size = reader_size(table, "EvalReader"), EVAL_SIZE, lambda: batches.size
        with progress("evaluating", len(engine.loader)) as bar, paddle.no_grad(), counted, fitting(*size):
            watch = engine._compose_callback = _Watch(engine, bar)
            with hushed():
                engine._eval_with_loader(batches)
    if training:
        model.train()
    return gathered(watch.results)[0] if shared else watch.results


def _know_all_classes(metric, count):
    """Give classes that the data set does not list ids of their own: ppdet fails on what is found of them.

    pycocotools then leaves that out, as there is nothing to compare it with. That classes are not listed is told where
    the two sets are compared (`between`).

    Args:
        metric: ppdet's; others than COCO's are left as they are.
        count: of the detector's classes.
    """
    known = getattr(metric, "clsid2catid", None)
    if not isinstance(known, dict):
        return
    free = itertools.count(max(known.values(), default=0) + 1)
    metric.clsid2catid = known | {place: next(free) for place in range(count) if place not in known}


def count_parameters(model, config):
    """Do what ``print_params: true`` asks for, at which ppdet's trainer fails, and take it out of `config`."""
    if config.pop("print_params", None):
        count = sum(p.size for name, p in model.named_parameters() if not name.endswith(("_mean", "_variance")))
        logger().info("%.2f million parameters", float(count) / 1e6)


class _Readable:
    """Batches of those images that can be read.

    Args:
        engine: ppdet's trainer.
        missing: paths of images that are listed and not there.
        bad: `bad_images.BadImages`.
        shared: whether other processes have other batches.

    Attributes:
        ids: of the images in the batches so far; at the end those of all processes.
        size: height and width of the last batch's images; None before there is one.
    """

    size = None

    def __init__(self, engine, missing, bad, shared=False):
        self._loader, self._bad, self._shared, self.ids = engine.loader, bad, shared, set()
        self._images = len(engine.dataset.roidbs) + len(missing)
        self._left_out = [(file, "missing") for file in missing]

    def __len__(self):
        return len(self._loader)

    def __iter__(self):
        self._bad.add(self._left_out, self._images)
        for batch in self._loader:
            if isinstance(batch, dict):
                new = told(batch)
                self._bad.add(new, self._images)
                self._left_out += new
                if "im_id" not in batch:
                    continue
                self.size = tuple(batch["image"].shape[2:]) if "image" in batch else None
                self.ids.update(batch["im_id"].numpy().reshape(-1).tolist())
            yield batch
        if self._shared:
            self._put_together()
        if not self.ids and self._left_out:
            raise UserError(f"not one validation image can be read, the first: {': '.join(self._left_out[0])}")
        if self._left_out:
            counts = self._images - len(self._left_out), self._images
            logger().warning("evaluated on %d of %d validation images: the others cannot be read", *counts)

    def _put_together(self):
        """Count what the other processes have seen as well."""
        for ids, left_out in gathered((self.ids, self._left_out)):
            self.ids |= ids
            self._left_out += [image for image in left_out if image not in self._left_out]
        self._bad.add(self._left_out, self._images)


class _Watch:
    """In place of ppdet's callbacks: reports progress and keeps the metric's values, which ppdet clears at the end.

    Args:
        engine: ppdet's trainer.
        bar: what `progress.progress` yields; without one there is a line every ten seconds.
    """

    def __init__(self, engine, bar):
        self._engine, self._bar = engine, bar
        self._begin = self._shown = time.time()
        self.results = {}

    def on_step_end(self, status):
        done, total, now = status["step_id"] + 1, len(self._engine.loader), time.time()
        if self._bar is not None:
            self._bar.update()
            if done == total:
                self._bar.close()  # the metric prints what it does
        elif now - self._shown > 10:
            self._shown = now
            left = (now - self._begin) / done * (total - done)
            logger().info("evaluating: batch %d of %d, %s left", done, total, duration(left))

    def on_epoch_end(self, status):
        for metric in self._engine._metrics:
            found = metric.get_results()
            if found is None:  # of another process
                continue
            if self._engine.cfg.metric == "COCO":
                for kind, prefix in _found_by(self._engine.cfg.architecture, found):
                    # No detection at all leaves no result: that is an AP of 0, not a missing one.
                    stats = found.get(kind, [0.0] * len(_COCO_STATS))
                    self.results.update({prefix + k: float(v) for k, v in zip(_COCO_STATS, stats)})
            else:
                self.results["mAP"] = float(found if not isinstance(found, dict) else found["bbox"][0])

    def on_step_begin(self, status):
        pass

    def on_epoch_begin(self, status):
        pass


def _found_by(architecture, found):
    """What a detector finds, the main thing first, and the prefix of its figures: SOLOv2 finds masks without boxes."""
    kinds = {"SOLO": ("mask",), "SOLOv2": ("mask",), "MaskRCNN": ("bbox", "mask")}.get(architecture, ("bbox",))
    if "mask" in found and "mask" not in kinds:
        kinds = (*kinds, "mask")  # a Cascade R-CNN with a mask head
    return [(kind, "mask_" if kind == "mask" else "") for kind in kinds]


def summary(results):
    """One line: ``AP 41.2  AP50 60.1 ...`` in percent."""
    return "  ".join(f"{k} {v * 100:.1f}" if v >= 0 else f"{k} -" for k, v in results.items())

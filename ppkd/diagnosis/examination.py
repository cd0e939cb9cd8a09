"""The examination: every check in turn, and what came of it."""

import tempfile
import time
from dataclasses import dataclass, field

from ppkd.bridge.ground_truth import VALID
from ppkd.bridge.sizes import EVAL_SIZE, check_sizes, reader_size
from ppkd.diagnosis.accuracy import measure_accuracy
from ppkd.diagnosis.classes import check_classes, judge_names
from ppkd.diagnosis.findings import ERROR, WARNING, Findings
from ppkd.diagnosis.inputs import check_readers
from ppkd.diagnosis.levels import check_levels
from ppkd.diagnosis.speed import measure_speed, take_batches
from ppkd.diagnosis.step import busiest_epoch, check_step
from ppkd.diagnosis.subject import build
from ppkd.diagnosis.unlabelled import look_at_unlabelled
from ppkd.study.cost import parameters
from ppkd.terminal.log import duration, logger, quiet
from ppkd.training.batch_size import BatchSize
from ppkd.training.evaluation import check_metric
from ppkd.training.record import how_trained
from ppkd.training.stages import Stages


@dataclass
class Examination:
    """What an examination found.

    Attributes:
        findings: `findings.Findings`.
        results: plain values by section: ``weights``, ``classes``, ``accuracy``, ``unlabelled``, ``inputs``,
            ``levels``, ``step``, ``cost``; a section that could not be measured is empty or absent.
    """

    findings: Findings = field(default_factory=Findings)
    results: dict = field(default_factory=dict)

    @property
    def verdict(self):
        """In words."""
        errors, warnings = (self.findings.of(level) for level in (ERROR, WARNING))
        if errors:
            count = "1 error" if len(errors) == 1 else f"{len(errors)} errors"
            return f"Do not start this run: {count}. First: {errors[0].advice}"
        if warnings:
            count = "1 warning" if len(warnings) == 1 else f"{len(warnings)} warnings"
            return f"It can run, but look at {count} first: {', '.join(self.findings.ids(WARNING))}."
        return "Nothing speaks against starting this run."


def examine(recipe, images=48, waived=()):
    """Examine a recipe before it is run. Writes nothing but scratch files.

    Args:
        recipe: `recipe.Recipe` with a method.
        images: how many images of the validation set to detect on.
        waived: ids of findings that count as notes.

    Returns:
        `Examination`.

    Raises:
        UserError: what would stop any run at once: files that are missing or broken.
    """
    made, begin = Examination(), time.time()
    results, findings = made.results, made.findings
    findings.waive(waived)  # a typing error is told now
    BatchSize(recipe.student, 1)
    check_metric(recipe.student)
    check_sizes(recipe, reader_size(recipe.student, "EvalReader"), EVAL_SIZE)
    logger().info("1/4 building the models and loading their weights")
    with quiet():
        subject = build(recipe, findings)
    results["weights"] = _weights(subject)
    results["classes"] = check_classes(subject, findings)
    results["inputs"] = check_readers(subject, findings)
    logger().info("2/4 accuracy on a sample of the validation set")
    with tempfile.TemporaryDirectory() as folder:
        results["accuracy"], scores = measure_accuracy(subject, images, folder, findings)
        results["unlabelled"] = look_at_unlabelled(subject, images, folder, findings)
    judge_names(results["classes"], scores, subject, findings)
    if subject.model is not None:
        _train(subject, results, findings)
    findings.waive(waived)
    logger().info("examined in %s", duration(time.time() - begin))
    return made


def _train(subject, results, findings):
    """What training would do: levels, one step in detail, a few for the time."""
    config = {**subject.recipe.student, "worker_num": 0}
    epoch = busiest_epoch(subject.model, int(config.get("epoch") or 1))
    with quiet():
        stages = Stages(config, int(config.get("seed") or 0))
        loader = stages.loader(epoch)
        results["levels"] = check_levels(subject, findings)
    subject.model.enter(epoch)
    logger().info("3/4 one training step (epoch %d) in detail", epoch + 1)
    batches = take_batches(loader, epoch)
    full = next((batch for batch in batches[0] if VALID in batch and float(batch[VALID].sum())), batches[0][0])
    try:
        results["step"] = check_step(subject, full, findings)
        logger().info("4/4 a few steps with and without the teacher, for the time")
        results["cost"] = measure_speed(subject, stages, epoch, batches, findings)
    except Exception as error:  # whatever a model meets in training: what was found before has to be told
        lines = str(error).strip().splitlines()
        findings.add("step-failed", f"a training step failed: {type(error).__name__}: {lines[0] if lines else ''}")


def _weights(subject):
    def told(match):
        if match is None:
            return None
        return {
            "file": match.path, "tensors": match.total, "taken": len(match.taken), "missing": match.missing,
            "unfit": match.unfit, "training": how_trained(match.path),
        }  # fmt: skip

    inherited = subject.inherited
    return {
        "student": told(subject.match),
        "student_parameters": parameters(subject.student),
        "inherited": None if inherited is None else {"from": inherited[0], "tensors": inherited[1]},
        "teachers": {teacher.name: told(teacher.match) for teacher in subject.teachers},
    }

"""Before and while a detector learns."""

import os
import sys

from ppkd.commands.common import infer_command, show
from ppkd.errors import UserError
from ppkd.files.write import check_writable, write_text
from ppkd.recipe.plan import UNLABELLED
from ppkd.recipe.pseudo_boxes import NAME as PSEUDO_BOXES
from ppkd.recipe.recipe import load_recipe
from ppkd.terminal.log import counted, logger, quiet
from ppkd.training.device import start_device


def train(args):
    """``tools/train.py``: train a student, with or without a teacher."""
    recipe = load_recipe(args.config, args.slim_config, args.opt)
    for key in ("epoch", "TrainReader", "LearningRate", "OptimizerBuilder"):
        if recipe.student.get(key) is None:
            raise UserError(f"{args.config}: no `{key}`, which training needs (is a _BASE_ missing?)")
    start_device(recipe.student)
    for note in recipe.notes:
        logger().info(note)
    from ppkd.methods import plan
    from ppkd.study.teacher_thresholds import thresholds_of
    from ppkd.training.trainer import Trainer

    # Made here, so that a typing error is told before data and weights are read.
    boxes = plan(recipe.method).pseudo_boxes if recipe.method is not None else None
    if boxes is not None and not recipe.student.get(UNLABELLED):
        raise UserError(f"distill.{PSEUDO_BOXES}: the run has no images without labels; unlabelled: FOLDER gives them")
    options = {
        "thresholds": thresholds_of(recipe, boxes),
        "validate": args.eval,
        "resume": args.resume,
        "force": args.force,
        "max_steps": args.max_steps,
        "amp": args.amp,
        "vdl_dir": args.vdl_log_dir if args.use_vdl else None,
        "trackers": args.track or (),
    }
    with Trainer.open(recipe, **options) as trainer:
        results = trainer.run()
    return _tell_end(args, trainer, results, recipe.teachers)


def bank(args):
    """``ppkd bank``: fill the bank of a run before it."""
    recipe = load_recipe(args.config, args.slim_config, args.opt)
    _check_reader(args.config, recipe)
    start_device(recipe.student)
    from ppkd.methods import plan
    from ppkd.terminal.progress import follow
    from ppkd.training.banking import fill_bank

    folder, filled, there = fill_bank(recipe, args.shard, args.amp, follow)
    logger().info("%s: %d batches of views filled, %d were there", folder, filled, there)
    if plan(recipe.method).bank.folder is None:
        logger().info("the run that reads it removes it when it has ended; distill.bank.folder=... keeps it")


def _check_reader(config, recipe):
    for key in ("epoch", "TrainReader"):
        if recipe.student.get(key) is None:
            raise UserError(f"{config}: no `{key}`, which training needs (is a _BASE_ missing?)")


def _tell_end(args, trainer, results, teachers):
    """The end line: what came of it, where it lies, and what is next."""
    best = trainer.standing.best
    name = "best_model" if best >= 0 else "model_final"
    weights = os.path.join(trainer.output_dir, f"{name}.pdparams")
    score = next(iter(results), None)
    told = [f"best {score or 'AP'} {100 * best:.1f}"] if best >= 0 else []
    told += [f"last {score} {100 * results[score]:.1f}"] if score else []
    logger().info(
        "done after %s, %s: %sweights in %s; next: %s",
        counted(trainer.epoch, "epoch"), counted(trainer.step, "step"), "".join(f"{each}, " for each in told),
        trainer.output_dir,
        infer_command(args.config, weights, args.opt or (), teachers),
    )  # fmt: skip
    return {"folder": trainer.output_dir, "weights": weights, "best": best if best >= 0 else None, "results": results}


def explain(args):
    """``ppkd explain``: what a slim file comes to, as a slim file."""
    recipe = load_recipe(args.config, args.slim_config, args.opt)
    check_writable("--output", args.output and (os.path.dirname(args.output) or "."))
    # What building the models logs would stand in the middle of the file.
    with quiet(to=sys.stderr):
        start_device(recipe.student)
        from ppkd.explain import explained

        text = explained(recipe, args.opt, os.path.dirname(args.output or "") or ".")
    if not args.output:
        show(text)
        return
    write_text(args.output, text + "\n")
    print(f"written to {args.output}")


def doctor(args):
    """``ppkd doctor``: examine a distillation, or with ``--data`` the data, before it is run."""
    if not args.slim_config and not args.data:
        raise UserError("doctor: give --slim_config FILE, or --data to look at images and annotations alone")
    recipe = load_recipe(args.config, args.slim_config, args.opt)
    check_writable("--json", args.json and (os.path.dirname(args.json) or "."))
    if args.data:
        return _doctor_data(args, recipe)
    findings = examined(args, recipe).findings
    if errors := findings.ids("error"):
        first = findings.of("error")[0].text
        raise UserError(f"doctor: do not start this run: {', '.join(errors)}: {first} (docs/doctor.md)")


def examined(args, recipe):
    """What the doctor finds, printed and written where it was asked for; errors are among it."""
    for key in ("epoch", "TrainReader", "EvalReader", "LearningRate", "OptimizerBuilder"):
        if recipe.student.get(key) is None:
            raise UserError(f"{args.config}: no `{key}`, which training needs (is a _BASE_ missing?)")
    start_device(recipe.student)
    from ppkd.diagnosis import as_json, as_text, examine

    found = examine(recipe, args.images, args.waive or ())
    show("\n" + as_text(found, recipe))
    if args.json:
        write_text(args.json, as_json(found, recipe) + "\n")
    return found


def _doctor_data(args, recipe):
    from ppkd.diagnosis import data

    data.check_named(recipe.student)
    scans = data.scan_data(recipe.student)
    show("\n" + data.as_text(scans))
    if args.json:
        write_text(args.json, data.as_json(scans, recipe.student) + "\n")
    if wrong := data.verdict(scans, recipe.student):
        raise UserError(f"doctor: do not start a run on this data: {wrong}")


def layers(args):
    """``ppkd layers``: the modules of a detector, and what can be a source."""
    recipe = load_recipe(args.config, None, args.opt)
    start_device(recipe.student)
    from ppkd.build import build_student
    from ppkd.detectors.layers import layers_text

    with quiet():
        text = layers_text(build_student(recipe, load=False), args.depth)
    show(text)

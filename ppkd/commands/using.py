"""What is done with a detector that has learned."""

import json
import os

from ppkd.commands.common import with_weights
from ppkd.errors import UserError
from ppkd.files.write import check_writable, write_text
from ppkd.recipe.recipe import load_recipe
from ppkd.terminal.log import counted, logger
from ppkd.training.device import start_device


def evaluate(args):
    """``tools/eval.py``: evaluate the detector of ``-c`` with the weights of ``-o weights=``."""
    recipe = load_recipe(args.config, None, args.opt)
    start_device(recipe.student)
    config = recipe.student | {"save_prediction_only": args.save_prediction_only}
    check_writable("--output_eval", args.output_eval)
    check_writable("--json", args.json and os.path.dirname(args.json))
    from ppkd.bridge.class_names import tell_difference
    from ppkd.bridge.classwise import watched_classes
    from ppkd.bridge.coco import restore_ids
    from ppkd.bridge.datasets import open_dataset, tell_categories
    from ppkd.bridge.sizes import EVAL_SIZE, check_sizes, reader_size
    from ppkd.bridge.workspace import scope
    from ppkd.build import build_student
    from ppkd.training.evaluation import check_reader, summary
    from ppkd.training.evaluation import evaluate as run

    check_reader(config)
    check_sizes(recipe, reader_size(config, "EvalReader"), EVAL_SIZE)
    with scope(config) as table:
        dataset = open_dataset("EvalDataset", config)
        if told := tell_categories(config):
            logger().warning("EvalDataset: %s", told)
        model, weights = with_weights(build_student(recipe, load=False), config)
        tell_difference(config, weights)
        with watched_classes() as found:
            results = run(model, table, args.output_eval)
    if args.output_eval:
        restore_ids(args.output_eval, dataset.original_ids)
    for classes in found if args.classwise else ():
        print(f"\n{classes.kind}, AP by class\n{classes.table()}\n", flush=True)
    logger().info(summary(results))
    if args.json:
        by_class = {"classes": {each.kind: each.rows for each in found}} if args.classwise else {}
        write_text(args.json, json.dumps(results | by_class, indent=1))
    for classes in found if args.classwise else ():
        folder = args.output_eval or os.path.join("output", "eval")
        logger().info("curves of precision and recall: %s", classes.draw(folder))
    return results


def infer(args):
    """``tools/infer.py``: detect objects in images and draw them."""
    recipe = load_recipe(args.config, None, args.opt)
    from ppkd.bridge.class_names import called, names_of
    from ppkd.bridge.images import fault
    from ppkd.bridge.sizes import TEST_SIZE, check_sizes, reader_size
    from ppkd.bridge.workspace import scope
    from ppkd.build import build_student
    from ppkd.training.inference import check_not_over, find_images, in_words
    from ppkd.training.inference import infer as run

    images = find_images(args.infer_img, args.infer_dir)
    if len(images) == 1 and (reason := fault(images[0])):
        raise UserError(f"{images[0]}: {reason}")
    start_device(recipe.student)
    if args.visualize or args.save_results:
        check_writable("--output_dir", args.output_dir)
    if args.visualize:
        check_not_over(images, args.output_dir)
    config = recipe.student | {"use_vdl": args.use_vdl, "vdl_log_dir": args.vdl_log_dir}
    check_sizes(recipe, reader_size(config, "TestReader"), TEST_SIZE)
    model, weights = with_weights(build_student(recipe, load=False), config)
    found = {}

    def tell(path, detections):
        found[path] = detections
        logger().info("%s: %s", path, in_words(detections, args.draw_threshold))

    with called(config, names_of(config, weights)) as named, scope(named) as table:
        given = (args.draw_threshold, args.output_dir, args.save_results, args.visualize)
        bad = run(model, table, images, *given, tell=tell)
    _tell_whole(found, len(images) - len(bad), args)
    if bad:
        first = ", ".join(f"{path}: {reason}" for path, reason in list(bad.items())[:4])
        raise UserError(f"{len(bad)} of {len(images)} images are left out: {first}{', ...' if len(bad) > 4 else ''}")
    return found


def _tell_whole(found, good, args):
    from ppkd.training.inference import score_text

    best = max((detections[0].score for detections in found.values() if detections), default=None)
    if found and best is None:
        logger().warning("nothing was found, with whatever score: are these the weights of a trained detector?")
    elif best is not None and best < args.draw_threshold:
        lower = int(best * 90) / 100 if best > 0.02 else float(f"{best / 2:.1g}")  # below the best, however low that is
        logger().warning(
            "nothing reaches a score of %g, the best of all has %s: --draw_threshold %g shows some",
            args.draw_threshold, score_text(best), lower,
        )  # fmt: skip
    if good and args.visualize:
        empty = ", without a box" if best is None or best < args.draw_threshold else ""
        logger().info("%s written to %s%s", counted(good, "image"), args.output_dir, empty)
    if good and args.save_results:
        logger().info("results written to %s", args.output_dir)


def export(args):
    """``tools/export_model.py``: the detector of ``-c`` for Paddle Inference and, with ``--onnx``, as ONNX."""
    recipe = load_recipe(args.config, None, args.opt)
    check_writable("--output_dir", args.output_dir)
    start_device(recipe.student)
    from ppkd.bridge.class_names import called, names_of
    from ppkd.bridge.workspace import build_detector
    from ppkd.exporting.onnx import check_onnx, write_onnx
    from ppkd.exporting.static import check_export, for_size, publish, write_static

    check_export(recipe.student)
    recipe.student = for_size(recipe)
    if args.onnx:
        check_onnx(recipe.student)

    # Tracing changes a model for good, so each trace has its own.
    loaded = [with_weights(build_detector(recipe.student), recipe.student) for _ in range(1 + args.onnx)]
    models, names = [model for model, _ in loaded], names_of(recipe.student, loaded[0][1])

    def write(scratch):
        made = write_static(models[0], recipe, scratch)
        if args.onnx:
            write_onnx(models[1], recipe, os.path.join(made, "model.onnx"), args.opset)
        return made

    folder = os.path.join(args.output_dir, recipe.name)
    with called(recipe.student, names) as recipe.student:
        publish(write, folder)
    logger().info("written to %s: %s", folder, ", ".join(sorted(os.listdir(folder))))
    return folder

"""What the tools do, given their parsed arguments."""

import json
import os
import sys

from ppkd.errors import UserError
from ppkd.files.write import check_writable, write_text
from ppkd.recipe.recipe import load_recipe
from ppkd.terminal.log import logger, quiet
from ppkd.terminal.text import printable


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
    from ppkd.training.trainer import Trainer

    if recipe.method is not None:
        plan(recipe.method)  # a typing error is told before data and weights are read
    options = {
        "validate": args.eval,
        "resume": args.resume,
        "force": args.force,
        "max_steps": args.max_steps,
        "amp": args.amp,
        "vdl_dir": args.vdl_log_dir if args.use_vdl else None,
    }
    with Trainer.open(recipe, **options) as trainer:
        trainer.run()


def _show(text):
    """Print what a command is for; names out of files of others are in it."""
    print(printable(text, lines=True), flush=True)


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
        _show(text)
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
    for key in ("epoch", "TrainReader", "EvalReader", "LearningRate", "OptimizerBuilder"):
        if recipe.student.get(key) is None:
            raise UserError(f"{args.config}: no `{key}`, which training needs (is a _BASE_ missing?)")
    start_device(recipe.student)
    from ppkd.diagnosis import as_json, as_text, examine

    found = examine(recipe, args.images)
    _show("\n" + as_text(found, recipe))
    if args.json:
        write_text(args.json, as_json(found, recipe) + "\n")
    if errors := found.findings.ids("error"):
        raise UserError(f"doctor: do not start this run: {', '.join(errors)} (docs/doctor.md)")


def _doctor_data(args, recipe):
    from ppkd.diagnosis import data

    scans = data.scan_data(recipe.student)
    _show("\n" + data.as_text(scans))
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
    _show(text)


def evaluate(args):
    """``tools/eval.py``: evaluate the detector of ``-c`` with the weights of ``-o weights=``."""
    recipe = load_recipe(args.config, None, args.opt)
    start_device(recipe.student)
    config = recipe.student | {"classwise": False, "save_prediction_only": args.save_prediction_only}
    check_writable("--output_eval", args.output_eval)
    check_writable("--json", args.json and os.path.dirname(args.json))
    from ppkd.bridge.class_names import tell_difference
    from ppkd.bridge.coco import restore_ids
    from ppkd.bridge.datasets import open_dataset, tell_categories
    from ppkd.bridge.sizes import EVAL_SIZE, check_sizes, reader_size
    from ppkd.bridge.workspace import scope
    from ppkd.build import build_student
    from ppkd.training.classwise import watched_classes
    from ppkd.training.evaluation import check_reader, summary
    from ppkd.training.evaluation import evaluate as run

    check_reader(config)
    check_sizes(recipe, reader_size(config, "EvalReader"), EVAL_SIZE)
    with scope(config) as table:
        dataset = open_dataset("EvalDataset", config)
        if told := tell_categories(config):
            logger().warning("EvalDataset: %s", told)
        model, weights = _with_weights(build_student(recipe, load=False), config)
        tell_difference(config, weights)
        with watched_classes() as found:
            results = run(model, table, args.output_eval)
    if args.output_eval:
        restore_ids(args.output_eval, dataset.original_ids)
    for classes in found if args.classwise else ():
        print(f"\n{classes.kind}, AP by class\n{classes.table()}\n", flush=True)
        logger().info("curves of precision and recall: %s", classes.draw(args.output_eval or "."))
    logger().info(summary(results))
    if args.json:
        by_class = {"classes": {each.kind: each.rows for each in found}} if args.classwise else {}
        write_text(args.json, json.dumps(results | by_class, indent=1))
    return results


def infer(args):
    """``tools/infer.py``: detect objects in images and draw them."""
    recipe = load_recipe(args.config, None, args.opt)
    from ppkd.bridge.class_names import called, names_of
    from ppkd.bridge.images import fault
    from ppkd.bridge.sizes import TEST_SIZE, check_sizes, reader_size
    from ppkd.bridge.workspace import scope
    from ppkd.build import build_student
    from ppkd.training.inference import check_not_over, find_images
    from ppkd.training.inference import infer as run

    images = find_images(args.infer_img, args.infer_dir)
    if args.infer_img and (reason := fault(args.infer_img)):
        raise UserError(f"{args.infer_img}: {reason}")
    start_device(recipe.student)
    check_writable("--output_dir", args.output_dir)
    check_not_over(images, args.output_dir)
    config = recipe.student | {"use_vdl": args.use_vdl, "vdl_log_dir": args.vdl_log_dir}
    check_sizes(recipe, reader_size(config, "TestReader"), TEST_SIZE)
    model, weights = _with_weights(build_student(recipe, load=False), config)
    with called(config, names_of(config, weights)) as named, scope(named) as table:
        given = (args.draw_threshold, args.output_dir, args.save_results, args.visualize)
        bad = run(model, table, images, *given)
    logger().info("%d images written to %s", len(images) - len(bad), args.output_dir)
    if bad:
        first = ", ".join(f"{path}: {reason}" for path, reason in list(bad.items())[:4])
        raise UserError(f"{len(bad)} of {len(images)} images are left out: {first}{', ...' if len(bad) > 4 else ''}")


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
    loaded = [_with_weights(build_detector(recipe.student), recipe.student) for _ in range(1 + args.onnx)]
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


def convert(args):
    """``tools/convert.py``: a detector's weights out of a file of PaddleDetection's distillation, or of PyTorch's."""
    recipe = load_recipe(args.config, None, args.opt)
    from ppkd.files.tensor_files import SUFFIXES

    if not args.output.endswith(SUFFIXES):
        raise UserError(f"--output {args.output}: has to end in .pdparams, or ppdet does not find it, or .safetensors")
    check_writable("--output", os.path.dirname(args.output) or ".")
    from ppkd.build import build_student
    from ppkd.files.class_names import carry
    from ppkd.files.convert import take_student
    from ppkd.files.foreign import TEACHER, take_weights
    from ppkd.files.locate import find_weights
    from ppkd.files.torch_files import is_torch_file
    from ppkd.training.checkpoint import write

    path = find_weights(args.checkpoint, "--checkpoint")
    if os.path.realpath(args.output) == os.path.realpath(path):
        raise UserError(f"--output {args.output}: is the checkpoint itself, which stays as it is; give another file")
    start_device(recipe.student)
    model = build_student(recipe, load=False)
    classes = recipe.student.get("num_classes")
    if is_torch_file(path):
        tensors = take_weights(path, model, args.part, classes)
    elif args.part == TEACHER:
        raise UserError(f"--part teacher: {path} is no file of PyTorch's; give the teacher's own weights")
    else:
        tensors = take_student(path, model, classes)
    write(args.output, tensors)
    carry(path, args.output)
    logger().info("written to %s: %d tensors", args.output, len(tensors))


def report(args):
    """``ppkd report``: a page about runs."""
    runs = _opened(args)
    from ppkd.reporting import write_report

    for path in write_report(runs, args.output, args.images):
        logger().info("written to %s", path)


def compare(args):
    """``ppkd compare``: methods and seeds with intervals."""
    check_writable("--json", args.json and os.path.dirname(args.json))
    runs = _opened(args)
    from ppkd.study.compare import compare, comparison_table

    found = compare(runs, args.against, args.images, args.resamples)
    _show("\n" + comparison_table(found))
    if args.json:
        write_text(args.json, json.dumps(found, indent=1))


def _opened(args):
    from ppkd.study.runs import open_runs

    runs = open_runs(args.runs, args.opt, args.weights)
    start_device(runs[0].recipe.student)
    return runs


def configs(args):
    """``ppkd configs``: the configs that come with ppkd, a line each."""
    from ppkd.files.shipped import folder, listing

    if folder() is None:
        raise UserError("this ppkd was installed without its configs; install its wheel, or its repository with pip")
    found = [(heading, name, line) for heading, lines in listing() for name, line in lines if args.word in name]
    if not found:
        raise UserError(f"no config has {args.word!r} in its name")
    width, shown = max(len(name) for _, name, _ in found), None
    for heading, name, line in found:
        if heading != shown:
            print(("\n" if shown else "") + heading)
            shown = heading
        print(f"  {name:<{width}}  {line}")


def hosts(args):
    """``ppkd hosts``: Paddle, ppdet, Python and numpy as they are used here, and what was cured of them."""
    from ppkd.bridge.host import host_text
    from ppkd.bridge.workspace import import_ppdet

    import_ppdet()
    print(host_text())


def data(args):
    """``ppkd data import``: a data set of another format as one in COCO's."""
    from ppkd.importing.convert import convert

    print(convert(args.source, args.output, args.format, args.val, args.seed, args.images, args.names))


def demo(args):
    """``tools/demo.py``: the whole demo."""
    from ppkd.demo.demo import run

    run(args.teacher, args.output, args.seed, args.data)


def halve(args):
    """``tools/halve_weights.py``: store weights in float16."""
    from ppkd.files.class_names import carry
    from ppkd.files.locate import find_weights
    from ppkd.files.weights import read_weights
    from ppkd.training.checkpoint import write

    path = find_weights(args.weights, "weights")
    arrays = read_weights(path)
    write(args.output, {k: v.astype("float16") if v.dtype == "float32" else v for k, v in arrays.items()})
    carry(path, args.output)
    logger().info("%s: %.1f MB, was %.1f", args.output, os.path.getsize(args.output) / 1e6, os.path.getsize(path) / 1e6)


def start_device(config):
    """Choose the device and, under ``paddle.distributed.launch``, join the other processes.

    ``use_gpu: true`` without a GPU goes on with the CPU after one warning, and says so in `config`.
    """
    import paddle
    from paddle import distributed as dist

    wanted = bool(config.get("use_gpu", False))
    has_gpu = paddle.is_compiled_with_cuda() and paddle.device.cuda.device_count() > 0
    if wanted and not has_gpu:
        logger().warning("use_gpu: true, but Paddle finds no GPU; going on with the CPU (-o use_gpu=false is silent)")
        config["use_gpu"] = False
    paddle.set_device("gpu" if wanted and has_gpu else "cpu")
    if dist.get_world_size() > 1:
        dist.init_parallel_env()


def _with_weights(model, config):
    """The model with the weights of ``-o weights=`` in it, and their file."""
    from ppkd.files.weights import load_exactly

    weights = config.get("weights")
    if not weights:
        raise UserError("no weights: give them with -o weights=PATH_OR_URL")
    match = load_exactly(model, weights, "weights", config.get("num_classes"))
    logger().info("%s", match)
    return model, match.path

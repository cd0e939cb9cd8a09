"""Files of weights."""

import os

from ppkd.errors import UserError
from ppkd.files.write import check_writable
from ppkd.recipe.recipe import load_recipe, parse_overrides
from ppkd.terminal.log import logger
from ppkd.training.device import start_device


def convert(args):
    """``tools/convert.py``: a detector's weights out of a file of PaddleDetection's distillation, or of PyTorch's."""
    recipe = load_recipe(args.config, None, args.opt)
    from ppkd.files.tensor_files import SUFFIXES

    if not args.output.endswith(SUFFIXES):
        raise UserError(f"--output {args.output}: has to end in .pdparams, or ppdet does not find it, or .safetensors")
    check_writable("--output", os.path.dirname(args.output) or ".")
    from ppkd.build import build_student
    from ppkd.files.beside import adapt, write_beside
    from ppkd.files.class_names import carry
    from ppkd.files.convert import take_student
    from ppkd.files.foreign import TEACHER, look, take_weights
    from ppkd.files.locate import find_weights
    from ppkd.files.torch_files import is_torch_file
    from ppkd.training.checkpoint import write

    path = find_weights(args.checkpoint, "--checkpoint")
    if os.path.realpath(args.output) == os.path.realpath(path):
        raise UserError(f"--output {args.output}: is the checkpoint itself, which stays as it is; give another file")
    start_device(recipe.student)
    torch = is_torch_file(path)
    found = look(path, args.part) if torch else None
    if found is not None:
        adapt(recipe.student, *found, parse_overrides(args.opt))
    model = build_student(recipe, load=False)
    classes = recipe.student.get("num_classes")
    if torch:
        tensors = take_weights(path, model, args.part, classes)
    elif args.part == TEACHER:
        raise UserError(f"--part teacher: {path} is no file of PyTorch's; give the teacher's own weights")
    else:
        tensors = take_student(path, model, classes)
    write(args.output, tensors)
    carry(path, args.output)
    if found is not None:
        write_beside(args.output, recipe.student, found[1])
    logger().info("written to %s: %d tensors", args.output, len(tensors))


def halve(args):
    """``tools/halve_weights.py``: store weights in float16."""
    from ppkd.files.class_names import carry
    from ppkd.files.locate import find_weights
    from ppkd.files.tensor_files import read_weights
    from ppkd.training.checkpoint import write

    path = find_weights(args.weights, "weights")
    arrays = read_weights(path)
    write(args.output, {k: v.astype("float16") if v.dtype == "float32" else v for k, v in arrays.items()})
    carry(path, args.output)
    logger().info("%s: %.1f MB, was %.1f", args.output, os.path.getsize(args.output) / 1e6, os.path.getsize(path) / 1e6)

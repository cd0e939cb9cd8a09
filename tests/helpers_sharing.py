"""Run by test_sharing.py on two ranks (`helpers_ranks`): evaluates together, and goes on with what each rank had."""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import ppkd  # noqa: F401, I001  # before paddle
import paddle

from ppkd.bridge.workspace import scope
from ppkd.build import build_student
from ppkd.recipe.recipe import load_recipe
from ppkd.training import sharing
from ppkd.training.evaluation import evaluate
from ppkd.training.trainer import Trainer
from tests.helpers_distributed import buffers, parameters
from tests.helpers_ranks import main


def together(config, overrides, shared=True):
    """Evaluate a detector whose statistics are other ones on the second rank; the results and who saw how many."""
    loaded = load_recipe(config, None, overrides)
    rank = paddle.distributed.get_rank()
    with scope(loaded.student) as table:
        student = build_student(loaded)
        for tensor in student.state_dict().values() if rank else ():
            if tensor.is_floating_point():
                tensor.set_value(tensor * 1.5)
        before = {name: tensor.clone() for name, tensor in student.state_dict().items()}
        seen = []
        student.register_forward_pre_hook(lambda layer, given: seen.append(len(given[0]["image"])))
        if shared:
            with sharing.as_first_rank(student):
                results = evaluate(student, table, shared=True)
        else:
            results = evaluate(student, table)
    kept = all(bool((tensor == before[name]).all()) for name, tensor in student.state_dict().items())
    return {"results": results, "seen": seen, "kept": kept}


def goes_on(config, slim, overrides, folder):
    """Train without a stop, and with one in the middle of an update of the channels; what is there then."""
    ends = {}
    for name, options in {"whole": [{}], "parts": [{"max_steps": 3}, {"resume": "auto"}]}.items():
        for each in options:
            loaded = load_recipe(config, slim, [*overrides, f"save_dir={folder}/{name}"])
            with Trainer.open(loaded, **each) as trainer:
                trainer.run()
        ends[name] = {"learned": parameters(trainer), "counted": buffers(trainer)}
    return ends


def either(what, **given):
    return {"together": together, "goes_on": goes_on}[what](**given)


if __name__ == "__main__":
    main(either)

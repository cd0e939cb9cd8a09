"""Labels for photographs without any."""

import shlex

from ppkd.commands.common import show
from ppkd.files.yaml_io import flow
from ppkd.terminal.log import logger
from ppkd.terminal.table import text_table


def label(args):
    """``ppkd label``: a teacher labels photographs, once it has shown what it can."""
    from ppkd.labelling import Wishes
    from ppkd.labelling import label as run
    from ppkd.training.device import has_gpu, start_device

    gpu = has_gpu()
    start_device({"use_gpu": gpu})
    given = {key: value for key, value in vars(args).items() if key in Wishes.__dataclass_fields__}
    made = run(Wishes(**given, options=tuple(args.opt), gpu=gpu))
    rows = [("class", "from score", "by", "F1 on the sample", "labels")]
    for name, each in made.thresholds.items():
        score = "not labelled" if each["score"] is None else f"{each['score']:.2f}"
        f1 = "-" if each["f1"] is None else f"{each['f1']:.2f}"
        rows.append((name, score, each["source"], f1, str(each["labels"])))
    show(f"\n{text_table(rows)}\n")
    logger().info("written: %s; look at %s before anything is trained on it", made.file, made.picture)
    keys = {"dataset_dir": args.data, **made.training}
    words = shlex.join(f"{key}={flow(value)}" for key, value in keys.items())
    logger().info("to train on it: -o %s", words)
    return made

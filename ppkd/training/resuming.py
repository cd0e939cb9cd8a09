"""What a run goes on from: the state of a checkpoint of the same recipe."""

from ppkd.bridge.class_names import difference
from ppkd.errors import UserError
from ppkd.terminal.log import logger
from ppkd.training import checkpoint
from ppkd.training.contents import contents
from ppkd.training.digest import check_same, validated_otherwise


def state_to_go_on(recipe, resume, force, digest, names):
    """The state of the checkpoint that ``-r`` means, or None for a new run.

    Args:
        recipe: `recipe.Recipe`.
        resume: path, ``auto`` for the newest of the output folder that can be read, or None.
        force: take a checkpoint of another recipe, or of other class names.
        digest: of the recipe.
        names: of its classes.

    Raises:
        UserError: the checkpoint is not there, broken, or of another recipe.
    """
    if not resume:
        return None
    state = checkpoint.load_newest(recipe.output_dir) if resume == "auto" else checkpoint.load(resume)
    if state is None:
        logger().info("--resume auto: no checkpoint in %s yet, so this is a new run", recipe.output_dir)
        return None
    checkpoint.admitted(state, f"-r {resume}")
    if (state["terms"] is None) != (recipe.method is None):
        raise UserError("-r: the checkpoint is of a run with another --slim_config (or none)")
    now = digest | contents(recipe)
    for line in check_same(state["digest"], now, force):
        logger().warning("another recipe than the checkpoint's (--force): %s", line)
    for line in validated_otherwise(state["digest"], now) if state["best"] >= 0 else ():
        logger().warning(
            "%s: AP before and after are of two sets; best_model, of AP %.1f, is the former's",
            line, 100 * state["best"],
        )  # fmt: skip
    other = difference(state.get("names"), "the checkpoint", names, "the training set")
    if other and not force:
        raise UserError(f"-r: {other}. Add --force to go on with other meanings of the same outputs")
    return state

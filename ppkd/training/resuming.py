"""What a run goes on from: the state of a checkpoint of the same recipe."""

from ppkd.bridge.class_names import difference
from ppkd.errors import UserError
from ppkd.terminal.log import logger
from ppkd.training import checkpoint
from ppkd.training.contents import contents
from ppkd.training.digest import check_same


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
    for line in check_same(state["digest"], digest | contents(recipe), force):
        logger().warning("another recipe than the checkpoint's (--force): %s", line)
    other = difference(state.get("names"), "the checkpoint", names, "the training set")
    if other and not force:
        raise UserError(f"-r: {other}. Add --force to go on with other meanings of the same outputs")
    return state

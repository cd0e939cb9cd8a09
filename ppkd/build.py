"""Turns a recipe into models: student, teachers and the DistillModel around them."""

import paddle
from paddle.utils import unique_name

from ppkd.errors import UserError
from ppkd.log import logger
from ppkd.methods import check_sources, plan
from ppkd.model import TEACHER, DistillModel
from ppkd.normalisation import translation
from ppkd.weights import inherit, load_into, load_teacher
from ppkd.workspace import build_detector


def build_student(recipe, load=True):
    """Build the student and load its ``pretrain_weights``."""
    # Names restart with every model, so that an optimizer's state fits the same recipe in any process.
    with unique_name.guard():
        student = build_detector(recipe.student)
    weights = recipe.student.get("pretrain_weights")
    if load and weights:
        logger().info("student: %s", load_into(student, weights, "student weights (pretrain_weights)"))
    return student


def build_model(recipe, load=True):
    """Build what a run trains: the plain student, or a `DistillModel` if the recipe has a method.

    Args:
        recipe: `recipe.Recipe`.
        load: whether to load the student's initial weights (a resumed run has its own).

    Raises:
        UserError: weights that do not fit, sources that do not exist, unknown parameters.
    """
    student = build_student(recipe, load)
    if recipe.method is None:
        return student
    steps = plan(recipe.method)
    teachers = {name: _build_teacher(spec) for name, spec in recipe.teachers.items()}
    # Connectors draw random numbers; the student's training must not depend on whether there are any.
    with unique_name.guard("distill_"):
        check_sources(recipe.method, steps, student, teachers[TEACHER])
        model = DistillModel(student, teachers, steps, _views(recipe))
    for name, spec in recipe.teachers.items():
        _load_teacher(teachers[name], spec, model)
    if steps.inherit and load:
        taken = inherit(student, teachers[TEACHER], steps.inherit)
        logger().info(
            "student: %d tensors of its %s start from the teacher's (distill.inherit=false turns this off)",
            len(taken),
            " and ".join(steps.inherit),
        )
    _describe(model)
    return model


def _views(recipe):
    found = {name: translation(recipe.student, spec.config) for name, spec in recipe.teachers.items()}
    found = {name: view for name, view in found.items() if view is not None}
    for name in found:
        logger().info("%s: its images are normalised otherwise than the student's; it gets them in its own way", name)
    return found


def _build_teacher(spec):
    with unique_name.guard("teacher_"):
        return build_detector(spec.config)


def _load_teacher(teacher, spec, model):
    if spec.weights is None:
        raise UserError(
            f"{spec.file}: the teacher has no weights (pretrain_weights is null); an untrained teacher teaches "
            "nothing. Give them with -o teacher.pretrain_weights=PATH"
        )
    needed = {"backbone", "neck"} | {tap.path.split(".")[0] for term in model.terms for tap in term.taps(1)}
    logger().info("teacher: %s", load_teacher(teacher, spec.weights, needed))


def _describe(model):
    for term in model.terms:
        for students, teachers in term.pairs:
            for ours, theirs in zip(students, teachers):
                logger().info(
                    "term %s: student %s (%d channels) from teacher %s (%d channels), weight %g",
                    term.label, ours.source, ours.channels, theirs.source, theirs.channels, term.weight(0),
                )  # fmt: skip
    own = sum(p.size for p in model.terms.parameters())
    logger().info("distillation: %d terms, %d trained parameters of their own", len(model.terms), int(own))


def student_of(model):
    """The plain student inside whatever a run trains."""
    model = model._layers if isinstance(model, paddle.DataParallel) else model
    return model.student if isinstance(model, DistillModel) else model


def terms_of(model):
    """The terms of a DistillModel (wrapped or not), or None for plain training."""
    model = model._layers if isinstance(model, paddle.DataParallel) else model
    return model.terms if isinstance(model, DistillModel) else None

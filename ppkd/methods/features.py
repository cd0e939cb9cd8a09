"""Feature distillers: one `TermSpec` on pairs of maps, for the methods that are made of such terms."""

from ppkd.errors import UserError
from ppkd.methods.params import as_paddledet, choice, overlay
from ppkd.recipe.method import ENGINE_OPTIONS
from ppkd.recipe.plan import TermSpec

# Per distiller PaddleDetection's keys, and ours. Channel numbers are accepted and ignored: a dry forward knows them. So
# is which side PKD resizes: a term's teacher takes the student's size, unless a connector says otherwise.
_CHANNELS = {"student_channels": 0, "teacher_channels": 0, "normalize": False}
DEFAULTS = {
    "fgd": {
        **_CHANNELS,
        "loss_weight": 1.0,
        "temp": 0.5,
        "alpha_fgd": 1e-3,
        "beta_fgd": 5e-4,
        "gamma_fgd": 5e-4,
        "lambda_fgd": 5e-6,
        "box_frame": "image",
    },
    "cwd": {**_CHANNELS, "tau": 1.0, "weight": 1.0},
    "pkd": {**_CHANNELS, "loss_weight": 1.0, "resize_stu": True},
    "mgd": {**_CHANNELS, "loss_weight": 1.0, "alpha_mgd": 2e-5, "lambda_mgd": 0.65},
    "mimic": {**_CHANNELS, "loss_weight": 1.0},
}


def feature_term(method, distiller, given, name, source, connect=True):
    """A term of `distiller` between the same source of student and teacher.

    Args:
        method: `recipe.MethodSpec`.
        distiller: key of `DEFAULTS`.
        given: parameters over the distiller's defaults.
        name: the term's name in the log.
        source: for example ``neck[*]``.
        connect: whether unequal channels may be connected by a convolution; class scores may not.

    Raises:
        UserError: an unknown distiller or parameter, or one that PaddleDetection's numerics are not offered for.
    """
    choice(method, "feat_distiller", distiller, DEFAULTS)
    whose = method.name if method.name.lower() == distiller else f"{method.name} with {distiller}"
    p = overlay(DEFAULTS[distiller], given, whose, method.file, options=ENGINE_OPTIONS)
    upstream = as_paddledet(method)
    if upstream and distiller == "mgd":
        raise UserError(
            f"{method.file}: distill.numerics=paddledet is not offered for mgd: PaddleDetection's has no mask and "
            "compares structural similarity, which is another method"
        )
    norm = "normalise" if upstream else "standardise"
    student, teacher = ("align", "none") if connect else ("none", "none")
    if p["normalize"]:
        student, teacher = (f"align_{norm}" if connect else norm), norm
    if distiller == "mgd" and p["normalize"]:
        student = "align"  # what is generated is compared, not what goes in
    return TermSpec(
        name,
        student=source,
        teacher=source,
        student_connector=student,
        teacher_connector=teacher,
        loss=_LOSSES[distiller](p, upstream),
        weight=_weight(distiller, p),
        max_levels=method.levels,
        trained=not upstream,
    )


def _weight(distiller, p):
    """The term's weight: 0, so that the teacher need not run, also if all parts of the loss have weight 0."""
    if distiller == "fgd" and not any(p[key] for key in ("alpha_fgd", "beta_fgd", "gamma_fgd", "lambda_fgd")):
        return 0.0
    if distiller == "mgd" and not p["alpha_mgd"]:
        return 0.0
    return p["weight"] if distiller == "cwd" else p["loss_weight"]


def _fgd(p, upstream):
    names = {"alpha": "alpha_fgd", "beta": "beta_fgd", "gamma": "gamma_fgd", "lambda_": "lambda_fgd"}
    loss = {"name": "fgd", "temp": p["temp"], "box_frame": p["box_frame"], **{k: p[v] for k, v in names.items()}}
    return {**loss, "zero_context": True} if upstream else loss


def _cwd(p, upstream):
    return {"name": "cwd", "tau": p["tau"], "divergence": "kl_eps" if upstream else "kl"}


def _pkd(p, upstream):
    return {"name": "pkd", "unbiased": upstream}


def _mgd(p, upstream):
    return {"name": "mgd", "alpha": p["alpha_mgd"], "lambda_": p["lambda_mgd"]}


def _mimic(p, upstream):
    return {"name": "mimic"}


_LOSSES = {"fgd": _fgd, "cwd": _cwd, "pkd": _pkd, "mgd": _mgd, "mimic": _mimic}

"""``slim_method: FGD``: Focal and Global Distillation on the neck's levels (Yang et al., CVPR 2022)."""

from ppkd.methods.params import read
from ppkd.terms import Plan, TermSpec

# PaddleDetection's keys. Its channel numbers are accepted and ignored: a dry forward knows them.
DEFAULTS = {
    "student_channels": 0,
    "teacher_channels": 0,
    "normalize": False,
    "loss_weight": 1.0,
    "temp": 0.5,
    "alpha_fgd": 1e-3,
    "beta_fgd": 5e-4,
    "gamma_fgd": 5e-4,
    "lambda_fgd": 5e-6,
    "box_frame": "image",
}


def plan(method):
    """One term on all pairs of neck levels of equal stride; the student's neck and head start from the teacher's."""
    p = read(method, DEFAULTS)
    term = TermSpec(
        name="fgd",
        student="neck[*]",
        teacher="neck[*]",
        student_connector="align_standardise" if p["normalize"] else "align",
        teacher_connector="standardise" if p["normalize"] else "none",
        loss={
            "name": "fgd",
            "temp": p["temp"],
            "alpha": p["alpha_fgd"],
            "beta": p["beta_fgd"],
            "gamma": p["gamma_fgd"],
            "lambda_": p["lambda_fgd"],
            "box_frame": p["box_frame"],
        },
        weight=p["loss_weight"],
        max_levels=method.levels,
    )
    return Plan.of([term], method.options, inherit=("neck", "head"), file=method.file)

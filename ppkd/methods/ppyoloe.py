"""``slim_method: PPYOLOEDistill``: logits and features of PP-YOLOE, as PaddleDetection 2.6 defines it."""

from ppkd.errors import UserError
from ppkd.methods.features import DEFAULTS as FEATURE_DEFAULTS
from ppkd.methods.features import feature_term
from ppkd.methods.params import as_paddledet, choice, read
from ppkd.recipe.plan import Plan, TermSpec

# PaddleDetection's keys, and five of ours: alpha, assigner, class_beta, kd_per_class and feat_distill_params (the
# parameters of the feature distiller). Widths and channels are accepted and ignored: a dry forward knows them.
DEFAULTS = {
    "alpha": 0.125,
    "assigner": "teacher",
    "loss_weight": {"logits": 4.0, "feat": 1.0},
    "logits_distill": True,
    "logits_loss_weight": {"class": 1.0, "iou": 2.5, "dfl": 0.5},
    "class_beta": 2.0,
    "logits_ld_distill": False,
    "logits_ld_params": {"weight": 20000, "T": 10},
    "kd_per_class": True,
    "feat_distill": True,
    "feat_distiller": "fgd",
    "feat_distill_place": "neck_feats",
    "feat_distill_params": None,
    "teacher_width_mult": 1.0,
    "student_width_mult": 0.75,
    "feat_out_channels": [],
}
SOURCES = ("head.cls[*]", "head.box_dist[*]")
PLACES = {"neck_feats": "neck[*]", "backbone_feats": "backbone[*]"}
# The features are standardised, which makes a weight mean the same at every level; PaddleDetection's FGD constants.
_FEATURES = {"fgd": {"alpha_fgd": 1e-5, "beta_fgd": 5e-6, "gamma_fgd": 1e-5, "lambda_fgd": 5e-8}}


def plan(method):
    """One term of the logits of all levels, and one of the features a level."""
    p = read(method, DEFAULTS)
    choice(method, "assigner", p["assigner"], ("teacher", "student"))
    terms = []
    if p["logits_distill"]:
        terms.append(_logits(p, as_paddledet(method)))
    if p["feat_distill"]:
        terms.append(_features(p, method))
    # Features need no targets; the user's own terms may.
    asked = p["logits_distill"] or "assigner" in method.params or method.options.get("terms")
    return Plan.of(terms, method, alpha=p["alpha"], assigner=p["assigner"] if asked else "student")


def _logits(p, upstream):
    weights, kd = p["logits_loss_weight"], p["logits_ld_params"]
    loss = {
        "name": "ppyoloe",
        "class_weight": weights["class"],
        "iou_weight": weights["iou"],
        "dfl_weight": weights["dfl"],
        "kd_weight": kd["weight"] if p["logits_ld_distill"] else 0.0,
        "kd_temp": kd["T"],
        "beta": p["class_beta"],
        "kd_per_class": p["kd_per_class"] and not upstream,
        "batch_floor": upstream,
    }
    parts = [loss[key] for key in ("class_weight", "iou_weight", "dfl_weight", "kd_weight")]
    return TermSpec("logits", SOURCES, SOURCES, loss, weight=p["loss_weight"]["logits"] if any(parts) else 0.0)


def _features(p, method):
    given = p["feat_distill_params"] or {}
    if not isinstance(given, dict):
        raise UserError(f"{method.file}: feat_distill_params has to be a mapping of parameters, found {given!r}")
    distiller = choice(method, "feat_distiller", p["feat_distiller"], FEATURE_DEFAULTS)
    place = choice(method, "feat_distill_place", p["feat_distill_place"], PLACES)
    given = {"normalize": True, **_FEATURES.get(distiller, {}), **given}
    term = feature_term(method, distiller, given, "feat", PLACES[place])
    term.weight *= p["loss_weight"]["feat"]
    return term

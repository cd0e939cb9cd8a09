"""``slim_method: LD``: localisation distillation (Zheng et al., CVPR 2022) of heads that predict distributions."""

from ppkd.methods.params import as_paddledet, read
from ppkd.recipe.plan import Plan, TermSpec

# PaddleDetection's keys of its LDGFLHead, and what of them a `KnowledgeDistillationKLDivLoss` takes.
_KL = {"name": "KnowledgeDistillationKLDivLoss", "reduction": "mean"}
DEFAULTS = {
    "loss_ld": {**_KL, "loss_weight": 0.25, "T": 10},
    "loss_ld_vlr": {**_KL, "loss_weight": 0.25, "T": 10},
    "loss_kd": {**_KL, "loss_weight": 10.0, "T": 2},
    "anchor_scale": 8.0,
    "topk": 9,
    "batch_average": True,
    "kd_per_class": True,
    "loss_weight": 1.0,
}
SOURCES = ("head.cls[*]", "head.box_dist[*]")


def plan(method):
    """One term of all levels: main region, valuable localisation region and classes."""
    p = read(method, DEFAULTS)
    upstream = as_paddledet(method)
    main, vlr, kd = p["loss_ld"], p["loss_ld_vlr"], p["loss_kd"]
    loss = {
        "name": "ld",
        "ld_weight": main["loss_weight"],
        "vlr_weight": vlr["loss_weight"],
        "kd_weight": kd["loss_weight"],
        "ld_temp": main["T"],
        "vlr_temp": vlr["T"],
        "kd_temp": kd["T"],
        "anchor_scale": p["anchor_scale"],
        "topk": p["topk"],
        "batch_average": p["batch_average"] and not upstream,
        "biased_positives": upstream,
        "kd_per_class": p["kd_per_class"] and not upstream,
    }
    weight = p["loss_weight"] if any(part["loss_weight"] for part in (main, vlr, kd)) else 0.0
    return Plan.of([TermSpec("ld", SOURCES, SOURCES, loss, weight=weight)], method)

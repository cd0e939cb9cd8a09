"""Every documented form of a fixture is taken: reductions, missing weights and divisors, layers that are ignored."""

import json

import numpy as np
import pytest

from tests.golden.check import report as golden
from tests.golden.check.runners import RUNNERS
from tests.losses.test_golden import OWN


@pytest.fixture
def checked(tmp_path):
    """Function that checks one of our cases with other settings, without some arrays and with others."""

    def check(name, hyper, drop=(), **arrays):
        path = tmp_path / f"{name}.npz"
        path.parent.mkdir(exist_ok=True)
        with np.load(OWN / f"{name}.npz") as stored:
            kept = {key: stored[key] for key in stored.files if key not in drop}
        meta = json.loads(str(kept["meta"][0]))
        hyper = {key: value for key, value in {**meta["hyper"], **hyper}.items() if value != "absent"}
        np.savez(path, **{**kept, **arrays, "meta": np.array([json.dumps({**meta, "hyper": hyper})])})
        return golden.run_case(path, RUNNERS[path.parent.name])

    return check


def softmax(x):
    x = np.exp(x - x.max(axis=1, keepdims=True))
    return x / x.sum(axis=1, keepdims=True)


def pair(name, tau):
    """Distributions of student and teacher, in float64."""
    with np.load(OWN / f"{name}.npz") as stored:
        return [softmax(stored[f"in_{side}"].astype("float64") / tau) for side in ("student", "teacher")]


def test_a_divergence_that_is_not_reduced(checked):
    student, teacher = pair("kl/case1", 2.0)
    elements = 3.0 * 4.0 * teacher * np.log(teacher / student)
    arrays = {"out_loss": elements, "grad_student": 3.0 * 2.0 * (student - teacher)}
    result = checked("kl/case1", {"reduction": "none"}, **arrays)
    assert result.ok, str(result)
    arrays["out_loss"] = np.roll(elements, 1, axis=1)
    assert not checked("kl/case1", {"reduction": "none"}, **arrays).ok, "the elements, not only their sum"


@pytest.mark.parametrize("divisor", [None, "absent"])
@pytest.mark.parametrize("reduction, rows", [("mean", 20), ("sum", 1)])
@pytest.mark.parametrize("weighted", [False, True])
def test_rows_without_divisor_or_weights(checked, divisor, reduction, rows, weighted):
    student, teacher = pair("ld_kd/case1", 10.0)
    with np.load(OWN / "ld_kd/case1.npz") as stored:
        weight = stored["in_weight"][:, None].astype("float64") if weighted else np.ones([20, 1])
    loss = 0.25 * 100 / 17 * (weight * teacher * np.log(teacher / student)).sum() / rows
    result = checked(
        "ld_kd/case1", {"reduction": reduction, "avg_factor": divisor}, () if weighted else ("in_weight",),
        out_loss=loss, grad_student=0.25 * 10 / 17 * weight * (student - teacher) / rows,
    )  # fmt: skip
    assert result.ok, str(result)


@pytest.mark.parametrize("place", [0, 1])
def test_a_layer_that_is_ignored_keeps_its_place(checked, place):
    with np.load(OWN / "mgd_matching/case1.npz") as stored:
        own = {key: stored[key] for key in stored.files if key != "meta"}

    def at(key, layer):
        """The name in a layer: its number stands last, or before what ends in a dot or a reducer."""
        return key.replace("norm_0.", f"norm_{layer}.") if "norm_0." in key else f"{key[:-1]}{layer}"

    layered = {key for key in own if key.endswith("_0") or "norm_0." in key}
    # The other layer is a copy of the first without what the reference does not have of it.
    ignored = {at(key, place): own[key] for key in layered if not key.startswith(("out_margin", "grad"))}
    arrays = {at(key, 1 - place): own[key] for key in layered} | ignored
    factor = 2.0 if place == 1 else 1.0
    for key in own:
        if key.startswith(("out_loss", "grad")):
            arrays[at(key, 1 - place) if key in layered else key] = own[key] / factor
    drop = [key for key in layered if key not in arrays or key.startswith(("out_margin", "grad"))]
    result = checked("mgd_matching/case1", {"layers": 2, "ignore_inds": [place]}, drop, **arrays)
    assert result.ok, str(result)
    wrong = {key: array * 2 for key, array in arrays.items() if key.startswith("out_loss")}
    assert not checked("mgd_matching/case1", {"layers": 2, "ignore_inds": [place]}, drop, **{**arrays, **wrong}).ok

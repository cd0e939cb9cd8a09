"""CrossKD as a whole, connector and losses, beside a slow formulation that walks through ppdet's modules by hand."""

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest

from ppkd import build
from tests.conftest import enliven, training_batch
from tests.helpers_training import settle
from tests.losses import slow

DEEP = ["GFLHead.conv_feat.num_convs=3", "teacher.GFLHead.conv_feat.num_convs=3"]


@pytest.fixture
def distilled(recipe, monkeypatch):
    """A GFL student beside its teacher, both with three convolutions a branch, and a batch."""
    monkeypatch.setattr(build, "load_teacher", lambda *args: "random weights")  # those of the suite have one
    overrides = list(DEEP)
    for name, branch in (("cross_cls", "cls"), ("cross_box", "box")):
        overrides.append(f"distill.terms.{name}.student=head.{branch}_tower.1[*]")
        overrides.append(f"distill.terms.{name}.student_connector=[align, {{name: teacher_head, skip: 2}}]")
    loaded = recipe("gfl", "heads", overrides=overrides)
    model = build.build_model(loaded)
    enliven(model.teachers["teacher"])
    settle(enliven(model.student))
    return model, training_batch(loaded)


def by_hand(model, batch, branch):
    """``(cross-head predictions, the teacher's)`` of all levels as arrays, module by module."""
    student, teacher = model.student, model.teachers["teacher"]
    conv, scaled = ("cls", False) if branch == "cls" else ("reg", True)
    towers = [[getattr(x.head.conv_feat, f"{conv}_subnet_convs")[k] for k in range(3)] for x in (student, teacher)]
    predict = teacher.head.gfl_head_cls if branch == "cls" else teacher.head.gfl_head_reg
    (term,) = [term for term in model.terms if term.label == f"cross_{branch}"]
    cross, own = [], []
    with paddle.no_grad():
        maps = [x.neck(x.backbone(dict(batch))) for x in (student, teacher)]
        for i, (x, y) in enumerate(zip(*maps)):
            for layer in towers[0][:2]:
                x = F.relu(layer(x))
            x = term.connect_student[i].links[0].conv(x)
            x = predict(F.relu(towers[1][2](x)))
            for layer in towers[1]:
                y = F.relu(layer(y))
            y = predict(y)
            scale = teacher.head.scales_regs[i].scale_reg if scaled else 1.0
            cross.append((x * scale).numpy().astype("float64"))
            own.append((y * scale).numpy().astype("float64"))
    return cross, own


def test_class_term(distilled):
    model, batch = distilled
    value = float(model(dict(batch))["cross_cls"])
    cross, own = by_hand(model, batch, "cls")
    total = 0.0
    for a, n, i, j in slow.cells(own):
        for channel in range(own[0].shape[1]):
            p, q = (slow.sigmoid(x[a][n, channel, i, j]) for x in (cross, own))
            total += abs(p - q) * slow.binary_cross_entropy(p, q)
    assert value > 0
    assert value == pytest.approx(total / slow.seen(own), rel=1e-4)


def test_box_term(distilled):
    model, batch = distilled
    value = float(model(dict(batch))["cross_box"])
    cross, own = by_hand(model, batch, "box")
    bins, total, edges = own[0].shape[1] // 4, 0.0, 0
    for a, n, i, j in slow.cells(own):
        for edge in range(4):
            part = slice(bins * edge, bins * (edge + 1))
            p, q = (slow.softmax(x[a][n, part, i, j]) for x in (cross, own))
            total += (q * np.log(q / p)).sum() / bins
            edges += 1
    assert value > 0
    assert value == pytest.approx(total / edges, rel=1e-3)

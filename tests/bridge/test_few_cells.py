"""compat/few_cells.py is needed: ppdet's ATSS assigner wants more cells than a small image has."""

import paddle

from ppkd.build import build_student
from tests.conftest import training_batch
from tests.helpers_hosts import cured, defect


def test_a_level_of_four_cells_is_enough(recipe, monkeypatch):
    from ppdet.modeling.assigners import atss_assigner

    loaded = recipe("tood", distil=False)
    student, batch = build_student(loaded), training_batch(loaded)
    student.train()
    assert float(student(dict(batch))["loss"]) > 0
    if cured("take_what_cells_there_are"):
        monkeypatch.delitem(vars(atss_assigner.paddle), "topk")
    with defect("take_what_cells_there_are", ValueError, "topk"):
        student(batch)


def test_where_there_are_enough_cells_nothing_changes():
    from ppdet.modeling.assigners import atss_assigner

    x = paddle.randn([2, 5, 20])
    for found, expected in zip(atss_assigner.paddle.topk(x, 9, axis=-1, largest=False), paddle.topk(x, 9, -1, False)):
        assert (found == expected).all()

"""A detector whose training wants an operator that is not compiled is refused in a line, and else is let through."""

import importlib
import sys

import pytest
from paddle import nn

from ppkd.bridge.operators import COMPILED, check_operators
from ppkd.bridge.workspace import import_ppdet
from ppkd.errors import UserError
from ppkd.training.evaluation import check_reader


@pytest.mark.parametrize("head, operator", [("PPYOLOERHead", "rbox_iou"), ("FCOSRHead", "matched_rbox_iou")])
def test_it_is_named_with_how_to_compile_it(head, operator, monkeypatch, tmp_path):
    model = nn.Sequential(nn.ReLU(), type(head, (nn.Layer,), {})())
    monkeypatch.setitem(sys.modules, "ext_op", None)
    with pytest.raises(UserError, match=rf"^{head} is trained with the operator {operator}, .*ppdet/ext_op$"):
        check_operators(model)
    monkeypatch.syspath_prepend(tmp_path)
    del sys.modules["ext_op"]
    (tmp_path / "ext_op.py").write_text("raise ImportError('undefined symbol: of another Paddle')")
    with pytest.raises(UserError, match=rf"{operator}, .* compiled for this Paddle .*undefined symbol.*ext_op$"):
        check_operators(model)
    (tmp_path / "ext_op.py").write_text("")
    importlib.invalidate_caches()
    check_operators(model)


def test_so_it_is_where_turned_boxes_are_evaluated(monkeypatch):
    """ppdet ended the process at the first two that overlap, without a word that was seen."""
    monkeypatch.setitem(sys.modules, "ext_op", None)
    config = {
        "metric": "RBOX",
        "EvalDataset": {"name": "COCODataSet", "anno_path": "a.json", "data_fields": ["gt_poly"]},
    }
    with pytest.raises(UserError, match=r"^metric: RBOX compares turned boxes with the operator rbox_iou, .*ext_op$"):
        check_reader(config)
    check_reader(config | {"metric": "COCO"})


def test_others_want_none():
    check_operators(nn.Sequential(nn.ReLU()))


def test_ppdet_has_these_heads_and_they_want_these_operators():
    import_ppdet()
    from ppdet.modeling import heads

    for name in COMPILED:
        assert hasattr(heads, name)

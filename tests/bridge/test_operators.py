"""A detector whose training wants an operator that is not compiled is refused in a line, and else is let through."""

import sys

import pytest
from paddle import nn

from ppkd.bridge.operators import COMPILED, check_operators
from ppkd.bridge.workspace import import_ppdet
from ppkd.errors import UserError


@pytest.mark.parametrize("head, operator", [("PPYOLOERHead", "rbox_iou"), ("FCOSRHead", "matched_rbox_iou")])
def test_it_is_named_with_how_to_compile_it(head, operator, monkeypatch, tmp_path):
    model = nn.Sequential(nn.ReLU(), type(head, (nn.Layer,), {})())
    with pytest.raises(UserError, match=rf"^{head} is trained with the operator {operator}, .*ppdet/ext_op$"):
        check_operators(model)
    (tmp_path / "ext_op.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "ext_op", raising=False)
    check_operators(model)


def test_others_want_none():
    check_operators(nn.Sequential(nn.ReLU()))


def test_ppdet_has_these_heads_and_they_want_these_operators():
    import_ppdet()
    from ppdet.modeling import heads

    for name in COMPILED:
        assert hasattr(heads, name)

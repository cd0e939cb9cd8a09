"""Tables of results: aligned, in percent, "-" for what is missing, no silent typos."""

import pytest

from ppkd.terminal.table import COLUMNS, markdown_table, result_table

FULL = dict(
    zip(COLUMNS, ("teacher", 0.4712, 0.7, 0.2, 0.5, 0.6049, 4.514, 3.3, 12.34), strict=True)
)
SHORT = {"name": "distilled student", "AP": 0.05, "AP50": None, "APl": -1, "ms": float("nan")}


def test_plain_text_to_the_letter():
    assert result_table([FULL, SHORT]).split("\n") == [
        "name                 AP  AP50   APs   APm   APl  params (M)  GFLOPs  ms/image",
        "-----------------  ----  ----  ----  ----  ----  ----------  ------  --------",
        "teacher            47.1  70.0  20.0  50.0  60.5        4.51    3.30      12.3",
        "distilled student   5.0     -     -     -     -           -       -         -",
    ]


def test_columns_are_aligned_whatever_the_names():
    lines = result_table([FULL, {**SHORT, "name": "x" * 40, "ms": 12345.6}]).split("\n")
    assert len({len(line) for line in lines}) == 1


def test_markdown_has_the_same_cells():
    plain = [line.split() for line in result_table([FULL, {**SHORT, "name": "d"}]).split("\n")[2:]]
    lines = markdown_table([FULL, {**SHORT, "name": "d"}]).split("\n")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert rows[0] == [heading for heading, _, _ in COLUMNS.values()]
    assert all(set(rule) <= set("-:") and len(rule) >= 3 for rule in rows[1])
    assert [rule.endswith(":") for rule in rows[1]] == [False] + [True] * 8
    assert rows[2:] == plain


def test_markdown_escapes_bars():
    assert markdown_table([{"name": "a|b"}]).split("\n")[2].startswith("| a\\|b |")


@pytest.mark.parametrize("table", [result_table, markdown_table])
def test_no_rows_give_the_heading(table):
    assert len(table([]).split("\n")) == 2


@pytest.mark.parametrize("value", [0, 0.0])
def test_zero_is_a_value(value):
    assert result_table([{"name": "n", "AP": value}]).split("\n")[2].split()[:2] == ["n", "0.0"]


def test_unknown_columns_are_refused():
    with pytest.raises(ValueError, match="map50.*AP50"):
        result_table([{"name": "n", "map50": 0.1}])


def test_percent_instead_of_share_is_refused():
    with pytest.raises(ValueError, match="0..1"):
        result_table([{"name": "n", "AP": 47.1}])

"""Tables: one set of values, rendered as text, as a data frame and as HTML."""

from __future__ import annotations

from dataclasses import dataclass

from scaling.formatting import si, usd
from scaling.table import Column, Table


@dataclass
class Cost:
    total: float


@dataclass
class Choice:
    name: str
    n_active: float | None
    cost: Cost
    regret: float | None = None


COLUMNS = (
    Column("name", "fit", text=True),
    Column("n_active", "N_active", si),
    Column("cost.total", "cost", usd),
    Column("regret", "regret", str, "%"),
)
ITEMS = (Choice("a <b>", 7.5e9, Cost(19.27)), Choice("long name", None, Cost(1.2e6), 3.0))
TABLE = Table.of("Choices", COLUMNS, ITEMS, ["what regret is"])


def test_cells_are_as_people_write_them_and_what_is_unknown_is_a_dash():
    assert TABLE.headings == ["fit", "N_active", "cost", "regret (%)"]
    assert TABLE.cells == [["a <b>", "7.5B", "$19.3", "–"], ["long name", "–", "$1.2M", "3.0"]]


def test_text_aligns_numbers_right_and_words_left():
    title, heading, first, second, note = str(TABLE).splitlines()
    assert (title, note) == ("Choices", "what regret is")
    assert first.startswith("a <b>      ")
    assert second.startswith("long name  ")
    assert len(heading) == len(first) == len(second)


def test_a_frame_keeps_the_values():
    frame = TABLE.frame
    assert list(frame) == ["name", "n_active", "cost_total", "regret"]
    assert frame["cost_total"].tolist() == [19.27, 1.2e6]
    assert frame["n_active"].isna().tolist() == [False, True]


def test_html_escapes_and_has_every_cell():
    page = TABLE._repr_html_()
    assert "a &lt;b&gt;" in page
    assert "<b>" not in page
    assert page.count("<td") == 8
    assert page.count("<th") - page.count("<thead") == 4


def test_columns_without_any_value_go():
    only_first = Table.of("", COLUMNS, ITEMS[:1])
    assert only_first.without_empty_columns().headings == ["fit", "N_active", "cost"]
    assert TABLE.without_empty_columns() == TABLE
    assert TABLE.without("name", "regret").cells == [["7.5B", "$19.3"], ["–", "$1.2M"]]
    assert Table.of("", COLUMNS, ()).without_empty_columns().cells == []

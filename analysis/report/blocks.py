"""The blocks that the template lays out: front page, text, headings, lists, figures, tables, code, formulas."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from scaling.formatting import experts_cell, number, powers, sentence, si
from scaling.table import Table

Block = dict[str, Any]
Tile = tuple[str, str, str]  # label, value, note
Cell = Callable[[Any], object]  # writes what a row has in one column; None is shown as a dash


def front_page(
    headline: str, because: str, verdict: str, *, decided: bool, tiles: Iterable[Tile], summary: Sequence[Block]
) -> dict[str, Any]:
    """The decision, its reason, the numbers that go with it, and what else page 1 shows."""
    return {
        "headline": typeset(headline),
        "because": typeset(because),
        "verdict": verdict,
        "decided": decided,
        "tiles": [{"label": label, "value": value, "note": note} for label, value, note in tiles],
        "summary": summary,
    }


def typeset(line: str) -> str:
    """A sentence of the terminal as it is printed: true minus and plus-minus signs, percent signs closed up, 2.4e+03 as
    2400 and larger numbers in powers of ten; fields and commands without the backticks of the terminal.

    Only what Python writes is such a number: a study may be called 1e5.
    """
    line = re.sub(r"(?<![\w.])\d(?:\.\d+)?e[+-]\d{2}(?!\w)", _without_exponent, re.sub("`([^`]*)`", r"\1", line))
    return re.sub(r"(?<![\w.])-(?=\d)", "−", line.replace("+-", "±")).replace(" %", "%")


def _without_exponent(written: re.Match[str]) -> str:
    value, digits = float(written[0]), len(re.sub(r"e.*|\.", "", written[0]))
    return f"{value:g}" if 1e-4 <= value < 1e5 else powers(value, digits)


def text(content: str) -> Block:
    return {"kind": "text", "text": typeset(content)}


def heading(content: str) -> Block:
    return {"kind": "heading", "text": content}


def bullets(items: Iterable[str]) -> Block:
    return {"kind": "list", "items": [typeset(sentence(item)) for item in items]}


def code(content: str) -> Block:
    return {"kind": "code", "text": content}


def formula(typst: str) -> Block:
    """A formula in Typst's notation: the one text that the template evaluates."""
    return {"kind": "math", "text": typst}


def picture(name: str, caption: str, width: float = 1.0) -> Block:
    """The figure drawn by the function of that name in `analysis.report.plots`; `width` as a share of the page's."""
    return {"kind": "figure", "path": f"{name}.svg", "caption": typeset(caption), "width": width}


def three_digits(value: float | None) -> str:
    return number(value, ".3g")


def field(name: str, write: Callable[[Any], object] = str) -> Cell:
    """The cell that writes one field of a row, an item or an attribute; no text where it is None."""

    def cell(row: Any) -> object:
        value = row[name] if hasattr(row, "__getitem__") else getattr(row, name)
        return None if value is None else write(value)

    return cell


EXPERTS_CELL = field("n_experts", experts_cell)
ACTIVE, TOTAL, TOKENS = (field(name, si) for name in ("n_active", "n_total", "tokens"))


def values(table: Table, caption: str, *, best: bool = False) -> Block:
    """A table of values (`scaling.table`) with its notes under the caption; `best` marks the first row."""
    cells = table.cells
    if best and cells:
        cells[0][0] += " ★"
    return {
        "kind": "table",
        "columns": table.headings,
        "rows": cells,
        "caption": typeset(" ".join(sentence(part) for part in (caption, *table.notes))),
        "align": ["left" if index == 0 or column.text else "right" for index, column in enumerate(table.columns)],
        "widths": ["auto"] * len(table.columns),
    }


def table(
    rows: Iterable[Any] | pd.DataFrame, columns: Mapping[str, Cell], caption: str, wide: str | None = None
) -> Block:
    """A table: the cells of each row under their headers. The first column and the `wide` one, which takes the spare
    width, are aligned left."""
    rows = [row for _, row in rows.iterrows()] if isinstance(rows, pd.DataFrame) else rows
    cells = [[write(row) for write in columns.values()] for row in rows]
    return {
        "kind": "table",
        "columns": list(columns),
        "rows": [["–" if cell is None else typeset(str(cell)) for cell in row] for row in cells],
        "caption": typeset(caption),
        "align": ["left" if index == 0 or name == wide else "right" for index, name in enumerate(columns)],
        "widths": ["1fr" if name == wide else "auto" for name in columns],
    }

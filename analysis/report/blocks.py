"""The blocks that the template lays out: text, headings, lists, figures, tables, code."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from scaling.formatting import sentence

Block = dict[str, Any]


def text(content: str) -> Block:
    return {"kind": "text", "text": content}


def heading(content: str) -> Block:
    return {"kind": "heading", "text": content}


def bullets(items: Sequence[str]) -> Block:
    return {"kind": "list", "items": [sentence(item) for item in items]}


def picture(name: str, caption: str, width: float = 1.0) -> Block:
    """A figure drawn by the function of that name in `pictures`."""
    return {"kind": "figure", "path": f"{name}.svg", "caption": caption, "width": width}


def sheet(columns: Sequence[str], rows: Sequence[Sequence[str]], caption: str, wide: int | None = None) -> Block:
    """A table; its first column and the `wide` one, which takes the spare width, are aligned left."""
    align = ["left" if i in (0, wide) else "right" for i in range(len(columns))]
    widths = ["1fr" if i == wide else "auto" for i in range(len(columns))]
    return {
        "kind": "table",
        "columns": list(columns),
        "rows": [list(row) for row in rows],
        "caption": caption,
        "align": align,
        "widths": widths,
    }

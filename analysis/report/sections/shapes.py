"""Shapes of experts: what each (E, k, width) offers, where several were compared."""

from __future__ import annotations

from analysis.decision.answer import Answer
from analysis.decision.shape_comparison import described
from analysis.decision.tables import shapes_table
from analysis.report import blocks
from analysis.report.blocks import Block, heading, picture

_MOST = 12  # rows


def shapes_of_experts(answer: Answer) -> list[Block]:
    """The figure and the table of the best shapes; empty where one shape alone was asked about."""
    table = shapes_table(answer, _MOST)
    if table is None or answer.shapes is None:
        return []
    best = described(answer.shapes.rows[0])
    caption = (
        f"Left: what every shape costs at losses around that of the best, {best}; black, the least of all. Right: of "
        "every E and k the best shape, by its expected regret over all shapes, or without draws by how far it lies "
        "above the best; framed, the best"
    )
    return [
        heading("Experts of a token and their width"),
        picture("expert_shapes", caption),
        blocks.values(table, "What each shape of experts offers; ★ is recommended", best=True),
    ]

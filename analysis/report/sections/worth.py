"""What an expert is worth: effective speedup over dense models, in compute and in device time."""

from __future__ import annotations

from analysis.report import blocks
from analysis.report.blocks import Block, bullets, picture
from analysis.report.study import ReportStudy
from analysis.report.subject import Subject
from analysis.worth.tables import tables_of

TITLE = "What an expert is worth"


def worth(subject: Subject) -> list[Block]:
    """The figure, the speedups, whether they grow, and what they assume; empty where nothing was compared."""
    found = subject.worth
    if found is None:
        return []
    caption = (
        "How many times more compute, and device time, a dense model of equal loss takes than the best model of each "
        "E, with 95% intervals; the points are the training compute of the recommended model."
    )
    known = {f"the fit: {warning}" for warning in subject.law_fit.warnings}  # the section on the law has them
    whole = isinstance(subject, ReportStudy)
    shown = tables_of(found) if whole else tables_of(found)[:1]  # a plan is short: its figure shows the growth
    return [
        picture("expert_worth", caption, 1.0 if whole else 0.8),
        *(blocks.values(table, table.title) for table in shown),
        bullets([*found.assumptions, *(warning for warning in found.warnings if warning not in known)]),
    ]


def in_short(subject: Subject) -> list[str]:
    """What the recommended E is worth, in a sentence for the first page."""
    found, best = subject.worth, subject.decision.best.n_experts
    chosen = () if found is None else [one for one in found.worth if one.n_experts == best]
    return [f"{one.sentence()} of a dense model of its loss" for one in chosen if one.compute_speedup is not None]

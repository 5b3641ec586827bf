"""The section on reproduction: versions and the commands that make the report again."""

from __future__ import annotations

from analysis.report.blocks import Block, Cell, code, heading, table, text
from analysis.report.sections.commands import commands
from analysis.report.sections.runs import distinct
from analysis.report.study import ReportStudy
from analysis.report.subject import Subject
from scaling.formatting import flops, sentence, si

_PROVENANCE = ("corpus", "corpus_hash", "code_version", "versions", "device_kind", "executor", "schema_version")


def reproduction(subject: Subject) -> list[Block]:
    """Commands, hashes and versions."""
    if not isinstance(subject, ReportStudy):
        made_with = "; ".join(f"{what}: {value}" for what, value in _of_analysis(subject).items())
        return [code("\n".join(commands(subject))), text(sentence(made_with))]
    facts = {**_of_runs(subject), **_of_analysis(subject)}
    caption = "What this was made with; several values mean that runs differ."
    columns: dict[str, Cell] = {"what": str, "value": facts.__getitem__}
    blocks = [code("\n".join(commands(subject))), table(facts, columns, caption, wide="value")]
    grid = subject.grid.strip()
    return [*blocks, heading("The grid, as resolved"), code(grid)] if grid else blocks


def _of_runs(study: ReportStudy) -> dict[str, str]:
    frame = study.table.frame
    spent = f"{flops(frame['train_flops'].sum())} FLOP"
    if frame["wall_s"].notna().any():
        spent += f", {si(frame['wall_s'].sum() / 3600, 2)} hours"
    recorded = {name: distinct(frame[name]) for name in _PROVENANCE if frame[name].notna().any()}
    return {"runs": str(len(frame)), **recorded, "training of all runs": spent}


def _of_analysis(subject: Subject) -> dict[str, str]:
    if not subject.answers:
        return {}
    answer, fit = subject.decision, subject.law_fit
    facts = {
        "source of the fit": fit.source,
        "hash of the runs fitted": fit.made_from,
        "hash of the fit": answer.fit_hash,
        "hash of fit, question and speed": answer.made_from,
        **{f"{name}, of the analysis": value for name, value in fit.versions.items()},
    }
    return {name: value for name, value in facts.items() if value}

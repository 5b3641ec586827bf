"""The evidence behind a decision, section by section: words and numbers only."""

from __future__ import annotations

import pandas as pd

from analysis.report.blocks import Block, bullets, picture, sheet, text
from analysis.report.plots.study import sizes_of
from analysis.report.study import Study
from scaling import formatting
from scaling.columns import EXPERTS, TOKENS
from scaling.formatting import flops, sentence, si

_MOST_FAILED = 12


def evidence(study: Study) -> list[Block]:
    """Which runs there are, and which are left out."""
    frame, failed = study.table.frame, study.failed
    compute = frame["train_flops"]
    told = (
        f"{formatting.plural(len(frame), 'run')} carry a loss: E in {listed(frame[EXPERTS])}; active parameters "
        f"{si(frame['n_active'].min())} to {si(frame['n_active'].max())}; training tokens {si(frame[TOKENS].min())} to "
        f"{si(frame[TOKENS].max())}; counted compute {flops(compute.min())} to {flops(compute.max())} FLOP."
    )
    blocks: list[Block] = [text(told)]
    if study.answers:
        crossed = (
            f"; {formatting.plural(len(failed), 'failed cell')} crossed out" if len(failed) else "; no cell failed"
        )
        dots = f"Coverage of the grid: one dot per run ({len(frame)}){crossed}. Dots of one cell stand side by side."
        blocks = [text(f"{told} {_beyond(study)}"), picture("coverage", dots, 0.74)]
    if study.table.dropped:
        blocks.append(
            bullets([f"left out: {formatting.plural(n, 'run')} with {why}" for why, n in study.table.dropped])
        )
    if len(failed):
        rows = [
            [
                str(row["run_id"]),
                str(row[EXPERTS]),
                si(row["n_active"]),
                si(row[TOKENS]),
                str(row["status"]),
                _first_line(row["error"]),
            ]
            for _, row in failed.head(_MOST_FAILED).iterrows()
        ]
        more = f" The first {_MOST_FAILED} of {len(failed)}." if len(failed) > _MOST_FAILED else ""
        columns = ["run", "E", "active", "tokens", "status", "error"]
        blocks.append(sheet(columns, rows, f"Failed cells; none of them carries a loss.{more}", wide=5))
    return blocks + [text(sentence(note)) for note in study.table.notes]


def _beyond(study: Study) -> str:
    """How far the recommendation lies beyond the runs, and how much these differ from seed to seed."""
    chosen, noise = study.decision["recommendation"]["train_flops"], study.law_fit.noise
    largest = study.table.frame["train_flops"].max()
    repeated = (
        "No configuration was repeated with another seed, so run-to-run noise is not estimated."
        if noise is None
        else f"Configurations repeated with other seeds put run-to-run noise at {100 * noise:.2g}% of the loss."
    )
    return (
        f"Training the recommended model takes {chosen / largest:.2g} times the compute of the largest run. {repeated}"
    )


def expert_effect(study: Study) -> list[Block]:
    """What experts do at equal active size, without any law."""
    effects, left_out = study.effects.rows, _unpaired(study)
    if effects.empty:
        reason = "No routed run has a dense twin, equal but for its experts, evaluated on the same tokens."
        return [text(" ".join(filter(None, (reason, left_out))))]
    clear = int((effects["difference"] < -3 * effects["se"]).sum())
    worse = int((effects["difference"] > 3 * effects["se"]).sum())
    largest = effects[sizes_of(effects) == sizes_of(effects).max()]
    largest = largest[largest[TOKENS] == largest[TOKENS].max()]
    seeds = len(set(largest["seed"])) > 1
    each = [
        f"E = {int(row[EXPERTS])}"
        + (f" (seed {int(row['seed'])}): " if seeds else ": ")
        + f"{formatting.number(row['difference'], '+.3f')} ± {1.96 * row['se']:.3f}"
        for _, row in largest.iterrows()
    ]
    told = (
        f"Of {formatting.plural(len(effects), 'routed run')} with a dense twin (active size within 2%, otherwise equal "
        f"but for the experts), {clear} have a lower loss and {worse} a higher one by more than three standard errors. "
        f"At the largest size and budget loss changes by, in nats per token with 95% intervals, {'; '.join(each)}. "
        f"{left_out}"
    )
    n_documents = int(effects["n_documents"].min())
    caption = (
        f"Loss of routed runs minus that of their dense twins, paired over {n_documents} held-out documents; bars are "
        "95% intervals clustered by document (the spread between seeds is not in them). Below the line experts help."
    )
    return [text(told.strip()), picture("paired", caption)]


def _unpaired(study: Study) -> str:
    """How many routed runs have no place in the comparison, and why; nothing where all have one."""
    told = []
    if study.effects.without_twin:
        told.append(f"{formatting.plural(study.effects.without_twin, 'routed run')} without a dense twin")
    if study.effects.not_comparable:
        count = formatting.plural(study.effects.not_comparable, "routed run")
        told.append(f"{count} whose twin was evaluated on other tokens, or not at all")
    return f"Left out: {' and '.join(told)}." if told else ""


def listed(values: pd.Series) -> str:
    distinct = sorted(values.dropna().unique())
    shown = [str(int(v)) if isinstance(v, (float, int)) and float(v).is_integer() else str(v) for v in distinct[:12]]
    return ", ".join(shown) + (f" and {len(distinct) - 12} more" if len(distinct) > 12 else "") or "not recorded"


def _first_line(error: object) -> str:
    lines = str(error or "").strip().splitlines()
    return (lines[0][:160] if lines else "") or "–"

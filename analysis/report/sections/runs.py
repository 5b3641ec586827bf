"""The evidence behind a decision, section by section: words and numbers only."""

from __future__ import annotations

import pandas as pd

from analysis.report.blocks import ACTIVE, Block, bullets, field, picture, table, text
from analysis.report.measured import with_sizes
from analysis.report.study import ReportStudy
from scaling.columns import EXPERTS, TOKENS
from scaling.formatting import first_line, flops, listed, number, plural, sentence, si

_MOST_FAILED = 12
_MOST_VALUES = 12
_MOST_ERROR = 160  # characters


def evidence(study: ReportStudy) -> list[Block]:
    """Which runs there are, and which are left out."""
    frame, failed = study.table.frame, study.failed
    compute = frame["train_flops"]
    range_of_runs = (
        f"{plural(len(frame), 'run')} with a loss: E in {distinct(frame[EXPERTS])}; active parameters "
        f"{si(frame['n_active'].min())} to {si(frame['n_active'].max())}; training tokens {si(frame[TOKENS].min())} to "
        f"{si(frame[TOKENS].max())}; counted compute {flops(compute.min())} to {flops(compute.max())} FLOP."
    )
    if study.answers:
        crosses = f"{plural(len(failed), 'failed cell')} crossed out" if len(failed) else "no cell failed"
        caption = f"Coverage of the grid: one dot per run ({len(frame)}); {crosses}. Dots of one cell are side by side."
        blocks = [text(f"{range_of_runs} {_beyond(study)}"), picture("coverage", caption, 0.74)]
    else:
        blocks = [text(range_of_runs)]
    if study.table.dropped:
        blocks.append(bullets(f"left out: {plural(count, 'run')} with {why}" for why, count in study.table.dropped))
    if len(failed):
        blocks.append(_failures(failed))
    if study.table.doubts:
        blocks.append(bullets(f"to be doubted: {doubt}" for doubt in study.table.doubts))
    return blocks + [text(sentence(note)) for note in study.table.notes]


def _failures(failed: pd.DataFrame) -> Block:
    columns = {"run": field("run_id"), "E": field(EXPERTS), "active": ACTIVE, "tokens": field(TOKENS, si)}
    columns |= {"status": field("status"), "error": lambda run: first_line(run["error"] or "")[:_MOST_ERROR] or None}
    more = f" The first {_MOST_FAILED} of {len(failed)}." if len(failed) > _MOST_FAILED else ""
    return table(failed.head(_MOST_FAILED), columns, f"Failed cells; none of them carries a loss.{more}", wide="error")


def _beyond(study: ReportStudy) -> str:
    """How far the recommendation lies beyond the runs, and how much these differ from seed to seed."""
    chosen, noise = study.decision.best.train_flops, study.law_fit.noise
    largest = study.table.frame["train_flops"].max()
    repeated = (
        "No configuration was repeated with another seed, so run-to-run noise is not estimated."
        if noise is None
        else f"From configurations repeated with other seeds, run-to-run noise is {100 * noise:.2g}% of the loss."
    )
    times = si(chosen / largest, 2)
    return f"Training the recommended model takes {times} times the compute of the largest run. {repeated}"


def expert_effect(study: ReportStudy) -> list[Block]:
    """What experts do at equal active size, without any law."""
    effects, left_out = study.effects.rows, _unpaired(study)
    if effects.empty:
        reason = "No routed run has a dense twin, equal except for its experts, evaluated on the same tokens."
        return [text(f"{reason} {left_out}".strip())]
    better, worse = (int((sign * effects["difference"] > 3 * effects["se"]).sum()) for sign in (-1, 1))
    sized = with_sizes(effects)
    largest = sized[sized["size"] == sized["size"].max()]
    largest = largest[largest[TOKENS] == largest[TOKENS].max()]
    seeds = len(set(largest["seed"])) > 1
    differences = (
        f"E = {int(row[EXPERTS])}{f' (seed {int(row.seed)})' if seeds else ''}: {number(row['difference'], '+.3f')} ± "
        f"{1.96 * row['se']:.3f}"
        for _, row in largest.iterrows()
    )
    effect = (
        f"Of {plural(len(effects), 'routed run')} with a dense twin (active size within 2%, otherwise equal except for "
        f"the experts), {better} have a lower loss and {worse} a higher one by more than three standard errors. At the "
        f"largest size and budget the differences, in nats per token with 95% intervals, are {'; '.join(differences)}. "
        f"{left_out}"
    )
    n_documents = int(effects["n_documents"].min())
    caption = (
        f"Loss of routed runs minus that of their dense twins, paired over {n_documents} held-out documents; bars are "
        "95% intervals clustered by document (without the spread between seeds). Below the line experts help."
    )
    return [text(effect.strip()), picture("paired", caption)]


def _unpaired(study: ReportStudy) -> str:
    """How many routed runs have no place in the comparison, and why; nothing where all have one."""
    counts = {
        "without a dense twin": study.effects.without_twin,
        "whose twin was evaluated on other tokens, or not at all": study.effects.not_comparable,
    }
    reasons = [f"{plural(count, 'routed run')} {reason}" for reason, count in counts.items() if count]
    return f"Left out: {' and '.join(reasons)}." if reasons else ""


def distinct(values: pd.Series) -> str:
    """The distinct values of a column, ascending."""
    return listed(sorted(values.dropna().unique()), most=_MOST_VALUES, empty="not recorded")

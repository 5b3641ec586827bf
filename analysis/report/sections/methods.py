"""Which method: the front page of a study without a law, and the section behind it."""

from __future__ import annotations

from typing import Any

import pandas as pd

from analysis.methods.comparison import FLOPS_TOLERANCE, MethodComparison
from analysis.methods.router_metrics import decode_times
from analysis.report.blocks import Block, bullets, heading, picture, sheet, text
from analysis.report.plots.study import shown_metrics, shown_saturation
from analysis.report.study import Study
from scaling import formatting
from scaling.formatting import number, percent, plural, sentence, si

TITLE = "Which method?"


def shown(study: Study) -> MethodComparison:
    """The comparison that the report shows: the largest."""
    return study.comparisons[0]


def front_page(study: Study) -> dict[str, Any]:
    """The decision where no law was fitted: which method has the least loss, and how sure that is."""
    made = shown(study)
    best, alone = made.rows.iloc[0], made.ranked and len(made.leaders) == 1
    headline = f"{best['method']} has the least loss" if alone else f"Not decided; {best['method']} leads"
    return {
        "headline": headline,
        "because": " ".join(sentence(reason) for reason in _because(made)),
        "decided": alone,
        "verdict": "Decided at this size" if alone else "Not decided by these runs",
        "tiles": [{"label": label, "value": value, "note": note} for label, value, note in _tiles(made)],
        "summary": [text(_question(made)), text(_no_law(study)), *_forest(study)],
    }


def _because(made: MethodComparison) -> list[str]:
    rows, best = made.rows, made.rows.iloc[0]
    if not made.ranked:
        return [made.warnings[0]]
    told = []
    if len(made.leaders) == 1:
        told.append(f"it differs from each of the other {len(rows) - 1} methods, all comparisons taken together at 95%")
    else:
        others = [name for name in made.leaders if name != best["method"]]
        told.append(f"it cannot be told apart from {', '.join(others)}, all comparisons taken together at 95%")
    if best["method"] != made.reference:
        told.append(
            f"against {_reference(made)} its loss differs by {_signed(best['difference'])} nats per token "
            f"({_signed(best['low'])} to {_signed(best['high'])})"
        )
    return told


def _tiles(made: MethodComparison) -> list[tuple[str, str, str]]:
    rows, best = made.rows, made.rows.iloc[0]
    seeds = sorted({int(count) for count in rows["seeds"]})
    noise = f"{made.seed_sd:.2g}" if made.ranked else "–"
    documents = f"{made.n_documents} documents" if made.n_documents else "one number a run"
    return [
        ("Methods compared", str(len(rows)), f"{len(made.leaders)} may be the best"),
        ("Seeds of each", " – ".join(str(count) for count in dict.fromkeys((seeds[0], seeds[-1]))), documents),
        ("Loss of the leader", formatting.loss(best["loss"]), "nats per token"),
        (f"Against {_reference(made)}", _signed(best["difference"]), _interval(best, "low", "high")),
        ("Best in", percent(_known(best["best"])), "of draws"),
        ("Run-to-run noise", noise, f"sd, {made.seed_df} degrees of freedom"),
        ("Training tokens", si(made.cell["tokens"]), f"{si(best['n_active'])} active"),
    ]


def _question(made: MethodComparison) -> str:
    cell = made.cell
    return (
        f"Which way of routing, and which form of experts, has the least held-out loss at d_model {cell['d_model']}, "
        f"{plural(int(cell['n_layers']), 'layer')}, {si(cell['tokens'])} tokens of {cell['corpus']} and batches of "
        f"{si(cell['batch_tokens'])} tokens? All methods are meant to take the same FLOPs a token; where they do not, "
        "the table says so."
    )


def _no_law(study: Study) -> str:
    return f"No law was fitted: {study.without_law}. What is said here holds at the size and the tokens that were run."


def _forest(study: Study) -> list[Block]:
    made = shown(study)
    noise = "run-to-run noise" + (" and document sampling" if made.n_documents else "")
    caption = (
        f"Loss minus that of {_reference(made)}; lower is better. Thick bars: 95% interval of one difference; thin: of "
        f"all of them together; both carry {noise}. Methods that share a letter cannot be told apart; red may be the "
        "best."
        if made.ranked
        else f"Loss minus that of {_reference(made)}; lower is better. One seed each, so no intervals: the order is that "
        "of these runs and no more."
    )
    timed = " Right: a decode step as measured, over the reference's." if _times(study) is not None else ""
    return [picture("methods", caption + timed)]


def section(study: Study) -> list[Block]:
    """The ranking, what cannot be said, what the routers did, and the methods that are not ranked."""
    made = shown(study)
    front = not study.answers
    blocks: list[Block] = [] if front else [text(_question(made)), *_forest(study)]
    blocks += [
        _ranking(made),
        heading("What these runs say"),
        bullets(_said(made)),
        heading("What they do not say"),
        bullets(_unsaid(study, made)),
    ]
    if len(made.apart):
        blocks += [heading("Not comparable"), *_apart(made)]
    if len(made.failed):
        rows = [
            [row["method"], str(row["cells"]), row["status"], str(row["error"])[:120]]
            for _, row in made.failed.iterrows()
        ]
        blocks.append(
            sheet(["method", "cells", "status", "error"], rows, "Cells that failed and carry no loss.", wide=3)
        )
    return [*blocks, *_routers(study), *_decoding(study, made)]


def _ranking(made: MethodComparison) -> Block:
    against = _reference(made)
    columns = ["method", "E", "k", "seeds", "loss", f"− {made.reference}", "FLOP ratio"]
    columns += ["95%", "95%, all", "rank", "best in", "group"] if made.ranked else []
    rows = []
    for _, row in made.rows.iterrows():
        itself, routed = row["method"] == made.reference, row["n_experts"] > 1
        ratio = (row["train_flops_ratio"], row["decode_flops_per_token_ratio"])
        mark = " !" if max(abs(one - 1) for one in ratio) > FLOPS_TOLERANCE else ""
        cells = [str(row["method"]), str(row["n_experts"]), str(row["top_k"]) if routed else "–", str(row["seeds"])]
        cells += [formatting.loss(row["loss"]), "reference" if itself else _signed(row["difference"])]
        cells.append(f"{ratio[0]:.2f} / {ratio[1]:.2f}{mark}")
        if made.ranked:
            cells += ["–" if itself else _interval(row, *ends) for ends in (("low", "high"), ("low_all", "high_all"))]
            cells += [f"{row['rank_low']} – {row['rank_high']}", percent(float(row["best"])), str(row["group"])]
        rows.append(cells)
    ranked = (
        "; its 95% interval alone and together with all others; “rank”, all pairs together at 95% (Tukey); “best in”, "
        "the share of draws in which its loss is least; “group”, letters shared by methods that cannot be told apart"
    )
    caption = (
        f"Methods by loss, nats per token, and the difference to {against}{ranked if made.ranked else ''}. FLOPs to "
        f"train / to decode a token are over the reference's, ! beyond {percent(FLOPS_TOLERANCE)}."
    )
    return sheet(columns, rows, caption)


def _said(made: MethodComparison) -> list[str]:
    """What the runs do show, gains and losses alike."""
    if not made.ranked:
        return ["nothing beyond the losses of these runs"]
    others = made.rows[made.rows["method"] != made.reference]
    better, worse = others[others["high_all"] < 0], others[others["low_all"] > 0]
    undecided = others[(others["high_all"] >= 0) & (others["low_all"] <= 0)]
    against = _reference(made)
    told = [
        f"lower loss than {against}, all differences together: {_listed(better)}"
        if len(better)
        else f"no method has a lower loss than {against}",
        f"higher loss than {against}, all differences together: {_listed(worse)}"
        if len(worse)
        else f"no method has a higher loss than {against}",
    ]
    if len(undecided):
        told.append(f"neither better nor worse than {against}, as far as these runs tell: {_listed(undecided)}")
    return told


def _unsaid(study: Study, made: MethodComparison) -> list[str]:
    """What a reader may not conclude, and what the numbers take for granted."""
    told = list(made.warnings)
    if made.ranked:
        if len(made.leaders) > 1:
            told.append(
                f"not decided: which of {', '.join(made.leaders)} is best; their order in the table may be chance"
            )
        told.append(
            f"the leader is not quite as good as it looks: choosing the best of {len(made.rows)} flatters it by about "
            f"{number(made.optimism, '.2g')} nats"
        )
        told.append(
            f"run-to-run noise is pooled over all methods ({made.seed_df} degrees of freedom, sd {made.seed_sd:.2g} "
            "nats) and taken to be the same for each"
            + (
                "; what a seed does to all methods is taken out, for they see the same text in the same order"
                if made.paired
                else ""
            )
        )
    told.append(
        "what holds at other sizes, tokens, learning rates or balance coefficients than those that were run is not "
        "known"
    )
    if len(study.comparisons) > 1:
        rest = "; ".join(
            f"{si(one.cell['tokens'])} tokens at d_model {one.cell['d_model']}: {one.rows['method'].iloc[0]} leads "
            f"{len(one.rows)}"
            for one in study.comparisons[1:5]
        )
        told.append(f"compared apart were also {rest}")
    return told


def _apart(made: MethodComparison) -> list[Block]:
    rows = [
        [row["method"], str(row["seeds"]), formatting.loss(row["loss"]), _number(row["leak"]), row["reason"]]
        for _, row in made.apart.iterrows()
    ]
    caption = (
        "Not ranked: the loss of these methods is not that of a model that writes token by token. “leak” is what they "
        "gain from later tokens, nats per token; without it their loss would be higher by as much."
    )
    return [sheet(["method", "seeds", "loss", "leak", "why"], rows, caption, wide=4)]


def _routers(study: Study) -> list[Block]:
    if shown_metrics(study).empty:
        return []
    told = (
        "Every router metric is read beside what independent uniform choices of as many experts would give: a load "
        "that is as even as chance needs no balancing, an overlap no greater than chance is no specialisation."
    )
    caption = "Router metrics on held-out text: mean and range over seeds; the grey stroke is chance."
    blocks = [heading("What the routers did"), text(told), picture("router_metrics_beside_chance", caption)]
    if len(shown_saturation(study)):
        caption = (
            "How early routing settles: the share of the final experts that a token's router had chosen already; "
            "dashed, chance for as many experts as the methods choose at the end. Fixed routing (hash, random) is "
            "settled from the start."
        )
        blocks.append(picture("saturation", caption))
    return blocks


def _decoding(study: Study, made: MethodComparison) -> list[Block]:
    times = _times(study)
    if times is None:
        return [text("No decode step was measured in this study.")]
    batches = sorted(times["batch"].unique())
    table = times.pivot_table(index="method", columns="batch", values=["time_ms", "times"])
    rows = [
        [
            name,
            *(
                f"{_number(table['time_ms'][b].get(name))} ({_number(table['times'][b].get(name), '.2g')}×)"
                for b in batches
            ),
        ]
        for name in made.rows["method"]
        if name in table.index
    ]
    first = study.latency.iloc[0]
    caption = (
        f"One decode step, ms (over that of {_reference(made)}), by batch, {si(times['context'].max())} tokens in the "
        f"cache, on {first['device_kind']} ({first['dtype']}), median."
        + (" Weights are untrained, and so is the routing." if first["weights"] == "initial" else "")
    )
    return [heading("What decoding takes"), sheet(["method", *(f"batch {b}" for b in batches)], rows, caption)]


def _times(study: Study) -> pd.DataFrame | None:
    """Decode times of the methods shown, where their reference was measured too."""
    times = decode_times(study.path, shown(study))
    return times if len(times) and times["times"].notna().any() else None


def _reference(made: MethodComparison) -> str:
    dense = made.rows.loc[made.rows["method"] == made.reference, "n_experts"].iloc[0] == 1
    return f"the {made.reference} model" if dense else made.reference


def _listed(rows: pd.DataFrame) -> str:
    return ", ".join(f"{row['method']} ({_signed(row['difference'])})" for _, row in rows.iterrows())


def _signed(value: float) -> str:
    return number(value, "+.3f") if pd.notna(value) else "–"


def _number(value: Any, form: str = ".3g") -> str:
    return number(float(value), form) if value is not None and pd.notna(value) else "–"


def _known(value: float) -> float | None:
    return float(value) if pd.notna(value) else None


def _interval(row: pd.Series, low: str, high: str) -> str:
    return f"{_signed(row[low])} … {_signed(row[high])}" if pd.notna(row[low]) else "–"

"""Which method: the front page of a study without a law, and the section behind it."""

from __future__ import annotations

from functools import partial
from typing import Any

import pandas as pd

from analysis.methods.comparison import FLOPS_TOLERANCE, MethodComparison
from analysis.methods.router_metrics import decode_times
from analysis.report import blocks
from analysis.report.blocks import Block, Cell, Tile, bullets, field, heading, picture, table, text, three_digits
from analysis.report.plots.methods import shown_metrics, shown_saturation
from analysis.report.study import ReportStudy
from scaling.formatting import loss, number, percent, plural, sentence, si

TITLE = "Which method?"
_MOST_ERROR = 120  # characters
_MOST_OTHERS = 4  # comparisons that are named beside the largest


def front_page(study: ReportStudy) -> dict[str, Any]:
    """The decision where no law was fitted: which method has the least loss, and how sure that is."""
    comparison = study.comparisons[0]
    best, decided = comparison.rows.iloc[0], comparison.ranked and len(comparison.leaders) == 1
    no_law = f"No law was fitted: {study.without_law}. The comparison holds at the size and the tokens that were run."
    return blocks.front_page(
        f"{best['method']} has the least loss" if decided else f"Not decided; {best['method']} leads",
        " ".join(sentence(reason) for reason in _because(comparison)),
        "Decided at this size" if decided else "Not decided by these runs",
        decided=decided,
        tiles=_tiles(comparison),
        summary=[text(_question(comparison)), text(no_law), _differences(study)],
    )


def _because(comparison: MethodComparison) -> list[str]:
    if not comparison.ranked:
        return [comparison.warnings[0]]
    best, others = comparison.rows.iloc[0], comparison.leaders[1:]
    reasons = [
        f"it does not differ significantly from {', '.join(others)}, all comparisons taken together at 95%"
        if others
        else f"it differs from each of the other {len(comparison.rows) - 1} methods, all comparisons taken together at "
        "95%"
    ]
    if best["method"] != comparison.reference:
        reasons.append(
            f"against {_reference(comparison)} its loss differs by {_signed(best['difference'])} nats per token "
            f"({_signed(best['low'])} to {_signed(best['high'])})"
        )
    return reasons


def _tiles(comparison: MethodComparison) -> list[Tile]:
    rows, best = comparison.rows, comparison.rows.iloc[0]
    fewest, most = int(rows["seeds"].min()), int(rows["seeds"].max())
    noise = f"{comparison.seed_sd:.2g}" if comparison.ranked else "–"
    documents = f"{comparison.n_documents} documents" if comparison.n_documents else "one number a run"
    share = percent(float(best["best"])) if comparison.ranked else "–"
    return [
        ("Methods compared", str(len(rows)), f"{len(comparison.leaders)} may be the best"),
        ("Seeds of each", str(most) if fewest == most else f"{fewest} – {most}", documents),
        ("Loss of the leader", loss(best["loss"]), "nats per token"),
        (f"Against {_reference(comparison)}", _signed(best["difference"]), _interval(best, "low", "high")),
        ("Best in", share, "of draws"),
        ("Run-to-run noise", noise, f"sd, {comparison.seed_df} degrees of freedom"),
        ("Training tokens", si(comparison.cell["tokens"]), f"{si(best['n_active'])} active"),
    ]


def _question(comparison: MethodComparison) -> str:
    cell = comparison.cell
    return (
        f"Which router and which form of experts has the least held-out loss at d_model {cell['d_model']}, "
        f"{plural(int(cell['n_layers']), 'layer')}, {si(cell['tokens'])} tokens of {cell['corpus']} and batches of "
        f"{si(cell['batch_tokens'])} tokens? All methods are meant to take the same FLOPs a token; the table marks "
        "those that do not."
    )


def _differences(study: ReportStudy) -> Block:
    """The figure of differences in loss."""
    comparison = study.comparisons[0]
    caption = f"Loss minus that of {_reference(comparison)}; lower is better. "
    if comparison.ranked:
        noise = "run-to-run noise" + (" and document sampling" if comparison.n_documents else "")
        caption += (
            f"Thick bars: 95% interval of one difference; thin: of all of them together; both include {noise}. Methods "
            "that share a letter do not differ significantly; red may be the best."
        )
    else:
        caption += "One seed each, so no intervals: the order is that of these runs and no more."
    right = "" if _decode_times(study).empty else " Right: measured decode time over the reference's."
    return picture("methods", caption + right)


def section(study: ReportStudy) -> list[Block]:
    """The ranking, what cannot be said, what the routers did, and the methods that are not ranked."""
    comparison = study.comparisons[0]
    return [
        *([text(_question(comparison)), _differences(study)] if study.answers else []),
        _ranking(comparison),
        heading("What these runs show"),
        bullets(_shown_differences(comparison)),
        heading("What they do not show"),
        bullets(_limits(study)),
        *([heading("Not comparable"), _apart(comparison)] if len(comparison.apart) else []),
        *([_failures(comparison)] if len(comparison.failed) else []),
        *_routers(study),
        *_decoding(study),
    ]


def _ranking(comparison: MethodComparison) -> Block:
    against, reference = _reference(comparison), comparison.reference
    unequal = set(comparison.unequal["method"])

    def flop_ratio(row: pd.Series) -> str:
        ratio = f"{row['train_flops_ratio']:.2f} / {row['decode_flops_per_token_ratio']:.2f}"
        return f"{ratio} !" if row["method"] in unequal else ratio

    def of_others(row: pd.Series, low: str, high: str) -> str | None:
        return None if row["method"] == reference else _interval(row, low, high)

    columns: dict[str, Cell] = {
        "method": field("method"),
        "E": field("n_experts"),
        "k": lambda row: row["top_k"] if row["n_experts"] > 1 else None,
        "seeds": field("seeds"),
        "loss": field("loss", loss),
        f"− {reference}": lambda row: "reference" if row["method"] == reference else _signed(row["difference"]),
        "FLOP ratio": flop_ratio,
    }
    ranks = ""
    if comparison.ranked:
        columns |= {
            "95%": lambda row: of_others(row, "low", "high"),
            "95%, all": lambda row: of_others(row, "low_all", "high_all"),
            "rank": lambda row: f"{row['rank_low']} – {row['rank_high']}",
            "best in": field("best", percent),
            "group": field("group"),
        }
        ranks = (
            "; its 95% interval alone and together with all others; “rank”, all pairs together at 95% (Tukey); "
            "“best in”, the share of draws in which its loss is least; “group”, letters shared by methods that "
            "do not differ significantly"
        )
    caption = (
        f"Methods by loss, nats per token, and the difference to {against}{ranks}. FLOPs to train / to decode a token "
        f"are over the reference's, ! beyond {percent(FLOPS_TOLERANCE)}."
    )
    return table(comparison.rows, columns, caption)


def _shown_differences(comparison: MethodComparison) -> list[str]:
    """What the runs do show, gains and losses alike."""
    if not comparison.ranked:
        return ["nothing beyond the losses of these runs"]
    against = _reference(comparison)
    others = comparison.rows[comparison.rows["method"] != comparison.reference]
    better, worse = others["high_all"] < 0, others["low_all"] > 0
    lines = []
    for kind, rows in (("lower", others[better]), ("higher", others[worse])):
        names = _with_differences(rows)
        lines.append(
            f"{kind} loss than {against}, all differences together: {names}"
            if names
            else f"no method has a {kind} loss than {against}"
        )
    undecided = _with_differences(others[~better & ~worse])
    return [*lines, *([f"no significant difference to {against}: {undecided}"] if undecided else [])]


def _with_differences(rows: pd.DataFrame) -> str:
    return ", ".join(f"{row['method']} ({_signed(row['difference'])})" for _, row in rows.iterrows())


def _limits(study: ReportStudy) -> list[str]:
    """What a reader may not conclude, and what the numbers take for granted."""
    comparison, *others = study.comparisons
    limits = list(comparison.warnings)
    if comparison.ranked:
        if len(comparison.leaders) > 1:
            limits.append(
                f"not decided: which of {', '.join(comparison.leaders)} is best; their order in the table may be chance"
            )
        paired = "; the effect of a seed on all methods is removed, for they see the same text in the same order"
        limits += [
            f"the leader's loss is optimistic: choosing the best of {len(comparison.rows)} lowers it by about "
            f"{number(comparison.optimism, '.2g')} nats",
            f"run-to-run noise is pooled over all methods ({comparison.seed_df} degrees of freedom, sd "
            f"{comparison.seed_sd:.2g} nats) and taken to be the same for each{paired if comparison.paired else ''}",
        ]
    limits.append("nothing is known of other sizes, tokens, learning rates or balance coefficients than those run")
    if others:
        leads = (
            f"{si(other.cell['tokens'])} tokens at d_model {other.cell['d_model']}: {other.rows['method'].iloc[0]} "
            f"leads {len(other.rows)}"
            for other in others[:_MOST_OTHERS]
        )
        limits.append(f"compared separately: {'; '.join(leads)}")
    return limits


def _apart(comparison: MethodComparison) -> Block:
    columns = {"method": field("method"), "seeds": field("seeds"), "loss": field("loss", loss)}
    columns |= {"leak": field("leak", three_digits), "why": field("reason")}
    caption = (
        "Not ranked: the loss of these methods is not that of a model that writes token by token. “leak” is what "
        "they gain from later tokens, nats per token; without it their loss would be higher by as much."
    )
    return table(comparison.apart, columns, caption, wide="why")


def _failures(comparison: MethodComparison) -> Block:
    columns = {name: field(name) for name in ("method", "cells", "status")}
    columns["error"] = lambda row: str(row["error"])[:_MOST_ERROR]
    return table(comparison.failed, columns, "Cells that failed and carry no loss.", wide="error")


def _routers(study: ReportStudy) -> list[Block]:
    if shown_metrics(study).empty:
        return []
    introduction = (
        "Every router metric is read beside that of independent uniform choices of as many experts: a load that is as "
        "even as chance needs no balancing, an overlap no greater than chance is no specialisation."
    )
    metrics = "Router metrics on held-out text: mean and range over seeds; the grey stroke is chance."
    parts = [heading("What the routers did"), text(introduction), picture("router_metrics_beside_chance", metrics)]
    if len(shown_saturation(study)):
        settling = (
            "How early routing settles: the share of the final experts that a token's router had chosen already; "
            "dashed, chance for as many experts as the methods choose at the end. Fixed routing (hash, random) is "
            "settled from the start."
        )
        parts.append(picture("saturation", settling))
    return parts


def _decoding(study: ReportStudy) -> list[Block]:
    comparison, times = study.comparisons[0], _decode_times(study)
    if times.empty:
        return [text("No decode step was measured in this study.")]
    by_batch = times.pivot_table(index="method", columns="batch", values=["time_ms", "times"])

    def time(method: str, batch: int) -> str:
        row = by_batch.loc[method]
        return f"{three_digits(row['time_ms'][batch])} ({number(row['times'][batch], '.2g')}×)"

    columns: dict[str, Cell] = {"method": str}
    columns |= {f"batch {batch}": partial(time, batch=batch) for batch in sorted(times["batch"].unique())}
    first = study.latency.iloc[0]
    caption = (
        f"One decode step, ms (over that of {_reference(comparison)}), by batch, {si(times['context'].max())} tokens "
        f"in the cache, on {first['device_kind']} ({first['dtype']}), median."
        + (" Weights are untrained, and so is the routing." if first["weights"] == "initial" else "")
    )
    names = [name for name in comparison.rows["method"] if name in by_batch.index]
    return [heading("Measured decode time"), table(names, columns, caption)]


def _decode_times(study: ReportStudy) -> pd.DataFrame:
    """Decode times of the methods compared; empty unless their reference was measured too."""
    times = decode_times(study.path, study.comparisons[0])
    return times if times["times"].notna().any() else times.iloc[:0]


def _reference(comparison: MethodComparison) -> str:
    name = comparison.reference
    dense = comparison.rows.loc[comparison.rows["method"] == name, "n_experts"].iloc[0] == 1
    return f"the {name} model" if dense else name


def _signed(difference: float) -> str:
    return number(difference, "+.3f")


def _interval(row: pd.Series, low: str, high: str) -> str:
    return f"{_signed(row[low])} … {_signed(row[high])}" if pd.notna(row[low]) else "–"

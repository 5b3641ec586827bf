"""The pages that people read: what was predicted, and what came of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from benchmarks.prediction import TIMES, Prediction
from benchmarks.prediction_check import CheckedDecision, CheckedRun
from scaling.formatting import flops, si


def preregistered_page(prediction: Prediction) -> str:
    """What is stated before the check runs."""
    best = markdown_table(
        ("E", "N_active", "tokens", "loss", "95 % of a run", "effective speedup", "95 %"),
        (
            (b.n_experts, si(b.n_active), si(b.tokens), f"{b.loss:.4f}", _ends(b.run_interval, ".4f"),
             f"{b.speedup:.2f}", _ends(b.speedup_interval, ".2f"))
            for b in prediction.best
        ),
    )  # fmt: skip
    decisions = markdown_table(
        ("load", "output tokens", "E", "N_active", "95 %", "tokens", "loss to keep", "expected regret", "decided"),
        (
            (d.load, si(d.serve_tokens), d.n_experts, si(d.n_active),
             "-" if d.n_active_interval is None else " to ".join(map(si, d.n_active_interval)), si(d.tokens),
             f"{d.target_loss:.4f}", _share(d.stated_regret),
             "yes" if d.decided else "no: " + "; ".join(d.undecided_because))
            for d in prediction.decisions
        ),
    )  # fmt: skip
    cells = markdown_table(
        ("E", "width", "layers", "N_active", "tokens", "6 N D", "loss", "95 % of a run"),
        (
            (c.n_experts, c.d_model, c.n_layers, si(c.n_active), si(c.tokens), flops(6 * c.n_active * c.tokens),
             f"{c.loss:.4f}", _ends(c.run_interval, ".4f"))
            for c in prediction.cells
        ),
    )  # fmt: skip
    return f"""# What was predicted before the check

Written by `python -m benchmarks.flagship predict` and committed before any run of the check. The fit is `fit.json`
({prediction.law}, digest {prediction.fit_hash}) of runs up to {flops(prediction.largest_flops)} FLOPs; all
below is at {TIMES:g} times that, {flops(prediction.train_flops)}.

## The best model of each E

Speedup: compute at which the best dense model has the same loss, over this.

{best}

## The decisions

Least lifetime cost on this CPU at a loss no worse than that of the best dense model (`answer-LOAD.json`).

{decisions}

## The runs of the check

Those of load `{prediction.checked_load}`: the E recommended, its neighbours and the dense reference, each at the size
that its answer gives and at budgets up to all of the compute (`check.yaml`).

{cells}
"""


def checked_page(
    prediction: Prediction,
    runs: Sequence[CheckedRun],
    decisions: Sequence[CheckedDecision],
    document: Mapping[str, object],
) -> str:
    """Every run and decision of the check beside what was predicted."""
    losses = markdown_table(
        ("E", "width", "tokens", "6 N D", "measured", "predicted", "95 % of a run", "error", "inside"),
        (
            (r.n_experts, r.d_model, si(r.tokens), flops(r.train_flops), f"{r.measured:.4f}", f"{r.predicted:.4f}",
             _ends((r.low, r.high), ".4f"), f"{r.error:+.2%}", "yes" if r.inside else "**no**")
            for r in runs
        ),
    )  # fmt: skip
    costs = markdown_table(
        ("load", "E", "tokens at the dense loss", "training, USD", "serving, USD", "together", ""),
        (
            (d.load, c.n_experts, si(c.tokens), f"{c.train:.4g}", f"{c.serve:.4g}", f"{c.total:.4g}",
             ", ".join(_marks(d, c.n_experts, c.extrapolated)))
            for d in decisions
            for c in d.costs
        ),
    )  # fmt: skip
    regrets = markdown_table(
        ("load", "decided", "predicted E", "measured E", "stated regret", "measured regret"),
        (
            (d.load, "yes" if d.decided else "no", d.predicted_experts, d.measured_experts, _share(d.stated_regret),
             _share(d.measured_regret))
            for d in decisions
        ),
    )  # fmt: skip
    return f"""# What the check found

Written by `python -m benchmarks.flagship compare` (`check.json`), against [what was predicted](PREREGISTERED.md).

![Losses and costs, predicted and measured](check.png)

## Losses

At {flops(prediction.train_flops)} FLOPs: {_of_rollout(document)}.

{losses}

## Cost at equal loss

Tokens at which each E reaches the measured loss of the dense reference, and what training on them and serving the load
cost at the measured times.

{costs}

{regrets}
"""


def _marks(decision: CheckedDecision, n_experts: int, extrapolated: bool) -> list[str]:
    marks = ["predicted"] * (n_experts == decision.predicted_experts)
    marks += ["cheapest"] * (n_experts == decision.measured_experts)
    return marks + ["beyond its budgets"] * extrapolated


def _of_rollout(document: Mapping[str, object]) -> str:
    found = document["rollout"]
    assert isinstance(found, Mapping)
    if not found["runs"]:
        return "no run"
    return f"{found['runs']} runs, median error {found['median_error']:.2%}, {found['inside']:.0%} inside the intervals"


def markdown_table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table in Markdown."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def _ends(interval: tuple[float, float] | None, form: str) -> str:
    return "-" if interval is None else f"{interval[0]:{form}} to {interval[1]:{form}}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.2%}"

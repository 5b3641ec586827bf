"""What papers say of the error of their fits: residuals, numbers of runs, standard errors, and ranges of what was run.

A number that a paper does not print is None here, or missing, and an assumption takes its place that is said
(`PublishedError.assumptions`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from scaling.columns import TOKENS
from scaling.formatting import between, listed, si

Range = tuple[float, float]

ASSUMED_RMSE = 0.01
"""Residual of ln loss where a paper prints none: above what those print that do (.0037 to .0091)."""
ASSUMED_RUNS = 50
"""Runs where a paper does not say how many: fewer than most have."""
ASSUMED_RANGES: Mapping[str, Range] = {
    "n_active": (1e8, 3e9),
    "n_total": (1e8, 1e10),
    TOKENS: (1e9, 1e11),
    "activation_ratio": (0.05, 0.5),
    "active_experts": (1.0, 16.0),
    "shared_share": (0.0, 0.5),
}
"""Ranges of what was run where a paper's are not known: those of the MoE papers whose ranges are."""


@dataclass(frozen=True)
class PublishedError:
    """What a paper says of the error of one fit.

    `rmse` is the root mean square residual on its own runs, of ln loss or, where `rmse_of` says so, of the loss in nats
    per token; `n_runs` how many there were. `ranges` are those of columns, beside the fit's domain; `tokens_per_param`
    and, for laws in N_active and N_total, `activation_ratio` stand for the column that follows. `runs` are the runs
    themselves, by column, where the paper lists them. `standard_errors` are the printed ones of parameters. `source`
    says where in the paper, or how it was recomputed.
    """

    rmse: float | None = None
    rmse_of: Literal["ln loss", "loss"] = "ln loss"
    n_runs: int | None = None
    ranges: Mapping[str, Range] = field(default_factory=dict)
    runs: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    standard_errors: Mapping[str, float] = field(default_factory=dict)
    source: str = ""

    def assumptions(self, assumed_ranges: Mapping[str, Range]) -> tuple[str, ...]:
        """What is assumed where the paper is silent; `assumed_ranges` are those that the draws took."""
        told = []
        if self.rmse is None:
            told.append(f"residuals of {ASSUMED_RMSE:g} of ln loss")
        if self.n_runs is None:
            told.append(f"{ASSUMED_RUNS} runs")
        told += [f"{name} {between(ends, si)}" for name, ends in assumed_ranges.items()]
        return (f"not printed, and assumed: {listed(told, most=len(told))}",) if told else ()


_EPOCH_RUNS = "recomputed on the 240 runs that arXiv 2404.10102 digitised"
_SHEET_2402 = "arXiv 2402.07871: rmse .015 of the loss on its own runs, .019 on held-out ones; more than 100 runs"
_ABNAR: Mapping[str, Range] = {"n_experts": (1.0, 50.0), "top_k": (1.0, 1.0)}  # S 0 to .98
_SARDANA = {"100": (10.0, 100.0), "250": (10.0, 250.0), "500": (10.0, 500.0), "all": (10.0, 1e4)}

ERRORS: Mapping[str, PublishedError] = {
    "chinchilla-rounded": PublishedError(0.0192, n_runs=400, source=_EPOCH_RUNS),
    "chinchilla-tex": PublishedError(0.0100, n_runs=400, source=_EPOCH_RUNS),
    "chinchilla-epoch": PublishedError(
        0.00757,
        n_runs=240,
        standard_errors={"A": 124.52232, "B": 1293.28410, "E": 0.02566, "alpha": 0.01540, "beta": 0.02060},
        source=f"{_EPOCH_RUNS}; standard errors as printed",
    ),
    "joint-moe-2025": PublishedError(
        0.0062,
        n_runs=280,
        source="arXiv 2502.05172: rmse .0062 on its own runs, .0039 on the 30 of least loss, held out; more than 280 "
        "runs",
    ),
    **{
        f"clark-2022-{name}": PublishedError(
            rmse, n_runs=n_runs, source="recomputed on the published runs of arXiv 2202.01169"
        )
        for name, rmse, n_runs in (("s-base", 0.00369, 58), ("rl-r", 0.00774, 59), ("hash", 0.00525, 56))
    },
    "fine-grained-2024": PublishedError(0.015, "loss", n_runs=100, source=_SHEET_2402),
    "fine-grained-2024-e16": PublishedError(0.015, "loss", source=_SHEET_2402),
    "fine-grained-2024-dense": PublishedError(0.015, "loss", source=_SHEET_2402),
    "sparsity-2025": PublishedError(
        0.0237,
        "loss",
        ranges=_ABNAR,
        source="arXiv 2501.12370: mean squared error .00056 on its own runs, .0058 held out at S = .98; S 0 to .98",
    ),
    "leverage-2025": PublishedError(n_runs=300, source="arXiv 2507.17702: more than 300 models"),
    "overtraining-2024": PublishedError(
        0.007,
        n_runs=5,
        runs={
            "n_active": (1.1e7, 7.9e7, 1.54e8, 4.11e8, 1.1e7),
            TOKENS: (2.2e8, 1.58e9, 3.08e9, 8.22e9, 3.52e9),
        },
        source="arXiv 2403.08540: five runs; an error of .7 % on 1.4B and 6.9B models, taken for their residual",
    ),
    "tencent-2025": PublishedError(n_runs=446, source="arXiv 2509.23678: 446 runs"),
    **{
        f"sardana-2024-{name}": PublishedError(
            n_runs=47, ranges={"tokens_per_param": ends}, source="arXiv 2401.00448: 47 models, some of them in each fit"
        )
        for name, ends in _SARDANA.items()
    },
}
"""Errors by the name of the published fit; one that is not here prints nothing."""


def error_of(name: str) -> PublishedError:
    """What the paper says of the error of the published fit of that name."""
    return ERRORS.get(name, PublishedError())

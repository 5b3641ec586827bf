"""A recommendation: the choice for each expert count, its cost, and how sure it is."""

from __future__ import annotations

import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass

from analysis.decision.law_advice import LawAdvice
from analysis.decision.next_run import NextRun
from analysis.decision.optima import TradeOff
from analysis.decision.question import Question
from analysis.decision.reference import Reference
from scaling.summary import Summarised
from scaling.table import Table

REGRET_LIMIT, PROBABILITY_NEEDED, EXTRAPOLATION_LIMIT = 0.01, 0.8, 30.0
MOST_DRAWS, DRAWS_NEEDED = 1_000, 100
_SAME = 1e-9  # relative: a value that is the same but for rounding


@dataclass(frozen=True)
class Cost:
    """Lifetime cost: training, serving and both, in `unit` (FLOP or USD)."""

    train: float
    serve: float
    total: float
    unit: str


Interval = tuple[float, float]


@dataclass(frozen=True)
class Served:
    """How a model is served on the device: one replica, named as in `scaling.serving.replicas.METRICS`.

    `fewest_devices` hold it at any price, `n_devices` at the least. Without a load `replicas`, and batch and latency of
    each under it, are None. The intervals are 95 %, None where the device's speed was not measured.
    """

    n_devices: int
    fewest_devices: int
    experts_split: bool
    batch: int
    ttft_ms: float
    tpot_ms: float
    e2el_ms: float
    output_throughput: float
    request_goodput: float
    weight_gb: float
    usd_per_million: float
    replicas: int | None = None
    load_batch: float | None = None
    load_ttft_ms: float | None = None
    load_tpot_ms: float | None = None
    tpot_ms_interval: Interval | None = None
    usd_per_million_interval: Interval | None = None


@dataclass(frozen=True)
class Choice:
    """The best model of one expert count. Intervals are 95 %, from the fit's draws; None where it has none.

    `loss_interval` is the law's for this very model, `run_interval` that of one run of it, run-to-run noise in it; the
    intervals of N, D and cost say how the optimum of this E moves from draw to draw. `served` is None without a device.
    `probability_best` is the share of all draws in which this E is best. `regret` is what choosing it costs beyond the
    best E of a draw, a share of the cost and at most tenfold: the mean over the draws in which it can answer (None: in
    none). `unanswered` is the share of the draws in which no size of it meets the loss within the limits.
    `granularity`, `d_expert` and `n_shared` say how its experts are built (`analysis.laws.expert_shape`), None where
    unknown or dense. `train_device_hours` is what training takes on the device, at a share `train_mfu` of its peak.
    """

    n_experts: int
    top_k: int | None
    n_active: float
    n_total: float | None
    tokens: float
    train_flops: float
    loss: float
    cost: Cost
    memory_bytes: float | None
    loss_interval: Interval | None = None
    run_interval: Interval | None = None
    served: Served | None = None
    n_active_interval: Interval | None = None
    tokens_interval: Interval | None = None
    cost_interval: Interval | None = None
    probability_best: float | None = None
    regret: float | None = None
    unanswered: float | None = None
    train_device_hours: float | None = None
    train_mfu: float | None = None
    granularity: float | None = None
    d_expert: float | None = None
    n_shared: float | None = None

    def minimised(self, goal: str) -> float:
        """What a question of that `goal` minimises: the loss, the cost of serving, or the lifetime cost."""
        return {"loss": self.loss, "serving": self.cost.serve}.get(goal, self.cost.total)


@dataclass(frozen=True, repr=False)
class Recommendation(Summarised):
    """The answer: what to train, the best of every other E, how sure that is, and which run would make it surer.

    `refused` says why the figures are no answer, though the formula gives them; it is empty where they are one, and
    stands first in `undecided_because`. `best_experts` is the 95 % set of the best E: the fewest E, by their share of
    the draws, that hold .95 of them (empty without draws). `front` lists, for every E, loss against lifetime cost
    (empty for a training budget alone). `laws` is the advice of each law of an ensemble (`law_advice`). `reference` is
    the model whose loss is kept where a cost is minimised within a training budget.
    """

    question: Question
    mode: str
    recommendation: Choice
    alternatives: tuple[Choice, ...]
    probability_best: Mapping[int, float] | None
    best_experts: tuple[int, ...]
    expected_regret: float | None
    decided: bool
    undecided_because: tuple[str, ...]
    next_run: NextRun | None
    front: tuple[TradeOff, ...]
    warnings: tuple[str, ...]
    assumptions: tuple[str, ...]
    law: str
    fitted_to: str
    n_draws: int
    unreachable: tuple[int, ...]
    refused: tuple[str, ...] = ()
    laws: tuple[LawAdvice, ...] = ()
    reference: Reference | None = None

    @property
    def best_at_estimate(self) -> int:
        """The E that is best at the fit's estimate; another than is recommended where the estimate is no law
        (`Fit.chooses_by_risk`)."""
        goal, chosen = self.question.goal, self.recommendation
        least = min((chosen, *self.alternatives), key=lambda choice: choice.minimised(goal))
        return (least if least.minimised(goal) < (1.0 - _SAME) * chosen.minimised(goal) else chosen).n_experts

    def summary(self) -> Table:
        """The decision in a line, the choices, why it is not decided, and the warnings."""
        summary: Table = pkgutil.resolve_name("analysis.decision.answer:Answer")(self).summary()
        return summary

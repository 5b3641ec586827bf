"""The task `mixture-regression`: how fast mixtures of polynomial experts learn a function (arXiv 1110.2058).

y = h(x) + noise, x uniform on [0, 1]. The m experts are polynomials of order k. Under the oracle gate each has one of m
equal cells and the maximum likelihood estimate is least squares in each; a softmax gate is learnt with them, by EM and
then by climbing the likelihood. With r = min(alpha, k + 1), alpha the smoothness of h, theory has

    KL = O(m^-2r + (m (k + 1) + v_m) log(n) / n),   v_m parameters of the gate,   m* ~ (n / log n)^(1 / (2r + 1));

the log n is absent where the estimate is unique, as under the oracle gate.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from scaling.config.fields import Count, Real, Whole
from scaling.tasks.cell import Settings, TaskCell
from scaling.tasks.task import Budget, Metric, Task

_PASSES = 700  # over the sample, of one start under a learnt gate, as it was measured


class MixtureRegression(Settings):
    """Settings of the task."""

    n_experts: Annotated[Count, Field(le=4096, description="m, experts that are fitted")] = 4
    order: Annotated[Whole, Field(le=8, description="k, the order of an expert's polynomial")] = 1
    gate: Annotated[
        Literal["oracle", "softmax"], Field(description="equal cells that are known, or a softmax gate that is learnt")
    ] = "oracle"
    target: Annotated[
        Literal["smooth", "kink", "cusp"],
        Field(description="h: sin(3x) + exp(x), |x - 1/3| of smoothness 3/2, or |x - 1/3|^(1/2) of smoothness 1"),
    ] = "smooth"
    noise: Annotated[Real, Field(gt=0, description="standard deviation of the noise, which is known")] = 0.3
    replicates: Annotated[Count, Field(le=100_000, description="samples that are drawn and fitted")] = 50
    starts: Annotated[
        Literal["cells", "random"],
        Field(description="gates to start from: three of equal cells, then of random ones; or random alone"),
    ] = "cells"
    n_starts: Annotated[Count, Field(le=1000, description="starts of a fit; the best likelihood is kept")] = 3
    em_steps: Annotated[Whole, Field(le=100_000, description="steps of EM before the likelihood is climbed")] = 50
    bound: Annotated[Real, Field(gt=0, description="most that a parameter of a learnt gate or its experts can be")] = (
        1e4
    )

    @model_validator(mode="after")
    def _one_expert(self) -> MixtureRegression:
        if self.gate == "softmax" and self.n_experts > 64:
            raise ValueError(f"gate=softmax fits n_experts={self.n_experts} jointly; at most 64 can be")
        return self

    def identity(self) -> dict[str, object]:
        """Under the oracle gate the estimate is in closed form: it has no starts, steps or bound."""
        unused = {"starts", "n_starts", "em_steps", "bound"} if self.gate == "oracle" else set()
        return self.model_dump(mode="json", exclude=unused)


def _flops(cell: TaskCell) -> float:
    """Of least squares: the sums of products, 2 n (k + 1) (k + 2), and of learnt gates as often for every expert and
    pass."""
    settings = cell.settings
    assert isinstance(settings, MixtureRegression)
    of_sums = 2.0 * cell.budget * (settings.order + 1) * (settings.order + 2)
    passes = 1 if settings.gate == "oracle" else settings.n_experts * settings.n_starts * _PASSES
    return settings.replicates * passes * of_sums


TASK = Task(
    name="mixture-regression",
    title="mixtures of polynomial experts learn a function",
    source="arXiv 1110.2058",
    settings=MixtureRegression,
    metrics=(
        Metric("squared_error", "", "mean over x of (h - mean of the fitted mixture)^2"),
        Metric("kl", "nats", "Kullback-Leibler divergence of the truth from the fitted mixture"),
        Metric("approximation_error", "", "least squared error that m experts can have (oracle gate)"),
        Metric("estimation_error", "", "mean over x of (fitted - best experts)^2 (oracle gate)"),
        Metric("gain", "nats", "log-likelihood over that of the best experts; learnt gate: of the truth", "higher"),
        Metric("converged", "", "1 if a fresh climb of the likelihood gained less than 0.001 nats", "higher"),
    ),
    budget=Budget("samples", "samples", "n, the size of each sample"),
    train="scaling.tasks.statistics.train_regression:train_cells",
    flops=_flops,
    flops_are="estimated",
    budgets_together=False,
    code=("scaling.tasks.statistics", "scaling.tasks.mixture_regression"),
)

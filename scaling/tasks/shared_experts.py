"""The task `shared-experts`: how fast shared and routed Gaussian experts are learnt (arXiv 2505.10860).

One shared and two routed true experts, fitted with two and three, behind a softmax gate or a normalised sigmoid gate;
x is uniform on [-3, 3]. A Voronoi loss adds distances of fitted atoms to the true ones, each to the power at which it
appears in the density, so in theory every loss falls as (log(n) / n)^1/2 (theorems 1 to 4 of the paper).

Powers of an atom alone in its cell are 1. Of several they are 2, but 4 for the intercept b of a linear expert: a
Gaussian's d2/db2 is 2 d/d(variance), so b of two atoms is learnt as n^-1/8 and all else as n^-1/4. The paper has the
power 4 for the gate's slope beside b; at that power its part only falls faster.
Under the sigmoid gate the second true gate has slope 0, so that the fitted model contains the truth (the paper's sparse
regime): two sigmoids of other slopes do not add up to one.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from scaling.config.fields import Count, Real
from scaling.tasks.cell import Settings, TaskCell
from scaling.tasks.task import Budget, Metric, Task

_PASSES, _OPERATIONS = 400, 120  # over the sample, of one start, as it was measured; of one sample and expert


class SharedExperts(Settings):
    """Settings of the task."""

    experts: Annotated[Literal["linear", "relu"], Field(description="h(x): a x + b, or ReLU(a x + b)")] = "linear"
    gate: Annotated[Literal["softmax", "sigmoid"], Field(description="of the routed experts")] = "softmax"
    n_shared: Annotated[Count, Field(le=8, description="shared experts that are fitted to one true one")] = 2
    n_experts: Annotated[Count, Field(ge=2, le=16, description="routed experts that are fitted to two true ones")] = 3
    replicates: Annotated[Count, Field(le=100_000, description="samples that are drawn and fitted")] = 40
    starts: Annotated[
        Literal["near-truth", "random"],
        Field(description="the true experts, some of them doubled, and noise, as the paper starts; or random lines"),
    ] = "near-truth"
    spread: Annotated[
        Real, Field(ge=0, description="standard deviation of what is added to a start near the truth")
    ] = 0.2
    n_starts: Annotated[Count, Field(le=1000, description="starts of a fit; the best likelihood is kept")] = 2
    bound: Annotated[Real, Field(gt=0, description="most that a slope or intercept can be")] = 15
    variance_factor: Annotated[
        Real, Field(gt=1, description="most that a variance can be above or below the true one")
    ] = 10

    def identity(self) -> dict[str, object]:
        """Random starts have no spread."""
        return self.model_dump(mode="json", exclude={"spread"} if self.starts == "random" else set())


def _flops(cell: TaskCell) -> float:
    """Of passes over the sample."""
    settings = cell.settings
    assert isinstance(settings, SharedExperts)
    experts = settings.n_shared + settings.n_experts
    return float(settings.replicates * settings.n_starts * _PASSES * cell.budget * experts * _OPERATIONS)


TASK = Task(
    name="shared-experts",
    title="shared and routed experts are learnt",
    source="arXiv 2505.10860",
    settings=SharedExperts,
    metrics=(
        Metric("voronoi_loss", "", "shared_loss + routed_loss"),
        Metric("shared_loss", "", "Voronoi loss of the shared experts: masses omega, parameters a, b, variance"),
        Metric("routed_loss", "", "Voronoi loss of the routed experts: masses and slopes of the gate, and the same"),
        Metric("density_error", "", "mean over x of the total variation between fitted and true density of y"),
        Metric("alone_distance", "", "distance of a routed true expert to its fitted atom, where it has one"),
        Metric("together_distance", "", "distance of a routed true expert to its fitted atoms, where it has several"),
        Metric("gain", "nats", "log-likelihood over that of the truth", "higher"),
        Metric("converged", "", "1 if a fresh climb of the likelihood gained less than 0.001 nats", "higher"),
    ),
    budget=Budget("samples", "samples", "n, the size of each sample"),
    train="scaling.tasks.statistics.train_shared:train_cells",
    flops=_flops,
    flops_are="estimated",
    budgets_together=False,
    code=("scaling.tasks.statistics", "scaling.tasks.shared_experts"),
)

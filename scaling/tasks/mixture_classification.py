"""The task `mixture-classification`: how fast softmax-gated logistic experts are learnt (arXiv 2310.14188).

Two true experts of two classes, fitted with more. In theory the density is learnt as n^-1/2, the parameters of a
true expert with one fitted atom as n^-1/2, of one with several as n^-1/4. Where the slopes of a true expert vanish, the
plain gate mixes up the slopes of gate and expert, for d2/(d beta_1 d c) is d/d a, and rates are slower than any power
of n; a gate that reads sigmoid(x), tanh(x) or cos(x) keeps them apart.

One thing no gate can do: experts whose slopes vanish have constant class probabilities, and two such atoms behind one
gate slope make any mean of their probabilities. The intercepts of atoms that share such a cell are not identified, so
they are reported apart from the slopes (`together_intercept`).

A sample says little about a divided expert: the density changes by .003 of the squared distance of its two atoms, or
less. So that distance is of order 1 at n = 1e5, and slopes near -1/4 are those of larger n. They cost no more: a
covariate of 256 values makes the table of counts sufficient.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from scaling.config.fields import Count, Real, Whole
from scaling.tasks.cell import Settings, TaskCell
from scaling.tasks.task import Budget, Metric, Task

_PASSES, _OPERATIONS = 250, 256 * 2 * 60  # over the table, of one start, as it was measured; of one pass and expert


class MixtureClassification(Settings):
    """Settings of the task."""

    n_experts: Annotated[Count, Field(ge=2, le=16, description="experts that are fitted to two true ones")] = 3
    reads: Annotated[Literal["x", "sigmoid", "tanh", "cos"], Field(description="M(x), what the gate reads")] = "x"
    vanishing: Annotated[bool, Field(description="whether the slopes of the first true expert are 0")] = False
    replicates: Annotated[Count, Field(le=100_000, description="samples that are drawn and fitted")] = 40
    starts: Annotated[
        Literal["near-truth", "random"],
        Field(description="the true experts, one of them doubled, and noise; or random parameters"),
    ] = "near-truth"
    doubled: Annotated[
        Literal["either", "first", "second"], Field(description="the true expert that a start near the truth doubles")
    ] = "either"
    spread: Annotated[
        Real, Field(ge=0, description="standard deviation of what is added to a start near the truth")
    ] = 0.3
    n_starts: Annotated[Count, Field(le=1000, description="starts of a fit; the best likelihood is kept")] = 6
    em_steps: Annotated[Whole, Field(le=100_000, description="steps of EM before the likelihood is climbed")] = 50
    bound: Annotated[Real, Field(gt=0, description="most that a parameter can be: the parameter space is compact")] = 15

    def identity(self) -> dict[str, object]:
        """Random starts double no true expert and have no spread."""
        unused = {"doubled", "spread"} if self.starts == "random" else set()
        return self.model_dump(mode="json", exclude=unused)


def _flops(cell: TaskCell) -> float:
    """Of passes over the table of counts, whose size does not depend on the samples."""
    settings = cell.settings
    assert isinstance(settings, MixtureClassification)
    return float(settings.replicates * settings.n_starts * settings.n_experts * _PASSES * _OPERATIONS)


TASK = Task(
    name="mixture-classification",
    title="softmax-gated logistic experts are learnt",
    source="arXiv 2310.14188",
    settings=MixtureClassification,
    metrics=(
        Metric("density_error", "", "mean over x of the total variation between fitted and true class probabilities"),
        Metric("voronoi_loss", "", "distances of atoms to the true ones, squared where several share a true one"),
        Metric("alone_distance", "", "distance of a true expert to its fitted atom, where it has one"),
        Metric("together_distance", "", "distance of a true expert to its fitted atoms, where it has several"),
        Metric("together_gate", "", "the gate slope's part of together_distance"),
        Metric("together_slope", "", "the expert slopes' part of together_distance"),
        Metric("together_intercept", "", "the expert intercepts' part of together_distance"),
        Metric("first_together", "", "1 if the first true expert has several atoms"),
        Metric("gain", "nats", "log-likelihood over that of the truth", "higher"),
        Metric("converged", "", "1 if a fresh climb of the likelihood gained less than 0.001 nats", "higher"),
    ),
    budget=Budget("samples", "samples", "n, the size of each sample"),
    train="scaling.tasks.statistics.train_classification:train_cells",
    flops=_flops,
    flops_are="estimated",
    budgets_together=False,
    code=("scaling.tasks.statistics", "scaling.tasks.mixture_classification"),
)

"""Shapes compared: what each (E, k, expert width) offers, how sure the best is, and the front of cost against loss."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated

import numpy as np
import pandas as pd

from analysis.decision.lineage import as_built, shape_built
from analysis.decision.optima import Optima, expected_regret
from analysis.decision.question import Question
from analysis.decision.recommend import some_draws
from analysis.decision.recommendation import PROBABILITY_NEEDED, REGRET_LIMIT, Recommendation
from analysis.decision.shapes import Variant
from analysis.decision.size_search import Optimum
from analysis.fitting.fit import Fit
from analysis.latency.speeds import Speeds
from analysis.laws.model_family import Sizes
from analysis.laws.moe_shape import FINE_GRAINED, SPARSITY
from scaling.arrays import Array, AsColumns
from scaling.errors import InputError
from scaling.formatting import listed, percent

NARROW = 128
"""Columns of an expert, below which the tiles of a GPU's matrix units (128 wide, arXiv 2211.15841) are partly idle."""
_ROUTERS = 1.0  # parameters of routers over those of a token's experts, beyond which models got worse (2402.07871)
_DRAWS, _DRAWS_OF_COST = 256, 100  # draws that are compared; fewer where every one takes a search for tokens
_LEVELS = np.linspace(0.97, 1.03, 9)  # of the loss recommended
_OF_BUDGET = ("train_flops", "train_usd", "lifetime_cost", "minimise")
_FRONT = ["shape", "loss", "cost", "on_front"]
Front = Annotated[pd.DataFrame, AsColumns(tuple(_FRONT))]


@dataclass(frozen=True)
class ShapeAlternative:
    """The best model of one shape: E routed experts, of which a token takes k, each `d_expert` wide, and `n_shared`.

    `name` is that of the fit, `granularity` as its law counts it. `value` is what is minimised, a loss or a cost;
    `cost` the lifetime cost. `probability_best` and `regret` are over all shapes compared, None unless every fit has
    draws. `router_share`: parameters of the routers over those of the experts that a token takes.
    """

    name: str
    n_experts: int
    top_k: int | None
    granularity: float | None
    d_expert: float | None
    n_shared: float | None
    n_active: float
    n_total: float | None
    tokens: float
    loss: float
    cost: float
    value: float
    router_share: float | None = None
    probability_best: float | None = None
    regret: float | None = None


@dataclass(frozen=True)
class Shapes:
    """Shapes by what they offer, the best first; `n_draws` were compared. `unable` could not answer.

    `front`: what every shape costs at losses around that of the best; `shape` is its place in `rows`, and `on_front` 1
    where none costs less at that loss.
    """

    rows: tuple[ShapeAlternative, ...]
    n_draws: int
    unit: str
    unable: int = 0
    front: Front = field(default_factory=lambda: pd.DataFrame(columns=_FRONT))


def compare_shapes(
    compared: Sequence[Variant], speeds: Speeds | None = None, *, front: bool = True
) -> tuple[Shapes, Variant]:
    """Every shape of every variant at its best size, the best first, and the variant that holds the best.

    Where a budget says the loss to keep, it is that of the first variant's reference (`shapes.with_one_bar`). Shapes of
    one fit meet the same draws. Prices are near to .1 %; `recommend` prices the shape that is chosen exactly. Raises
    InputError where no shape can answer.
    """
    places = [(variant, e) for variant in compared for e in variant.experts]
    if not places:
        raise InputError("no shape is left to compare: the expert counts asked about are all below `top_k`")
    estimated = _estimates(compared)
    values = np.array([float(estimated.value(i)[0]) for i in range(len(places))])
    able = [i for i in np.argsort(values, kind="stable").tolist() if np.isfinite(values[i])]
    if not able:
        raise InputError(f"none of {len(places)} shapes can answer within the limits given; allow more")
    most = _DRAWS if compared[0].optimiser.loss_is_minimised else _DRAWS_OF_COST
    n_draws = min(min(variant.optimiser.fit.n_draws for variant in compared), most)
    chances: Mapping[int, float] = {}
    regrets = np.full(len(places), np.nan)
    if n_draws:
        drawn = _drawn(compared, estimated, n_draws, None if speeds is None else speeds.some())
        chances, regrets = drawn.probability_best(), expected_regret(drawn.regrets())
    rows = tuple(
        replace(
            _alternative(places[i][0], places[i][1], estimated.by_experts[i], estimated.target),
            probability_best=chances.get(i),
            regret=None if np.isnan(regrets[i]) else float(regrets[i]),
        )
        for i in able
    )
    unit = compared[0].question.pricing.unit
    curve = _front(places, [places[i] for i in able], estimated, rows[0].loss) if front else Shapes((), 0, "").front
    return Shapes(rows, n_draws, unit, len(places) - len(able), curve), places[able[0]][0]


def doubts_of_shape(shapes: Shapes, narrow: bool) -> list[str]:
    """Why the shape that offers most is not decided: the draws, the edge of what was compared, routers and narrow
    experts, which laws do not know of (`narrow`: whether models run on a device made of tiles)."""
    best = shapes.rows[0]
    doubts = []
    if best.probability_best is not None and best.probability_best < PROBABILITY_NEEDED:
        doubts.append(
            f"{described(best)} is best in only {best.probability_best:.0%} of draws over all shapes "
            f"({PROBABILITY_NEEDED:.0%} required)"
        )
    if best.regret is not None and best.regret > REGRET_LIMIT:
        doubts.append(f"over all shapes its expected regret is {best.regret:.1%} (limit {REGRET_LIMIT:.0%})")
    doubts += _edges(shapes)
    if best.router_share is not None and best.router_share > _ROUTERS:
        doubts.append(
            f"its routers hold {best.router_share:.2g} times the parameters of a token's experts: such models got "
            "worse, not better (arXiv 2402.07871)"
        )
    if narrow and best.d_expert is not None and best.n_experts > 1 and best.d_expert < NARROW:
        doubts.append(
            f"its experts are {best.d_expert:.0f} columns wide: below {NARROW} a device's matrix units are partly "
            "idle, which no law and no price here knows"
        )
    return doubts


def _edges(shapes: Shapes) -> list[str]:
    """Whether k, or G where k does not tell shapes apart, is the least or most that was compared; k = 1 is no edge."""
    routed = [row for row in shapes.rows if row.n_experts > 1]
    best = shapes.rows[0]
    for name, what in (("top_k", "k"), ("granularity", "G")):
        of = sorted({float(f"{value:.3g}") for row in routed if (value := getattr(row, name)) is not None})
        if best.n_experts == 1 or len(of) < 2:
            continue
        value = float(f"{getattr(best, name):.3g}")
        if value == of[-1] or (value == of[0] and value != 1):
            side = "largest" if value == of[-1] else "smallest"
            return [f"{what} = {value:g} is the {side} compared ({listed([f'{each:g}' for each in of])})"]
        return []
    return []


def judged(found: Recommendation, shapes: Shapes, fit: Fit, asked: Question) -> Recommendation:
    """A recommendation of the best shape, with what its comparison with the other shapes leaves in doubt; `asked` is
    the question that was asked about all of them."""
    doubts = doubts_of_shape(shapes, narrow=found.question.device is not None)
    because = (*found.undecided_because, *doubts)
    notes = []
    if fit.law == SPARSITY.name:
        notes.append("the law reads k / E alone: shapes of one k / E differ in what they cost, not in what they lose")
    bar = found.question.reference_loss
    if bar != asked.reference_loss:
        notes.append(
            f"all shapes keep a loss of {bar:.4f}, the least of {asked.reference} over the shapes, which the law or "
            "the fits read each otherwise: `reference_loss` gives another"
        )
    outside = tuple(_outside(fit, shapes.rows[0]))
    return replace(found, decided=not because, undecided_because=because, warnings=(*found.warnings, *notes, *outside))


def _outside(fit: Fit, best: ShapeAlternative) -> Iterator[str]:
    """Where the shape that is recommended lies outside the granularities that the law was fitted to."""
    if "granularity" in fit.domain and best.granularity is not None and best.n_experts > 1:
        reads_k = "granularity" not in fit.definition.columns or (fit.family is None and fit.law == FINE_GRAINED.name)
        value = float(best.top_k or 0) if reads_k else best.granularity
        yield from (f"extrapolation: {each}" for each in fit.outside_domain({"granularity": value}))


def described(row: ShapeAlternative) -> str:
    """A shape in words."""
    parts = [f"E = {row.n_experts}"]
    if row.n_experts > 1:
        parts += [] if row.top_k is None else [f"k = {row.top_k}"]
        parts += [] if row.granularity is None else [f"G = {row.granularity:.3g}"]
        parts += [] if not row.n_shared else [f"{row.n_shared:.3g} shared"]
    return ", ".join(parts)


def chance_of_experts(shapes: Shapes) -> str:
    """How often each E is best, whatever the shape, in words; "" without draws."""
    sums: dict[int, float] = {}
    for row in shapes.rows:
        sums[row.n_experts] = sums.get(row.n_experts, 0.0) + (row.probability_best or 0.0)
    likely = sorted((e for e in sums if sums[e] >= 0.05), key=lambda e: -sums[e])
    return listed([f"E = {e} in {percent(sums[e])}" for e in likely]) if shapes.n_draws else ""


@dataclass(frozen=True)
class _Estimates(Optima):
    """Optima of all shapes, numbered, and the loss that they had to reach (None: the loss is minimised)."""

    target: Array | None = None


def _estimates(compared: Sequence[Variant]) -> _Estimates:
    """The optimum of every shape at the estimate; on a device near those of the first variant, in a third of the
    time."""
    optimiser = compared[0].optimiser
    target = None if optimiser.loss_is_minimised else optimiser.target(optimiser.fit.params, 1)
    found: list[Optima] = []
    for variant in compared:
        sizes = [float(each.n_active[0]) for optima in found for each in optima.by_experts.values()]
        sizes = [size for size in sizes if np.isfinite(size)]
        near = dict.fromkeys(variant.experts, float(np.exp(np.mean(np.log(sizes))))) if sizes else None
        of = variant.optimiser
        found.append(of.estimate_near(near, target) if near else of.estimate(variant.experts, target))
    numbered = _numbered(found)
    return _Estimates(numbered.by_experts, numbered.budget_slopes, target)


def _drawn(compared: Sequence[Variant], estimated: Optima, rows: int, speeds: Speeds | None) -> Optima:
    """The optimum of every shape in every draw, searched near that of the estimate."""
    first = compared[0].optimiser
    target = None
    if not first.loss_is_minimised:
        target = first.target(some_draws(first.fit, rows), rows, drawn=True)
    found, number = [], 0
    for variant in compared:
        optimiser = variant.optimiser
        near = {}
        for e in variant.experts:
            near[e] = float(estimated.by_experts[number].n_active[0])
            number += 1
        params = some_draws(optimiser.fit, rows)
        found.append(optimiser.solve(variant.experts, params, rows, speeds, target=target, near=near, drawn=True))
    return _numbered(found)


def _numbered(found: Sequence[Optima]) -> Optima:
    """Optima of several variants as those of one, by number in their order."""
    optima: list[Optimum] = [each for one in found for each in one.by_experts.values()]
    slopes = [each for one in found for each in one.budget_slopes.values()]
    return Optima(dict(enumerate(optima)), dict(enumerate(slopes)))


def _alternative(variant: Variant, n_experts: int, optimum: Optimum, target: Array | None) -> ShapeAlternative:
    """The best model of one shape, before it is compared with the others."""
    optimiser, n_active = variant.optimiser, optimum.n_active
    read = optimiser.space(n_experts).sizes(n_active)
    built = as_built(optimiser.pricing.family, read)
    value = float(optimum.value[0])
    return ShapeAlternative(
        name=variant.name,
        n_experts=n_experts,
        top_k=built.top_k if n_experts > 1 else 1,
        n_active=float(n_active[0]),
        n_total=_first(optimiser.pricing.n_total(read)),
        tokens=float(optimum.tokens[0]),
        loss=value if optimiser.loss_is_minimised or target is None else float(target[0]),
        cost=float(optimiser.lifetime(n_experts, optimum)[0]),
        value=value,
        router_share=_router_share(built),
        **shape_built(built),
    )


def _router_share(sizes: Sizes) -> float | None:
    """Parameters of the routers over those of a token's routed experts; None where unknown. N_total - N_active are
    E - k experts."""
    if sizes.n_router is None or sizes.n_total is None or sizes.top_k is None or sizes.n_experts <= sizes.top_k:
        return None
    of_token = (sizes.n_total - sizes.n_active) * sizes.top_k / (sizes.n_experts - sizes.top_k)
    return float((sizes.n_router / of_token)[0])


def _first(values: Array | None) -> float | None:
    return None if values is None else float(np.ravel(values)[0])


def _front(
    places: Sequence[tuple[Variant, int]], able: Sequence[tuple[Variant, int]], estimated: Optima, loss: float
) -> pd.DataFrame:
    """What every shape that can answer costs at losses around one, without a limit on training."""
    levels = loss * _LEVELS
    near = {(id(variant), e): float(estimated.by_experts[i].n_active[0]) for i, (variant, e) in enumerate(places)}
    place = {(id(variant), e): i for i, (variant, e) in enumerate(able)}
    rows = []
    for variant in {id(each): each for each, _ in able}.values():
        optimiser = variant.optimiser.asked(_at_a_loss(variant.question, loss))
        sizes = {e: near[id(variant), e] for each, e in able if each is variant}
        optima = optimiser.solve(list(sizes), optimiser.fit.params, len(levels), target=levels, near=sizes)
        for e, optimum in optima.by_experts.items():
            found = zip(levels.tolist(), optimum.value.tolist(), strict=True)
            rows += [(place[id(variant), e], level, cost, 0) for level, cost in found if np.isfinite(cost)]
    table = pd.DataFrame(rows, columns=_FRONT)
    least = table.groupby("loss")["cost"].transform("min")
    return table.assign(on_front=(table["cost"] <= least).astype(int))


def _at_a_loss(question: Question, loss: float) -> Question:
    """The same question of the least lifetime cost at a loss."""
    free = dict.fromkeys((*_OF_BUDGET, "reference_loss", "reference_model", "reference_fit"))
    return replace(question, target_loss=loss, **free)  # type: ignore[arg-type]

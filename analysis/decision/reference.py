"""The reference: the model whose loss is kept within a training budget, and what hangs on it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from analysis.decision.allocation import Allocation
from analysis.decision.optima import SizeOptimiser
from analysis.decision.question import Question
from analysis.decision.size_search import SearchSpace, least_loss
from analysis.fitting.fit import Fit
from analysis.fitting.published import published
from scaling.errors import InputError
from scaling.formatting import between, listed, money, si

RATIO = 20.0  # tokens per parameter of compute-optimal dense models, Hoffmann et al. 2022, arXiv 2203.15556
LOSS_CHANGE = 0.01
_BUDGETS = np.logspace(10, 30, 41)  # at which a fit's sizes are tabulated, two a decade, in training FLOPs
OTHER_LAWS = ("published:chinchilla-epoch", "published:chinchilla-tex")  # dense ones, of which another than the fit's


@dataclass(frozen=True)
class Reference:
    """The loss that is kept, and the model that it is the loss of by the law, at the estimate.

    `loss_interval` is the law's 95 % for that model, None without draws. Without a model (`reference_loss`) the loss
    alone is known.
    """

    what: str
    loss: float
    loss_interval: tuple[float, float] | None = None
    n_experts: int | None = None
    n_active: float | None = None
    tokens: float | None = None
    tokens_per_param: float | None = None


@dataclass(frozen=True)
class ReferenceCase:
    """What is best at the estimate if the loss of `reference` were kept; without numbers where no E could answer."""

    reference: Reference
    n_experts: int | None
    n_active: float | None
    tokens: float | None
    cost: float | None
    changes: bool


def allocation_of(fit: Fit, name: str, n_experts: int = 1) -> Allocation:
    """How a fit divides budgets for models of one E. Raises InputError where it cannot, naming `reference_fit`."""
    fit.require_params()
    if not fit.definition.divides_compute:
        raise InputError(
            f"`reference_fit` {name}: law {fit.law} predicts {fit.definition.target} from "
            f"{', '.join(fit.definition.columns)} and divides no budget; name a fit of N and D"
        )
    fit.require_experts([n_experts])
    sizes = least_loss(SearchSpace(fit, n_experts, fit.params), _BUDGETS).n_active
    return Allocation(name, tuple(_BUDGETS.tolist()), tuple(sizes.tolist()))


def reference_of(optimiser: SizeOptimiser) -> Reference | None:
    """The reference of a question, None where it keeps no loss."""
    question, fit = optimiser.question, optimiser.fit
    if not question.keeps_a_loss:
        return None
    if question.reference_loss is not None:
        return Reference("the loss given", question.reference_loss)
    model = optimiser.reference(fit.params, 1)
    space = optimiser.space(question.reference_experts)
    columns = space.columns(space.sizes(model.n_active), model.tokens)
    interval = fit.loss_interval(columns)
    size, tokens = float(model.n_active[0]), float(model.tokens[0])
    return Reference(
        what=question.reference if question.reference_model is None else f"the {question.reference_kind} given",
        loss=float(model.value[0]),
        loss_interval=None if interval is None else (float(interval[0][0]), float(interval[1][0])),
        n_experts=question.reference_experts,
        n_active=size,
        tokens=tokens,
        tokens_per_param=tokens / size,
    )


def reference_cases(optimiser: SizeOptimiser, sizes: Mapping[int, float], best: int) -> tuple[ReferenceCase, ...]:
    """What follows from the reference asked, first, and from others at the same budget, at the estimate.

    The others: the best model of the reference's E by this law; one of 20 tokens per parameter; what another dense law
    makes of the budget; and a loss 1 % lower and higher than the reference's. All losses are by the law asked. `sizes`
    are N_active near the optima by E, `best` the E that is recommended.
    """
    asked = reference_of(optimiser)
    if asked is None:
        return ()
    references = {reference.loss: reference for reference in reversed([asked, *_others(optimiser, asked)])}
    ordered = sorted(references.values(), key=lambda reference: (reference is not asked, reference.loss))
    return tuple(_case(optimiser, reference, sizes, best) for reference in ordered)


def _others(optimiser: SizeOptimiser, asked: Reference) -> Iterator[Reference]:
    plain = replace(optimiser.question, reference_loss=None, reference_model=None, reference_fit=None)
    own = reference_of(optimiser.asked(plain))
    for change in (-LOSS_CHANGE, LOSS_CHANGE):
        side = "above" if change > 0 else "below"
        yield Reference(f"{abs(change):.0%} {side} the first", asked.loss * (1.0 + change))
    if own is None or own.n_active is None or own.tokens is None:
        return
    yield own
    size = float(np.sqrt(own.n_active * own.tokens / RATIO))
    tokens = min(RATIO * size, plain.data_tokens or np.inf)
    usual = reference_of(optimiser.asked(replace(plain, reference_model=(tokens / RATIO, tokens))))
    if usual is not None:
        yield replace(usual, what=f"a {plain.reference_kind} of {RATIO:g} tokens per parameter")
    name = next(name for name in OTHER_LAWS if _law(name).params != optimiser.fit.params)
    divided = reference_of(optimiser.asked(replace(plain, reference_fit=allocation_of(_law(name), name))))
    if divided is not None:
        yield divided


def _law(name: str) -> Fit:
    return published(name.removeprefix("published:"))


def _case(optimiser: SizeOptimiser, reference: Reference, sizes: Mapping[int, float], best: int) -> ReferenceCase:
    question: Question = replace(
        optimiser.question, reference_loss=reference.loss, reference_model=None, reference_fit=None
    )
    kept = optimiser.asked(question)
    try:
        optima = kept.estimate_near(dict(sorted(sizes.items())))
        chosen = optima.ranked()[0]
    except (InputError, IndexError):  # no E reaches that loss within the budget
        return ReferenceCase(reference, None, None, None, None, changes=True)
    optimum = optima.by_experts[chosen]
    size, tokens = float(optimum.n_active[0]), float(optimum.tokens[0])
    cost = float(kept.lifetime(chosen, optimum)[0])
    return ReferenceCase(reference, chosen, size, tokens, cost, changes=chosen != best)


def in_words(reference: Reference) -> str:
    """The loss that is kept with its interval, and the model that it is the loss of."""
    text = f"{reference.loss:.4f}"
    if reference.loss_interval is not None:
        text += f" ({between(reference.loss_interval, '{:.4f}'.format)})"
    if reference.n_active is None or reference.tokens is None:
        return f"{text}, as given"
    size = f"{si(reference.n_active)} parameters on {si(reference.tokens)} tokens"
    return f"{text}, of {reference.what}: {size}, {si(reference.tokens_per_param)} per parameter"


def swing_in_words(cases: Sequence[ReferenceCase], best: int, unit: str) -> str:
    """Whether another E is best where another loss is kept, and between what the cost lies; "" where none was tried."""
    others = sorted({case.n_experts for case in cases if case.n_experts not in (None, best)})
    costs = [case.cost for case in cases if case.cost is not None]
    if not costs:
        return ""
    cost = f"at {between((min(costs), max(costs)), lambda value: money(value, unit))}"
    unmet = sum(case.n_experts is None for case in cases)
    missed = f"; {unmet} of them no E reaches" if unmet else ""
    if others:
        return f"of {len(cases)} losses that could be kept, E = {listed(others)} is best for some, {cost}{missed}"
    return f"E = {best} is best for whichever of {len(cases)} losses is kept, {cost}{missed}"

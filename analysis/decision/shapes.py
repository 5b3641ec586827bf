"""Shapes: expert count, experts of a token and their width, searched together where a law or several fits know them.

What a shape is as an architecture, so that price and law speak of the same model:
- `fine-grained` on its own models: every expert of the E-fold layer is divided into G, of which a token takes G: E G
  experts, k = G, d_expert = d_ff / G. Routers are paid for at 14 FLOPs a parameter (arXiv 2402.07871, section 6).
- `sparsity`, `tencent`, `leverage` on a lineage (`scaling.serving.families`): a token's experts are together as wide as
  those of the lineage, divided into k, and shared ones where the law reads their share; or of a given width. Routers
  are paid for as matrices.
- Several fits, of runs with one k each: each fit's own models.
Shapes of one fit are compared draw by draw, under the same draw; draws of different fits are independent and meet in
their order.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from analysis.decision.built_shape import divides, tabulated
from analysis.decision.optima import SizeOptimiser
from analysis.decision.published_models import as_models, with_lineage
from analysis.decision.question import Question
from analysis.decision.recommend import candidates, with_settings
from analysis.fitting.fit import Fit
from analysis.laws.expert_shape import SHAPE_COLUMNS
from scaling.columns import EXPERTS
from scaling.errors import InputError
from scaling.formatting import listed
from scaling.serving.families import FAMILIES, ArchitectureFamily

_TOP_K, _SHARED = (1, 2, 4, 8, 16), (0, 1, 2)
_RATIOS: tuple[int, ...] = (2, 4, 8, 16, 32, 64)  # E over k, where the fit does not say which E were studied
_SAME = 1e-6  # relative difference of losses
_SHAPE = ("top_k", "granularity", "n_shared")
_SHAPE_READ = ("top_k", *SHAPE_COLUMNS)


@dataclass(frozen=True)
class Variant:
    """A fit, by the name of its file, asked about models of one shape of experts, of which `experts` are compared."""

    name: str
    fit: Fit
    question: Question
    experts: tuple[int, ...]

    @cached_property
    def optimiser(self) -> SizeOptimiser:
        """The question put to the fit of these models; of a lineage from a table, which is as good and ten times as
        fast."""
        fit, lineage = with_settings(self.fit, self.question), self.question.pricing.family
        if fit.family is None and lineage is not None:
            experts = {*self.experts, self.question.reference_experts}
            fit = replace(fit, family=tabulated(lineage, experts, fit.definition.columns))
        return SizeOptimiser(fit, self.question)


def variants(fits: Mapping[str, Fit], question: Question) -> tuple[Variant, ...]:
    """The fits asked about every shape that the question names or, where it names none, that their laws were fitted
    to. One for each fit whose law knows nothing of shapes, and for one of several laws where none is named.

    Raises InputError where shapes are named that a fit cannot tell apart.
    """
    return tuple(variant for name, fit in fits.items() for variant in _variants_of(name, fit, question))


def with_one_bar(compared: tuple[Variant, ...]) -> tuple[Variant, ...]:
    """Variants that all keep one loss: where the reference's differs between shapes or fits, the least of the first
    fit's, as `reference_loss`. A law that reads a dense model by the shape of the routed ones makes them differ."""
    question = compared[0].question
    if not question.keeps_a_loss or question.loss_asked is not None:
        return compared
    losses = [float(each.optimiser.target(each.optimiser.fit.params, 1)[0]) for each in compared]
    if max(losses) - min(losses) <= _SAME * min(losses):
        return compared
    bar = min(loss for loss, each in zip(losses, compared, strict=True) if each.name == compared[0].name)
    return tuple(
        replace(each, question=replace(each.question, reference_loss=bar, reference_model=None, reference_fit=None))
        for each in compared
    )


def _variants_of(name: str, fit: Fit, question: Question) -> Iterator[Variant]:
    if divides(fit, question):
        yield from _divided(name, fit, question)
        return
    named = any(getattr(question, field) for field in _SHAPE)
    if len(getattr(fit, "members", ())) > 1 and not named:  # of several laws not every one knows shapes
        yield Variant(name, fit, question, ())
        return
    question = with_lineage(fit, question)
    reading = fit if question.family is None else as_models(fit, replace(question, n_experts=(1,)))
    read = [column for column in shapes_read(reading) if column not in question.settings]
    if read and reading.family is None and reading.definition.divides_compute:
        if question.family is None:
            raise InputError(
                f"law {fit.law} reads {listed(read)}: name what the models are like with `family` "
                f"({', '.join(FAMILIES)}) or `like`"
            )
        yield from _of_lineage(name, reading, fit, question, question.family)
        return
    several = [field for field in _SHAPE if len(getattr(question, field)) > 1]
    if several:
        raise InputError(
            f"{listed([f'`{field}`' for field in several])}: law {fit.law} knows one shape of experts alone, that of "
            "its runs; give one value, the fit of a law that reads it, or one fit of each k"
        )
    if question.family is not None:
        question = replace(question, family=question.pricing.family, top_k=(), granularity=(), n_shared=())
    asked = with_settings(fit, question)
    yield Variant(name, fit, question, tuple(candidates(asked, question)) if asked.definition.divides_compute else ())


def shapes_read(fit: Fit) -> tuple[str, ...]:
    """The columns of a fit's law that shape the experts of a layer and may differ between models."""
    return tuple(name for name in fit.definition.columns if name in _SHAPE_READ and name not in fit.settings)


def _divided(name: str, fit: Fit, question: Question) -> Iterator[Variant]:
    """Models of a studied family, with every expert divided into G."""
    for granularity in question.granularity:
        asked = replace(question, granularity=(granularity,), n_experts=())
        experts = with_settings(fit, asked).experts
        if kept := tuple(e for e in experts if not question.n_experts or e in question.n_experts):
            yield Variant(name, fit, asked, kept)


def _of_lineage(name: str, reading: Fit, fit: Fit, question: Question, family: ArchitectureFamily) -> Iterator[Variant]:
    """Models of a lineage, with a token's experts divided into k, or of a width, with shared ones; `reading` is the
    fit as it reads them."""
    widths: tuple[float | None, ...] = question.granularity or (family.granularity,)
    counts: tuple[int | None, ...] = question.top_k
    if not counts:
        given = family.top_k is not None or widths != (None,)
        counts = (family.top_k,) if given else tuple(sorted({*_TOP_K, family.k}))
    shared: tuple[int | None, ...] = question.n_shared
    ratios = _RATIOS
    if not shared and family.n_shared is None and "shared_share" in shapes_read(reading):
        shared = _SHARED  # three times as many shapes: without those of least promise, so that it takes no longer
        ratios, counts = ratios[1:], tuple(k for k in counts if k != 1) or counts
    shared = shared or (family.n_shared,)
    low = fit.domain.get("activation_ratio", (0.0, 1.0))[0]
    has_dense = False
    for granularity, top_k, s in itertools.product(widths, counts, shared):
        built = replace(family, granularity=granularity, top_k=top_k, n_shared=s)
        experts = [e for e in question.n_experts or fit.experts if e == 1 or e > built.k]
        if not question.n_experts and (reading is not fit or not fit.experts):
            active = [(built.k + (s or 0)) / (built.k * each + (s or 0)) for each in ratios]
            experts = [built.k * each for each, a in zip(ratios, active, strict=True) if a >= low * (1 - 1e-9)]
            experts += [1] if EXPERTS in reading.definition.columns else []
        # A dense model has no shape, so it stands once.
        kept = tuple(sorted(e for e in set(experts) if e > 1 or not has_dense))
        has_dense = has_dense or 1 in kept
        if kept:
            asked = replace(question, family=built, n_experts=kept, top_k=(), granularity=(), n_shared=())
            yield Variant(name, fit, asked, kept)

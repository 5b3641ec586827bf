"""Published MoE laws put to a question: how the models are built that they are asked about.

A law that reads total sizes, k or shared experts needs a lineage to read them from (`readings`). Without one that of
`ensemble.ASSUMED_LINEAGE` is assumed, and said.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from analysis.decision.built_shape import divides
from analysis.decision.lineage import sizes_of_lineage
from analysis.decision.question import Question
from analysis.fitting.fit import Fit
from analysis.fitting.published import published_name
from analysis.mixture.candidates import family_of_laws
from analysis.mixture.ensemble import ASSUMED_LINEAGE, Ensemble, alone, usual_experts
from analysis.mixture.readings import READINGS
from analysis.mixture.stacking import ENOUGH, stacked
from analysis.tables.runs import RunTable
from scaling.columns import EXPERTS, LOSS, TOKENS
from scaling.errors import InputError
from scaling.formatting import plural
from scaling.serving.families import ArchitectureFamily, architecture_family

_READ_AS: dict[str, tuple[str, tuple[int, ...] | None]] = {
    "published:fine-grained-2024": ("fine-grained-2024", (64,)),
    "published:fine-grained-2024-e16": ("fine-grained-2024", (16,)),
    "published:sparsity-2025": ("sparsity-2025", None),
    "published:tencent-2025": ("tencent-2025", None),
}
"""Published fits that cannot read a model without a lineage: the reading of each, and the expansions that it is of."""


def as_models(fit: Fit, question: Question) -> Fit:
    """The fit, for models built as the question says; one of one published MoE law becomes an ensemble of that law.

    Laws of an ensemble that cannot speak of an E that is asked about are left out of it. A fit of another kind, and one
    whose columns are set by hand, is what it was. Raises InputError where no law is left, or where a loss is asked for
    that laws of several corpora cannot name.
    """
    found, expansions = _ensemble(fit, question)
    if found is None:
        return fit
    if question.target_loss is not None and len(found.members) > 1 and not found.weighed_by:
        raise InputError(
            "`target_loss` has no meaning here: the laws of the ensemble were fitted to losses of other corpora and "
            "tokenizers. Ask with `train_flops`, which each law compares within itself, or give runs with `weigh_by`, "
            "to which each law is shifted"
        )
    lineage = question.pricing.family or found.built_as
    usual = usual_experts(lineage.k) if expansions is None else (1, *(lineage.k * each for each in expansions))
    experts = tuple(sorted(set(question.n_experts) or usual))
    return replace(_able(found, experts, lineage.k), lineage=lineage, experts=usual)


def with_lineage(fit: Fit, question: Question) -> Question:
    """The question, with the lineage that is assumed for a fit that needs one."""
    if question.family is not None or _ensemble(fit, question)[0] is None:
        return question
    return replace(question, family=architecture_family(ASSUMED_LINEAGE))


def assumed_lineage() -> str:
    """What to say of models that nobody described."""
    return (
        f"the laws are asked about models built as {ASSUMED_LINEAGE}, for they read total sizes, k or shared experts: "
        "`family` or `like` names others"
    )


def weighed_by(fit: Fit, table: RunTable, family: ArchitectureFamily | None = None) -> Fit:
    """The ensemble with its laws weighed by runs (`stacking`).

    Total sizes, k and shared experts that the table lacks are those of the lineage at its N_active and E, with its k
    where it has one. Raises InputError for a fit that is no ensemble, and for runs without N_active, tokens or loss.
    """
    if not isinstance(fit, Ensemble):
        raise InputError("`weigh_by` weighs the laws of an ensemble: give published:moe, or recalibrate one law")
    table = table.for_law(family_of_laws(table))
    lineage = family or fit.built_as
    if "top_k" in table.frame:
        known = table.column("top_k")[table.experts > 1]
        if known.size and np.ptp(known) == 0:
            lineage = replace(lineage, top_k=int(known[0]))
    columns = {name: table.column(name) for name in ("n_active", TOKENS)} | {EXPERTS: table.experts}
    read = ("top_k", "n_active_nonembed", "n_total", "active_experts", "shared_share")
    columns |= {name: np.full(len(table), np.nan) for name in read}
    for e in np.unique(table.experts):
        rows = table.experts == e
        sizes = sizes_of_lineage(lineage, columns["n_active"][rows], int(e))
        for name in read:
            columns[name][rows] = sizes.column(name)
    for name in ("n_active_nonembed", "n_total"):
        if name in table.frame and np.isfinite(table.column(name)).all():
            columns[name] = table.column(name)
    return stacked(replace(fit, lineage=lineage), columns, table.column(LOSS), table.trunks, table.source)


def doubts_of_origin(fit: Fit) -> list[str]:
    """Why published laws alone decide nothing, however well their draws agree."""
    if fit.status != "published":
        return []
    if isinstance(fit, Ensemble) and fit.weighed_by:
        if fit.n_trunks >= ENOUGH:
            return []
        return [f"{plural(fit.n_trunks, 'run')} are too few to say which law holds ({ENOUGH} required)"]
    if isinstance(fit, Ensemble) and len(fit.members) > 1:
        return [
            "published laws of other corpora are weighed alike: no run of yours says which holds (`weigh_by` weighs "
            "them by runs)"
        ]
    return [
        "one published law of another corpus answers alone: published:moe weighs several, and a few runs of yours "
        "recalibrate it"
    ]


def _ensemble(fit: Fit, question: Question) -> tuple[Ensemble | None, tuple[int, ...] | None]:
    """The ensemble that answers for a fit, and the expansions that it is of; None where it answers for itself."""
    if isinstance(fit, Ensemble):
        return fit, None
    name = published_name(fit)
    if name not in _READ_AS or question.settings or divides(fit, question):
        return None, None
    reading, expansions = _READ_AS[name]
    return alone(reading), expansions


def _able(ensemble: Ensemble, experts: tuple[int, ...], k: int) -> Ensemble:
    """The ensemble without the laws that know nothing of some of the E."""
    widest = max(e / min(k, e) for e in experts)
    unable = [member.name for member in ensemble.members if READINGS[member.name].known_to < widest]
    if not unable:
        return ensemble
    told = [
        f"{name} is left out: it knows expansions E/k up to {READINGS[name].known_to:g}, and E = {max(experts)} at k = "
        f"{k} is {widest:g}"
        for name in unable
    ]
    if len(unable) == len(ensemble.members):
        raise InputError(f"`n_experts`: {'; '.join(told)}: ask about fewer experts")
    return ensemble.without(unable, told)

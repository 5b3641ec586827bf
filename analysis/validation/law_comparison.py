"""Evidence between laws: how well each predicts held-out trunks, and what each recommends."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy import special

from analysis.fitting.fit import Fit, fit
from analysis.fitting.objective import HUBER, Objective
from analysis.fitting.refit import log_residuals
from analysis.fitting.roll_out import refusal
from analysis.laws import Law
from analysis.mixture.mixture import Mixture
from analysis.mixture.refits import refits
from analysis.tables.runs import RunTable
from analysis.validation.advice import Advice, advise, default_budget
from scaling.arrays import Array, Integers
from scaling.columns import EXPERTS, LOSS
from scaling.errors import InputError
from scaling.formatting import listed
from scaling.progress import Progress, silent

FREEDOM = 4.0  # of Student's t: with heavy tails one failed run does not decide between laws
_CORRELATIONS = np.array([0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95])
_STARTS = 16  # of a law that is compared: one with flat valleys then has two searches, not sixteen
_EXACT = 1e-12  # of ln loss: a scale below it is rounding error
_SCALE_STEPS, _STACKING_STEPS = 100, 2_000
LIKELIHOOD = (
    f"log residuals of a trunk are multivariate Student-t with {FREEDOM:g} degrees of freedom, one scale, and one "
    "correlation between the points of a trunk"
)


@dataclass(frozen=True)
class Contender:
    """One law among others. `elpd` is the log score of all held-out trunks in nats, `difference` that to the best law
    and `difference_se` its standard error over trunks.

    `weight` is the pseudo-BMA+ weight, `stacking` the weight in the mixture of laws that predicts best. `aicc` is
    -2 ln L + 2p + 2p(p+1)/(n - p - 1) on all runs with n = `effective_runs`, None for n <= p + 1. `correlation` is that
    of residuals within a trunk. Both rmse are of ln loss. Without `advice`, `no_advice` says why.
    """

    law: str
    n_free: int
    pinned: tuple[str, ...]
    elpd: float
    difference: float
    difference_se: float
    weight: float
    stacking: float
    aicc: float | None
    effective_runs: float
    correlation: float
    rmse: float
    rmse_held_out: float
    advice: Advice | None
    no_advice: str
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class LawComparison:
    """Laws on the same runs, the best first; `skipped` gives the reasons for laws left out."""

    contenders: tuple[Contender, ...]
    skipped: Mapping[str, str]
    n_runs: int
    n_trunks: int
    n_folds: int
    train_flops: float | None

    def verdict(self) -> str:
        """One sentence."""
        if not self.contenders:
            return f"laws: none could be compared ({'; '.join(f'{k}: {v}' for k, v in self.skipped.items())})"
        best = self.contenders[0]
        if len(self.contenders) == 1:
            return f"laws: only {best.law} could be fitted"
        close = [law for law in self.contenders if -law.difference <= 2 * law.difference_se]
        if len(close) > 1:
            names = listed((f"{law.law} (weight {law.weight:.2f})" for law in close), most=3)
            sentence = f"laws: {names} predict held-out trunks equally well, within two standard errors"
        else:
            second = self.contenders[1]
            sentence = (
                f"laws: {best.law} predicts held-out trunks best of {len(self.contenders)} (weight {best.weight:.2f}), "
                f"{-second.difference:.1f} +- {second.difference_se:.1f} nats ahead of {second.law}"
            )
        advised = [law.advice.n_active for law in self.contenders if law.advice and law.weight >= 0.05]
        if len(advised) < 2:
            return sentence
        factor = max(advised) / min(advised)
        return f"{sentence}; their optimal N differ by up to a factor {factor:.2g} (weights of 0.05 or more)"

    def to_json(self) -> dict[str, Any]:
        """Plain values, the verdict among them."""
        return asdict(self) | {"verdict": self.verdict(), "likelihood": LIKELIHOOD}


def compare_laws(
    table: RunTable,
    laws: Iterable[Law],
    *,
    rng: np.random.Generator,
    folds: int = 10,
    draws: int = 4000,
    train_flops: float | None = None,
    objective: Objective = HUBER,
    made: Mapping[str, Fit] | None = None,
    progress: Progress = silent,
) -> LawComparison:
    """The evidence between laws fitted to the same runs, by cross-validation.

    `made` are fits to all runs that take part beside `laws`, each by its name, such as a mixture and its members.

    Trunks are dealt into folds within each `n_experts`, and each fold is predicted by the law fitted to the others. The
    score of a trunk is the joint log density of its held-out residuals of ln loss under a multivariate Student-t
    (`LIKELIHOOD`), with the scale and correlation of the held-out residuals of the other folds.

    elpd, its differences and their standard errors sqrt(T var(d_t)): Vehtari et al. 2017 (arXiv 1507.04544), eqs.
    22-24; `stacking` by `stacking_weights`, `weight` by `pseudo_bma_plus`. Effective runs of the AICc are
    n/(1 + (m - 1) rho), m = sum m_t^2/n (Kish): the trunks where points of a trunk agree, the runs where they do not.

    Laws with another target than the loss, with columns that the table lacks, or undetermined by these runs are skipped
    with the reason. `train_flops` is the budget of the advice (default: 10 times the compute of the largest run).
    Raises InputError for fewer than two folds or trunks.
    """
    _, trunks = np.unique(table.trunks, return_inverse=True)
    n_trunks = int(trunks.max()) + 1
    if folds < 2 or n_trunks < 2:
        raise InputError(f"{table.source}: cross-validation needs two folds and trunks, found {folds} and {n_trunks}")
    budget = train_flops or default_budget(table)
    fold_of_row = deal_folds(table, trunks, min(folds, n_trunks), rng)[trunks]
    n_folds = len(np.unique(fold_of_row))
    seed = int(rng.integers(2**31))
    judged: list[_CrossValidated] = []
    skipped: dict[str, str] = {}
    entrants: dict[str, Law | Fit] = {**(made or {}), **{law.name: law for law in laws if law.name not in (made or {})}}
    for number, (name, entrant) in enumerate(entrants.items()):
        progress(number / len(entrants))
        outcome = _cross_validated(table, name, entrant, objective, fold_of_row, seed)
        if isinstance(outcome, str):
            skipped[name] = outcome
        else:
            judged.append(outcome)
    if not judged:
        return LawComparison((), skipped, len(table), n_trunks, n_folds, budget)
    scores = np.array([_held_out_scores(law.held_out, trunks, fold_of_row) for law in judged])
    evidence = _evidence(scores, draws, rng)
    contenders = [_contender(*pair, table, trunks, budget) for pair in zip(judged, evidence, strict=True)]
    contenders.sort(key=lambda contender: -contender.elpd)
    return LawComparison(tuple(contenders), skipped, len(table), n_trunks, n_folds, budget)


class _CrossValidated(NamedTuple):
    """A law fitted to all runs, and the log residual of every run under the fit without its fold."""

    name: str
    fit: Fit
    held_out: Array


def _cross_validated(
    table: RunTable, name: str, entrant: Law | Fit, objective: Objective, fold_of_row: Integers, seed: int
) -> _CrossValidated | str:
    """A law fitted to all runs, if it is not yet, and without each fold, or the reason why it cannot be."""
    reason = _cannot_serve(table, entrant.definition if isinstance(entrant, Fit) else entrant)
    if reason:
        return reason
    whole = (
        entrant if isinstance(entrant, Fit) else fit(table, entrant, objective=objective, n_starts=_STARTS, seed=seed)
    )
    if not whole.params:
        return refusal(whole)
    kept = fold_of_row[None, :] != np.unique(fold_of_row)[:, None]
    without = refits(whole, table, kept, np.random.default_rng(seed))
    if not without.determined.all():
        return f"with a fold of trunks left out, {next(reason for reason in without.reasons if reason)}"
    return _CrossValidated(name, whole, without.log_residuals[fold_of_row, np.arange(len(table))])


class _Evidence(NamedTuple):
    """The evidence for one law from the log scores; see `Contender`."""

    elpd: float
    difference: float
    difference_se: float
    weight: float
    stacking: float


def _evidence(scores: Array, draws: int, rng: np.random.Generator) -> list[_Evidence]:
    """The evidence for every law from the log scores (laws, trunks)."""
    totals = scores.sum(axis=1)
    behind = scores - scores[totals.argmax()]
    errors = np.sqrt(scores.shape[1] * behind.var(axis=1, ddof=1))
    weights, stacking = pseudo_bma_plus(scores, draws, rng), stacking_weights(scores)
    columns = np.column_stack([totals, behind.sum(axis=1), errors, weights, stacking])
    return [_Evidence(*row) for row in columns.tolist()]


def _contender(
    judged: _CrossValidated, evidence: _Evidence, table: RunTable, trunks: Integers, budget: float | None
) -> Contender:
    fit, residuals = judged.fit, log_residuals(judged.fit, table)
    n_free = _n_free(fit)
    aicc, effective, correlation = _in_sample(residuals, trunks, n_free)
    advice, no_advice = advise(fit, budget)
    return Contender(
        law=judged.name,
        n_free=n_free,
        pinned=tuple(fit.pinned),
        **evidence._asdict(),
        aicc=aicc,
        effective_runs=effective,
        correlation=correlation,
        rmse=float(np.sqrt(np.mean(residuals**2))),
        rmse_held_out=float(np.sqrt(np.mean(judged.held_out**2))),
        advice=advice,
        no_advice=no_advice,
        warnings=fit.warnings,
    )


def _n_free(fit: Fit) -> int:
    """The free parameters; of a mixture those of its members on average, since it has no more to bend."""
    if isinstance(fit, Mixture):
        return round(sum(member.weight * len(member.free) for member in fit.members))
    return len(fit.free)


def pseudo_bma_plus(scores: Array, draws: int, rng: np.random.Generator) -> Array:
    """Weights of models from their log scores (models, units): Yao et al. 2018, arXiv 1704.02030, section 3.4.

    The mean over `draws` Dirichlet(1, ..., 1) weights a of softmax_k(n sum_i a_i s_ki), which accounts for the
    uncertainty of the scores over units.
    """
    units = scores.shape[1]
    shares = rng.dirichlet(np.ones(units), size=draws)
    return np.asarray(special.softmax(units * shares @ scores.T, axis=1).mean(axis=0))


def stacking_weights(scores: Array) -> Array:
    """Weights that maximise sum_i ln sum_k w_k exp(s_ki): Yao et al. 2018, arXiv 1704.02030, eq. 4.

    The sum is concave in w and is maximised by expectation maximisation: w_k <- mean_i of the share of k in i.
    """
    density = np.exp(scores - scores.max(axis=0))
    weights = np.full(len(scores), 1 / len(scores))
    for _ in range(_STACKING_STEPS):
        share = weights[:, None] * density
        following = (share / share.sum(axis=0)).mean(axis=1)
        if np.abs(following - weights).max() < 1e-9:
            break
        weights = following
    return weights


def log_density(residuals: Array, trunks: Integers, scale: float, correlation: float) -> Array:
    """Log density of each trunk's residuals, shape (trunks,), under the multivariate Student-t of `LIKELIHOOD`.

    `trunks` are consecutive whole numbers from 0. The scale matrix of m points is
    s^2 ((1 - rho) 1 + rho J); its inverse and determinant are in closed form (Sherman-Morrison).
    """
    count = np.bincount(trunks)
    form = _quadratic_form(residuals, trunks, correlation) / scale**2
    log_determinant = (
        2 * count * np.log(scale) + (count - 1) * np.log1p(-correlation) + np.log1p((count - 1) * correlation)
    )
    gammas = special.gammaln((FREEDOM + count) / 2) - special.gammaln(FREEDOM / 2)
    constant = gammas - count / 2 * np.log(FREEDOM * np.pi)
    return np.asarray(constant - log_determinant / 2 - (FREEDOM + count) / 2 * np.log1p(form / FREEDOM))


def scale_and_correlation(residuals: Array, trunks: Integers) -> tuple[float, float]:
    """Maximum likelihood scale and correlation of `log_density`; no correlation where every trunk has one run.

    For each correlation of a grid the scale solves s^2 = sum_t u_t q_t/n with u_t = (nu + m_t)/(nu + q_t/s^2), the
    fixed point of expectation maximisation for the t distribution (Lange, Little and Taylor 1989).
    """
    count = np.bincount(trunks)
    maxima = []
    for correlation in map(float, _CORRELATIONS if count.max() > 1 else _CORRELATIONS[:1]):
        form = _quadratic_form(residuals, trunks, correlation)
        square = max(float(form.sum() / count.sum()), _EXACT**2)
        for _ in range(_SCALE_STEPS):
            previous, weights = square, (FREEDOM + count) / (FREEDOM + form / square)
            square = max(float((weights * form).sum() / count.sum()), _EXACT**2)
            if abs(square - previous) < 1e-10 * previous:
                break
        scale = float(np.sqrt(square))
        maxima.append((float(log_density(residuals, trunks, scale, correlation).sum()), scale, correlation))
    _, scale, correlation = max(maxima)
    return scale, correlation


def _quadratic_form(residuals: Array, trunks: Integers, correlation: float) -> Array:
    """r' ((1 - rho) 1 + rho J)^-1 r of each trunk."""
    count = np.bincount(trunks)
    squares, sums = np.bincount(trunks, residuals**2), np.bincount(trunks, residuals)
    return np.asarray((squares - correlation * sums**2 / (1 + (count - 1) * correlation)) / (1 - correlation))


def _held_out_scores(residuals: Array, trunks: Integers, folds: Integers) -> Array:
    """Log score of every trunk, with the scale of the held-out residuals of the other folds."""
    scores = np.empty(int(trunks.max()) + 1)
    for fold in np.unique(folds):
        mine, others = folds == fold, folds != fold
        names, compact = np.unique(trunks[mine], return_inverse=True)
        _, compact_others = np.unique(trunks[others], return_inverse=True)
        scale, correlation = scale_and_correlation(residuals[others], compact_others)
        scores[names] = log_density(residuals[mine], compact, scale, correlation)
    return scores


def _in_sample(residuals: Array, trunks: Integers, n_free: int) -> tuple[float | None, float, float]:
    """AICc, effective runs and correlation within trunks on the fitted runs."""
    scale, correlation = scale_and_correlation(residuals, trunks)
    count = np.bincount(trunks)
    effective = float(count.sum() / (1 + ((count**2).sum() / count.sum() - 1) * correlation))
    n_params = n_free + (2 if count.max() > 1 else 1)
    if effective <= n_params + 1:
        return None, effective, correlation
    likelihood = float(log_density(residuals, trunks, scale, correlation).sum())
    aicc = -2 * likelihood + 2 * n_params + 2 * n_params * (n_params + 1) / (effective - n_params - 1)
    return aicc, effective, correlation


def deal_folds(table: RunTable, trunks: Integers, folds: int, rng: np.random.Generator) -> Integers:
    """The fold of every trunk: the trunks of each E are shuffled, and dealt from where those of the last E ended."""
    _, first = np.unique(trunks, return_index=True)
    strata = np.nan_to_num(table.column(EXPERTS)[first]) if EXPERTS in table.frame else np.zeros(len(first))
    order = np.concatenate([rng.permutation(np.flatnonzero(strata == e)) for e in np.unique(strata)])
    dealt = np.empty(len(first), dtype=np.int_)
    dealt[order] = np.arange(len(order)) % folds
    return dealt


def _cannot_serve(table: RunTable, law: Law) -> str:
    """Why a law cannot be compared on these runs; empty where it can."""
    if law.target != LOSS:
        return f"it predicts {law.target}, not {LOSS}"
    missing = [name for name in law.columns if name not in table.frame]
    if missing:
        return f"the table has no {', '.join(missing)}"
    for name, values in table.columns(law.columns).items():
        missing_cells = int((~(np.isfinite(values) & (values > 0))).sum())
        if missing_cells:
            return f"{missing_cells} runs have no {name}: select the others with `where` '{name} > 0'"
    return ""

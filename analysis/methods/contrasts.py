"""Contrasts: differences between methods run with a few seeds each and evaluated on the same documents.

A loss is modelled as `method + seed + (method, seed) + (method, document) + (method, seed, document)`. Intervals cover
both samples: run-to-run noise, pooled over all methods since three seeds of one method give only 2 degrees of freedom
(t = 4.3), and document sampling, which more seeds do not reduce. The last term is part of both and subtracted once:
two-way clustering (Cameron, Gelbach and Miller, J. Bus. Econ. Stat. 29, 2011).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from scaling.arrays import Array, Booleans, Integers

LEVEL = 0.95
DRAWS = 10_000


@dataclass(frozen=True)
class Effects:
    """Estimated losses of M methods, meaningful as differences, and the covariance of their errors.

    `mean` (M): nats per token, adjusted for seeds. `variance`: run-to-run variance of one run, pooled, with `df`
    degrees of freedom, NaN without repeats; `interaction`: its part due to document sampling. `spread` (M x M): a
    difference a'mean has a run-to-run variance of a'spread a times `variance`. `documents` (M x M): covariance of the
    means under document sampling. `own` (M): run-to-run variance of each method, with `own_df`. `paired`: whether the
    effect common to a seed is removed.
    """

    mean: Array
    spread: Array
    documents: Array
    variance: float
    interaction: float
    df: int
    own: Array
    own_df: Array
    n_documents: int
    paired: bool

    @property
    def seeds_alone(self) -> float:
        """Run-to-run variance beyond document sampling; at least zero."""
        return max(self.variance - self.interaction, 0.0)

    @property
    def differences(self) -> Array:
        """Row minus column."""
        return self.mean[:, None] - self.mean[None, :]

    @property
    def errors(self) -> Array:
        """Standard error of every difference; NaN without repeats."""
        return np.sqrt(self.seeds_alone * _differences(self.spread) + _differences(self.documents)) + 0 * self.variance

    @property
    def degrees(self) -> Array:
        """Degrees of freedom of the error of every difference (Satterthwaite, Biometrics Bulletin 2, 1946).

        NaN between a method and itself.
        """
        seeds, documents = _differences(self.spread), _differences(self.documents)
        wobble = (seeds**2 * self.variance**2) / self.df + documents**2 / max(self.n_documents - 1, 1)
        with np.errstate(invalid="ignore"):
            return (self.seeds_alone * seeds + documents) ** 2 / wobble

    def intervals(self) -> tuple[Array, Array]:
        """Ends of the pointwise 95 % t interval of every difference."""
        half = stats.t.ppf((1 + LEVEL) / 2, np.fmax(self.degrees, 1.0)) * self.errors
        return self.differences - half, self.differences + half

    def critical(self, pairs: tuple[Integers, Integers], rng: np.random.Generator, draws: int = DRAWS) -> float:
        """The standard errors within which all these differences stay together with probability 95 %.

        The quantile of max |t| under no difference, drawn from the multivariate t distribution of these errors with the
        fewest degrees of freedom among them (Hothorn, Bretz, Westfall, Biometrical Journal 50, 2008): Dunnett's with
        one reference, Tukey's with all pairs, here with documents as a second source of error.
        """
        i, j = pairs
        error = self._drawn(self.seeds_alone, rng, draws)
        df = max(float(self.degrees[i, j].min()), 1.0)
        with np.errstate(divide="ignore", invalid="ignore"):
            t = np.abs(error[:, i] - error[:, j]) / self.errors[i, j] / np.sqrt(rng.chisquare(df, draws) / df)[:, None]
        return float(np.quantile(np.nan_to_num(t, nan=0.0).max(axis=1), LEVEL))

    def significant(self, rng: np.random.Generator, draws: int = DRAWS) -> Booleans:
        """M x M: which differences are significant at 95 %, all pairs together (Tukey's honest significance)."""
        i, j = np.triu_indices(len(self.mean), 1)
        limit = self.critical((i, j), rng, draws) if len(i) else 0.0
        return np.abs(self.differences) > limit * self.errors

    def winners(self, rng: np.random.Generator, draws: int = DRAWS) -> tuple[Array, float]:
        """The share of draws of the true losses in which each method has the lowest, and the selection bias.

        Draws add both errors to the estimates, with the run-to-run variance drawn from its own distribution. The
        selection bias is the expected loss of the apparent best in another such study, minus that in the study that
        chose it.
        """
        scale = self.variance * self.df / rng.chisquare(self.df, draws) - self.interaction
        truth = self.mean + self._drawn(np.maximum(scale, 0.0), rng, draws)
        best = np.bincount(truth.argmin(axis=1), minlength=len(self.mean)) / draws
        error = self._drawn(self.seeds_alone, rng, draws)
        chosen = (self.mean + error).argmin(axis=1)
        return best, float(-error[np.arange(draws), chosen].mean())

    def _drawn(self, seeds: float | Array, rng: np.random.Generator, draws: int) -> Array:
        """Errors (draws, M), centred over methods."""
        size = (draws, len(self.mean))
        root = [_root(_centred(part)) for part in (self.spread, self.documents)]
        runs, documents = (rng.standard_normal(size) @ part for part in root)
        return np.sqrt(np.broadcast_to(seeds, draws))[:, None] * runs + documents


def estimate(losses: Array, sizes: Array, method: Integers, seed: Integers) -> Effects:
    """Effects of methods from losses (runs, documents), nats per token; `sizes` are the tokens of the documents.

    Least squares of `method + seed` on the token-weighted mean losses: runs of one seed see the same text in the same
    order, so effects of a seed common to all methods cancel. Of `method` alone where no two methods share a seed, or no
    degree of freedom would be left for the noise. A single column of losses has no document sampling.
    """
    n_methods, weights = int(method.max()) + 1, sizes / sizes.sum()
    design = np.eye(n_methods)[method]
    crossed = np.column_stack([design, np.eye(int(seed.max()) + 1)[seed][:, 1:]])
    whole = int(np.linalg.matrix_rank(crossed)) == crossed.shape[1] < len(losses)
    paired = whole and crossed.shape[1] > n_methods
    design = crossed if paired else design
    solve = np.linalg.pinv(design)
    weigh, residual = solve[:n_methods], np.eye(len(losses)) - design @ solve
    df = len(losses) - design.shape[1]
    over, by_document = losses @ weights, residual @ losses
    left = residual @ over
    own_df: Array = np.bincount(method, np.diag(residual), n_methods).astype(float)
    with np.errstate(divide="ignore", invalid="ignore"):
        own = np.bincount(method, left**2, n_methods) / np.where(own_df > 1e-9, own_df, np.nan)
    clusters = [_clustered(row[None, :], weights)[0, 0] for row in by_document]
    return Effects(
        mean=weigh @ over,
        spread=weigh @ weigh.T,
        documents=_clustered(_less_mean(weigh @ losses), weights),
        variance=float(left @ left) / df if df else float("nan"),
        interaction=float(np.sum(clusters)) / df if df else 0.0,
        df=df,
        own=own,
        own_df=own_df,
        n_documents=len(sizes) if len(sizes) > 1 else 0,
        paired=paired,
    )


def noisier(effects: Effects) -> list[int]:
    """Methods with a larger run-to-run variance than the others together: F test, 5 % over all methods."""
    df, rest = effects.own_df, effects.df - effects.own_df
    with np.errstate(divide="ignore", invalid="ignore"):
        others = (effects.df * effects.variance - df * effects.own) / rest
        unlikely = stats.f.sf(effects.own / others, df, rest) < (1 - LEVEL) / len(effects.own)
    return np.flatnonzero((df > 1e-9) & (rest > 1e-9) & (others > 0) & unlikely).tolist()


def groups(different: Booleans) -> list[str]:
    """Letters for rows in order, shared exactly by rows that do not differ (Piepho, J. Comp. Graph. Stat. 2004).

    `different` marks the pairs that differ. Each letter is a largest set in which no pair differs.
    """
    n_rows = len(different)
    columns = [frozenset(range(n_rows))]
    for i, j in zip(*np.nonzero(np.triu(different)), strict=True):
        split = [part for rows in columns for part in ((rows - {i}, rows - {j}) if {i, j} <= rows else (rows,))]
        columns = [rows for rows in dict.fromkeys(split) if not any(rows < other for other in split)]
    ordered = sorted(columns, key=sorted)
    return [" ".join(_letter(n) for n, rows in enumerate(ordered) if row in rows) for row in range(n_rows)]


def _letter(n: int) -> str:
    return chr(ord("a") + n % 26) * (n // 26 + 1)


def _differences(covariance: Array) -> Array:
    """Variance of every difference of effects with this covariance, at least zero despite rounding."""
    own = np.diag(covariance)
    return np.maximum(own[:, None] + own[None, :] - 2 * covariance, 0.0)


def _clustered(values: Array, weights: Array) -> Array:
    """Covariance of the weighted means over documents of the rows of `values` (`scaling.clustered_mean`); zero for one
    document."""
    count = values.shape[1]
    if count < 2:
        return np.zeros((len(values), len(values)))
    apart = weights * (values - (values @ weights)[:, None])
    return count / (count - 1) * apart @ apart.T


def _less_mean(values: Array) -> Array:
    """Centred over methods, whose common part is large and in no difference."""
    return values - values.mean(axis=0)


def _centred(covariance: Array) -> Array:
    """The covariance of the effects centred over methods."""
    keep = np.eye(len(covariance)) - 1 / len(covariance)
    return keep @ covariance @ keep


def _root(covariance: Array) -> Array:
    """R with R'R = covariance."""
    values, vectors = np.linalg.eigh(covariance)
    return (vectors * np.sqrt(np.maximum(values, 0.0))).T

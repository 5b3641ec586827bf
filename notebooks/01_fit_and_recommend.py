# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # How many experts? The answer by hand
#
# This notebook takes the runs of a study and does, in a few visible lines, what `scaling fit` and `scaling recommend`
# do: it fits a law to the dense runs with SciPy, and finds the cheapest model at a loss with NumPy alone. Each result
# is held against the package's own; a cell that disagrees fails.
#
# Run the study first (`make quickstart`), or point `SCALING_STUDY` at another study folder. Then start `jupyter lab`:
# `make setup` installs it into `.venv`.

# %%
# %matplotlib inline
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.optimize import minimize

import scaling
from analysis import figures

here = Path.cwd()
root = here if (here / "results").is_dir() else here.parent
study = Path(os.environ.get("SCALING_STUDY", root / "results" / "quickstart"))
table = scaling.load(study)
print(f"{len(table)} runs from {study.name}; left out: {dict(table.dropped) or 'none'}")
table.frame[["n_experts", "n_active", "n_total", "tokens", "loss_val", "loss_val_se"]].sort_values("loss_val").head(8)

# %% [markdown]
# ## What was run

# %%
palette = figures.colours(table.frame["n_experts"])
figures.figure(
    lambda ax: figures.coverage(table.frame, table.frame.iloc[:0], palette, ax),
    lambda ax: figures.loss_against("tokens", table.frame, [], palette, ax, label="training tokens D"),
    legend=palette,
)

# %% [markdown]
# ## A law by hand
#
# The dense runs alone, and Hoffmann's law $L = E + A/N^\alpha + B/D^\beta$ (arXiv 2203.15556). The objective is the
# *sum* of Huber penalties ($\delta = 10^{-3}$) of log residuals: quadratic near zero, linear beyond, so that single bad
# runs do not bend the law. The sum and not the mean, or an optimiser takes its tiny gradients for convergence.

# %%
dense = replace(table, frame=table.frame[table.frame["n_experts"] == 1].reset_index(drop=True))
N, D, loss = (dense.column(name) for name in ("n_active", "tokens", "loss_val"))
DELTA = 1e-3


def log_law(theta):
    ln_a, alpha, ln_b, beta, ln_e = theta
    terms = [ln_a - alpha * np.log(N), ln_b - beta * np.log(D), np.full(len(N), ln_e)]
    return np.logaddexp.reduce(terms)


def objective(theta):
    r = np.abs(log_law(theta) - np.log(loss))
    return np.where(r <= DELTA, 0.5 * r**2, DELTA * (r - 0.5 * DELTA)).sum()


starts = [(a, alpha, b, beta, e) for alpha in (0.2, 0.5, 0.8) for beta in (0.2, 0.5, 0.8)
          for a in (3.0, 6.0) for b in (3.0, 6.0) for e in (-1.0, 0.0)]  # fmt: skip
ends = [
    minimize(objective, x0, method="Nelder-Mead", options={"maxiter": 4000, "fatol": 1e-14, "xatol": 1e-9})
    for x0 in starts
]
best = min(ends, key=lambda end: end.fun)

# %% [markdown]
# The package searches from more starts and polishes better: where it finds the law identified, its minimum can only be
# lower or equal.

# %%
packaged = scaling.fit(dense, law="hoffmann", bootstrap=0)
print(
    f"by hand {best.fun:.9g}, package {packaged.objective:.9g} ({packaged.status}, condition {packaged.condition:.3g})"
)
by_hand = np.exp(log_law(best.x))
if packaged.status == "ok":
    assert packaged.objective <= best.fun * (1 + 1e-6) + 1e-12
    difference = np.abs(by_hand / packaged.loss({"n_active": N, "tokens": D}) - 1)
    print(f"largest difference of the two laws on the runs: {difference.max():.2e} of the loss")

# %% [markdown]
# ## Experts
#
# With experts the law is the joint one of Ludziejewski et al. (arXiv 2502.05172), in active parameters, tokens and E.
# What a small grid cannot identify is pinned to published values; the fit says which.

# %%
joint = scaling.fit(table, law="joint-moe", bootstrap=200)
print(joint.summary())

# %% [markdown]
# ## A recommendation by hand
#
# A budget of training compute $C$ and $T$ output tokens to serve, each after two of its prompt (512 for 256, the
# default lengths). The bar is the best loss a dense model reaches with $C = 6ND$. For every $E$ and $N$: the fewest
# tokens that clear the bar, then the lifetime cost $6ND + 2N(T + 2T)$; the least of all wins.


# %%
def loss_of(n, d, e):
    return joint.loss({"n_active": n, "tokens": d, "n_experts": e})


C = float(table.column("train_flops").max())
T = 10 * float(table.column("tokens").max())
studied = table.column("n_active")
sizes = np.geomspace(studied.min() / 30, studied.max() * 30, 20_001)
bar = loss_of(sizes, C / (6 * sizes), 1.0).min()

found = {}
for e in joint.experts:
    # Loss falls as tokens grow, so the fewest tokens that clear the bar are found by halving an interval of ln D.
    low, high = np.zeros_like(sizes), np.log(C / (6 * sizes))
    reaches = loss_of(sizes, np.exp(high), float(e)) <= bar * (1 + 1e-12)
    for _ in range(60):
        middle = (low + high) / 2
        enough = loss_of(sizes, np.exp(middle), float(e)) <= bar
        low, high = np.where(enough, low, middle), np.where(enough, middle, high)
    cost = np.where(reaches, 6 * sizes * np.exp(high) + 2 * sizes * 3 * T, np.inf)
    i = int(cost.argmin())
    found[e] = (cost[i], sizes[i], np.exp(high[i]))
    print(f"E = {e:3}: cost {cost[i]:.4g} FLOP with N = {sizes[i]:.4g}, D = {np.exp(high[i]):.4g}")

# %%
answer = scaling.recommend(joint, train_flops=C, serve_tokens=T)
recommendation = answer.recommendation
choices = {choice.n_experts: choice for choice in (recommendation.recommendation, *recommendation.alternatives)}
for e, (cost, n, _) in found.items():
    if (
        np.isfinite(cost) and e != recommendation.question.reference_experts
    ):  # the reference itself touches the bar at a single point
        np.testing.assert_allclose(choices[e].cost.total, cost, rtol=1e-3)  # the sizes tried are some .05 % apart
        np.testing.assert_allclose(choices[e].n_active, n, rtol=0.02)
assert recommendation.recommendation.n_experts == min(found, key=lambda e: found[e][0])
print(
    "the package agrees:",
    recommendation.recommendation.n_experts,
    "experts;",
    "decided" if recommendation.decided else "not decided",
)
for reason in recommendation.undecided_because:
    print("-", reason)

# %% [markdown]
# ## The trade-off
#
# Left: what each loss costs over the model's life. Right: in which share of the bootstrap draws each E is best. The
# answer is worth as much as the right panel says.

# %%
curves = []
for e in sorted(choices):
    points = sorted((point.cost, point.loss) for point in recommendation.front if point.n_experts == e)
    curves.append(figures.Curve(e, *map(np.array, zip(*points, strict=True))))
chosen = (recommendation.recommendation.cost.total, recommendation.recommendation.loss)
figures.figure(
    lambda ax: figures.tradeoff(curves, chosen, palette, ax, unit="FLOP"),
    lambda ax: figures.probability_best(recommendation.probability_best, palette, ax),
    ratios=[1.75, 1],
    legend=palette,
)

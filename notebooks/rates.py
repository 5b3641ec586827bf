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
# # How fast are mixtures of experts learnt? Rates by hand
#
# m polynomial experts of order k are fitted to n samples of a smooth function, many times over (arXiv 1110.2058).
# Theory says how fast the squared error falls in m and in n, and how the best m grows. This notebook does, in a few
# visible lines, what `scaling rates` does: averages, slopes, intervals, windows and the best m. Each result is held
# against the package's own; a cell that disagrees fails.
#
# It reads `results/rates/mixture-regression`, or the study folder that `SCALING_STUDY` names.

# %%
# %matplotlib inline
import os
from pathlib import Path

import numpy as np
import pandas as pd

import scaling

here = Path.cwd()
root = here if (here / "results").is_dir() else here.parent
path = Path(os.environ.get("SCALING_STUDY", root / "results" / "rates" / "mixture-regression"))
study = scaling.study(path)
chosen = "gate == 'oracle' and target == 'smooth' and noise == 10.0**(-order) and samples >= 1000"
runs = study.runs.query(f"status == 'ok' and {chosen}")
errors = study.evals.query("metric == 'squared_error'").merge(
    runs[["run_id", "order", "n_experts", "samples"]], on="run_id"
)
print(f"{len(runs)} runs from {path.name}, {len(errors)} fits")
levels = errors.pivot_table(index=["order", "n_experts"], columns="samples", values="value", aggfunc="size")
levels.fillna(0).astype(int)

# %% [markdown]
# ## A slope
#
# One arm: one order, and the most experts that all sample sizes have, whose error is that of estimation. It is averaged
# over replicates by the mean of logarithms, and a line is fitted to the logarithms, each level counting alike.

# %%
order = int(errors["order"].min())
of_order = errors[errors["order"] == order]
sizes = of_order.groupby("n_experts")["samples"].nunique()
m = sizes.index[sizes == sizes.max()].max()
arm = of_order[of_order["n_experts"] == m]
table = arm.pivot_table(index="replicate", columns="samples", values="value")
x, y = np.log(table.columns.to_numpy(dtype=float)), np.log(table).mean().to_numpy()
slope = np.polyfit(x, y, 1)[0]

where = f"{chosen} and order == {order} and n_experts == {m}"
found = scaling.rates(path, metric="squared_error", axis="samples", where=where, theory=-1)
np.testing.assert_allclose(slope, found.rates[0].slope, rtol=1e-9)
print(f"k = {order}, m = {m}: slope {slope:.3f} in n; the package agrees")
found

# %% [markdown]
# ## Its interval
#
# Replicates are drawn with replacement, whole rows of the table, and the line is fitted anew. The package corrects the
# ends for skewness and for few replicates, so they differ a little.

# %%
rng = np.random.default_rng(0)
logs = np.log(table).dropna().to_numpy()
drawn = [np.polyfit(x, logs[rng.integers(len(logs), size=len(logs))].mean(axis=0), 1)[0] for _ in range(2000)]
by_hand, package = np.quantile(drawn, [0.025, 0.975]), np.array(found.rates[0].interval)
np.testing.assert_allclose(by_hand, package, atol=0.25 * np.ptp(package))  # two samples of resamples, one corrected
print(f"by hand {by_hand.round(4)}, the package {package.round(4)}")

# %% [markdown]
# ## The window
#
# A slope is of its levels. Theory is about many samples; with few, the error of approximation or of a poor fit shows.

# %%
found.windows()[["first", "last", "levels", "slope", "low", "high"]].round(3)

# %%
found.local()[["first", "last", "slope", "low", "high"]].round(3)

# %% [markdown]
# ## Every order
#
# The slope in n at several m: with few experts the error of approximation is what is left, which no sample lessens.

# %%
some = f"{chosen} and n_experts in [4, 8, 16, 32]"
in_n = scaling.rates(path, metric="squared_error", axis="samples", by=["order", "n_experts"], where=some, theory=-1)
in_n.plot()

# %% [markdown]
# ## The best m
#
# At each n the averaged error has a minimum over m: few experts approximate badly, many are estimated badly. The
# minimum is that of the parabola in ln m through the lowest point and its neighbours.

# %%
best = scaling.rates(
    path,
    metric="squared_error",
    axis="samples/log(samples)",
    optimum_over="n_experts",
    by="order",
    where=chosen,
    theory="1/(2*order+3)",
)
curves = of_order.assign(log=np.log(of_order["value"])).pivot_table(index="samples", columns="n_experts", values="log")
for point, (n, curve) in zip(best.rates[0].points, curves.iterrows(), strict=True):
    curve = curve.dropna()
    at = curve.argmin()
    if point.edge:
        print(f"n = {n}: the best m is at an end of what was run")
        continue
    a, b, _ = np.polyfit(np.log(curve.index[at - 1 : at + 2].to_numpy(dtype=float)), curve.iloc[at - 1 : at + 2], 2)
    np.testing.assert_allclose(np.exp(-b / (2 * a)), point.value, rtol=1e-6)
    print(f"n = {n}: best m {point.value:.2f}, of those that were run {point.on_grid:g}")
print("the package agrees on every minimum")
best.plot()

# %%
shown = ["order", "slope", "low", "high", "theory", "inside", "grid_slope"]
pd.DataFrame(best.table())[shown].round(3)

# %% [markdown]
# ## What to doubt

# %%
for rates in (found, in_n, best):
    for warning in rates.warnings:
        print(f"- {rates.question.quantity}: {warning}")

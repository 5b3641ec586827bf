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
# # Which method? The comparison by hand
#
# A study of methods trains every (router, experts) pair at equal FLOPs a token, on the same tokens, with a few seeds
# each. This notebook does, in a few visible lines, what `scaling methods` does: differences to the dense model,
# intervals that carry both seeds and documents, and the ranks that they leave open. Each result is held against the
# package's own; a cell that disagrees fails.
#
# It reads `results/routers`, or the study folder that `SCALING_STUDY` names.

# %%
# %matplotlib inline
import os
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from analysis import figures
from analysis.methods import comparison as methods
from analysis.methods import router_metrics
from analysis.tables import study as runs

here = Path.cwd()
root = here if (here / "results").is_dir() else here.parent
study = Path(os.environ.get("SCALING_STUDY", root / "results" / "routers"))
comparison = methods.compare_methods(study, np.random.default_rng(0))[0]
frame = comparison.runs
print(
    f"{len(frame)} runs from {study.name}: {frame['method'].nunique()} methods, seeds {sorted(frame['seed'].unique())}"
)
frame.pivot_table(index="method", columns="seed", values="loss_val").round(4)

# %% [markdown]
# ## Differences
#
# A seed moves the loss of all methods together, for runs of one seed see the same text in the same order. So the losses
# are taken as *method + seed + rest*, by least squares; with a run of every method at every seed that is the difference
# of the means, and with failed cells it is what is left of it. The rest, pooled over all methods, is the run-to-run
# noise: three seeds of one method alone would leave two degrees of freedom.

# %%
reference = comparison.reference
evaluations = [runs.evaluation(study, run).set_index("document").sort_index() for run in frame["run_id"]]
by_document = np.stack([each["loss"] for each in evaluations])  # runs x documents
weight = evaluations[0]["n_tokens"].to_numpy() / evaluations[0]["n_tokens"].sum()

dummies = pd.get_dummies(frame["method"]).drop(columns=reference).astype(float)
seeds = pd.get_dummies(frame["seed"]).astype(float)
X = np.column_stack([dummies, seeds])  # a column for each method but the reference, and one for each seed
solve = np.linalg.pinv(X)
difference = (solve @ by_document @ weight)[: dummies.shape[1]]
residual = by_document - X @ solve @ by_document
df = len(X) - X.shape[1]
noise = ((residual @ weight) ** 2).sum() / df
print(f"run-to-run noise {np.sqrt(noise):.4f} nats per token, {df} degrees of freedom")

# %% [markdown]
# ## Two samples: seeds and documents
#
# The held-out documents are a sample too, and no number of seeds makes them more. Their part is the spread of the
# difference from document to document. Chance in (run, document) is in both parts, and is taken out of the first.


# %%
def variance_over_documents(values):
    apart = weight * (values - (values @ weight)[..., None])
    return len(weight) / (len(weight) - 1) * (apart**2).sum(axis=-1)


overlap = variance_over_documents(residual).sum() / df
by_seeds = (solve[: dummies.shape[1]] ** 2).sum(axis=1)  # how many variances of a run a difference has
by_documents = variance_over_documents((solve @ by_document)[: dummies.shape[1]])
error = np.sqrt(max(noise - overlap, 0) * by_seeds + by_documents)
degrees = error**4 / ((by_seeds * noise) ** 2 / df + by_documents**2 / (len(weight) - 1))  # Satterthwaite
half = stats.t.ppf(0.975, degrees) * error

by_hand = pd.DataFrame(
    {"difference": difference, "low": difference - half, "high": difference + half}, index=dummies.columns
)
packaged = comparison.rows.set_index("method").loc[by_hand.index, list(by_hand)]
np.testing.assert_allclose(by_hand, packaged, rtol=1e-6, atol=1e-9)  # the same sums in another order
print("the package agrees on every difference and interval")
by_hand.sort_values("difference").round(4)

# %% [markdown]
# ## How sure is the order?
#
# One interval in twenty misses by design, and the best of many is partly lucky. So ranks come from all pairs together
# (Tukey): methods that share a letter do not differ significantly. The thin bars hold for all differences at once.

# %%
order = list(comparison.rows["method"])
times = router_metrics.decode_times(study, comparison)
panels = [partial(figures.method_differences, comparison.rows, reference)]
panels += [partial(figures.method_times, times, order)] if times["times"].notna().any() else []
figures.figure(*panels, height=0.6 + 0.17 * len(order), ratios=[2, 1][: len(panels)])

# %%
may_be_best = comparison.leaders
print("may be the best:", ", ".join(may_be_best))
print(f"choosing the best of {len(order)} flatters it by about {comparison.optimism:.4f} nats per token")
comparison.rows[["method", "seeds", "loss", "difference", "rank_low", "rank_high", "best", "group"]].round(4)

# %% [markdown]
# ## What the routers did
#
# Each metric stands beside what independent uniform choices of as many experts would give (grey strokes).

# %%
metrics = router_metrics.router_metrics(comparison)
routed = [name for name in order if name in set(metrics["method"])]
shown = [
    name for name in ("load_cv", "distinct_8", "saturation_50", "specialisation") if name in set(metrics["metric"])
]
figures.figure(
    *(
        figures.titled(
            partial(figures.metric_beside_chance, metrics[metrics["metric"] == name], routed, named=not index), name
        )
        for index, name in enumerate(shown)
    ),
    height=0.6 + 0.16 * len(routed),
)

# %% [markdown]
# ## What did not work, and what cannot be said

# %%
rows = comparison.rows[comparison.rows["method"] != reference]
worse, open_ = rows[rows["low_all"] > 0], rows[(rows["low_all"] <= 0) & (rows["high_all"] >= 0)]
print(f"worse than {reference}, all differences together:", ", ".join(worse["method"]) or "none")
print(f"neither better nor worse than {reference}, as far as these runs tell:", ", ".join(open_["method"]) or "none")
for _, row in comparison.failed.iterrows():
    print(f"failed: {row['cells']} of {row['method']} ({row['status']})")
for _, row in comparison.apart.iterrows():
    print(f"not comparable: {row['method']} ({row['reason']})")
for warning in comparison.warnings:
    print("-", warning)

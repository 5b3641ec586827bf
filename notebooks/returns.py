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
# # Is it the tokens or the experts? Returns by hand
#
# Q-networks were trained on games of MinAtar, each with one of several layers before its head, several seeds of each
# (`docs/rl.md`). This notebook does, in a few visible lines, what `scaling returns` does (arXiv 2108.13264): normalised
# scores, interquartile means, intervals, and the probability that one arm beats another. Each result is held against
# the package's own; a cell that disagrees fails.
#
# It reads `results/rl/value-rl`, or the study folder that `SCALING_STUDY` names. What was registered before anything
# ran is in `results/rl/PREREGISTERED.md`.

# %%
# %matplotlib inline
import os
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

import scaling

here = Path.cwd()
root = here if (here / "results").is_dir() else here.parent
path = Path(os.environ.get("SCALING_STUDY", root / "results" / "rl" / "value-rl"))
study = scaling.study(path)
runs = study.runs.query("status == 'ok'").copy()
runs["name"] = runs["arm"] + " " + runs["n_experts"].astype(str)
print(f"{len(runs)} runs from {path.name}")
runs.pivot_table(index="name", columns="game", values="episode_return", aggfunc=["size", "mean", "std"]).round(2)

# %% [markdown]
# ## Scores
#
# Games count in different units. In each, random actions are 0 and the mean of the arm `dense` is 1.

# %%
baseline, treatment = "dense 1", "soft 4"
zero = runs.groupby("game")["random_return"].mean()
one = runs[runs["name"] == baseline].groupby("game")["episode_return"].mean()
runs["score"] = (runs["episode_return"] - runs["game"].map(zero)) / runs["game"].map(one - zero)
scores = {
    name: [of_game["score"].to_numpy() for _, of_game in own.groupby("game")] for name, own in runs.groupby("name")
}
pd.DataFrame({"random": zero, baseline: one}).round(2)

# %% [markdown]
# ## Interquartile mean
#
# All runs of all games of an arm, sorted; a quarter is dropped at each end, and the rest averaged.


# %%
def interquartile_mean(games):
    ordered = np.sort(np.concatenate(games))
    dropped = len(ordered) // 4
    return ordered[dropped : len(ordered) - dropped].mean()


found = scaling.returns(path, baseline=baseline)
for name, games in scores.items():
    np.testing.assert_allclose(interquartile_mean(games), found[name].iqm.estimate, rtol=1e-9)
print(f"{len(scores)} arms: the package agrees")
found

# %% [markdown]
# ## An interval
#
# Runs are drawn with replacement, in each game apart, and the difference is taken anew. Games are not drawn: the
# interval says how other seeds would do on these games.

# %%
rng = np.random.default_rng(0)


def drawn(games):
    return [rng.choice(of_game, len(of_game)) for of_game in games]


differences = [
    interquartile_mean(drawn(scores[treatment])) - interquartile_mean(drawn(scores[baseline])) for _ in range(4000)
]
by_hand, package = np.quantile(differences, [0.025, 0.975]), found[treatment].difference
width = package.high - package.low
np.testing.assert_allclose(by_hand, [package.low, package.high], atol=0.15 * width + 1e-9)  # two samples of resamples
print(f"{treatment} - {baseline}: by hand {by_hand.round(3)}, the package {package.low:.3f} to {package.high:.3f}")

# %% [markdown]
# ## The probability of improvement
#
# Of all pairs of a run of one arm and a run of the other in one game: how often does the first score more? Ties count
# half. It needs no scale.

# %%
pairs = [
    np.mean([(x > y) + 0.5 * (x == y) for x in ours for y in theirs])
    for ours, theirs in zip(scores[treatment], scores[baseline], strict=True)
]
np.testing.assert_allclose(np.mean(pairs), found[treatment].improvement.estimate, rtol=1e-9)
print(f"P({treatment} beats {baseline}) = {np.mean(pairs):.3f}; the package agrees")

# %% [markdown]
# ## Everything at once
#
# Interquartile means, probabilities of improvement, the share of runs above each score, the curves while it learns, and
# what an arm costs. Width alone could explain a gain: parameters and FLOPs are on the last axes.

# %%
asked = [
    "experts: soft 4 - soft-one-wide 4 within .1",
    "gain: soft 4 - dense 1",
    "gain over width: soft 4 - dense-wide 4",
    "tokens: best of tokens-sum 1, tokens-mean 1 - dense 1",
    "experts beyond tokens: soft 4 - tokens-mean 1",
    "structure of tokens: soft-shuffled 4 - soft 4",
    "learned routing: soft-random 4 - soft 4",
    "routing at all: soft-uniform 4 - soft 4",
    "dropping: top1-dropless 4 - top1 4",
]
absent = {"soft-one-wide 4", "dense-wide 4", "tokens-sum 1", "tokens-mean 1", "soft-shuffled 4", "soft-random 4",
          "soft-uniform 4", "top1-dropless 4", "top1 4"} - set(scores)  # fmt: skip
asked = [pair for pair in asked if not any(name in pair for name in absent)]
registered = scaling.returns(path, baseline=baseline, contrasts=asked)
registered.plot()

# %%
for pair in registered.contrasts:
    low, high = pair.difference.low, pair.difference.high
    print(f"{pair.name}: {pair.ours} - {pair.theirs}: {low:+.3f} to {high:+.3f}, {pair.verdict}")

# %% [markdown]
# ## What became of the networks
#
# What a decision takes, units that are hardly ever active, and the directions that the head's input spans, by arm.

# %%
inside = runs.groupby("name")[["n_parameters", "forward_flops", "decision_s", "dormant_frac", "effective_rank"]].mean()
inside["µs a decision"] = 1e6 * inside.pop("decision_s")
inside["IQM"] = [interquartile_mean(scores[name]) for name in inside.index]
inside.sort_values("IQM", ascending=False).round(3)

# %% [markdown]
# ## Every run
#
# An interval is of few runs, and here they are.

# %%
order = [arm.name for arm in found.arms]
figure, axes = plt.subplots(1, len(zero), figsize=(8, 0.6 + 0.22 * len(order)), sharey=True, squeeze=False)
for ax, game in zip(axes[0], zero.index, strict=True):
    for place, name in enumerate(reversed(order)):
        values = runs.loc[(runs["name"] == name) & (runs["game"] == game), "episode_return"]
        ax.plot(values, np.full(len(values), place), "o", ms=3, alpha=0.6)
    ax.axvline(zero[game], color="grey", lw=0.8, ls=":")
    ax.set(title=game, xlabel="episode_return", yticks=range(len(order)), yticklabels=order[::-1])
figure.tight_layout()

# %% [markdown]
# ## What to doubt

# %%
for doubt in (*registered.warnings, *registered.notes):
    print(f"- {doubt}")

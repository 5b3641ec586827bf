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
# # What is a reward beside the environment's own worth?
#
# Q-networks learnt two games of MinAtar from the game's reward and, added to it, one of several helps
# (`docs/reward.md`). All returns below are of the game's own reward. This notebook shows what was learnt from, compares
# the rewards in each arm, and draws how the returns rose.
#
# It reads `results/reward/reward`, or the study folder that `SCALING_STUDY` names. What was registered before anything
# ran is in `results/reward/PREREGISTERED.md`.

# %%
# %matplotlib inline
import os
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import scaling

here = Path.cwd()
root = here if (here / "results").is_dir() else here.parent
path = Path(os.environ.get("SCALING_STUDY", root / "results" / "reward" / "reward"))
study = scaling.study(path)
runs = study.runs.query("status == 'ok'").copy()
print(f"{len(runs)} runs from {path.name}")
runs.pivot_table(
    index=["arm", "reward"], columns="game", values="episode_return", aggfunc=["size", "mean", "std"]
).round(2)

# %% [markdown]
# ## What was learnt from
#
# Potentials and programs, as text; `own`, `adaptive` and `bonus` have none.

# %%
for (game, reward, text), _ in runs[runs["reward_program"] != ""].groupby(["game", "reward", "reward_program"]):
    print(f"{game}, {reward}:\n    " + text.replace("\n", "\n    "))

# %% [markdown]
# ## The rewards in each arm
#
# Scores are 0 for random actions and 1 for the mean of `own` in each game. Interquartile means are taken by hand too.

# %%
zero = runs.groupby("game")["random_return"].mean()


def interquartile_mean(scores):
    ordered = np.sort(np.asarray(scores))
    dropped = len(ordered) // 4
    return ordered[dropped : len(ordered) - dropped].mean()


for arm, of_arm in runs.groupby("arm"):
    found = scaling.returns(path, baseline="own", by="reward", where=f"arm == '{arm}'")
    one = of_arm[of_arm["reward"] == "own"].groupby("game")["episode_return"].mean()
    score = (of_arm["episode_return"] - of_arm["game"].map(zero)) / of_arm["game"].map(one - zero)
    print(f"\n{arm}")
    for reward, own in score.groupby(of_arm["reward"]):
        by_hand = interquartile_mean(own)
        np.testing.assert_allclose(by_hand, found[reward].iqm.estimate, rtol=1e-9)
        line = f"  {reward:10} interquartile mean {by_hand:.3f}"
        if reward != "own":
            difference = found[reward].difference
            line += f", minus own {difference.estimate:+.3f} ({difference.low:+.3f} to {difference.high:+.3f})"
        print(line)
print("\nthe package agrees")

# %% [markdown]
# ## How the returns rose
#
# Mean over seeds of the return of the episodes that ended since the last row of the curve: a help may speed learning up
# and make no difference at the end.

# %%
curves = study.curves.merge(runs[["run_id", "game", "arm", "reward"]], on="run_id")
games, arms = sorted(runs["game"].unique()), sorted(runs["arm"].unique())
figure, axes = plt.subplots(len(arms), len(games), figsize=(9, 2.6 * len(arms)), squeeze=False, sharex=True)
for row, arm in zip(axes, arms, strict=True):
    for ax, game in zip(row, games, strict=True):
        for reward, own in curves[(curves["arm"] == arm) & (curves["game"] == game)].groupby("reward"):
            mean = own.groupby("frames")["train_return"].mean()
            ax.plot(mean.index, mean, label=reward, lw=1.2)
        ax.set(title=f"{game}, {arm}", ylabel="train_return", xlabel="frames")
axes[0, 0].legend(fontsize=7)
figure.tight_layout()

# %% [markdown]
# ## What was learnt from, and what came of it
#
# Where a reward is earned without the game's own, `learnt_reward` is high and the return is not.

# %%
runs.groupby(["game", "arm", "reward"])[["learnt_reward", "episode_return"]].mean().round(3)

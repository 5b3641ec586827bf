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
# # A decision, made and checked
#
# The flagship study (`results/flagship`) trained 200 small models, fitted laws to them, wrote down what it expected of
# models of ten times the compute, and then trained those. This notebook goes the same way by hand: the runs, the noise
# between seeds, the effect of experts, the law's own test on larger runs, the prediction, and what came of it.

# %%
# %matplotlib inline
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from IPython.display import Image, Markdown
from scipy.stats import chi2

import scaling
from analysis.decision.answer import read_answer
from analysis.fitting.fit_file import load_fit

here = Path.cwd()
root = here if (here / "results").is_dir() else here.parent
study = Path(os.environ.get("SCALING_STUDY", root / "results" / "flagship"))
runs = scaling.study(study).runs
tokens = runs["tokens_own"].sum()
print(f"{len(runs)} runs of {runs['trunk_id'].nunique()} trunks, {tokens / 1e6:.0f} M training tokens")

# %% [markdown]
# ## How much seeds differ
#
# Runs of one configuration and budget that differ in the seed alone. The deviation is pooled over them, with the 95 %
# interval that chi-squared gives for so many degrees of freedom. Budgets of a trunk share their noise, so there are
# fewer degrees of freedom than that counts, and the interval is somewhat too narrow.

# %%
logs = runs.assign(log_loss=np.log(runs["loss_val"]))
groups = logs.groupby(["configuration", "tokens"])["log_loss"].agg(["var", "count"]).query("count > 1")
freedom = int((groups["count"] - 1).sum())
variance = float((groups["var"] * (groups["count"] - 1)).sum() / freedom)
low, high = np.sqrt(variance * freedom / chi2.ppf([0.975, 0.025], freedom))
print(f"seeds differ by {np.sqrt(variance):.2%} of the loss ({low:.2%} to {high:.2%}), {freedom} degrees of freedom")

# %% [markdown]
# ## What experts gain at the largest cell
#
# Width 96, 1.5 M tokens, two seeds each: the loss of each E against the dense models, with the seeds' noise of both
# means.

# %%
widest = logs[logs["d_model"] == 96]
largest = widest[widest["tokens"] == widest["tokens"].max()]
means = largest.groupby("n_experts")["log_loss"].agg(["mean", "count"])
gain = means["mean"] - means.loc[1, "mean"]
error = 1.96 * np.sqrt(variance * (1 / means["count"] + 1 / means.loc[1, "count"]))
effect = pd.DataFrame({"d ln L": gain, "low": gain - error, "high": gain + error}).drop(index=1)
effect.style.format("{:.1%}")

# %% [markdown]
# ## The law, and what it says of itself
#
# Two laws taken together, weighed by how well each predicts larger runs of the study from smaller ones.

# %%
fit = load_fit(str(study / "fit.json"))
print(fit.summary())

# %% [markdown]
# ## Which parameters the runs identify
#
# The exponents of N and D are known. What is not: how the effect of experts is shared between the two terms (`delta`,
# `omega`), the interactions (`gamma`, `zeta`), whose intervals contain zero, and where the effect begins and ends
# (`E_start`, `E_max`).

# %%
rows = {}
for member in fit.members:
    for name, (low, high) in member.intervals.items():
        rows[member.name, name] = (member.params[name], low, high)
pd.DataFrame(rows, index=["estimate", "low", "high"]).T.style.format("{:.4g}")

# %% [markdown]
# ## The decision
#
# `scaling recommend` under two loads, at ten times the compute of the largest run. Costs are of this CPU: its rent, its
# measured training speed, and its measured latency.

# %%
for name in ("light", "heavy"):
    print(read_answer(study / f"answer-{name}.json").summary(), "\n")

# %% [markdown]
# ## The paper's table, from these runs
#
# Models of one loss, that of the best dense model at ten times the compute. Left, those of least training compute;
# right, those that are cheapest to serve within the dense model's training compute: smaller and over-trained
# (arXiv 2404.02852).

# %%
command = [sys.executable, "-m", "benchmarks.equal_loss", str(study.resolve())]
Markdown(subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout)

# %% [markdown]
# ## What the check found
#
# The models above were trained after the prediction was committed: [CHECKED.md](CHECKED.md).

# %%
check = pd.read_json(study / "check.json", typ="series")
print(check["rollout"])
pd.DataFrame(check["decisions"])

# %%
Image(study / "check.png")

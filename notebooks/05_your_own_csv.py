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
# # Your own runs, from a CSV to a plan
#
# Runs from another trainer are a table with one row per run: a size, a token budget, a loss. This notebook takes such
# a table from the file to a decision and a PDF. The table is made here from a published law with 0.5 % of noise, so the
# right answer is known and the last cells check it.

# %%
# %matplotlib inline
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

import scaling

truth = scaling.read_fit("published:joint-moe-2025")
rng = np.random.default_rng(0)
rows = [
    {"params_m": n / 1e6, "all_params_m": n * (1 + 0.6 * (e - 1)) / 1e6, "tokens_b": d / 1e9, "experts": e}
    for e in (1, 2, 4, 8, 16, 32)
    for n in np.geomspace(2e7, 8e8, 6)
    for d in n * np.array([10, 25, 60, 150])
]
table = pd.DataFrame(rows)
law_input = pd.DataFrame(
    {"n_active": table["params_m"] * 1e6, "tokens": table["tokens_b"] * 1e9, "n_experts": table["experts"]}
)
noise = np.exp(rng.normal(0, 0.005, len(table)))
table["val_loss"] = truth.predict(law_input)["loss"].to_numpy() * noise
folder = Path(tempfile.mkdtemp())
table.round(5).to_csv(folder / "runs.csv", index=False)
table.head()

# %% [markdown]
# ## Read it
#
# `map` names our columns in terms of the table's, with arithmetic for units. What was assumed is printed with the runs.
# Read it: a loss per byte or a parameter count without embeddings would shift everything that follows.

# %%
runs = scaling.load(
    folder / "runs.csv",
    map={
        "n_active": "params_m * 1e6",
        "n_total": "all_params_m * 1e6",
        "tokens": "tokens_b * 1e9",
        "n_experts": "experts",
        "loss_val": "val_loss",
    },
)
print(f"{len(runs)} runs from {Path(runs.source).name}")
for note in runs.notes:
    print("-", note)

# %% [markdown]
# ## Fit a law
#
# The joint law of Ludziejewski et al. (arXiv 2502.05172) in active parameters, tokens and experts. The summary states
# what these runs identify and what had to be fixed at published values.

# %%
fit = scaling.fit(runs, law="joint-moe", seed=0)
print(fit.summary())

# %% [markdown]
# ## Predict larger runs
#
# `loss_low` and `loss_high` bound the law's mean loss, `run_low` and `run_high` the loss of one new run. `outside`
# names the columns in which a model lies beyond the runs that were fitted.

# %%
larger = pd.DataFrame(
    {
        "n_active": [8e8, 3e9, 8e9],
        "tokens": [1.2e11, 6e10, 1.6e11],
        "n_experts": [8, 8, 32],
        "n_total": [4e9, 1.5e10, 1.5e11],
    }
)
predicted = fit.predict(larger)
predicted.assign(truth=truth.predict(larger)["loss"])

# %% [markdown]
# ## Decide
#
# A training budget of $10^{21}$ FLOPs and $10^{12}$ tokens to serve: which model costs least over its life, among those
# no worse than the best dense model at this budget? Say that the serving stack takes at most 16 experts. Cost is
# counted in FLOPs here. On a device it is money, and the batch that memory leaves counts too: that needs the widths and
# depths of the models (columns `d_model`, `n_layers`, `top_k`).

# %%
EXPERTS = (1, 2, 4, 8, 16)
answer = scaling.recommend(fit, train_flops=1e21, serve_tokens=1e12, n_experts=EXPERTS)
answer

# %%
figure = answer.plot()
figure

# %% [markdown]
# The answer states whether it is decided, and why not if it is not. What else would have been best under the truth that
# the table was made from?

# %%
ideal = scaling.recommend(
    replace(fit, params=truth.params, draws={}), train_flops=1e21, serve_tokens=1e12, n_experts=EXPERTS
)
chosen, best = answer.recommendation.recommendation, ideal.recommendation.recommendation
print(f"chosen E = {chosen.n_experts}, N_active = {chosen.n_active:.3g}; under the true law E = {best.n_experts}")
print(f"probability of being best, by E: {answer.recommendation.probability_best}")

# %% [markdown]
# ## A PDF for the people who pay
#
# `scaling.report` lays the answer out on a few pages, the decision first. From a shell the same is
# `scaling recommend FIT.json ... --out answer.json` and `scaling report answer.json --out plan.pdf`.

# %%
written = scaling.report(answer, folder / "plan.pdf")
print(f"{written.path.name}: {written.path.stat().st_size // 1024} KB")

# %% [markdown]
# ## Check
#
# The law that made the table must lie within what the fit says of new runs, and the E it prefers within the fit's 95 %
# set of best E.

# %%
inside = (truth.predict(larger)["loss"] > predicted["run_low"]) & (
    truth.predict(larger)["loss"] < predicted["run_high"]
)
assert inside.all(), predicted
assert best.n_experts in answer.recommendation.best_experts, answer.recommendation.best_experts
print("the package agrees with the law that made the table")

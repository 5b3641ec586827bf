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
# # What does serving cost? The price by hand
#
# Loss alone wants as many experts as there are. This notebook prices them: the time of one decode step from what it
# reads and computes, the batch that memory leaves, the price of a token, and the expert count that is cheapest over a
# model's life. Then it does for a measured device what `scaling latency` does. Each result is held against the
# package's own; a cell that disagrees fails.
#
# The first half needs nothing but a published law. The second reads the latency of a study: run `make quickstart`
# first, or point `SCALING_STUDY` at another folder.

# %%
# %matplotlib inline
import os
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.optimize import brentq

import scaling
from analysis import figures
from analysis.decision import what_if
from analysis.decision.lifetime_cost import structure
from analysis.latency import law as latency
from analysis.latency import table as latency_table
from scaling.serving import replicas
from scaling.serving.published_training import assumed_training_speed
from scaling.serving.step_time import TERMS

law, h100 = scaling.read_fit("published:joint-moe-2025"), scaling.device("h100")
print(f"{h100.title}: {h100.bandwidth:.3g} bytes/s, {h100.peak_flops:.3g} FLOP/s, {h100.memory / 1e9:g} GB")
print(f"{h100.usd_per_hour} USD an hour ({h100.price_source}; {h100.price_date})")

# %% [markdown]
# ## One decode step
#
# A batch of $b$ tokens that choose $k$ of $E$ experts touches $U = E\,(1 - (1 - k/E)^b)$ of them in each layer and
# reads those once: the active parameters at $b = 1$, everything at large $b$. The cache of every sequence is read too.
# Time is bytes over bandwidth plus FLOPs over peak, each at the share of the data sheet that a device reaches (here
# assumed: .6 and .4).

# %%
N, E, context, bytes_per_number = 1e9, 8, 640, 2
sizes = law.family.sizes(np.array([N]), E)  # the counts of the paper's models with so many active parameters
n_total, layers, width = float(sizes.n_total[0]), float(sizes.n_layers[0]), float(sizes.d_model[0])
expert = (n_total - N) / (E - 1)
batch = np.array([1, 4, 16, 64, 256])
touched = E * (1 - (1 - 1 / E) ** batch)
weights = bytes_per_number * (N + (touched - 1) * expert)
cache = batch * context * 2 * layers * width * bytes_per_number
flops = batch * (2 * N + 4 * layers * context * width)
seconds = (weights + cache) / (0.6 * h100.bandwidth) + flops / (0.4 * h100.peak_flops)
for b, u, s in zip(batch, touched, seconds, strict=True):
    print(f"batch {b:3}: {u:.2f} of {E} experts touched, {1e3 * s:6.2f} ms, {b / s:8,.0f} tokens/s")

# %% [markdown]
# ## The price of a token
#
# Memory that weights do not take is batch. With $p$ prompt and $n$ generated tokens a request, an iteration decodes $b$
# sequences and prefills the $b/n$ that take the places of those that ended (arXiv 2404.02852). A replica is busy half
# of the time.

# %%
prompt, generated, busy = 512, 256, 0.5
free = h100.memory - bytes_per_number * n_total
limited = scaling.Service(max_batch=256)  # more would take more devices
b = min(np.floor(free / ((prompt + generated / 2) * 2 * layers * width * bytes_per_number)), limited.max_batch)


def step(tokens, flops, cached):
    """Seconds of a pass over some tokens."""
    read = bytes_per_number * (N + (E * (1 - (1 - 1 / E) ** tokens) - 1) * expert) + cached
    return read / (0.6 * h100.bandwidth) + flops / (0.4 * h100.peak_flops)


element = 2 * layers * width * bytes_per_number
decode = step(b, b * (2 * N + 4 * layers * context * width), b * context * element)
share = b / generated  # of a prompt, each iteration
prefill = share * step(prompt, prompt * (2 * N + 2 * layers * prompt * width), prompt * element)
usd = h100.usd_per_hour / 3600 / (busy * b / (decode + prefill))
print(f"batch {b:.0f}: tpot {1e3 * (decode + prefill):.2f} ms, {1e6 * usd:.4f} USD per million tokens")

offer = replicas.cheapest(structure(sizes), h100, limited)
assert float(offer.replica.n_devices[0]) == 1
assert np.isclose(usd, offer.usd_per_token[0], rtol=1e-12)
print("the package agrees; its formulas:")
for name, formula in replicas.METRICS.items():
    print(f"  {name}: {formula}")

# %% [markdown]
# ## The cheapest model of every E
#
# All models of equal quality: for every size the tokens that reach the loss, then training and serving in one sum.
# Training reaches 40 % of the peak with a dense model and less with more experts, as public measurements fall.

# %%
T, C, training = 1e13, 1e22, assumed_training_speed()
dense = scaling.recommend(law, train_flops=C, n_experts=(1,), what_if=False).recommendation.recommendation
print(f"keep the loss of the best dense model at {C:g} FLOPs, {dense.loss:.4f}; serve {T:g} tokens")
found = {}
for e in (1, 4, 8, 16, 32):
    grid = np.geomspace(1e8, dense.n_active, 1500)
    tokens = np.full(grid.shape, np.inf)
    for i, n in enumerate(grid):

        def gap(x, n=n, e=e):
            return float(law.loss({"n_active": n, "tokens": np.exp(x), "n_experts": e})) - dense.loss

        if gap(np.log(C / (6 * n))) <= 1e-12:  # within the budget
            tokens[i] = np.exp(brentq(gap, np.log(1e8), np.log(C / (6 * n)) + 1e-9))
    reached = np.isfinite(tokens)
    mfu = 0.4 * e**-training.slope
    train = 6 * grid[reached] * tokens[reached] / (mfu * h100.peak_flops) * h100.usd_per_hour / 3600
    serve = T * replicas.cheapest(structure(law.family.sizes(grid[reached], e)), h100, limited).usd_per_token
    i = np.argmin(train + serve)
    found[e] = (train + serve)[i]
    print(f"E = {e:2}: N_active {grid[reached][i]:.3g}, {found[e]:,.0f} USD, {train[i]:,.0f} of it to train")

asked = scaling.recommend(
    law,
    train_flops=C,
    serve_tokens=T,
    device="h100",
    service=limited,
    speed="assumed",
    n_experts=tuple(found),
    what_if=False,
)
answer, question = asked.recommendation, asked.recommendation.question
for choice in (answer.recommendation, *answer.alternatives):
    assert np.isclose(choice.cost.total, found[choice.n_experts], rtol=5e-3)  # the grid is .3 % wide
assert answer.recommendation.n_experts == min(found, key=found.get)
print("the package agrees:", answer.recommendation.n_experts, "experts, if the published law and these prices hold")

# %% [markdown]
# ## Where it turns
#
# Little volume is served best by what is cheap to train; much by what is cheap to serve. One E overtakes another at:

# %%
crossings, (low, high) = what_if.crossovers(law, question, sorted(found))
print(f"between {low:.2g} and {high:.2g} tokens served:")
for one in crossings:
    print(f"  at {one.volume:.3g} tokens E = {one.after} overtakes E = {one.before}")

# %%
palette = figures.colours(sorted(found))
front = pd.DataFrame([vars(point) for point in answer.front])
best = answer.recommendation
plane = what_if.plane(law, question, sorted(found), np.geomspace(1e20, 1e24, 9), np.geomspace(1e10, 1e14, 9))
figures.figure(
    lambda ax: figures.pareto(front, (best.cost.total, best.loss), palette, ax, unit="USD"),
    lambda ax: figures.best_experts(plane.budgets, plane.volumes, plane.best, palette, ax, asked=(C, T)),
    legend=palette,
)

# %% [markdown]
# ## A measured device
#
# A step that was measured is overhead, layers, layers of a prompt, experts touched, activations, bytes, bytes read
# again and FLOPs, each times one coefficient. Relative errors are what matters, so every row is divided by its time;
# ordinary least squares by hand, then the package's robust and bounded fit, which outliers do not bend.

# %%
here = Path.cwd()
root = here if (here / "results").is_dir() else here.parent
study = Path(os.environ.get("SCALING_STUDY", root / "results" / "quickstart"))
table = latency_table.read_latency(study)
device = latency_table.device_of(table)
terms = (latency_table.works(table).terms(device)[: latency.FITTED] / table.seconds).T
by_hand, *_ = np.linalg.lstsq(terms, np.ones(len(terms)), rcond=None)
law_of_times = latency.fit_latency(table, device, np.random.default_rng(0))
print(f"latency of runs from {study.name}: {len(table)} rows on {device.title}")
print(f"median error by hand {np.median(np.abs(terms @ by_hand - 1)):.1%}, ", end="")
print(f"of the package {law_of_times.after.median:.1%}, of the assumed shares {law_of_times.before.median:.1%}")
squares = [
    np.sum((terms @ found - 1) ** 2) for found in (by_hand, law_of_times.efficiency.coefficients()[: latency.FITTED])
]
assert squares[0] <= squares[1] * (1 + 1e-9)  # nothing has less than least squares; what it may ask is a negative cost
for name, value, unbounded in zip(TERMS, law_of_times.efficiency.coefficients(), by_hand, strict=False):
    print(f"  {name}: coefficient {value:.3g}; least squares by hand {unbounded:.3g}")

# %%
rows = latency.modelled(table, law_of_times)
palette = figures.colours(rows["n_experts"])
figures.figure(
    lambda ax: figures.measured_modelled(rows, palette, ax),
    lambda ax: figures.time_errors(rows, "batch", "batch", palette, ax),
    legend=palette,
)

"""Small valid files of every format that is read; Hoffmann's law is planted, so the right answer is known."""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import synthetic_latency
import synthetic_training
from planted import moe_grid, table_of
from planted_rates import power, replicates

from analysis.fitting.bootstrap import bootstrap
from analysis.fitting.fit import fit
from analysis.laws import HOFFMANN, JOINT_MOE
from analysis.tables.import_study import import_runs
from scaling.values import FIT

PLANTED = {"E": 1.69, "A": 406.4, "alpha": 0.34, "B": 410.7, "beta": 0.28}


def runs() -> pd.DataFrame:
    """Dense runs without noise: 7 sizes at each of 4 budgets."""
    budget, off = (grid.ravel() for grid in np.meshgrid([1e18, 1e19, 1e20, 1e21], np.geomspace(1 / 8, 8, 7)))
    size = (HOFFMANN.optimum(PLANTED, budget, 1)[0] * off).round() if HOFFMANN.optimum else budget
    columns = {"n_active": size, "tokens": (budget / (6 * size)).round()}
    return pd.DataFrame(columns | {"loss_val": HOFFMANN.loss(PLANTED, columns).round(6)})


def runs_csv() -> str:
    frame = runs()
    return frame.assign(run_id=[f"r{i}" for i in range(len(frame))], n_experts=1, status="ok").to_csv(index=False)


@cache
def fit_document(moe: bool) -> dict[str, Any]:
    """A fit with four draws: of Hoffmann's law to dense runs, or of a law with experts, with its family of models."""
    if moe:
        table, law = table_of(moe_grid(experts=(1, 4, 16), widths=(32, 64), noise=0.002)), JOINT_MOE
    else:
        table, law = table_of(runs()), HOFFMANN
    found = bootstrap(fit(table, law, n_starts=8), table, 4, np.random.default_rng(0))
    document: dict[str, Any] = FIT.document(replace(found, source="runs"))
    return document


@cache
def latency_document() -> dict[str, Any]:
    """A latency law of an H100 that was never measured, with five draws."""
    from analysis.latency.law import FITTED, HeldOutTimes, LatencyLaw, latency_document
    from scaling.serving.devices import device
    from scaling.serving.step_time import Efficiency

    efficiency = Efficiency(0.5, 0.3, 1e-5, 2e-6, 1e-6, 1e-7, 1e-13, 0.1, "measured")
    draws = np.array([efficiency.coefficients()[:FITTED] * (1 + 0.01 * i) for i in range(5)])
    errors = HeldOutTimes(0.05, 0.1, 40)
    law = LatencyLaw(
        device("h100"), efficiency, draws, np.linspace(0.9, 1.1, 11), (), (), 40, 8, "bfloat16", "", {"all": errors},
        errors, errors,
    )  # fmt: skip
    return dict(json.loads(json.dumps(latency_document(law))))


@cache
def answer_document() -> dict[str, Any]:
    """An answer with every part: cases, rivals and curves."""
    from analysis.decision import answer as answers
    from analysis.decision.question import Question
    from analysis.fitting.published import published

    joint = published("joint-moe-2025")
    asked = Question(train_flops=1e20, serve_tokens=1e11, n_experts=(1, 8), device="h100")
    found = answers.answer(joint, asked, law_file="published:joint-moe-2025")
    return dict(json.loads(json.dumps(answers.answer_document(found))))


@cache
def study_part() -> bytes:
    """The part of an imported study; alone it is a packed study as well."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "runs.csv").write_text(runs_csv())
        import_runs(folder / "runs.csv", folder / "study")
        (part,) = (folder / "study" / "runs").glob("*.parquet")
        return part.read_bytes()


@cache
def training_law_document() -> dict[str, Any]:
    """A training-speed law of an H100 that was never measured, with three draws."""
    from analysis.training_speed.law import fit_training_speed

    fitted = fit_training_speed(synthetic_training.table(0.05), np.random.default_rng(0), 3)
    return dict(json.loads(json.dumps(fitted.document())))


def training_csv() -> str:
    """Speeds of training on a planted H100."""
    table = synthetic_training.table(0.05, widths=(512, 2048), depths=(8,), batches=(2**18,))
    rates = 1 / table.seconds
    left = ["seconds", "rows", "spread", "loops", "n_lookup", "busy_cores"]
    return table.frame.assign(tokens_per_s=rates).drop(columns=left).to_csv(index=False)


def latency_csv() -> str:
    """Latency rows of a planted CPU."""
    rows = synthetic_latency.frame(
        grid=[(1, 1, 64, 2), (4, 2, 64, 2), (8, 1, 128, 2), (8, 1, 64, 4)], batches=(1, 8), contexts=(64, 512)
    )
    return rows.to_csv(index=False)


def throughput_csv() -> str:
    """What a served model of 128 experts reached on an H100."""
    rows = [(batch, 40.0 * batch**0.75) for batch in (1, 4, 16, 64)]
    model = {"n_active": 3.3e9, "n_total": 30.5e9, "n_layers": 48, "d_model": 2048, "n_experts": 128, "top_k": 8}
    frame = pd.DataFrame(
        [model | {"max_concurrency": batch, "output_throughput": round(rate, 1)} for batch, rate in rows]
    )
    lengths = {"random_input_len": 1024, "random_output_len": 1024, "tensor_parallel_size": 1}
    return frame.assign(**lengths).to_csv(index=False)


def replicates_csv() -> str:
    """Replicates of an error that falls as samples^-1/2, of three arms."""
    cells = [{"n_experts": e, "samples": n} for e in (1, 2, 4) for n in (100, 1000, 10_000)]
    return replicates(cells, power(-0.5), count=3).to_csv(index=False)


def returns_csv() -> str:
    """Returns of two arms in two games; one arm scores a fifth more."""
    rows = [
        (arm, experts, game, seed, 0.0, round(scale * more * (1 + 0.02 * seed), 4))
        for game, scale in (("asterix", 20.0), ("breakout", 5.0))
        for arm, experts, more in (("dense", 1, 1.0), ("soft", 4, 1.2))
        for seed in range(3)
    ]
    names = ["arm", "n_experts", "game", "seed", "random_return", "episode_return"]
    return pd.DataFrame(rows, columns=names).to_csv(index=False)


DEVICES = """\
h100: {usd_per_hour: 2.10, price_source: our contract, price_date: 2026-10-01}
mine:
  title: My device
  peak_flops: 1.0e14
  bandwidth: 1e12
  memory: 30000000000
  dtype: bfloat16
  source: data sheet
  usd_per_hour: 1
  price_source: bill
  price_date: June
"""

GRID = """\
study: fuzzed
task: lm
data: {corpus: python-stdlib, tokenizer: bytes}
grid:
  - {n_experts: [1, 4], d_model: [32, 48], tokens: [0.25M, 500000], seed: [0, 1]}
  - {n_experts: 8, d_model: [64], tokens: 1M, router: topk}
  - {zip: {d_model: [32, 64], n_layers: [1, "d_model / 32"]}, tokens_per_parameter: [20], where: "n_active < 1M"}
model: {n_layers: 2, top_k: 1, leak_study: false}
train: {batch_tokens: 2048, seq_len: 128, lr: 1e-3}
bench: {batch: [1, 8], context: [128]}
resources: {cpus: 1, gpus: 0}
made_with:
  versions: {scaling: 1}
  corpora: [{corpus: python-stdlib, tokenizer: bytes, hash: abc0123}]
"""

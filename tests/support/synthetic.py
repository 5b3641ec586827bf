"""A study folder with a planted truth, in the layout of a real one: no training, every column of the schema.

The loss is the joint law of arXiv 2502.05172 with the parameters of `TRUTH`, so what an analysis finds in such a folder
can be held against what was put in. Saturation and interaction are the published ones, which a small grid is pinned to.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from scaling.config import counts
from scaling.config.bench import BenchConfig
from scaling.config.model import ModelConfig
from scaling.config.run import RunConfig
from scaling.config.run_row import describe
from scaling.schema import Table, to_arrow
from scaling.serving.expert_load import distinct_experts

TRUTH = {
    "a": 72.0, "alpha": -0.42, "delta": -0.335, "gamma": 0.0098, "b": 75.0, "beta": -0.38, "omega": 0.44,
    "zeta": -0.0259, "c": 0.75, "E_start": 2.0732, "E_max": 290.4521,
}  # fmt: skip
CORPUS_HASH = "synthetic00000000"
_N_DOCS = 120
Array = npt.NDArray[np.float64]


def planted_loss(n_active: float, tokens: float, n_experts: float) -> float:
    """`a Ê^delta N^(alpha + gamma ln Ê) + b Ê^omega D^(beta + zeta ln Ê) + c`, written out anew for the tests."""
    t = TRUTH
    saturated = 1 / (1 / (n_experts - 1 + 1 / (1 / t["E_start"] - 1 / t["E_max"])) + 1 / t["E_max"])
    log = np.log(saturated)
    size = t["a"] * saturated ** t["delta"] * n_active ** (t["alpha"] + t["gamma"] * log)
    data = t["b"] * saturated ** t["omega"] * tokens ** (t["beta"] + t["zeta"] * log)
    return float(size + data + t["c"])


def cells(experts=(1, 4, 8, 16), widths=(32, 48, 64, 96), tokens=(500_000, 1_000_000, 2_000_000, 4_000_000)):
    """Cells of a grid crossed over E, width and tokens, with second seeds at two anchors."""
    bench = BenchConfig(batch=(1, 4, 16, 64), context=(128,))

    def cell(n_experts: int, width: int, budget: int, seed: int = 0) -> RunConfig:
        model = ModelConfig(n_experts=n_experts, d_model=width)
        return RunConfig(study="synthetic", model=model, tokens=budget, seed=seed, bench=bench)

    crossed = [cell(e, d, t) for e in experts for d in widths for t in tokens]
    return crossed + [cell(e, widths[0], tokens[1], seed=1) for e in (experts[0], experts[-1])]


def write_study(out: Path, *, noise: float = 0.004, seed: int = 0, configs: list[RunConfig] | None = None) -> Path:
    """Write runs, evals, curves and latency of a study in which one cell diverged; `noise` is the sd of log loss."""
    rng = np.random.default_rng(seed)
    documents = rng.normal(0, 0.25, _N_DOCS), rng.integers(400, 2048, _N_DOCS).astype(float)
    configs = cells() if configs is None else configs
    for index, config in enumerate(configs):
        row = describe(config, CORPUS_HASH)
        loss = planted_loss(row["n_active"], row["tokens"], row["n_experts"]) * float(np.exp(rng.normal(0, noise)))
        diverged = index == len(configs) // 2
        evals = list(_evals(loss, *documents, rng))
        mean = sum(e["loss"] * e["n_tokens"] for e in evals) / sum(e["n_tokens"] for e in evals)
        row |= _outcome(mean, row["n_experts"], rng) if not diverged else {}
        row |= {"status": "diverged", "error": "loss is NaN at step 120"} if diverged else {"status": "ok", "error": ""}
        name = f"{row['run_id']}.parquet"
        if not diverged:
            _write(out, "evals", name, evals)
            _write(out, "curves", name, list(_curve(config, mean)))
            _write(out, "latency", name, [r | {"run_id": row["run_id"]} for r in _latency(config, rng)])
        _write(out, "runs", name, [row | _circumstances(row, rng)])
    (out / "grid.yaml").write_text("study: synthetic\ngrid: {n_experts: [1, 4, 8, 16]}\n", encoding="utf-8")
    return out


def _write(out: Path, table: Table, name: str, rows: list[dict[str, object]]) -> None:
    (out / table).mkdir(parents=True, exist_ok=True)
    pq.write_table(to_arrow(table, rows), out / table / name)


def _outcome(loss: float, n_experts: int, rng: np.random.Generator) -> dict[str, object]:
    routed = n_experts > 1
    return {
        "loss_val": loss, "loss_val_se": 0.02, "bits_per_byte": loss / np.log(2), "loss_train": loss - 0.03,
        "heldout_docs": _N_DOCS, "heldout_tokens": 150_000, "balance_loss": 1.02 if routed else None,
        "load_cv": float(rng.uniform(0.1, 0.3)) if routed else None, "max_load": 1.4 if routed else None,
        "router_entropy": 0.6 if routed else None, "dropped_frac": 0.0,
    }  # fmt: skip


def _circumstances(row: dict[str, Any], rng: np.random.Generator) -> dict[str, object]:
    seconds = row["train_flops"] / 2e10 * float(rng.uniform(0.95, 1.05))
    return {
        "epochs": row["tokens"] / 11e6, "versions": "Python 3.11, JAX 0.10", "platform": "cpu", "device_kind": "cpu",
        "dtype": "float32", "threads": 1, "executor": "inline", "started_at": "2026-11-22T00:00:00Z",
        "wall_s": seconds + 8, "compile_s": 5.0, "train_s": seconds, "tokens_per_s": row["tokens"] / seconds,
    }  # fmt: skip


def _evals(loss: float, effects: Array, sizes: Array, rng: np.random.Generator) -> Iterator[dict[str, object]]:
    """Documents differ much from one another and little from cell to cell; their weighted mean is `loss`."""
    own = effects + rng.normal(0, 0.02, _N_DOCS)
    own -= np.average(own, weights=sizes)
    for index, (effect, size) in enumerate(zip(own, sizes, strict=True)):
        tokens = int(size)
        yield {"document": f"doc{index:03d}.py", "n_tokens": tokens, "n_bytes": tokens, "loss": float(loss + effect)}


def _curve(config: RunConfig, final: float) -> Iterator[dict[str, object]]:
    for step in np.unique(np.linspace(1, config.steps, 20).astype(int)):
        loss = final + 3 * float(1 - step / config.steps) ** 2
        seen = int(step) * config.train.batch_tokens
        yield {"step": int(step), "tokens": seen, "lr": config.learning_rate, "loss": loss}


def _latency(config: RunConfig, rng: np.random.Generator) -> Iterator[dict[str, object]]:
    """Times of a machine with 60 us of overhead, 20 GB/s and 100 GFLOP/s, spread by a few percent.

    A batch of one has no known floor, as on a CPU whose cache may hold all that it reads.
    """
    model, vocab = config.model, config.data.vocab_size
    for phase in ("prefill", "decode"):
        for batch in config.bench.batch:
            context = config.bench.context[0]
            new = context if phase == "prefill" else 1
            moved = counts.bytes_read(model, vocab, batch=batch, new_tokens=new, context=context)
            per_token = counts.prefill_flops_per_token if phase == "prefill" else counts.decode_flops_per_token
            flops = batch * new * per_token(model, vocab, context)
            floor_ms = 1e3 * max(moved / 20e9, flops / 100e9)
            time_ms = (0.06 + 1.7 * floor_ms) * float(rng.uniform(0.97, 1.03))
            yield {
                "shape_id": config.shape_id(), "phase": phase, "batch": batch, "context": context, "time_ms": time_ms,
                "time_q25_ms": 0.96 * time_ms, "time_q75_ms": 1.06 * time_ms, "repeats": 15, "warmup": 3,
                "compile_s": 1.0,
                "tokens_per_s": 1e3 * batch * new / time_ms, "flops": flops, "bytes": moved,
                "roofline_ms": floor_ms if batch > 1 else None,
                "distinct_experts": distinct_experts(model.n_experts, model.top_k, batch * new),
                "weights": "initial", "platform": "cpu", "device_kind": "cpu", "dtype": "float32", "threads": 2,
                "versions": "Python 3.11, JAX 0.10",
            }  # fmt: skip

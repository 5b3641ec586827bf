"""A study of methods with planted truth: the loss of each, run-to-run noise and document noise are what a caller says.

No training: rows are those of real configurations (`scaling.config.run_row.describe`), so identities, FLOPs and labels
are real too.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from synthetic import CORPUS_HASH, _circumstances, _latency, _write

from scaling.config.bench import BenchConfig
from scaling.config.run import RunConfig
from scaling.config.run_row import describe

DENSE: dict[str, Any] = {"n_experts": 1, "d_expert": 64}
METHODS: dict[str, dict[str, Any]] = {
    "dense": DENSE,
    "switch": {"router": "switch"},
    "topk": {"router": "topk", "top_k": 2},
    "topk (bias_rate 0.001)": {"router": "topk", "top_k": 2, "bias_rate": 0.001},
    "topk + shared": {"router": "topk", "top_k": 2, "experts": "shared"},
    "hash": {"router": "hash", "top_k": 2},
    "sigmoid": {"router": "sigmoid", "top_k": 2},
}
"""Settings of the model by the label that the comparison must give them."""
EFFECTS = {
    "dense": 0.0, "switch": -0.03, "topk": -0.08, "topk (bias_rate 0.001)": -0.0805, "topk + shared": -0.079,
    "hash": 0.02, "sigmoid": -0.05,
}  # fmt: skip
LEAKY = {"router": "expert-choice", "top_k": 2, "leak_study": True}


def config(settings: Mapping[str, Any], seed: int = 0, tokens: int = 500_000, **model: Any) -> RunConfig:
    shape = {"d_model": 32, "n_layers": 1, "n_experts": 8, "dense_tokens": 65_536}
    bench = BenchConfig(batch=(1, 8), context=(128,))
    return RunConfig.model_validate(
        {"study": "routers", "model": {**shape, **model, **settings}, "tokens": tokens, "seed": seed, "bench": bench}
    )


def write_methods(
    out: Path,
    methods: Mapping[str, Mapping[str, Any]] = METHODS,
    effects: Mapping[str, float] = EFFECTS,
    *,
    seeds: int | Mapping[str, int] = 3,
    seed_sd: float = 0.003,
    common_sd: float = 0.02,
    document_sd: float = 0.02,
    failed: Mapping[tuple[str, int], str] | None = None,
    tokens: int = 500_000,
    n_documents: int = 80,
    rng: np.random.Generator | None = None,
) -> Path:
    """Write a study. `seed_sd`: of a run; `common_sd`: of what a seed does to all; `document_sd`: of (method, document)
    and of (run, document) each. `failed` maps (label, seed) to a status; `seeds` may differ by label."""
    rng = rng or np.random.default_rng(0)
    sizes = rng.integers(400, 2048, n_documents)
    hard, common = rng.normal(0, 0.25, n_documents), rng.normal(0, common_sd, 10)
    for label, settings in methods.items():
        own = rng.normal(0, document_sd, n_documents)
        for seed in range(seeds if isinstance(seeds, int) else seeds[label]):
            cell = config(settings, seed, tokens)
            row = describe(cell, CORPUS_HASH)
            name, status = f"{row['run_id']}.parquet", (failed or {}).get((label, seed), "ok")
            row |= {"status": status, "error": "" if status == "ok" else "loss is NaN at step 120"}
            losses = 2.0 + effects[label] + common[seed] + rng.normal(0, seed_sd) + hard + own
            losses = losses + rng.normal(0, document_sd, n_documents)
            if status == "ok":
                row |= _measured(float(np.average(losses, weights=sizes)), cell, rng)
                evals = [
                    {"document": f"doc{i:03d}.py", "n_tokens": int(n), "n_bytes": int(n), "loss": float(loss)}
                    for i, (n, loss) in enumerate(zip(sizes, losses, strict=True))
                ]
                _write(out, "evals", name, evals)
                _write(out, "curves", name, _curve(cell))
                _write(out, "latency", name, [r | {"run_id": row["run_id"]} for r in _latency(cell, rng)])
            _write(out, "runs", name, [row | _circumstances(row, rng)])
    grid = "study: routers\ngrid: {router: [switch, topk, hash, sigmoid], seed: [0, 1, 2]}\n"
    (out / "grid.yaml").write_text(grid, encoding="utf-8")
    return out


def _measured(loss: float, cell: RunConfig, rng: np.random.Generator) -> dict[str, object]:
    found: dict[str, object] = {"loss_val": loss, "loss_val_se": 0.03, "heldout_docs": 80, "heldout_tokens": 100_000}
    if cell.model.n_experts == 1:
        return found
    chance = {
        "load_cv": 0.08,
        "max_load": 1.1,
        "utilisation": 0.99,
        "distinct_8": 7.2,
        "change_rate": 0.75,
        "specialisation": 0.02,
    }
    values = {
        "load_cv": 0.3,
        "max_load": 1.5,
        "utilisation": 0.9,
        "distinct_8": 6.0,
        "change_rate": 0.2,
        "specialisation": 0.15,
    }
    found |= {name: value * float(rng.uniform(0.9, 1.1)) for name, value in values.items()}
    found |= {f"{name}_chance": value for name, value in chance.items()} | {"saturation_chance": 0.25}
    leaks = {} if cell.model.router_facts.causal else {"leak": 0.2}
    return found | leaks | {"saturation_5": 0.5, "saturation_50": 0.7, "router_entropy": 0.9, "gate_sum": 1.0}


def _curve(cell: RunConfig) -> list[dict[str, object]]:
    """Choices settle from chance to the final ones at five probes, in routed models; the rows between have none."""
    rows: list[dict[str, object]] = []
    for step in sorted({max(1, cell.steps * share // 40) for share in (1, 2, 5, 10, 15, 20, 30, 40)}):
        done = step / cell.steps
        probed = cell.model.n_experts > 1 and done != 15 / 40
        rows.append(
            {"step": step, "tokens": step * cell.train.batch_tokens, "lr": 0.01, "loss": 4 - 2 * done}
            | ({"saturation": 0.25 + 0.75 * done**0.5, "saturation_chance": 0.25} if probed else {})
        )
    return rows

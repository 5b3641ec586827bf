"""Methods as an axis of a sweep: every causal router in one grid, and the shipped grids of all methods."""

from __future__ import annotations

import io

import pandas as pd
import pytest
from places import Place, sweep

from scaling.config import training_memory
from scaling.config.registry import EXPERTS, ROUTERS
from scaling.config.run_row import cost_columns
from sweeps import execute, grid
from sweeps.job import Options
from sweeps.progress import Progress
from sweeps.worker import CELL_FUNCTIONS

CAUSAL = [name for name, facts in ROUTERS.items() if facts.causal]


def pairs(name: str) -> list[tuple[str, str]]:
    """(router, experts) of the routed cells of a shipped grid."""
    return [(cell.model.router, cell.model.experts) for cell in grid.load_grid(name).cells if cell.model.n_experts > 1]


@pytest.mark.slow
def test_a_grid_over_all_causal_routers_ends_with_every_row_ok(place: Place) -> None:
    """Real training at tiny sizes. All losses differ, except that `topk` and `prototype` are identical to
    `switch` at k = 1."""
    names = ", ".join(CAUSAL)
    path = place.grid(f"{{router: [{names}], n_experts: [2], d_model: [8], tokens: [2K]}}")
    text = path.read_text().replace("n_experts: 2}", "dense_tokens: 256, anneal_tokens: 512}")
    path.write_text(text)
    summary = sweep(path, place, functions=CELL_FUNCTIONS)
    runs = pd.read_parquet(place.out / "runs").set_index("router")
    assert set(runs.index) == set(CAUSAL)
    assert runs["status"].eq("ok").all(), runs["error"].to_dict()
    assert summary.latency_owed == 0
    same = runs.loc[["switch", "topk", "prototype"], "loss_val"]
    assert len({*same}) == 1
    assert runs["loss_val"].nunique() == len(CAUSAL) - 2
    latency = pd.read_parquet(place.out / "latency")
    assert set(latency["phase"]) == {"prefill", "decode"}
    assert set(latency["run_id"]) == set(runs["run_id"])


def test_the_smoke_grid_has_every_causal_method_once() -> None:
    methods = pairs("router-smoke")
    assert len(set(methods)) == len(methods)
    assert {router for router, _ in methods} == set(CAUSAL)
    assert {experts for _, experts in methods} == set(EXPERTS)


def test_the_study_has_every_method_at_three_seeds_and_equal_size() -> None:
    """Within 5 %, routed models store eight dense MLPs' worth of experts and have equal active FLOPs. Exceptions in
    storage are factorised experts, LoRA, and routers that choose more, narrower experts; in FLOPs, non-causal methods,
    which are not ranked."""
    cells = grid.load_grid("routers").cells
    assert {router for router, _ in pairs("routers")} == set(ROUTERS)
    assert {experts for _, experts in pairs("routers")} == set(EXPERTS)
    seeds = pd.Series([cell.seed for cell in cells]).groupby([c.configuration("") for c in cells]).nunique()
    assert seeds.eq(3).all()

    large = [cell for cell in cells if cell.tokens == max(c.tokens for c in cells) and cell.seed == 0]
    rows = {cell: cost_columns(cell) for cell in large}
    dense = next(row for cell, row in rows.items() if cell.model.n_experts == 1)
    mlp = 3 * 64 * 128 * 2
    for cell, row in rows.items():
        model = cell.model
        if model.n_experts > 1 and not model.experts_kind.mixes and not model.router_facts.varies:
            stored = row["n_total_nonembed"] - dense["n_total_nonembed"] + mlp
            assert stored == pytest.approx(8 * mlp, rel=0.05), model
            if model.causal:
                assert row["decode_flops_per_token"] == pytest.approx(dense["decode_flops_per_token"], rel=0.05), model


@pytest.mark.slow
def test_the_smoke_grid_runs(place: Place) -> None:
    """As shipped: every row is ok, all losses differ, and memory estimates are within a fifth of XLA's allocation."""
    read = grid.load_grid("router-smoke")
    execute.run_sweep(read, place.out, Options(executor="inline"), Progress(io.StringIO()))
    runs = pd.read_parquet(place.out / "runs").set_index("run_id")
    assert len(runs) == len(read.cells)
    assert runs["status"].eq("ok").all(), runs["error"].to_dict()
    assert runs["loss_val"].nunique() == len(runs)
    for cell in read.cells:
        row = runs.loc[cell.run_id(runs["corpus_hash"].iloc[0])]
        assert training_memory.training_memory_bytes(cell) == pytest.approx(row["peak_memory_bytes"], rel=0.2), (
            cell.model
        )

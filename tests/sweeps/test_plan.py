"""A plan: prices from the cost model, a schedule that can be checked by hand, and a lint that finds planted faults."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scaling import cost
from scaling.config import TrainConfig
from sweeps import grid, plan
from sweeps.store import Part


def read(block: str, more: str = "") -> grid.Grid:
    return grid.parse(f"study: a\ngrid: {block}\n{more}", Path("g.yaml"))


GOOD = "{n_experts: [1, 8], d_model: [32, 64], tokens: [1M, 2M], seed: [0, 1]}"


def test_a_plan_adds_up_and_counts_as_the_cost_model_does() -> None:
    cells = read(GOOD)
    priced = plan.plan(cells)
    said = priced.to_json()
    assert [cell.config for cell in priced.cells] == list(cells.cells)
    assert said["totals"]["train_flops"] == sum(cost.train_flops(cell) for cell in cells.cells)
    assert said["totals"]["tokens"] == sum(cell.steps * cell.train.batch_tokens for cell in cells.cells)
    for cell in priced.cells:
        assert cell.n_active == cost.parameters(cell.config.model, 257).n_active
    assert len({cell.label for cell in priced.cells}) == len(priced.cells)
    assert priced.lint == ()


def test_time_is_calibrated_by_the_rows_of_the_study() -> None:
    cells = read(GOOD)
    flops = cost.train_flops(cells.cells[0])
    part = Part("id", "ok", "v", train_flops=flops, train_s=4.0, wall_s=7.0)
    priced = plan.plan(cells, {cells.cells[0]: part})
    assert priced.speed.flops_per_s == pytest.approx(flops / 4.0)
    assert priced.cells[0].seconds == pytest.approx(7.0)  # the cell itself is predicted exactly
    assert priced.cells[0].status == "ok"
    assert priced.to_json()["totals"]["missing"] == len(cells.cells) - 1
    failed = Part("id", "error", "v", train_flops=flops, wall_s=1.0)
    assert plan.plan(cells, {cells.cells[0]: failed}).speed == plan.plan(cells).speed


@given(st.lists(st.floats(0.1, 100), min_size=1, max_size=20), st.integers(1, 4))
def test_wall_time_lies_between_the_bounds_of_any_schedule(seconds: list[float], workers: int) -> None:
    """At least the longest cell and the evenly shared sum; at most Graham's (2 - 1/m) times the larger of the two."""
    bound = max(max(seconds), sum(seconds) / workers)
    made = plan._makespan(seconds, workers)
    assert bound * (1 - 1e-9) <= made <= (2 - 1 / workers) * bound * (1 + 1e-9)


def test_long_cells_come_first_and_no_shape_is_compiled_twice_at_once() -> None:
    cells = read("{n_experts: [1, 4, 8, 16], d_model: [32, 64], tokens: [1M, 4M, 2M]}").cells

    def ordered(workers: int) -> list[tuple[int, int, int]]:
        return [(c.model.d_model, c.model.n_experts, c.tokens // 10**6) for c in plan.in_order(cells, workers)]

    # Routers cost FLOPs, so at one width the most experts take longest.
    assert ordered(1)[:4] == [(64, 16, 4), (64, 16, 2), (64, 16, 1), (64, 8, 4)]
    assert ordered(2)[:7] == [
        (64, 16, 4), (64, 8, 4), (64, 16, 2), (64, 8, 2), (64, 16, 1), (64, 8, 1), (64, 4, 4)
    ]  # fmt: skip
    for workers in (1, 2, 3, 4, 100):
        order = ordered(workers)
        assert sorted(order) == sorted((c.model.d_model, c.model.n_experts, c.tokens // 10**6) for c in cells)
        firsts = [
            shape for i, (*shape, _) in enumerate(order) if shape not in [other[:2] for other in map(list, order[:i])]
        ]
        assert firsts == [[d, e] for d in (64, 32) for e in (16, 8, 4, 1)]
        for i, (*shape, _) in enumerate(order[:-1]):
            if workers in (2, 4):  # they divide the 8 shapes, so every batch is full
                assert all(list(other[:2]) != shape for other in order[i + 1 : i + workers])


FAULTS = {
    "one token budget": ("{n_experts: [1, 8], d_model: [32, 64], tokens: 1M, seed: [0, 1]}", ["one token budget (1M)"]),
    "one width": ("{n_experts: [1, 8], tokens: [1M, 2M], seed: [0, 1]}", ["one width and depth"]),
    "one E": ("{n_experts: 8, d_model: [32, 64], tokens: [1M, 2M], seed: [0, 1]}", ["one expert count (E = 8)"]),
    "no dense": ("{n_experts: [4, 8], d_model: [32, 64], tokens: [1M, 2M], seed: [0, 1]}", ["no dense model"]),
    "one seed": ("{n_experts: [1, 8], d_model: [32, 64], tokens: [1M, 2M]}", ["one seed per configuration"]),
    "E moves with the width of the experts": (
        "[{n_experts: 1, d_expert: 64, d_model: [32, 48], tokens: [1M, 2M], seed: [0, 1]},"
        " {n_experts: 8, d_expert: 128, d_model: [32, 48], tokens: [1M, 2M]}]",
        ["E is confounded with size", "E = 1, 8;"],
    ),
    # n_active of the dense model: 37,088 at d = 32 and 115,008 at d = 64, so 20 tokens for each of them.
    "constant tokens per parameter": (
        "[{d_model: 32, n_experts: [1, 4], tokens: 741760, seed: [0, 1]},"
        " {d_model: 64, n_experts: [1, 4], tokens: 2300160}]",
        ["tokens per parameter is constant (20)"],
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_of_the_design_is_the_only_one_found(fault: str) -> None:
    block, expected = FAULTS[fault]
    found = plan.lint(read(block).cells)
    assert len(found) == 1
    for part in expected:
        assert part in found[0]


def test_top_k_of_half_width_is_the_same_size_and_no_fault() -> None:
    block = (
        "[{n_experts: 1, d_model: [32, 64], tokens: [1M, 2M], seed: [0, 1]},"
        " {n_experts: 8, top_k: 2, d_expert: 32, d_model: 32, tokens: [1M, 2M]},"
        " {n_experts: 8, top_k: 2, d_expert: 64, d_model: 64, tokens: [1M, 2M]}]"
    )
    assert plan.lint(read(block, "model: {router: topk}\n").cells) == []


def test_defaults_in_force_are_those_that_the_grid_leaves_out() -> None:
    defaults = plan.plan(read("{tokens: 1M, n_layers: [1, 2]}", "train: {lr: 1e-3}\nresources: {cpus: 1}\n")).defaults
    assert "n_layers" not in defaults["model"]
    assert "lr" not in defaults["train"]
    assert defaults["train"]["batch_tokens"] == TrainConfig().batch_tokens
    assert defaults["resources"] == {"gpus": 0.0}


@pytest.mark.parametrize(("number", "text"), [(999, "999"), (250_000, "250K"), (4e6, "4M"), (1.5e9, "1.5B"), (0, "0")])
def test_numbers_are_written_as_they_are_read(number: float, text: str) -> None:
    assert plan.si(number) == text

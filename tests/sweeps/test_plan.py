"""Plans: prices from the cost model, schedules checked by hand, and a lint that finds planted faults."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scaling.config.counts import parameters, train_flops
from scaling.config.run import RunConfig, by_trunk
from scaling.config.training import TrainConfig
from scaling.errors import InputError
from scaling.formatting import si
from scaling.serving.devices import device
from sweeps import grid
from sweeps.calls import plan_calls
from sweeps.plan import language_model as plan
from sweeps.plan.capacity import ANY_CLUSTER, Machine
from sweeps.store import StoredCell


def read(block: str, more: str = "") -> grid.Grid:
    return grid.parse(f"study: a\ngrid: {block}\n{more}", Path("g.yaml"))


GOOD = "{n_experts: [1, 8], d_model: [32, 64], tokens: [1M, 2M], seed: [0, 1]}"


def test_a_plan_adds_up_the_counts_of_the_cost_model() -> None:
    cells = read(GOOD)
    priced = plan.plan(cells)
    totals = priced.to_json()["totals"]
    assert [cell.config for cell in priced.cells] == list(cells.cells)
    assert totals["train_flops"] == sum(train_flops(cell) for cell in cells.cells)
    assert totals["tokens"] == sum(cell.steps * cell.train.batch_tokens for cell in cells.cells)
    for cell in priced.cells:
        assert cell.n_active == parameters(cell.config.model, 257).n_active
    assert len({cell.label for cell in priced.cells}) == len(priced.cells)
    assert priced.lint == ()


def test_time_is_calibrated_by_the_rows_of_the_study() -> None:
    cells = read(GOOD)
    part = StoredCell("id", "ok", "v", train_s=4.0, wall_s=7.0)
    assumed, priced = plan.plan(cells), plan.plan(cells, {cells.cells[0]: part})
    assert priced.cells[0].seconds == pytest.approx(7.0)  # the measured cell is predicted exactly
    assert priced.cells[0].status == "ok"
    factor = 4.0 / (assumed.cells[0].seconds - assumed.speed.overhead_s)
    for before, after in zip(assumed.cells, priced.cells, strict=True):
        shared = after.tokens_own / before.tokens_own  # of a trunk whose first cell is done
        assert after.seconds - 3.0 == pytest.approx(factor * shared * (before.seconds - assumed.speed.overhead_s))
    assert priced.to_json()["totals"]["missing"] == len(cells.cells) - 1
    failed = StoredCell("id", "error", "v", wall_s=1.0)
    assert plan.plan(cells, {cells.cells[0]: failed}).speed == plan.plan(cells).speed


def test_a_law_of_the_study_prices_widths_and_experts_that_others_trained() -> None:
    """Planted: time is a fixed cost an expert and step, and FLOPs; one factor for all would miss both."""
    cells = read("{n_experts: [1, 2, 4, 8, 16], d_model: [32, 64, 128], tokens: [1M], batch_tokens: [512, 1024]}")

    def planted(cell: RunConfig) -> float:
        routed = cell.model.n_experts * (cell.model.n_experts > 1)
        return 1e-4 * cell.steps * cell.model.n_layers * routed + 2e-10 * train_flops(cell)

    left = cells.cells[::7]
    parts = {
        cell: StoredCell("id", "ok", "v", train_s=planted(cell), wall_s=planted(cell))
        for cell in cells.cells
        if cell not in left
    }
    priced = plan.plan(cells, parts)
    assert "law" in priced.speed.basis
    for cell in priced.cells:
        # 10 %: the law knows the padding of blocks of rows, which what is planted here does without.
        assert cell.seconds == pytest.approx(planted(cell.config), rel=0.1)


BIG = (
    "{n_experts: [1, 64], d_model: 1024, n_layers: 24, tokens: [2B], seed: [0]}",
    "model: {dtype: bfloat16, d_head: 64}\ntrain: {batch_tokens: 524288, seq_len: 2048}\n",
)


def test_gpus_are_priced_by_the_peak_of_the_device_and_not_as_cores() -> None:
    block, more = BIG
    on_gpu, on_core = read(block, more + "resources: {gpus: 1}\n"), read(block, more)
    dense, routed = (cell.seconds - plan.GPU_OVERHEAD_S for cell in plan.plan(on_gpu).cells)
    by_hand = train_flops(on_gpu.cells[0]) / (0.4 * device("h100").peak_flops)
    assert dense == pytest.approx(by_hand, rel=1e-6)
    assert routed > 1.8 * dense  # 64^.20 = 2.3 times for each FLOP, and routers
    assert plan.plan(on_core).cells[0].seconds > 1e4 * dense
    a100 = plan.plan(on_gpu, device="a100")
    assert a100.speed.device == "a100"
    assert a100.cells[0].seconds - plan.GPU_OVERHEAD_S == pytest.approx(by_hand * 989.4 / 312, rel=1e-6)
    eight = plan.plan(read(block, more + "resources: {gpus: 8}\n"))
    assert eight.cells[0].seconds - plan.GPU_OVERHEAD_S == pytest.approx(by_hand / 8, rel=1e-6)


def test_a_small_step_on_a_gpu_takes_its_launches() -> None:
    cells = read("{n_experts: [1], d_model: 32, n_layers: 2, tokens: [1M]}", "resources: {gpus: 1}\n")
    (cell,) = plan.plan(cells).cells
    assert cell.seconds - plan.GPU_OVERHEAD_S == pytest.approx(cell.config.steps * 2 * 0.5e-3)


def test_devices_that_stay_idle_save_no_time() -> None:
    block, train = "{d_model: 512, tokens: 100M}", "train: {batch_tokens: 32000, seq_len: 128}\n"  # 250 sequences
    seconds = {n: plan.plan(read(block, f"{train}resources: {{gpus: {n}}}\n")).seconds for n in (1, 2, 8)}
    assert seconds[8] == seconds[2] < seconds[1]


def test_each_shape_is_priced_by_its_own_resources() -> None:
    block, more = BIG
    shapes = "resources: [{cpus: 2}, {where: n_experts > 1, gpus: 4, cpus: 1}]\n"
    mixed = plan.plan(read(block, more + shapes))
    on_cpu, on_gpu = read(block, more + "resources: {cpus: 2}\n"), read(block, more + "resources: {gpus: 4}\n")
    dense, routed = (cell.seconds - mixed.speed.overhead_s for cell in mixed.cells)
    assert dense == pytest.approx(plan.plan(on_cpu).cells[0].seconds - plan.CPU_OVERHEAD_S)
    assert routed == pytest.approx(plan.plan(on_gpu).cells[1].seconds - plan.GPU_OVERHEAD_S)


def test_a_plan_lists_what_was_left_out_of_the_grid() -> None:
    block = "{n_experts: [2, 4], top_k: [1, 2, 4], d_model: [32, 64], tokens: [1M, 2M], where: tokens < d_model * 50K}"
    document = plan.plan(read(block, "model: {router: topk}\n")).to_json()
    # k = 4 of 2 experts with the three (d_model, tokens) that remain, and 2 M tokens of width 32.
    assert {one["count"] for one in document["left_out"]} == {3, 6}
    assert document["totals"]["left_out"] == 9
    assert document["totals"]["cells"] == 24 - 9


def test_a_device_belongs_to_a_grid_on_gpus() -> None:
    with pytest.raises(InputError, match="device"):
        plan.plan(read(GOOD), device="h100")


@given(st.lists(st.floats(0.1, 100), min_size=1, max_size=20), st.integers(1, 4))
def test_wall_time_lies_between_the_bounds_of_any_schedule(seconds: list[float], workers: int) -> None:
    """At least the longest cell and an even share of the sum, at most (2 - 1/m) times the larger of them (Graham)."""
    bound = max(max(seconds), sum(seconds) / workers)
    one = RunConfig().resources
    assert one.cpus == 1
    wall = Machine(workers, 1, 1e12).makespan([(duration, one) for duration in seconds])
    assert wall == ANY_CLUSTER.makespan([(duration, one) for duration in seconds], at_most=workers)
    assert bound * (1 - 1e-9) <= wall <= (2 - 1 / workers) * bound * (1 + 1e-9)


def test_long_trunks_come_first_and_no_program_is_compiled_twice_at_once() -> None:
    cells = read("{n_experts: [1, 4, 8, 16], d_model: [32, 64], tokens: [1M, 4M], seed: [0, 1], n_layers: [6]}").cells

    def ordered(workers: int) -> list[tuple[int, int, int]]:
        calls = plan_calls(cells, workers)
        assert all(
            cell.tokens == budget for call in calls for cell, budget in zip(call, (10**6, 4 * 10**6), strict=True)
        )
        return [(call[0].model.d_model, call[0].model.n_experts, call[0].seed) for call in calls]

    # Routers cost FLOPs, so at one width the most experts take longest.
    assert ordered(1)[:4] == [(64, 16, 0), (64, 16, 1), (64, 8, 0), (64, 8, 1)]
    assert ordered(2)[:5] == [(64, 16, 0), (64, 8, 0), (64, 16, 1), (64, 8, 1), (64, 4, 0)]
    for workers in (1, 2, 3, 4, 100):
        order = ordered(workers)
        assert sorted(order) == sorted({(c.model.d_model, c.model.n_experts, c.seed) for c in cells})
        firsts = [
            shape for i, (*shape, _) in enumerate(order) if shape not in [other[:2] for other in map(list, order[:i])]
        ]
        assert firsts == [[d, e] for d in (64, 32) for e in (16, 8, 4, 1)]
        for i, (*shape, _) in enumerate(order[:-1]):
            if workers in (2, 4):  # divisors of the 8 shapes, so every batch is full
                assert all(list(other[:2]) != shape for other in order[i + 1 : i + workers])


def test_cells_whose_budgets_have_nothing_in_common_are_calls_of_their_own_the_longest_first() -> None:
    cells = grid.load_grid("shared-experts-smoke").cells
    calls = plan_calls(cells, workers=2)
    assert Counter(calls) == Counter((cell,) for cell in cells)
    samples = [call[0].steps for call in calls]
    assert samples[0] == max(samples)
    assert samples[-1] == min(samples)


def test_a_trunk_costs_its_longest_budget_and_the_cooldowns_of_the_others() -> None:
    """Budgets 10, 20 and 30 at a cooldown of a fifth: 30 + (10 + 20) / 5 = 36 of 60 (reference/laws.md, section 5)."""
    priced = plan.plan(read("{d_model: 32, tokens: [0.512M, 1.024M, 1.536M]}", "train: {batch_tokens: 512}\n"))
    assert [cell.tokens_own for cell in priced.cells] == [512_000, 614_400, 716_800]
    totals = priced.to_json()["totals"]
    assert totals["tokens_trained"] / totals["tokens"] == pytest.approx(0.6)
    done = {priced.cells[1].config: StoredCell("0" * 16, "ok", "")}
    left = {cell.config.tokens: cell.tokens_own for cell in plan.plan(read(
        "{d_model: 32, tokens: [0.512M, 1.024M, 1.536M]}", "train: {batch_tokens: 512}\n"
    ), done).cells}  # fmt: skip
    assert left[1_536_000] == 1_536_000 - 409_600  # the trunk of the finished second budget is trained again


def test_trunks_that_differ_in_seed_or_rate_train_side_by_side_where_that_is_faster() -> None:
    def calls(block: str, workers: int = 1, resources: str = "") -> list[tuple[int, int]]:
        cells = read(block, resources).cells
        planned = plan_calls(cells, workers)
        assert Counter(cell for call in planned for cell in call) == Counter(cells)
        return [(call[0].model.n_experts, len(by_trunk(call))) for call in planned]

    small = "{d_model: 32, n_experts: [1, 8], tokens: [1M, 2M], seed: [0, 1, 2], lr: [1e-3, 2e-3]}"
    assert sorted(calls(small)) == [(1, 2), (1, 4)] + [(8, 1)] * 6
    assert calls("{d_model: 32, tokens: 1M, seed: [0, 1]}", workers=2) == [(1, 1), (1, 1)]  # both workers have work
    assert calls("{d_model: 256, tokens: 1M, seed: [0, 1]}") == [(1, 1), (1, 1)]  # long steps gain nothing
    assert calls("[{d_model: 32, tokens: 1M, seed: 0}, {d_model: 32, tokens: 2M, seed: 1}]") == [(1, 1), (1, 1)]
    assert sorted(calls(small, resources="resources: {gpus: 1}\n")) == [(1, 6), (8, 6)]


def test_listed_defaults_are_those_that_the_grid_does_not_set() -> None:
    defaults = plan.plan(read("{tokens: 1M, n_layers: [1, 2]}", "train: {lr: 1e-3}\nresources: {cpus: 1}\n")).defaults
    assert "n_layers" not in defaults["model"]
    assert "lr" not in defaults["train"]
    assert defaults["train"]["batch_tokens"] == TrainConfig().batch_tokens
    assert defaults["resources"] == {
        "gpus": 0.0,
        "expert_parallel": False,
        "checkpoint_minutes": 5.0,
        "max_minutes": None,
    }


@pytest.mark.parametrize(("number", "text"), [(999, "999"), (250_000, "250K"), (4e6, "4M"), (1.5e9, "1.5B"), (0, "0")])
def test_numbers_are_written_as_they_are_read(number: float, text: str) -> None:
    assert si(number) == text

"""The language of grids: shorthands by closed form, formulas, `where` and `zip`, and what cannot be is counted."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import grids
import pytest
from grids import require_refused

from scaling.config.counts import parameters, train_flops
from scaling.config.run import RunConfig, by_trunk
from sweeps import grid
from sweeps.grid.model_point import nearest_steps
from sweeps.new_cells import as_grid, new_cells, studied

VOCAB = 257  # bytes and the separator


def parse(text: str) -> grid.Grid:
    return grids.parse(f"study: a\n{text}")


def run_ids(read: grid.Grid) -> list[str]:
    return [cell.run_id("") for cell in read.cells]


def dense_size(d: int, layers: int, width: int) -> int:
    """Embedding and head, and in each layer four square maps, three of the gated MLP and two norms; the last norm."""
    return 2 * VOCAB * d + layers * (4 * d * d + 3 * d * width + 2 * d) + d


def flops_per_token(d: int, layers: int, width: int, seq_len: int, routed: int = 0) -> float:
    """Three forward passes of the products: 2 FLOPs a weight, and 4 d for each of (seq_len + 1) / 2 tokens attended."""
    weights = VOCAB * d + layers * (4 * d * d + 3 * d * width + routed * d)
    return 3 * (2 * weights + layers * 4 * d * (seq_len + 1) / 2)


# ---------------------------------------------------------------------------------------------------- shorthands


def test_tokens_per_parameter_counts_n_active_with_embeddings_and_without_routers() -> None:
    cells = parse(
        "model: {router: topk, n_layers: 3}\ntrain: {warmup_tokens: 8K}\n"
        "grid: {n_experts: [1, 8], d_model: [32, 64], top_k: 2, tokens_per_parameter: [0.7, 20]}"
    ).cells
    expected = [
        (experts, d, round(ratio * dense_size(d, 3, 2 * d)))
        for experts, d, ratio in itertools.product([1, 8], [32, 64], [0.7, 20])
    ]
    assert [(c.model.n_experts, c.model.d_model, c.tokens) for c in cells] == expected


@pytest.mark.parametrize("budget", [1.5e12, 3.3e11])
def test_a_budget_of_flops_fixes_the_nearest_whole_number_of_batches(budget: float) -> None:
    cells = parse(
        "model: {router: topk, top_k: 2}\ntrain: {batch_tokens: 1024, seq_len: 256}\n"
        f"grid: {{n_experts: [1, 8], d_model: [32, 64], flops: {budget:g}}}"
    ).cells
    for cell in cells:
        d, routed = cell.model.d_model, 8 * (cell.model.n_experts == 8)
        step = 1024 * flops_per_token(d, 2, 2 * d, 256, routed)
        assert cell.tokens == 1024 * round(budget / step)
        assert abs(train_flops(cell) - budget) <= step / 2


def test_flops_are_met_where_their_count_is_no_multiple_of_the_tokens() -> None:
    """Frozen bases cost less after their dense phase, and a token of dense-to-sparse fewer experts as time goes by."""
    cells = parse(
        "model: {n_experts: 8, n_layers: 1, dense_tokens: 20K, anneal_tokens: 40K}\ntrain: {warmup_tokens: 16K}\n"
        "grid: [{router: tsallis, experts: lora, top_k: 2, d_expert: 16, flops: [1e11, 4e11]},"
        " {router: dense-to-sparse, flops: [1e11, 4e11]}]"
    ).cells
    assert len(cells) == 4
    for cell, budget in zip(cells, [1e11, 4e11] * 2, strict=True):
        off = [
            abs(train_flops(cell.model_copy(update={"tokens": cell.tokens + steps * 512})) - budget)
            for steps in (-1, 0, 1)
        ]
        assert min(off) == off[1]


def test_the_nearest_number_of_steps_is_found_for_curved_costs() -> None:
    def cost(steps: int) -> float:
        return steps**1.2 + 3

    for budget in (0.5, 4.0, 17.3, 1e6, 1e12):
        near = nearest_steps(budget, cost)
        others = [max(1, near + change) for change in (-2, -1, 1, 2)]
        assert all(abs(cost(near) - budget) <= abs(cost(other) - budget) for other in others)


def test_granularity_fixes_the_width_of_an_expert() -> None:
    read = parse("model: {router: topk, n_experts: 8}\ngrid: {d_model: [48, 64], granularity: [1, 1.5, 4], tokens: 1M}")
    # G = 2 d_model / d_expert: 128 / 1.5 is no width, 96 / 1.5 is.
    assert [(c.model.d_model, c.model.d_expert) for c in read.cells] == [
        (48, 96),
        (48, 64),
        (48, 24),
        (64, 128),
        (64, 32),
    ]
    assert [left.count for left in read.left_out] == [1]


def test_a_scaled_rate_multiplies_the_rule_and_one_is_the_rule_itself() -> None:
    read = parse(
        "model: {n_layers: 8}\n"
        "grid: [{d_model: [32, 64], lr_scale: [0.5, 1, 2], tokens: 1M}, {d_model: 32, tokens: 2M}]"
    )
    rule = {d: 5e-3 * (64 / d) * math.sqrt(2 / 8) for d in (32, 64)}
    assert [c.learning_rate for c in read.cells[:6]] == pytest.approx(
        [x * rule[d] for d in (32, 64) for x in (0.5, 1, 2)]
    )
    trunk = next(trunk for trunk in by_trunk(read.cells) if read.cells[-1] in trunk)
    assert trunk == (read.cells[1], read.cells[-1])  # scale 1 and no scale at all


@pytest.mark.parametrize("written", ["512Ki", "0.5Mi", "524288"])
def test_powers_of_two_are_numbers(written: str) -> None:
    cells = parse(f"train: {{warmup_tokens: 32Ki}}\ngrid: {{tokens: {written}}}").cells
    assert [(cell.tokens, cell.train.warmup_tokens) for cell in cells] == [(524_288, 32_768)]


# ------------------------------------------------------------------- the same cells, said in fields and in the language

SAME = {
    "depth by width": (
        "grid: {d_model: [64, 128, 256], n_layers: d_model / 64, tokens: 1M}",
        "grid: [{d_model: 64, n_layers: 1, tokens: 1M}, {d_model: 128, n_layers: 2, tokens: 1M},"
        " {d_model: 256, n_layers: 4, tokens: 1M}]",
    ),
    "a section's formula": (
        "model: {d_expert: 4 * d_model / top_k, router: topk, n_experts: 8}\n"
        "grid: {d_model: [32, 64], top_k: [1, 2], tokens: 1M}",
        "model: {router: topk, n_experts: 8}\n"
        "grid: [{d_model: 32, d_expert: 128, tokens: 1M}, {d_model: 32, top_k: 2, d_expert: 64, tokens: 1M},"
        " {d_model: 64, d_expert: 256, tokens: 1M}, {d_model: 64, top_k: 2, d_expert: 128, tokens: 1M}]",
    ),
    "a default that follows others": (
        "model: {router: topk, n_experts: 8, experts: shared}\n"
        "grid: {top_k: [1, 3], batch_tokens: 4 * d_expert, tokens: 1M}",
        "model: {router: topk, n_experts: 8, experts: shared}\n"
        "grid: {tokens: 1M, zip: {top_k: [1, 3], batch_tokens: [256, 128]}}",
    ),
    "zip": (
        "grid: {zip: {d_model: [32, 64], n_layers: [2, 3]}, tokens: [1M, 2M]}",
        "grid: [{d_model: 32, n_layers: 2, tokens: [1M, 2M]}, {d_model: 64, n_layers: 3, tokens: [1M, 2M]}]",
    ),
    "two zips, crossed": (
        "grid: {zip: [{d_model: [32, 64], n_layers: [2, 3]}, {tokens: [1M, 2M], seed: [1, 2]}]}",
        "grid: [{d_model: 32, n_layers: 2, tokens: 1M, seed: 1}, {d_model: 32, n_layers: 2, tokens: 2M, seed: 2},"
        " {d_model: 64, n_layers: 3, tokens: 1M, seed: 1}, {d_model: 64, n_layers: 3, tokens: 2M, seed: 2}]",
    ),
    "conditions of all blocks and of one": (
        "where: tokens >= 20 * d_model\n"
        "grid: [{d_model: [32, 64], tokens: [1M, 2M], where: tokens / d_model < 40000}, {tokens: 3M}]",
        "grid: [{d_model: 32, tokens: 1M}, {d_model: 64, tokens: [1M, 2M]}, {tokens: 3M}]",
    ),
    "a shorthand in a section": (
        "model: {granularity: 4, router: topk, n_experts: 8, top_k: granularity}\ntrain: {lr_scale: 2}\n"
        "grid: {d_model: [32, 64], tokens: 1M}",
        "model: {router: topk, n_experts: 8, top_k: 4}\n"
        "grid: [{d_model: 32, d_expert: 16, lr: 0.02, tokens: 1M}, {d_model: 64, d_expert: 32, lr: 0.01, tokens: 1M}]",
    ),
    "a truth": (
        "train: {remat: d_model > 32}\ngrid: {d_model: [32, 64], tokens: 1M}",
        "grid: [{d_model: 32, tokens: 1M}, {d_model: 64, tokens: 1M, remat: true}]",
    ),
}


@pytest.mark.parametrize("case", SAME)
def test_the_language_and_plain_fields_give_the_same_runs(case: str) -> None:
    said, plainly = (parse(text) for text in SAME[case])
    assert run_ids(said) == run_ids(plainly)
    assert len(said.cells) > 1


def test_named_grids_said_in_the_language_are_the_same_runs() -> None:
    quickstart = grid.load_grid("quickstart")
    text = (
        "data: {eval_windows: 8}\n"
        "model: {n_layers: 'max(2, d_model / 64)', granularity: top_k, top_k: 2, router: topk}\n"
        "train: {batch_tokens: 4 * seq_len, lr_scale: 1}\n"
        "grid:\n"
        "  - {n_experts: [1, 4, 8, 16], zip: {d_model: [64, 64, 32, 32], tokens: [0.4M, 1.2M, 0.2M, 0.8M]}}\n"
        "  - {n_experts: [1, 4, 8], zip: {d_model: [16, 16, 32], tokens: [0.4M, 1.2M, 0.2M], seed: [0, 0, 1]},"
        " where: 'n_experts != 4'}\n"
    )
    assert {*run_ids(parse(text))} == {*run_ids(quickstart)}


# ------------------------------------------------------------------------------------------ what is left out, and why


def test_every_k_up_to_e_with_the_number_of_what_was_left_out() -> None:
    pairs = [(e, k) for e in range(1, 65) for k in range(1, 9)]
    axes = f"n_experts: [{', '.join(map(str, range(1, 65)))}], top_k: [{', '.join(map(str, range(1, 9)))}]"
    said = parse(f"model: {{router: topk}}\ngrid: {{{axes}, tokens: 1M, where: top_k <= n_experts}}")
    assert [(c.model.n_experts, c.model.top_k) for c in said.cells] == [(e, k) for e, k in pairs if k <= e]
    assert [left.count for left in said.left_out] == [sum(k > e for e, k in pairs)]
    # Without it validation says the same, but for E = 1, where every k is a dense model.
    plainly = parse(f"model: {{router: topk}}\ngrid: {{{axes}, tokens: 1M}}")
    routed = [[c.run_id("") for c in read.cells if c.model.n_experts > 1] for read in (said, plainly)]
    assert routed[0] == routed[1]
    assert [left.count for left in plainly.left_out] == [sum(k > e > 1 for e, k in pairs)]


def test_reasons_are_counted_apart() -> None:
    read = parse(
        "model: {router: topk, n_experts: 4}\ngrid: {d_model: [64, 96], d_head: [16, 64, 48], top_k: [2, 8, 4],"
        " n_experts: [4, 8], tokens: 1M}"
    )
    refused = {
        (d, head, k, e)
        for d, head, k, e in itertools.product([64, 96], [16, 64, 48], [2, 8, 4], [4, 8])
        if d % head or k > e
    }
    assert len(read.cells) == 36 - len(refused)
    assert sum(left.count for left in read.left_out) == len(refused)
    assert len(read.left_out) == 2


def test_the_width_of_heads_is_an_axis_apart_from_their_number() -> None:
    read = parse("model: {n_heads: 2, d_model: 64}\ngrid: {d_head: [16, 32, 64], n_experts: [1, 4], tokens: 1M}")
    assert not read.left_out
    widths = [(cell.model.d_head, cell.model.attention_width) for cell in read.cells if cell.model.n_experts == 4]
    assert widths == [(16, 32), (32, 64), (64, 128)]
    plain = parse("model: {d_model: 64}\ngrid: {d_head: 32, n_experts: [1, 4], tokens: 1M}")
    assert {*run_ids(plain)} < {*run_ids(read)}  # where both say the same, it is the same run


def test_resources_are_given_by_shape_and_change_no_run() -> None:
    axes = "grid: {n_experts: [1, 64], d_model: [32, 128], tokens: 1M}"
    read = parse(
        "resources:\n  - {cpus: 2, max_minutes: 30}\n  - {where: n_total > 0.1M, gpus: 0.5}\n"
        f"  - {{where: n_experts == 64 and d_model > 100, gpus: d_model // 64, cpus: 4 * gpus}}\n{axes}"
    )
    assert run_ids(read) == run_ids(parse(axes))
    for cell in read.cells:
        large = parameters(cell.model, VOCAB).n_total > 1e5
        both = cell.model.n_experts == 64 and cell.model.d_model == 128
        expected = (2, 8) if both else (0.5, 2) if large else (0, 2)
        assert (cell.resources.gpus, cell.resources.cpus, cell.resources.max_minutes) == (*expected, 30)
    assert {cell.resources.gpus for cell in read.cells} == {0, 0.5, 2}


# ------------------------------------------------------------------------------------------------- writing it again

WRITTEN_AGAIN = [
    *(text for text, _ in SAME.values()),
    "model: {n_layers: 4}\ngrid: {tokens: 1M, n_layers: [1, null]}",
    "grid: {flops: [1e12, 1e13], d_model: [32, 64], where: [tokens_per_parameter > 30, n_active > 1]}",
    "resources: [{cpus: 2}, {where: n_total > 1e5, cpus: d_model // 16}]\ngrid: {d_model: [32, 64], tokens: 1M}",
]


@pytest.mark.parametrize("text", WRITTEN_AGAIN)
def test_a_resolved_grid_says_the_same_cells(text: str) -> None:
    read = parse(text)
    again = grid.parse(grid.resolved(read), Path("elsewhere/grid.yaml"))
    assert again.cells == read.cells
    assert again.left_out == read.left_out
    assert grid.resolved(again) == grid.resolved(read)


def test_new_cells_of_a_grid_in_the_language_are_written_in_fields() -> None:
    read = parse(
        "model: {router: topk, top_k: 2, n_layers: d_model // 16}\ntrain: {lr_scale: 2}\nwhere: tokens < 5M\n"
        "grid: {n_experts: [1, 8], zip: {d_model: [32, 64], granularity: [2, 4]}, tokens_per_parameter: [5, 20]}"
    )
    cells = new_cells(read, studied(read), [1, 4])
    assert all(cell.model.n_layers == cell.model.d_model // 16 for cell in cells)
    again = grid.parse(as_grid(read, cells, Path("g.yaml"), "new"), Path("g.yaml"))
    assert {*run_ids(again)} == {cell.run_id("") for cell in cells}


# --------------------------------------------------------------------------------------------------------- mistakes

# Text of the grid after `study: a`, and parts of the message: line and column, field, values, what to do.
MISTAKES = {
    "tokens and their ratio": (
        "grid: {tokens: 1M,\n tokens_per_parameter: [5]}",
        ["g.yaml:3:2: grid.tokens_per_parameter", "`tokens`", "grid.tokens in line 2", "remove one"],
    ),
    "two shorthands of one field": (
        "grid: {flops: 1e15,\n tokens_per_parameter: 5}",
        ["g.yaml:3:2", "grid.flops in line 2"],
    ),
    "a rate and its scale": (
        "train: {lr: 1e-3}\ngrid: {tokens: 1M, lr_scale: 2}",
        ["g.yaml:3:20", "train.lr in line 2"],
    ),
    "a width and granularity": (
        "model: {d_expert: 8,\n granularity: 2}\ngrid: {tokens: 1M}",
        ["g.yaml:3:2", "model.d_expert"],
    ),
    "not whole": (
        "grid: {d_model: [64, 96, 160], n_layers: d_model / 64, tokens: 1M}",
        ["g.yaml:2:42: grid.n_layers", "'d_model / 64' gives 1.5 where d_model=96", "//", "1 more combination"],
    ),
    "out of range": (
        "grid: {d_model: 32, n_layers: d_model - 32, tokens: 1M}",
        ["2:31: grid.n_layers", "gives 0 where d_model=32"],
    ),
    "divided by nothing": ("grid: {tokens: 1M, n_layers: 4 / seed}", ["2:30: grid.n_layers", "no number where seed=0"]),
    "a cycle": (
        "model: {d_model: 16 * n_layers}\ngrid: {n_layers: d_model / 16, tokens: 1M}",
        ["g.yaml:2:18: model.d_model", "reads itself: ", "d_model -> n_layers -> d_model"],
    ),
    "a cycle through a count": ("grid: {n_layers: n_total // 1M, tokens: 1M}", ["n_layers -> n_total -> n_layers"]),
    "an unknown name": (
        "grid: {n_layers: d_modle / 64, tokens: 1M}",
        ["g.yaml:2:18", "no field `d_modle`", "did you mean `d_model`"],
    ),
    "no name at all": ("grid: {n_layers: 64 / 16, tokens: 1M}", ["g.yaml:2:18: grid.n_layers", "'64 / 16'"]),
    "a comma that ends the value": (
        "grid: {n_layers: max(2, seed), tokens: 1M}",
        ["g.yaml:2:18: grid.n_layers", "quote"],
    ),
    "a function of nothing": ("grid: {n_layers: d_model * log, tokens: 1M}", ["grid.n_layers", "no field `log`"]),
    "a list": ("grid: {n_layers: paths / 2, tokens: 1M}", ["no field `paths`"]),
    "a text": ("grid: {n_layers: router * 2, tokens: 1M}", ["g.yaml:2:18: grid.n_layers", "router is text"]),
    "an attribute": (
        "grid: {n_layers: d_model.bit_length(), tokens: 1M}",
        ["g.yaml:2:18: grid.n_layers", "no methods"],
    ),
    "where with a typo": (
        "grid: {tokens: 1M, where: n_expert > 1}",
        ["g.yaml:2:27", "no field `n_expert`", "`n_experts`"],
    ),
    "where is a number": ("grid: {tokens: 1M, where: 3}", ["g.yaml:2:27: grid.where", "found 3", "top_k <= n_experts"]),
    "where is no condition": ("grid: {tokens: 1M, where: n_experts + 1}", ["g.yaml:2:27: grid.where", "no condition"]),
    "where keeps nothing": (
        "grid: {tokens: 1M, where: n_experts > 1}",
        ["g.yaml:2:27: where", "`n_experts > 1`", "1 combination"],
    ),
    "where of all keeps nothing of one": (
        "where: n_experts > 1\ngrid:\n  - {tokens: 1M, n_experts: 2}\n  - {tokens: 2M}",
        ["g.yaml:2:8: where", "`n_experts > 1`", "line 5"],
    ),
    "lengths differ": (
        "grid: {tokens: 1M, zip: {d_model: [32, 64], n_layers: 2}}",
        ["g.yaml:2:20: grid.zip", "d_model has 2, n_layers has 1"],
    ),
    "zip of one": ("grid: {tokens: 1M, zip: {d_model: [32, 64]}}", ["g.yaml:2:20: grid.zip", "d_model alone"]),
    "zip of nothing": ("grid: {tokens: 1M, zip: {}}", ["g.yaml:2:20: grid.zip", "empty"]),
    "zip and an axis": ("grid: {tokens: 1M, zip: {d_model: [32, 64], tokens: [1M, 2M]}}", ["grid.tokens: given twice"]),
    "zip elsewhere": ("zip: {d_model: [32, 64]}\ngrid: {tokens: 1M}", ["g.yaml:2:1: zip", "under `grid:`"]),
    "a shorthand elsewhere": ("train: {granularity: 2}\ngrid: {tokens: 1M}", ["g.yaml:2:9", "under `model:`"]),
    "a value that no cell can have": (
        "model: {router: topk}\ngrid: {tokens: 1M, n_experts: [2, 4], top_k: [2, 8]}",
        ["g.yaml:3:50: grid.top_k", "no cell with top_k=8", "cannot exceed n_experts=2", "where"],
    ),
    "a zipped value that no cell can have": (
        "grid: {tokens: 1M, zip: {d_model: [32, 40], n_layers: [1, 2]}}",
        ["d_model=40, n_layers=2", "d_head=16"],
    ),
    "no cell at all": (
        "model: {router: topk}\ngrid: {tokens: 1M, n_experts: [2, 4], top_k: [6, 8]}",
        ["g.yaml:3:7: impossible cell (tokens=1000000, n_experts=2, top_k=6)", "cannot exceed"],
    ),
    "resources without a condition": (
        "resources: [{cpus: 2}, {gpus: 1}]\ngrid: {tokens: 1M}",
        ["g.yaml:2:24: resources", "`where`"],
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_reported_with_its_place(mistake: str) -> None:
    text, expected = MISTAKES[mistake]
    require_refused(f"study: a\n{text}", expected)


def test_a_name_that_is_refused_does_not_hide_that_a_condition_fails() -> None:
    """n_active of k > E is never known, but the other half of the condition is."""
    read = parse(
        "model: {router: topk}\ngrid: {tokens: 1M, n_experts: [2, 4], top_k: [2, 8],"
        " where: top_k <= n_experts and n_active > 1}"
    )
    assert [(c.model.n_experts, c.model.top_k) for c in read.cells] == [(2, 2), (4, 2)]
    assert [left.count for left in read.left_out] == [2]
    apart = parse(
        "model: {router: topk}\nwhere: n_active > 1\ngrid: {tokens: 1M, n_experts: [2, 4], top_k: [2, 8],"
        " where: top_k <= n_experts}"
    )
    assert apart.cells == read.cells


def test_cells_share_their_sections() -> None:
    """What makes ten thousand cells small and quick."""
    cells = parse("grid: {tokens: [1M, 2M, 3M], seed: [0, 1], d_model: [32, 64]}").cells
    assert len({id(cell.model) for cell in cells}) == 2
    assert len({id(cell.train) for cell in cells}) == len({id(cell.data) for cell in cells}) == 1
    assert all(isinstance(cell, RunConfig) for cell in cells)

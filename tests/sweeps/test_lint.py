"""Lint: planted faults are found alone, with the cells that have them, and what is right is left alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from scaling import data
from scaling.config.counts import train_flops
from scaling.config.training_memory import training_memory_bytes
from scaling.formatting import si
from scaling.serving.devices import device
from sweeps import grid
from sweeps.labels import cell_labels
from sweeps.lint import of_design, of_text, of_training
from sweeps.plan.capacity import PROCESS_BYTES, Machine

MACHINE = Machine(cpus=16, gpus=8, memory=64e9)


def read(block: str, more: str = "") -> grid.Grid:
    return grid.parse(f"study: a\ngrid: {block}\n{more}", Path("g.yaml"))


def training(cells: grid.Grid, machine: Machine = MACHINE, on: str | None = None) -> list[str]:
    return of_training(cells.cells, cell_labels(cells), machine, device(on) if on else None)


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
    (message,) = of_design(read(block).cells)
    for part in expected:
        assert part in message


def test_two_experts_of_half_width_match_the_dense_size() -> None:
    block = (
        "[{n_experts: 1, d_model: [32, 64], tokens: [1M, 2M], seed: [0, 1]},"
        " {n_experts: 8, top_k: 2, d_expert: 32, d_model: 32, tokens: [1M, 2M]},"
        " {n_experts: 8, top_k: 2, d_expert: 64, d_model: 64, tokens: [1M, 2M]}]"
    )
    assert of_design(read(block, "model: {router: topk}\n").cells) == []


@pytest.mark.parametrize(
    ("train", "resources", "used", "fitting"),
    [
        ("batch_tokens: 32000, seq_len: 128", "gpus: 8", "2 of the 8 GPUs", 32768),
        ("batch_tokens: 32768, seq_len: 128", "gpus: 8", "", 0),
        ("batch_tokens: 3072, seq_len: 128", "cpus: 16", "8 of the 16 CPU threads", 4096),
        ("batch_tokens: 1024, seq_len: 128, accumulate: 4", "gpus: 4, cpus: 2", "2 of the 4 GPUs", 2048),
        ("batch_tokens: 1152, seq_len: 128", "cpus: 1", "", 0),
    ],
)
def test_a_batch_that_leaves_devices_idle_is_said(train: str, resources: str, used: str, fitting: int) -> None:
    block = "{n_experts: [1, 8], d_model: [32, 64], tokens: [1M, 2M], seed: [0, 1]}"
    cells = read(block, f"train: {{{train}}}\nresources: {{{resources}}}\n")
    messages = training(cells, on="h100")
    assert len(messages) == bool(used)
    for message in messages:
        assert used in message
        assert f"such as {fitting}" in message
        assert "all cells" in message
        settings = cells.cells[0].train
        whole = fitting // settings.seq_len // settings.accumulate
        assert whole % int(used.split()[3]) == 0


def test_devices_are_counted_by_the_resources_of_each_shape() -> None:
    """250 sequences on 8 GPUs use two of them, on one all of it."""
    cells = read(
        "{d_model: [32, 64], tokens: 10M}",
        "train: {batch_tokens: 32000}\nresources: [{gpus: 1}, {where: d_model > 32, gpus: 8}]\n",
    )
    (message,) = training(cells, on="h100")
    assert "2 of the 8 GPUs" in message
    assert "the cell E=1 d=64" in message


# Each fault alone: the grid, what says so, and what does not have it.
COSTLY = {
    "narrow heads": ("{d_model: [256, 1024], tokens: 100M}", "train: {batch_tokens: 8192}\n", "64 heads", "d=1024"),
    "steps by the million": ("{d_model: 16, n_layers: 1, tokens: [100M, 600M]}", "", "1.17M optimiser steps", "D=600M"),
}


@pytest.mark.parametrize("fault", COSTLY)
def test_a_costly_setting_is_said_of_the_cells_that_have_it(fault: str) -> None:
    block, more, what, cell = COSTLY[fault]
    (message,) = training(read(block, more))
    assert what in message
    assert cell in message


def test_a_batch_far_from_the_published_rule_is_said_within_its_range() -> None:
    """.0694 C^.3644 tokens (arXiv 2507.17702): half a million at some 1e19 FLOPs, where 512 are a thousandth."""
    block = "{d_model: 512, d_head: 64, n_layers: 8, tokens: 10B, batch_tokens: [512, 512Ki]}"
    large = Machine(16, 8, 1e15)
    cells = read(block, "train: {seq_len: 512}\n")
    steps, batch = training(cells, large)
    rule = 0.0694 * train_flops(cells.cells[0]) ** 0.3644
    assert 2**19 / 8 < rule < 2**19 * 8
    assert si(rule, 2) in batch
    assert all("batch_tokens=512" in message for message in (steps, batch))
    # Another at 1e15 FLOPs is far outside what the rule was fitted to, which then says nothing.
    assert training(read("{d_model: 32, tokens: 5B, batch_tokens: 8192}"), large) == []


@pytest.mark.parametrize("cpus", [1, 4])
def test_cells_that_need_more_memory_than_the_machine_has_are_said(cpus: int) -> None:
    block = "{d_model: [64, 1024], tokens: 10M}"
    cells = read(block, f"model: {{d_head: 64}}\nresources: {{cpus: {cpus}}}\n")
    need = PROCESS_BYTES + cpus * training_memory_bytes(cells.cells[1])

    def at(memory: float, machine_cpus: int) -> list[str]:
        return training(cells, Machine(machine_cpus, 1, memory))

    assert at(1.01 * need, cpus) == []
    (alone,) = at(0.99 * need, cpus)
    assert "d=1024" in alone
    assert f"{need / 1e9:.3g} GB" in alone
    assert at(2.01 * need, 2 * cpus) == []
    (together,) = at(1.99 * need, 2 * cpus)
    assert "2 cells at a time" in together
    assert f"{2 * need / 1e9:.3g} GB" in together


def test_cells_that_no_gpu_holds_are_said_and_smaller_parts_of_the_batch_mend_it() -> None:
    block, more = "{d_model: [1024, 4096], tokens: 1B}", "model: {d_head: 128, n_layers: 24}\n"
    whole = "train: {batch_tokens: 262144, seq_len: 2048}\nresources: {gpus: 1}\n"
    cells = read(block, more + whole)
    found = [message for message in training(cells, on="h100") if "GPU at the peak" in message]
    assert len(found) == 1
    assert training_memory_bytes(cells.cells[1]) > device("h100").memory
    small = read(
        "{d_model: 1024, tokens: 1B}", "model: {d_head: 128}\n" + whole.replace("2048", "512, accumulate: 256")
    )
    assert training_memory_bytes(small.cells[0]) < device("h100").memory
    assert not [message for message in training(small, on="h100") if "GPU at the peak" in message]


def test_budgets_of_a_trunk_that_train_apart_are_said() -> None:
    block = "{d_model: [32, 64], tokens: [1M, 2M]}"
    (message,) = training(read(block, "resources: [{cpus: 1}, {where: tokens > 1M, cpus: 2}]\n"))
    assert "2 trunks more" in message
    assert training(read(block, "resources: [{cpus: 1}, {where: d_model > 32, cpus: 2}]\n")) == []


@pytest.fixture
def text(tmp_path: Path) -> Callable[[str], grid.Grid]:
    """A grid on a text of some 40,000 bytes."""
    for i in range(400):
        (tmp_path / f"{i:03}.txt").write_text(f"document {i} " * 8)

    def of(block: str) -> grid.Grid:
        more = "data: {corpus: files, paths: ['*.txt'], heldout_docs: 100}\ntrain: {warmup_tokens: 1K}\n"
        return grid.parse(f"study: a\ngrid: {block}\n{more}", tmp_path / "g.yaml")

    return of


def test_cells_with_more_tokens_than_the_text_are_said_once_it_is_prepared(
    text: Callable[[str], grid.Grid], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCALING_CACHE", str(tmp_path / "cache"))
    cells = text("{tokens: [10K, 60K, 300K], d_model: 32}")
    before = of_text(cells.cells, cell_labels(cells))
    assert before.lint == ()
    assert len(before.notes) == 1
    assert not (tmp_path / "cache").exists()  # nothing was made
    has = data.prepare(cells.cells[0].data).train_tokens
    after = of_text(cells.cells, cell_labels(cells))
    assert after.notes == ()
    (message,) = after.lint
    last = cells.cells[2]
    assert 10_000 < has < 60_000
    assert f"{last.steps * last.train.batch_tokens / has:.3g} times" in message
    assert "2 of 3 cells" in message


def test_a_text_that_is_not_here_is_said(tmp_path: Path) -> None:
    cells = read("{tokens: 1M}", f"data: {{corpus: files, paths: ['{tmp_path}/none/*.txt']}}\n")
    (message,) = of_text(cells.cells, cell_labels(cells)).lint
    assert "none/*.txt" in message


@pytest.mark.parametrize("machine", [Machine(4, 1, 1e12)])
def test_calls_start_in_order_when_their_resources_are_free(machine: Machine) -> None:
    """By hand: on four CPUs the first two fit, the third waits for both, the fourth for the third."""
    one, two, four = (read("{tokens: 1M}", f"resources: {{cpus: {n}}}\n").cells[0].resources for n in (1, 2, 4))
    assert machine.makespan([(5, one), (3, two), (2, four), (1, one)]) == 5 + 2 + 1
    assert machine.makespan([(5, one), (3, two), (4, one)]) == 5
    assert machine.makespan([]) == 0
    half = read("{tokens: 1M}", "resources: {gpus: 0.5}\n").cells[0].resources
    assert machine.makespan([(3, half), (3, half), (2, half)]) == 5
    assert (machine.at_once(two), machine.at_once(half)) == (2, 2)

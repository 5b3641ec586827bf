"""The work of a step and its time: terms by hand, and the blocks of the looping kernel by counting."""

from __future__ import annotations

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest

from analysis.latency.table import LOOP
from scaling.expert_rows import MAX_BLOCK, MIN_BLOCK, block_rows
from scaling.model.moe.dispatch import _blocks
from scaling.model.moe.kernels import KERNELS
from scaling.serving.devices import device
from scaling.serving.service import ModelSizes, Service
from scaling.serving.step_time import LEAST, TERMS, Efficiency, StepWork, looped
from scaling.serving.steps import prefill_work


def test_block_rows_are_the_largest_allowed_power_of_two():
    for tokens, top_k, n_experts in [(1, 1, 8), (64, 1, 8), (64, 2, 4), (500, 2, 8), (4096, 1, 4), (10**6, 2, 64)]:
        load = tokens * top_k / n_experts
        allowed = [2**j for j in range(12) if 2**j <= min(MAX_BLOCK, max(load / 2, min(MIN_BLOCK, load)))]
        assert block_rows(tokens, top_k, n_experts) == max(allowed, default=1)


@pytest.mark.parametrize(("top_k", "n_experts"), [(1, 4), (2, 8), (2, 16), (1, 32)])
def test_the_number_of_blocks_matches_random_routing(top_k, n_experts):
    """Counted: the tokens of each expert, rounded up to whole blocks. The formula assumes that they end evenly within
    the last block, which holds over many batch sizes (5 %) but for one size may be off by a fifth."""
    rng = np.random.default_rng(0)
    counted, formula = [], []
    for tokens in (4, 16, 64, 100, 180, 300, 450, 600, 1024, 2048):
        rows = block_rows(tokens, top_k, n_experts)
        chosen = np.argpartition(rng.random((25, tokens, n_experts)), top_k - 1, axis=2)[:, :, :top_k].reshape(25, -1)
        shares = np.stack([np.bincount(draw, minlength=n_experts) for draw in chosen])
        blocks, activated = np.ceil(shares / rows).sum(axis=1).mean(), (shares > 0).sum(axis=1).mean()
        padding, again = looped(tokens, activated, n_experts, top_k, 1.0)
        assert again == pytest.approx(blocks - activated, abs=0.2 * blocks)
        counted.append((blocks * rows, blocks - activated))
        formula.append((tokens * top_k + padding / 2.0, again))
    assert np.sum(formula, axis=0) == pytest.approx(np.sum(counted, axis=0), rel=0.05)
    in_use = _blocks(jnp.asarray(chosen[0]), n_experts, int(rows))[3]  # planned by the kernel for the largest batch
    assert int(in_use) == np.ceil(shares[0] / rows).sum()


def test_the_looping_kernel_exists():
    assert LOOP in KERNELS


def test_blocks_of_one_row_waste_nothing():
    padding, again = looped(np.array([1.0, 4.0]), np.array([2.0, 7.0]), 64, 2, 1e6)
    assert padding == pytest.approx(0.0)
    assert again == pytest.approx([0.0, 1e6])  # eight rows of seven experts


def test_only_a_looping_kernel_pays_for_padding_and_rereads_in_a_prefill():
    sizes = ModelSizes(7e8, 4.2e9, 2 * 8 * 1024, 8, 1024, n_experts=16, top_k=2, n_router=8 * 1024 * 16)
    on = device("h100")
    plain, loops = (prefill_work(sizes, on, 4, Service(prompt=256, loops=each)) for each in (False, True))
    padding, again = looped(1024, 16 * (1 - (1 - 2 / 16) ** 1024), 16, 2, sizes.n_expert)
    assert float(loops.flops - plain.flops) == pytest.approx(padding)
    assert (float(plain.rereads), float(loops.rereads)) == (0.0, pytest.approx(2 * again))  # bf16
    reached = Efficiency(0.5, 0.25, prompt_s=1e-3, reread=0.25)
    more = loops.seconds(on, reached) - plain.seconds(on, reached)
    assert more == pytest.approx(0.25 * 2 * again / on.bandwidth + 4 * padding / on.peak_flops)
    assert plain.prompts == 8
    assert plain.seconds(on, reached) - plain.seconds(on, Efficiency(0.5, 0.25)) == pytest.approx(8e-3)


def test_the_smallest_coefficients_give_the_roofline_and_overlap_takes_the_longer_term():
    on = device("h100")
    work = StepWork(layers=0.0, experts=0.0, activations=0.0, bytes=np.array([1e9, 1e6]), flops=1e11)
    reading, computing = np.array([1e9, 1e6]) / on.bandwidth, np.full(2, 1e11 / on.peak_flops)
    least = Efficiency.of(LEAST, "least")
    assert work.seconds(on, least) == pytest.approx(reading + computing)
    assert work.seconds(on, least, overlap=True) == pytest.approx(np.maximum(reading, computing))
    twice = replace(work, rereads=work.bytes).seconds(on, replace(least, reread=1.0), overlap=True)
    assert twice == pytest.approx(np.maximum(2 * reading, computing))
    assert len(LEAST) == len(TERMS)

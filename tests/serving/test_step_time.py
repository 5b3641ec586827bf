"""What a step asks, and its time: the terms by hand, and a kernel of blocks against blocks that are counted."""

from __future__ import annotations

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest

from analysis.latency.table import LOOP
from scaling.architecture import MAX_BLOCK, MIN_BLOCK, block_rows
from scaling.model.moe.dispatch import _blocks
from scaling.model.moe.kernels import KERNELS
from scaling.serving.devices import device
from scaling.serving.service import ModelSizes, Service
from scaling.serving.step_time import LEAST, TERMS, Efficiency, StepWork, looped
from scaling.serving.steps import prefill_work


def test_rows_of_a_block_are_the_largest_power_of_two_allowed():
    for tokens, top_k, n_experts in [(1, 1, 8), (64, 1, 8), (64, 2, 4), (500, 2, 8), (4096, 1, 4), (10**6, 2, 64)]:
        load = tokens * top_k / n_experts
        allowed = [2**j for j in range(12) if 2**j <= min(MAX_BLOCK, max(load / 2, min(MIN_BLOCK, load)))]
        assert block_rows(tokens, top_k, n_experts) == max(allowed, default=1)


@pytest.mark.parametrize(("top_k", "n_experts"), [(1, 4), (2, 8), (2, 16), (1, 32)])
def test_blocks_are_as_many_as_a_router_of_chance_fills(top_k, n_experts):
    """Counted: shares of experts, each rounded up to whole blocks. The end of a share lies anywhere in its last block
    where shares differ by more than a block or over many sizes of batch: 5 % over these; one size alone may be a fifth
    off."""
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
    in_use = _blocks(jnp.asarray(chosen[0]), n_experts, int(rows))[3]  # of the largest batch, by the kernel's own plan
    assert int(in_use) == np.ceil(shares[0] / rows).sum()


def test_the_kernel_of_blocks_is_one_there_is():
    assert LOOP in KERNELS


def test_blocks_of_one_row_waste_nothing():
    padding, again = looped(np.array([1.0, 4.0]), np.array([2.0, 7.0]), 64, 2, 1e6)
    assert padding == pytest.approx(0.0)
    assert again == pytest.approx([0.0, 1e6])  # eight rows of seven experts


def test_a_prefill_pays_for_prompts_padding_and_weights_read_again_and_only_where_a_kernel_loops():
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


def test_the_least_is_the_roofline_and_what_overlaps_is_the_longer():
    on = device("h100")
    work = StepWork(layers=0.0, experts=0.0, activations=0.0, bytes=np.array([1e9, 1e6]), flops=1e11)
    apart = np.array([1e9, 1e6]) / on.bandwidth, np.full(2, 1e11 / on.peak_flops)
    least = Efficiency.of(LEAST, "least")
    assert work.seconds(on, least) == pytest.approx(apart[0] + apart[1])
    assert work.seconds(on, least, overlap=True) == pytest.approx(np.maximum(*apart))
    twice = replace(work, rereads=work.bytes)
    assert twice.seconds(on, replace(least, reread=1.0), overlap=True) == pytest.approx(
        np.maximum(2 * apart[0], apart[1])
    )
    assert len(LEAST) == len(TERMS)

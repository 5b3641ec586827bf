"""The law of an expert kernel: planted coefficients come back, and tokens are dealt to experts as stated."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest

from analysis.latency.expert_kernel import (
    BF16,
    COEFFICIENTS,
    WIDE,
    ExpertKernelLaw,
    fit_expert_kernel,
    kernel_rows,
    left_out_predictions,
    read_kernel_rows,
    tokens_of_experts,
)
from scaling.errors import InputError
from scaling.serving.devices import device

ON = device("h100")
PLANTED = ExpertKernelLaw((25.0, 1.15, 1.7, 0.2, 0.6, 2.5, 30.0))
SHAPES = ((4096, 14336, 2, 8), (2048, 768, 8, 128), (2048, 1024, 8, 64), (7168, 2048, 8, 256))
TOKENS = (1, 2, 8, 32, 128, 512, 2048, 8192)


def _table(distribution: str = "balanced", devices: int = 1, kernel=BF16, shapes=SHAPES) -> pd.DataFrame:
    rows = [
        dict(zip(("hidden_size", "inter_size", "topk", "num_experts"), shape, strict=True)) | {"num_tokens": tokens}
        for shape, tokens in itertools.product(shapes, TOKENS)
    ]
    return pd.DataFrame(rows).assign(
        moe_tp_size=1, moe_ep_size=devices, distribution=distribution, moe_dtype=kernel.dtype,
        kernel_source=f"vllm_{kernel.source}", latency=1.0,
    )  # fmt: skip


@pytest.mark.parametrize("alpha", [0.0, 0.6, 1.01, 1.2])
@pytest.mark.parametrize(("tokens", "top_k", "n_experts"), [(1, 8, 128), (16, 8, 256), (64, 2, 8), (4096, 8, 64)])
def test_every_choice_is_dealt_and_no_token_takes_an_expert_twice(alpha, tokens, top_k, n_experts):
    counts = tokens_of_experts(tokens, top_k, n_experts, alpha)
    assert counts.sum() == pytest.approx(tokens * top_k)
    assert (counts > 0).all()
    assert counts.max() <= tokens
    assert len(counts) <= min(n_experts, tokens * top_k)
    if alpha == 0:
        assert np.ptp(counts) == 0


def test_planted_coefficients_come_back():
    table = _table().assign(latency=lambda t: 1e3 * PLANTED.seconds(kernel_rows(t, BF16, ON)))
    rows = kernel_rows(table, BF16, ON)
    law = fit_expert_kernel(rows)
    for name in COEFFICIENTS:
        assert law[name] == pytest.approx(PLANTED[name], rel=0.02), name
    assert left_out_predictions(rows, np.ones(len(rows), bool)) == pytest.approx(rows.frame["seconds"], rel=0.01)


def test_uneven_routing_is_faster_at_few_tokens_and_slower_at_many():
    even, uneven = (PLANTED.seconds(kernel_rows(_table(name), BF16, ON)) for name in ("balanced", "power_law_1.2"))
    ratio = (uneven / even).reshape(len(SHAPES), len(TOKENS))[3]  # of 256 experts
    assert ratio[TOKENS.index(32)] < 0.8
    assert ratio[TOKENS.index(2048)] > 1.05


def test_of_several_devices_the_busiest_counts():
    wide = (SHAPES[3],)
    even = PLANTED.seconds(kernel_rows(_table("uniform", 64, WIDE, wide), WIDE, ON))
    uneven = PLANTED.seconds(kernel_rows(_table("power_law_1.2", 64, WIDE, wide), WIDE, ON))
    alone = PLANTED.seconds(kernel_rows(_table("uniform", 1, WIDE, wide), WIDE, ON))
    large = TOKENS.index(8192)
    assert even[large] < alone[large] / 20
    assert uneven[large] > 2 * even[large]


def test_rows_of_split_and_plain_experts_are_left_out(tmp_path):
    table = pd.concat([_table(), _table().assign(moe_tp_size=2), _table().assign(inter_size=1856)])
    table.to_parquet(tmp_path / "kernels.parquet")
    assert len(read_kernel_rows(tmp_path / "kernels.parquet", BF16, ON)) == len(_table())
    table.drop(columns="topk").to_parquet(tmp_path / "kernels.parquet")
    with pytest.raises(InputError, match="topk"):
        read_kernel_rows(tmp_path / "kernels.parquet", BF16, ON)

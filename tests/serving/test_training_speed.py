"""What a training token costs in time: closed forms, units, draws, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from scaling.architecture import Architecture, Experts, HeadAttention, Layers, Mlp
from scaling.arrays import Values
from scaling.errors import InputError
from scaling.serving.devices import device
from scaling.serving.measured_range import MeasuredRange
from scaling.serving.service import ModelSizes
from scaling.serving.training_speed import MfuByExperts, TrainingLaw
from scaling.serving.training_work import LEAST, TERMS, TrainingWork

H100 = device("h100")
AT_PEAK = tuple(LEAST.tolist())


def law(
    coefficients: tuple[float, ...] = AT_PEAK, drawn: tuple[tuple[float, ...], ...] = (), **given: Any
) -> TrainingLaw:
    fields: dict[str, Any] = {"scatter": 0.1, "batch_tokens": 2**20, "seq_len": 2048} | given
    return TrainingLaw("a law", coefficients, drawn, source="planted", domain=MeasuredRange("it"), **fields)


def routed(n_experts: int = 8, top_k: int = 2, d_model: Values = 1024) -> ModelSizes:
    mlp = Experts(n_experts, top_k, 2 * d_model) if n_experts > 1 else Mlp(2 * top_k * d_model)
    return ModelSizes.of_architecture(
        Architecture("m", d_model, 32_000, (Layers(12, HeadAttention(8, 8, d_model / 8), mlp),))
    )


@pytest.mark.parametrize("n_experts", [1, 8])
def test_at_the_peak_a_token_takes_its_counted_flops(n_experts: int) -> None:
    """Three forward passes of all products: the architecture counts them independently."""
    model, tokens = routed(n_experts), 2**20
    described = Architecture(
        "m", 1024, 32_000, (Layers(12, HeadAttention(8, 8, 128),
                                   Experts(8, 2, 2048) if n_experts > 1 else Mlp(4096)),)
    )  # fmt: skip
    counts = described.parameters()
    weights = described.n_active() - counts["embedding"] - counts["norms"]
    flops = 3 * (2 * float(weights) + float(described.attention_flops(1024.0, decode=True)))
    counted = float(law(batch_tokens=tokens).seconds(model, H100)) * H100.peak_flops
    assert counted == pytest.approx(flops, rel=1e-4)  # norms are counted as products here: under .01 %


def test_what_a_step_does_once_is_shared_by_its_tokens() -> None:
    """Parameters of all experts are updated once a step: 28 bytes each over the bandwidth."""
    once = tuple(1.0 if name == "optimiser" else 0.0 for name in TERMS)
    model = routed()
    work = law(batch_tokens=1000).work(model)
    held = float(model.n_total + model.n_router)
    assert np.dot(once, work.terms(H100)) == pytest.approx(28 * held / H100.bandwidth / 1000)
    assert np.dot(once, law(batch_tokens=2000).work(model).terms(H100)) == pytest.approx(
        14 * held / H100.bandwidth / 1000
    )


def test_an_optimiser_that_fits_no_cache_costs_a_term_of_its_own() -> None:
    """28 bytes a parameter against the last cache; without caches in the device's row there is no such term."""
    place, model = [*TERMS].index("optimiser beyond caches"), routed()
    moved = 28 * float(model.n_total + model.n_router)
    work = law(batch_tokens=1000).work(model)
    for cache, factor in ((2 * moved, 0.0), (moved / 2, 1.0)):
        on = replace(H100, levels=((1e6, 1e13), (cache, 5e12)))
        assert work.terms(on)[place] == pytest.approx(factor * moved / H100.bandwidth / 1000)
    assert work.terms(H100)[place] == 0


def test_gradients_are_sent_between_devices_alone() -> None:
    place = [*TERMS].index("messages")
    one, four = (TrainingWork.of(routed(), 1000.0, 128.0, devices).terms(H100)[place] for devices in (1, 4))
    held = float(routed().n_total + routed().n_router)
    assert one == 0
    assert four == pytest.approx(4 * 1.5 * held / H100.link / 1000)


def test_padding_of_a_loop_over_blocks_is_computed_too() -> None:
    place = [*TERMS].index("expert products")
    plain, padded = (TrainingWork.of(routed(), 512.0, 128.0, loops=loops).terms(H100)[place] for loops in (False, True))
    assert 1.1 < padded / plain < 2


def test_draws_meet_models_one_a_row_and_none_is_faster_than_the_data_sheet() -> None:
    drawn = tuple(tuple(LEAST * factor + 1e-12) for factor in (1.0, 1.5, 2.0))
    speed = law(drawn[1], drawn, scatter=0.5)
    rows, models = speed.draws(64, 8), routed(d_model=np.array([512.0, 1024.0]))
    seconds = speed.seconds(models, H100, rows)
    assert seconds.shape == (64, 2)
    assert np.all(seconds >= law().seconds(models, H100))
    assert np.corrcoef(speed.draws(64, 8)[:, 3], speed.draws(64, 32)[:, 3])[0, 1] > 0.2  # half of it is common
    assert np.array_equal(rows, speed.draws(64, 8))


def test_a_share_of_the_peak_falls_with_experts() -> None:
    speed, model = MfuByExperts("a", 0.4, 0.23, "stated", 0.1, 0.08, 0.1), routed()
    assert float(speed.mfu_of(model, H100)) == pytest.approx(0.4 * 8**-0.23)
    drawn = speed.seconds(model, H100, speed.draws(400, 8))
    assert np.median(drawn) == pytest.approx(float(speed.seconds(model, H100)), rel=0.02)  # medians of 400 quantiles


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"coefficients": (1.0,)}, "coefficients"),
        ({"coefficients": (0.5, *AT_PEAK[1:])}, "dense products"),
        ({"drawn": ((*AT_PEAK[:-1], -1.0),)}, "messages"),
        ({"batch_tokens": 0.0}, "batch_tokens"),
        ({"scatter": -1.0}, "scatter"),
    ],
)
def test_impossible_laws_are_refused(given: dict[str, Any], named: str) -> None:
    with pytest.raises(InputError, match=named):
        law(**given)


def test_an_impossible_share_is_refused() -> None:
    with pytest.raises(InputError, match="mfu"):
        MfuByExperts("a", 40.0, 0.2, "percent")

"""Shipped speeds of models of any kind: times are finite, grow with the batch, and keep the roofline."""

from __future__ import annotations

import numpy as np
import pytest

from scaling.serving.devices import device
from scaling.serving.engine import iteration_terms, prompt_terms
from scaling.serving.precision import served_in
from scaling.serving.public_models import public_model
from scaling.serving.published_speeds import default_speed
from scaling.serving.service import Layout, ModelSizes, Service

BATCHES = np.array([1.0, 2, 4, 8, 16, 32, 64, 128, 256])


@pytest.mark.parametrize("name", ["llama-3.1-8b", "mixtral-8x7b", "qwen3-30b-a3b", "qwen3-235b-a22b", "olmoe-1b-7b"])
@pytest.mark.parametrize("on", ["h100", "b200"])
def test_time_is_plausible_against_the_roofline(name, on):
    sizes, speed, gpu = ModelSizes.of_architecture(public_model(name)), default_speed(on), device(on)
    service = served_in(Service(prompt=1024, generated=1024), gpu, weights="fp8")
    for devices in (1, 2, 4, 8):
        layout = Layout(devices)
        seconds = speed.seconds(iteration_terms(sizes, gpu, BATCHES, service, layout))
        assert np.isfinite(seconds).all()
        assert (np.diff(seconds) > 0).all()
        assert (np.diff(BATCHES / seconds) > 0).all()  # more sequences, more tokens a second
        # At least reading the active weights and multiplying; at most six times all that is read and multiplied, and
        # 150 us a layer.
        floor = np.maximum(sizes.n_active / gpu.bandwidth, 2 * BATCHES * sizes.n_active / gpu.peak("fp8")) / devices
        assert (seconds > floor).all()
        touched = np.minimum(sizes.n_total, sizes.n_active * BATCHES) / gpu.bandwidth / devices
        cached = 2.0 * BATCHES * sizes.kv_elements_per_token * service.mean_context / gpu.bandwidth / devices
        assert (seconds < 6 * (touched + cached + 2 * floor) + 150e-6 * sizes.n_layers).all()
        prompt = speed.seconds(prompt_terms(sizes, gpu, service, layout))
        assert 1024 * 2 * sizes.n_active / gpu.peak("fp8") / devices < prompt < 1.0


def test_more_devices_read_faster_but_not_in_proportion():
    sizes, speed, gpu = ModelSizes.of_architecture(public_model("mixtral-8x7b")), default_speed("h100"), device("h100")
    seconds = [speed.seconds(iteration_terms(sizes, gpu, 64.0, Service(), Layout(count))) for count in (1, 2, 4, 8)]
    gains = np.array(seconds[:-1]) / np.array(seconds[1:])
    assert (gains > 1).all()
    assert (gains < 2).all()

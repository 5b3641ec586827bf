"""The device table against chip specifications, and the measured CPU."""

import pytest

from scaling.errors import InputError
from scaling.serving import calibration
from scaling.serving.device import roofline_seconds
from scaling.serving.devices import device, names

# FLOP per clock of all matrix units times the clock, bus bits times bit/s per pin, links in one direction:
# SMs x tensor cores x multiply-adds x 2 (NVIDIA's architecture papers), matrix units x side^2 x 2 (Google's pages).
CHIPS = {
    "a100-40gb": (108 * 4 * 256 * 2 * 1.41e9, 5120 * 2.43e9, 12 * 25e9),
    "a100": (108 * 4 * 256 * 2 * 1.41e9, 5120 * 3.186e9, 12 * 25e9),
    "h100": (132 * 4 * 512 * 2 * 1.83e9, 5120 * 5.2344e9, 18 * 25e9),
    "h800": (132 * 4 * 512 * 2 * 1.83e9, 5120 * 5.2344e9, 8 * 25e9),
    "h200": (132 * 4 * 512 * 2 * 1.83e9, 6144 * 6.25e9, 18 * 25e9),
    "b200": (4.5e15 / 2, 8192 * 7.8125e9, 18 * 50e9),
    "b300": (4.5e15 / 2, 8192 * 7.8125e9, 18 * 50e9),
    "gb200": (360e15 / 2 / 72, 8192 * 7.8125e9, 18 * 50e9),
    "gb300": (360e15 / 2 / 72, 8192 * 7.8125e9, 18 * 50e9),
    "tpu-v5e": (4 * 128**2 * 2 * 1.5e9, 800e9 * 8, 1600e9 / 2 / 8),
    "tpu-v6e": (2 * 2 * 256**2 * 2 * 1.75e9, 1600e9 * 8, 3584e9 / 2 / 8),
}


def test_every_accelerator_of_the_table_is_checked():
    assert {*CHIPS, "cpu"} == {*names()}


@pytest.mark.parametrize("name", CHIPS)
def test_peaks_match_the_chip(name):
    """Dense peaks, bytes/s and one direction of the links: a factor of two is a mistake of units."""
    flops, memory_bits, link = CHIPS[name]
    row = device(name)
    assert row.peak_flops == pytest.approx(flops, rel=5e-3)
    assert row.bandwidth == pytest.approx(memory_bits / 8, rel=5e-3)
    assert row.link == pytest.approx(link, rel=1e-3)


def test_an_unknown_device_lists_the_known_ones():
    with pytest.raises(InputError, match=r"'h1000'.*a100.*tpu-v6e, cpu"):
        device("h1000")


def test_the_cpu_is_measured_on_this_machine():
    cpu = device("cpu")
    assert cpu.dtype == "float32"
    assert "measured" in cpu.source
    assert 1e8 < cpu.bandwidth < cpu.peak_flops < 1e14
    assert cpu is calibration.calibrate_cpu(), "measured once per process"


def test_roofline_is_the_slower_of_the_two_ceilings():
    h100 = device("h100")
    ridge = h100.peak_flops / h100.bandwidth
    assert roofline_seconds(h100.peak_flops, 1.0, h100) == pytest.approx(1.0)
    assert roofline_seconds(1.0, h100.bandwidth, h100) == pytest.approx(1.0)
    assert roofline_seconds(ridge * 1e9, 1e9, h100) == pytest.approx(1e9 / h100.bandwidth)

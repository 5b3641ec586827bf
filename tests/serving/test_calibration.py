"""The device table: physical sense, a source for every row, the CPU measured."""

import pytest

from scaling.errors import InputError
from scaling.serving import calibration
from scaling.serving.device import roofline_seconds
from scaling.serving.devices import NAMES, device

ACCELERATORS = [name for name in NAMES if name != "cpu"]


def test_the_promised_devices_are_there():
    assert {"a100", "h100", "h200", "b200", "tpu-v5e", "tpu-v6e", "cpu"} <= set(NAMES)


@pytest.mark.parametrize("name", ACCELERATORS)
def test_rows_are_in_units_and_say_where_they_come_from(name):
    row = device(name)
    assert row.name == name
    assert 1e14 < row.peak_flops < 1e16
    assert 1e11 < row.bandwidth < 1e13
    assert 1e10 < row.memory < 1e12
    # The ridge point of every accelerator of this decade lies at 100 to 600 FLOP per byte; a sparse peak or GB/s
    # written for bytes/s would fall outside.
    assert 100 < row.peak_flops / row.bandwidth < 600
    assert "data sheet" in row.source or "documentation" in row.source
    assert "placeholder" in row.price_source


def test_dense_peaks_by_their_arithmetic():
    # NVIDIA prints 624, 1979 and 4500 TFLOP/s of bf16 with 2:4 sparsity; dense is half.
    for name, sparse in {"a100": 624e12, "h100": 1978.9e12, "h200": 1978.9e12, "b200": 4500e12}.items():
        assert device(name).peak_flops == pytest.approx(sparse / 2, rel=1e-3)


def test_an_unknown_device_lists_what_is_allowed():
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

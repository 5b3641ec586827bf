"""A cell that is to have a GPU never becomes a CPU's in silence."""

import pytest

from scaling.config.run import RunConfig
from scaling.errors import InputError
from scaling.training.inference_bench import measure
from scaling.training.trunk import devices_of


@pytest.mark.parametrize("gpus", [0.5, 1, 8])
def test_a_cell_with_a_gpu_is_refused_where_there_is_none(gpus):
    config = RunConfig(resources={"gpus": gpus})
    for refused in (lambda: devices_of(config), lambda: devices_of(config, trunks=2), lambda: measure(config)):
        with pytest.raises(InputError, match=f"`resources.gpus` is {gpus:g}"):
            refused()
    assert len(devices_of(RunConfig())) == 1

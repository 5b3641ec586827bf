"""The kernel of a cell: fixed on CPU, else the fastest that runs, measured once."""

import sys
from pathlib import Path
from types import ModuleType

import jax
import pytest
from absl import flags

from scaling.config.model import ModelConfig
from scaling.config.run import RunConfig
from scaling.model.moe import dispatch, kernels
from scaling.training import kernel_choice

MODEL = ModelConfig(d_model=16, n_layers=1, n_experts=4, top_k=2, router="topk")


def test_the_kernel_on_cpu_is_fixed_and_dense_models_have_none() -> None:
    device = jax.devices()[0]
    assert kernel_choice.kernel_of(RunConfig(model=MODEL), device) == "loop"
    assert kernel_choice.kernel_of(RunConfig(model=MODEL), device, trunks=2) == "batched"
    assert kernel_choice.kernel_of(RunConfig(model=ModelConfig(d_model=16)), device) == ""
    dense = MODEL.model_copy(update={"dispatch": "dense"})
    assert kernel_choice.kernel_of(RunConfig(model=dense), device) == ""


def test_elsewhere_the_fastest_kernel_is_measured_once_and_cached(
    monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    monkeypatch.setenv("SCALING_CACHE", str(tmp_path))
    seconds = kernel_choice.measured(MODEL, 64, jax.devices()[0])
    assert {"loop", "batched", "ragged"} <= set(seconds)
    assert all(value > 0 for value in seconds.values())
    chosen = kernel_choice.fastest(MODEL, 64, jax.devices()[0])
    monkeypatch.setattr(kernel_choice, "measured", lambda *_, **__: pytest.fail("measured a second time"))
    assert kernel_choice.fastest(MODEL, 64, jax.devices()[0]) == chosen


@pytest.mark.parametrize("damaged", ["", "{", '{"fastest": 3}', '{"fastest": "slow"}', "[1]"])
def test_a_damaged_measurement_is_made_again(damaged: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCALING_CACHE", str(tmp_path))
    monkeypatch.setattr(kernel_choice, "measured", lambda *_, **__: {"loop": 2.0, "batched": 1.0})
    assert kernel_choice.fastest(MODEL, 64, jax.devices()[0]) == "batched"
    (file,) = (tmp_path / "kernels").glob("*.json")
    file.write_text(damaged)
    assert kernel_choice.fastest(MODEL, 64, jax.devices()[0]) == "batched"
    assert '"fastest": "batched"' in file.read_text()


def test_a_kernel_that_is_fast_and_wrong_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    right = kernel_choice.KERNELS["batched"]
    wrong = {"loop": right, "batched": lambda *inputs: 1.1 * right(*inputs)}
    monkeypatch.setattr(kernel_choice, "KERNELS", wrong)
    monkeypatch.setattr(dispatch, "KERNELS", wrong)
    assert [*kernel_choice.measured(MODEL, 32, jax.devices()[0], training=False)] == ["loop"]


def test_where_no_kernel_runs_the_reason_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise NotImplementedError("not on this device")

    monkeypatch.setattr(dispatch, "KERNELS", {"loop": fails})
    monkeypatch.setattr(kernel_choice, "KERNELS", {"loop": fails})
    with pytest.raises(NotImplementedError, match="not on this device"):
        kernel_choice.measured(MODEL, 32, jax.devices()[0])


def test_tokamax_does_not_read_the_command_line_of_this_program(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its flags are those of absl, which parses `sys.argv` at the first look, and ends at an option that is not its."""
    monkeypatch.setitem(sys.modules, "tokamax", ModuleType("tokamax"))
    fresh = flags.FlagValues()
    flags.DEFINE_bool("theirs", True, "a flag of the library", flag_values=fresh)
    monkeypatch.setattr(flags, "FLAGS", fresh)
    monkeypatch.setattr(sys, "argv", ["scaling", "--out", "folder"])
    assert kernels.tokamax_library() is sys.modules["tokamax"]
    assert flags.FLAGS.theirs

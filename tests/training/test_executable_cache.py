"""Cached programs: equal results, donated buffers, and damaged entries that are compiled again."""

import jax
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache

from scaling.config.model import ModelConfig
from scaling.config.training import TrainConfig
from scaling.training import executable_cache
from scaling.training.program import Program
from scaling.training.step import StepFunction

MODEL = ModelConfig(d_model=16, n_layers=1, n_experts=4, top_k=2, router="topk", d_head=8)
TRAIN = TrainConfig(batch_tokens=64, seq_len=16)


def made():
    return Program(StepFunction(MODEL, 33, TRAIN), jax.devices()[:1])


def steps(program):
    state, batch = program.first([0]), np.arange(4 * 17, dtype=np.int32).reshape(4, 17) % 33
    before = jax.tree.leaves(state)
    state, first = program.step(state, batch, np.float32(1e-2))
    assert any(leaf.is_deleted() for leaf in before), "the step takes over the buffers it is given"
    _, second = program.step(state, batch, np.float32(1e-2))
    return np.asarray([first, second])


@pytest.fixture
def own_cache_alone():
    """Without JAX's cache, which the environment may have switched on: once used, it stays in use until reset."""
    before = jax.config.values.get("jax_compilation_cache_dir")
    jax.config.update("jax_compilation_cache_dir", None)
    compilation_cache.reset_cache()
    yield
    jax.config.update("jax_compilation_cache_dir", before)
    compilation_cache.reset_cache()


@pytest.mark.usefixtures("own_cache_alone")
def test_a_cached_program_equals_the_compiled_one(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setenv("SCALING_CACHE", str(tmp_path))
    compiled = made()
    expected = steps(compiled)
    (entry,) = (tmp_path / "programs").iterdir()
    with monkeypatch.context() as patched:
        patched.setattr("scaling.training.program._compiled", lambda *_: pytest.fail("it was on disk"))
        loaded = made()
    np.testing.assert_array_equal(steps(loaded), expected)
    assert loaded.peak_bytes == compiled.peak_bytes

    entry.write_bytes(entry.read_bytes()[:1000])
    np.testing.assert_array_equal(steps(made()), expected)
    assert entry.stat().st_size > 1000  # written again

    monkeypatch.setattr(executable_cache, "code_version", lambda: "other")
    made()
    assert len(list((tmp_path / "programs").iterdir())) == 2

"""Cached programs: equal results, donated buffers; damaged or planted entries are compiled again and never run."""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache

from scaling.config.model import ModelConfig
from scaling.config.training import TrainConfig
from scaling.data.cache import programs_doubt, programs_folder
from scaling.training import executable_cache
from scaling.training.program import Program
from scaling.training.step import StepFunction

ROOT = Path(__file__).parents[2]
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


OF_LAPACK = """
import jax, numpy as np
from scaling.training.executable_cache import load_or_compile

def compiled():
    print("compiled")
    return (jax.jit(jax.numpy.linalg.qr).lower(np.ones((6, 4), np.float32)).compile(),)

(program,) = load_or_compile("qr", 0, jax.devices()[:1], compiled)
q, r = program(np.arange(24, dtype=np.float32).reshape(6, 4) ** 0.5)
print(np.abs(q @ r - np.arange(24).reshape(6, 4) ** 0.5).max() < 1e-5)
"""


def test_a_program_that_calls_lapack_runs_in_a_process_that_compiled_none(tmp_path) -> None:
    """A fresh process each, since JAX looks LAPACK up once. Its routine's address would be 0: a segmentation fault."""
    (tmp_path / "of_lapack.py").write_text(OF_LAPACK)  # the source of what compiles is part of an entry's name
    environment = {**os.environ, "SCALING_CACHE": str(tmp_path / "cache"), "JAX_COMPILATION_CACHE_DIR": ""}
    command = [sys.executable, str(tmp_path / "of_lapack.py")]
    first, second = (
        subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
        for _ in range(2)
    )
    assert first == ["compiled", "True"]
    assert second == ["True"]


@pytest.mark.usefixtures("own_cache_alone")
def test_a_cached_program_equals_the_compiled_one(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setenv("SCALING_CACHE", str(tmp_path))
    compiled = made()
    (entry,) = programs_folder().iterdir()
    expected = steps(compiled)
    assert (entry.stat().st_mode & 0o777, entry.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    with monkeypatch.context() as patched:
        patched.setattr("scaling.training.program._compiled", lambda *_: pytest.fail("it was on disk"))
        loaded = made()
    np.testing.assert_array_equal(steps(loaded), expected)
    assert loaded.peak_bytes == compiled.peak_bytes

    entry.write_bytes(entry.read_bytes()[:1000])
    np.testing.assert_array_equal(steps(made()), expected)
    assert entry.stat().st_size > 1000  # written again

    before = set(programs_folder().iterdir())
    monkeypatch.setattr(executable_cache, "code_version", lambda: "other")
    made()
    assert len(set(programs_folder().iterdir()) - before) == 1


class Planted:
    """Writes a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


def through_a_link(entry: Path) -> None:
    entry.rename(entry.with_suffix(".kept"))
    entry.symlink_to(entry.with_suffix(".kept"))


def beside_a_link(entry: Path) -> None:
    os.link(entry, entry.with_suffix(".twin"))


# How somebody else could have written the entry; then whether it is replaced by what was compiled.
PLANTED = {
    "trusted": (lambda entry: None, True),
    "a file that others may write": (lambda entry: entry.chmod(0o660), True),
    "a file that others may read": (lambda entry: entry.chmod(0o604), True),
    "a link": (through_a_link, True),
    "another name of the file": (beside_a_link, True),
    "a folder that a group may write": (lambda entry: entry.parent.chmod(0o770), False),
    "a folder that all may write": (lambda entry: entry.parent.chmod(0o707), False),
    "a cache that all may write": (lambda entry: entry.parents[1].chmod(0o777), False),
}


@pytest.mark.usefixtures("own_cache_alone")
@pytest.mark.parametrize("how", PLANTED)
def test_what_others_can_have_written_is_not_run(how: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SCALING_CACHE", str(tmp_path / "cache"))
    spoil, replaced = PLANTED[how]
    mark = tmp_path / "mark"

    def value(of: str) -> str:
        return executable_cache.load_or_compile("test", "key", jax.devices()[:1], lambda: (of,))[0]

    assert [value("first"), value("second")] == ["first", "first"]
    (entry,) = programs_folder().iterdir()
    entry.write_bytes(pickle.dumps(Planted(mark)))
    spoil(entry)
    try:
        assert value("third") == "third"
        assert mark.is_dir() == (how == "trusted"), "only the user's own file is loaded"
        assert value("fourth") == ("third" if replaced else "fourth")
        assert bool(programs_doubt()) is not replaced
        assert replaced or ("SCALING_CACHE" in programs_doubt() and str(tmp_path) in programs_doubt())
    finally:
        entry.parents[1].chmod(0o755)

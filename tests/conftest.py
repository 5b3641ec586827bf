"""Settings of every test: CPU, one thread, quick compilation, a cache of its own, no rank promotion."""

import gc
import os
import random
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

# Before JAX is imported. Programs of tests run for milliseconds, so LLVM's optimisation costs more than it saves, and
# so does XLA's newer way to emit fusions: without the two a program is compiled in a third of the time.
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["NPROC"] = "1"
os.environ["XLA_FLAGS"] = (
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true --xla_cpu_use_fusion_emitters=false"
)
os.environ["SCALING_CACHE"] = str(Path(tempfile.gettempdir()) / f"scaling-tests-{os.getuid()}")
os.environ["HF_HUB_OFFLINE"] = os.environ["HF_DATASETS_OFFLINE"] = "1"  # no test asks a network
os.environ["HF_HOME"] = str(Path(tempfile.gettempdir()) / f"scaling-tests-{os.getuid()}" / "huggingface")
os.environ["MPLBACKEND"] = "Agg"
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

from scaling.config.data import DataConfig
from scaling.config.model import ModelConfig
from scaling.config.run import RunConfig
from scaling.config.training import TrainConfig


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that take longest begin first, so that no worker waits for another at the end."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


@pytest.fixture(scope="module", autouse=True)
def _programs_go_with_their_module() -> Iterator[None]:
    """Compiled programs are held until they are cleared: those of all modules together took 4.6 GB a process."""
    yield
    if jax := sys.modules.get("jax"):
        jax.clear_caches()
        gc.collect()


def write_documents(folder: Path, count: int = 260, seed: int = 0) -> str:
    """Small text files with something to learn (a few words, repeated); returns the glob that reads them."""
    chance = random.Random(seed)
    words = ["expert", "router", "token", "width", "loss", "budget", "serve", "train", "fit", "law"]
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        text = " ".join(chance.choice(words) for _ in range(chance.randint(20, 60)))
        (folder / f"{number:04d}.txt").write_text(f"document {number}. {text}\n")
    return str(folder / "*.txt")


@pytest.fixture(scope="session")
def documents(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A glob over 260 small documents."""
    return write_documents(tmp_path_factory.mktemp("documents"))


@pytest.fixture(scope="session")
def micro(documents: str):
    """Makes micro cells: `micro(n_experts=4, tokens=4096, seed=1, lr=...)`, trained in about a second."""

    def make(**changes):
        model = {"d_model": 16, "d_head": 8, "n_layers": 1, "d_expert": 16}
        train = {"batch_tokens": 256, "seq_len": 32, "warmup_tokens": 512}
        data = {"corpus": "files", "paths": [documents], "heldout_docs": 100, "eval_windows": 2}
        top = {"tokens": 8192, "seed": 0, "study": "micro", "bench": {"batch": [1, 2], "context": [8], "repeats": 5}}
        kinds = [(model, ModelConfig), (train, TrainConfig), (data, DataConfig), (top, RunConfig)]
        for name, value in changes.items():
            place = next(part for part, kind in kinds if name in kind.model_fields)
            place[name] = value
        return RunConfig(model=model, train=train, data=data, **top)

    return make

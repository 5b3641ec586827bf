"""Other fitters of the law L = E + A/N^alpha + B/D^beta, each in a child of its own: `python -m benchmarks.fit_peers`.

The child answers the requests of `benchmarks.peer`, with the Python that $BENCH_PYTHON names where the peers live in an
environment of their own. It needs none of this project's dependencies beside NumPy.

    {"versions": true}                                                              {"chinchilla": "0.2.0" or null}
    {"levels": 3, "summed": false, "n": [...], "d": [...], "loss": [...]}    {"params": {...}, "cpu_s": seconds}
"""

from __future__ import annotations

import tempfile
import time
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from benchmarks.peer import serve

PEERS = ("chinchilla",)
HUBER_DELTA = 1e-3


def installed() -> dict[str, str | None]:
    """The version of each peer, None where it is not installed."""
    found: dict[str, str | None] = {}
    for name in PEERS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def chinchilla(levels: int, summed: bool, n: list[float], d: list[float], loss: list[float]) -> dict[str, Any]:
    """Parameters and CPU seconds of kyo-takano/chinchilla under log-Huber(1e-3), from `levels`^5 starts in this
    process.

    The grid spans what its README shows, where it has 5 levels. It minimises the mean of its loss function; `summed`
    multiplies that by the number of runs, which is the sum that the law's authors minimised.
    """
    import pandas as pd
    from chinchilla import Chinchilla
    from chinchilla._metrics import log_huber

    grid = {
        "E": np.linspace(1, 2, levels),
        "a": np.linspace(1, 10, levels),
        "b": np.linspace(1, 10, levels),
        "alpha": np.linspace(0.1, 0.7, levels),
        "beta": np.linspace(0.1, 0.7, levels),
    }
    factor = len(loss) if summed else 1

    def loss_fn(truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
        return factor * log_huber(truth, predicted, HUBER_DELTA)

    with tempfile.TemporaryDirectory() as folder:
        fitter = Chinchilla(folder, param_grid=grid, loss_fn=loss_fn, log_level=50)
        # Its own `append` rounds N, D and C to whole numbers and writes the whole table again for every row.
        runs = pd.DataFrame({"N": n, "D": d, "loss": loss})
        fitter.database.df = runs.assign(C=6 * runs["N"] * runs["D"])
        fitter.visualizer.optim = lambda *arguments, **options: None  # a figure at the end of a fit is not its cost
        started = time.process_time()
        fitter.fit(parallel=False)
        return {"cpu_s": time.process_time() - started, "params": fitter.params}


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """The answer to one request."""
    return installed() if "versions" in request else chinchilla(**request)


if __name__ == "__main__":
    serve(answer)

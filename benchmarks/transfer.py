"""What a learning rate costs that was found at the narrowest width and transferred to wider ones, by rule and by muP.

`python -m benchmarks.transfer STUDY [--json]` reads a study of learning rates by width, E and parametrisation
(`sweeps/grids/transfer.yaml`). The rate is a multiple of the default of each cell, `.005 (64 / width) (2 / layers)^.5`
with the cell's width by our rule and `base_width` by muP. For each E the best multiple at the narrowest width, where
both are the same model, is taken at every width: `excess` is the loss there minus the best found at that width, nats
per token. `dense` is the same with the multiple of E = 1 for all E. Differences below the spread between seeds mean
nothing: one seed says how far apart two rates are on the same data and weights, not how far apart two studies are.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.learning_rates import rate_optima
from scaling.config.training import peak_learning_rate
from scaling.errors import InputError
from scaling.parts.study_table import read_study_table

_STANDARD, _MUP = "standard", "mup"
COLUMNS = ["parametrisation", "n_experts", "d_model", "best_multiple", "multiple", "excess", "dense"]


def read_runs(study: Path) -> pd.DataFrame:
    """The finished runs of a study with `parametrisation` and `base_width`."""
    runs = read_study_table(study, "runs").rows.to_pandas()
    runs = runs[runs["status"] == "ok"].reset_index(drop=True)
    models = [json.loads(config)["model"] for config in runs["config"]]
    return runs.assign(
        parametrisation=[model.get("parametrisation", _STANDARD) for model in models],
        base_width=[model.get("base_width", np.nan) for model in models],
    )


def transferred(runs: pd.DataFrame) -> pd.DataFrame:
    """One row per parametrisation, E and width, in `COLUMNS`; multiples are of the default rate.

    Raises InputError if a width and E lack three rates, or E = 1 is not there.
    """
    narrowest = int(runs["d_model"].min())
    base = runs[runs["d_model"] == narrowest].assign(parametrisation=_MUP, base_width=narrowest)
    rows = []
    for name in (_STANDARD, _MUP):
        mine = runs[runs["parametrisation"] == name]
        if name == _MUP:
            mine = pd.concat([base, mine[mine["d_model"] > narrowest]])
        found = {int(e): _optima(part) for e, part in mine.groupby("n_experts")}
        if 1 not in found:
            raise InputError("no run with n_experts = 1, whose best rate the others are to take")
        multiples = {e: _best_multiple(optima, narrowest) for e, optima in found.items()}
        for e, part in mine.groupby("n_experts"):
            by_own, by_dense = (_optima(part, multiples[source]) for source in (int(e), 1))
            for (_, own), (_, dense) in zip(by_own.iterrows(), by_dense.iterrows(), strict=True):
                best = own["lr_optimum"] if np.isfinite(own["lr_optimum"]) else own["best_lr"]
                rows.append(
                    [
                        name,
                        int(e),
                        int(own["d_model"]),
                        best / own["default"],
                        multiples[int(e)],
                        own["excess"],
                        dense["excess"],
                    ]
                )
    return pd.DataFrame(rows, columns=COLUMNS)


def _default(row: pd.Series) -> float:
    width = row["d_model"] if row["parametrisation"] == _STANDARD else row["base_width"]
    return peak_learning_rate(int(width), int(row["n_layers"]))


def _optima(runs: pd.DataFrame, multiple: float = 1.0) -> pd.DataFrame:
    """Optima by width, and the loss at a multiple of the default rate."""
    optima = rate_optima(runs, lambda row: multiple * _default(row))
    return optima.assign(default=optima["rule_lr"] / multiple)


def _best_multiple(optima: pd.DataFrame, width: int) -> float:
    row = optima[optima["d_model"] == width].iloc[0]
    best = row["lr_optimum"] if np.isfinite(row["lr_optimum"]) else row["best_lr"]
    return float(best / row["default"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("study", type=Path)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    table = transferred(read_runs(options.study))
    if options.json:
        print(json.dumps(table.to_dict("records")))
        return
    print(table.to_string(index=False, float_format=lambda value: f"{value:.3g}"))
    worst = table[table["d_model"] > table["d_model"].min()].groupby("parametrisation")[["excess", "dense"]].max()
    print(f"\nmost that a transferred rate costs, nats per token:\n{worst.to_string(float_format='{:.3g}'.format)}")


if __name__ == "__main__":
    main()

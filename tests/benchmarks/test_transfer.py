"""What a transferred learning rate costs, on planted losses; and the grid that measures it."""

import numpy as np
import pandas as pd
import pytest

from benchmarks.transfer import transferred
from scaling.config.training import peak_learning_rate
from sweeps.grid import load_grid

CURVATURE, WIDTHS, MULTIPLES = 0.1, (32, 64, 128), (0.5, 1.0, 2.0, 4.0)


def runs(best):
    """Losses .1 ln(multiple / best)^2 above 2, with `best` by parametrisation, E and width."""
    rows = []
    for name in ("standard", "mup"):
        for width in WIDTHS if name == "standard" else WIDTHS[1:]:
            for n_experts in (1, 8):
                for multiple in MULTIPLES:
                    optimum = best(name if width > 32 else "both", n_experts, width)
                    default = peak_learning_rate(width if name == "standard" else 32, 2)
                    rows.append(
                        {"parametrisation": name, "base_width": 32.0, "n_experts": n_experts, "d_model": width,
                         "n_layers": 2, "top_k": 1, "batch_tokens": 512, "warmup_tokens": 1, "weight_decay": 0.1,
                         "seed": 0, "tokens": 1000, "lr": multiple * default,
                         "loss_val": 2 + CURVATURE * np.log(multiple / optimum) ** 2}
                    )  # fmt: skip
    return pd.DataFrame(rows)


def test_a_rate_that_transfers_costs_nothing_and_one_that_does_not_costs_its_distance():
    """Of the best run, which stands a little off the optimum: at most the curvature times half a step squared."""

    def best(name, n_experts, width):
        shift = 1.0 if n_experts == 1 else 0.8
        return shift * (1.2 if name != "standard" else 1.2 * width / 32)

    table = transferred(runs(best)).set_index(["parametrisation", "n_experts", "d_model"])
    off = CURVATURE * (np.log(2) / 2) ** 2
    for n_experts in (1, 8):
        for width in WIDTHS:
            assert -off <= table.loc[("mup", n_experts, width), "excess"] <= 1e-9
            assert table.loc[("mup", n_experts, width), "best_multiple"] == pytest.approx(best("mup", n_experts, 32))
        for width, doublings in ((64, 1), (128, 2)):
            expected = CURVATURE * np.log(2.0**doublings) ** 2
            assert table.loc[("standard", n_experts, width), "excess"] == pytest.approx(expected, abs=off)
    assert table.loc[("mup", 8, 64), "dense"] == pytest.approx(CURVATURE * np.log(0.8) ** 2, abs=off)


def test_the_grid_crosses_what_the_table_needs():
    cells = load_grid("transfer").cells
    assert len(cells) == 60
    for n_experts in (1, 8, 32):
        at_base = {
            cell.learning_rate for cell in cells if (cell.model.d_model, cell.model.n_experts) == (32, n_experts)
        }
        for width in (64, 128):
            mup, plain = (
                {
                    cell.learning_rate
                    for cell in cells
                    if cell.model.parametrisation == name
                    and (cell.model.d_model, cell.model.n_experts) == (width, n_experts)
                }
                for name in ("mup", "standard")
            )
            assert mup == at_base
            assert sorted(plain) == pytest.approx([rate * 32 / width for rate in sorted(at_base)])

"""What a design cannot say has a name, an axis to vary, and is refused where nothing can be said."""

from __future__ import annotations

import numpy as np
import pytest

from analysis.fitting.identifiability import condition_number, design_findings, flat_valley
from analysis.laws import HOFFMANN, JOINT_MOE, law_named


def columns_of(rows, names=("n_active", "tokens", "n_experts")):
    return {name: np.array(column, dtype=float) for name, column in zip(names, zip(*rows, strict=True), strict=False)}


SIZES, BUDGETS, EXPERTS = (1e8, 3e8, 1e9, 3e9), (2e9, 1e10, 5e10), (1, 2, 8, 32)
GRID = [(n, d, e) for n in SIZES for d in BUDGETS for e in EXPERTS]


def found_in(definition, rows, free=None, n_total=None):
    columns = {name: value for name, value in columns_of(rows).items() if name in definition.columns}
    return {
        one.name: one
        for one in design_findings(definition, columns, definition.names if free is None else free, n_total)
    }


def test_a_full_grid_leaves_nothing_open():
    total = np.array([n * (1 + 0.5 * e) for n, _, e in GRID])
    assert found_in(JOINT_MOE, GRID, n_total=total) == {}
    assert found_in(HOFFMANN, GRID) == {}


EIGHT_SIZES, EIGHT_BUDGETS = np.geomspace(1e8, 1e10, 8), np.geomspace(1e9, 1e11, 8)


@pytest.mark.parametrize(
    ("rows", "name", "vary", "refused"),
    [
        ([(n, 20 * n, e) for n in EIGHT_SIZES for e in EXPERTS],
         "constant-tokens-per-parameter", "tokens at a fixed size", True),
        ([(1e9, d, e) for d in EIGHT_BUDGETS for e in EXPERTS], "one-n_active", "n_active", True),
        ([(n, 2e10, e) for n in EIGHT_SIZES for e in EXPERTS], "one-tokens", "tokens", True),
        ([(n, d, 8) for n in SIZES for d in EIGHT_BUDGETS], "one-n_experts", "n_experts", False),
        ([(n, 20 * n ** 1.1, e) for n in EIGHT_SIZES for e in EXPERTS],
         "n_active-with-tokens", "tokens at a fixed size", False),
        ([(n, d, n / 1e8) for n in np.geomspace(1e8, 6.4e9, 7) for d in BUDGETS],
         "n_active-with-n_experts", "n_experts at a fixed n_active", False),
        ([(n, d, np.sqrt(n * d / 2e17)) for n in SIZES for d in BUDGETS],
         "experts-with-the-rest", "n_experts at a fixed size and tokens", False),
        (GRID[:7], "too-few-runs", "", True),
        (GRID[:11], "no-run-to-spare", "", False),
    ],
)  # fmt: skip
def test_each_lack_has_its_name_and_the_axis_to_vary(rows, name, vary, refused):
    finding = found_in(JOINT_MOE, rows)[name]
    assert (finding.vary, finding.refused) == (vary, refused)
    assert str(finding) == (f"{finding.message}; vary {vary}" if vary else finding.message)
    assert name not in found_in(JOINT_MOE, GRID)


def test_experts_that_grow_with_total_size_are_one_effect():
    rows = [(n, d, e) for n in (1e9, 1.02e9) for d in BUDGETS for e in (1, 2, 4, 8, 16)]
    total = np.array([e * n for n, _, e in rows])
    assert "experts-with-total-size" in found_in(JOINT_MOE, rows, n_total=total)


def test_pins_lift_the_refusal_of_what_they_hold():
    rows = [(n, 2e10, 1) for n in np.geomspace(1e8, 1e10, 8)]
    assert found_in(HOFFMANN, rows)["one-tokens"].refused
    assert "one-tokens" not in found_in(HOFFMANN, rows, free=("E", "A", "alpha"))


def test_farseer_wants_three_budgets_at_each_of_four_sizes():
    farseer = law_named("farseer")
    assert found_in(farseer, [(n, d, 1) for n in SIZES for d in BUDGETS]) == {}
    lacking = found_in(farseer, [(n, d, 1) for n in SIZES for d in BUDGETS if n < 3e9 or d < 1e10])
    assert lacking["too-few-levels"].refused


def test_a_flat_valley_names_who_trades_off_and_the_axis():
    """Two columns that are nearly one: the parameters of both, and of neither other, are named."""
    rng = np.random.default_rng(0)
    jacobian = rng.normal(size=(5, 40))  # E, A, alpha, B, beta
    jacobian[4] = jacobian[3] + 1e-5 * rng.normal(size=40)
    finding = flat_valley(HOFFMANN, HOFFMANN.names, jacobian)
    assert finding.name == "flat-valley"
    assert not finding.refused
    assert "B, beta trade off" in finding.message
    assert finding.vary == "tokens more widely"
    jacobian[4] = jacobian[3] * (1 + 1e-9)
    assert flat_valley(HOFFMANN, HOFFMANN.names, jacobian).refused
    assert flat_valley(HOFFMANN, HOFFMANN.names, rng.normal(size=(5, 40))) is None
    assert condition_number(np.zeros((2, 5))) == np.inf

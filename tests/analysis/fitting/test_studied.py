"""What a fit remembers of how its runs divided their compute, and which tokens per parameter follow as plausible."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest
from planted import hoffmann_runs, moe_grid, table_of

from analysis.fitting.fit import Fit, fit
from analysis.fitting.fit_file import parse_fit
from analysis.fitting.published import published
from analysis.fitting.studied import Studied, plausible_ratios, studied
from analysis.laws import HOFFMANN
from scaling.errors import InputError
from scaling.values import FIT


def of(low: float, high: float) -> Fit:
    return replace(published("chinchilla-epoch"), studied={1: Studied((low, high))})


def test_the_ratios_and_the_compute_of_every_e_are_those_of_its_rows():
    frame = moe_grid().assign(train_flops=lambda rows: 6.0 * rows["n_active"] * rows["tokens"])
    found = studied(table_of(frame))
    assert set(found) == set(frame["n_experts"])
    for e, runs in found.items():
        rows = frame[frame["n_experts"] == e]
        ratios = rows["tokens"] / rows["n_active"]
        assert runs.tokens_per_param == pytest.approx((ratios.min(), ratios.max()))
        assert runs.train_flops == pytest.approx((rows["train_flops"].min(), rows["train_flops"].max()))


def test_runs_without_an_expert_count_are_dense_and_rows_that_lack_a_number_are_passed_over():
    frame = hoffmann_runs()
    assert studied(table_of(frame))[1] == Studied((pytest.approx(6.0), pytest.approx(210.0)))
    partly = pd.concat([frame, frame.assign(n_active=float("nan"))], ignore_index=True)
    assert studied(table_of(partly))[1].tokens_per_param == pytest.approx((6.0, 210.0))
    assert studied(table_of(frame.drop(columns="n_active").assign(n_active_nonembed=1e6))) == {}


@pytest.mark.parametrize(
    ("runs", "expected"),
    [
        ((20.0, 60.0), (20 / 3, 180.0)),  # widened threefold
        ((6.0, 210.0), (5.0, 500.0)),  # within 5 to 500
        ((1.0, 100.0), (1.0, 300.0)),  # as far as runs of fewer go, and no farther
        ((0.5, 2.0), (0.5, 6.0)),
        ((600.0, 1000.0), (200.0, 1000.0)),
    ],
)
def test_plausible_is_the_range_studied_widened_threefold_within_the_usual_one(runs, expected):
    low, high = plausible_ratios(of(*runs))
    assert (low, high) == pytest.approx(expected)
    assert low <= runs[0]
    assert high >= runs[1]


def test_of_one_e_where_it_was_studied_else_of_all_and_the_usual_without_runs():
    several = replace(of(1, 1), studied={1: Studied((10.0, 20.0)), 8: Studied((30.0, 100.0))})
    assert plausible_ratios(several, 1) == (5.0, 60.0)
    assert plausible_ratios(several, 8) == (10.0, 300.0)
    assert plausible_ratios(several, 64) == plausible_ratios(several) == (5.0, 300.0)
    assert plausible_ratios(published("chinchilla-epoch")) == (5.0, 500.0)


def test_a_file_keeps_it_one_without_is_still_read_and_nonsense_is_refused():
    document = FIT.document(fit(table_of(hoffmann_runs()), HOFFMANN))
    assert parse_fit(document, "f").studied == {1: Studied((pytest.approx(6.0), pytest.approx(210.0)))}
    assert parse_fit({k: v for k, v in document.items() if k != "studied"}, "f").studied == {}
    for wrong in ([20.0, 6.0], [-1.0, 6.0]):
        document["studied"]["1"]["tokens_per_param"] = wrong
        with pytest.raises(InputError, match=r"studied\.1\.tokens_per_param"):
            parse_fit(document, "f")

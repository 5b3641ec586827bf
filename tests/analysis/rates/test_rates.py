"""`scaling.rates`: planted slopes by arm, windows, theory, the best value of a setting, files, and refusals."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from planted_rates import LEVELS, power, replicates, write_rates

import scaling
from analysis.rates.rates import read_rates
from analysis.rates.table import read_replicates
from scaling.errors import InputError
from scaling.files import write_json

SLOPES = {0: -0.5, 1: -1.0, 2: -1.5}
CELLS = [{"order": order, "samples": n} for order in SLOPES for n in LEVELS]
EXACT = replicates(CELLS, lambda cell: 3.0 * cell["samples"] ** SLOPES[cell["order"]], count=1, noise=0.0)


def noisy(**how) -> pd.DataFrame:
    return replicates(CELLS, lambda cell: 3.0 * cell["samples"] ** SLOPES[cell["order"]], **how)


@pytest.fixture(scope="module")
def found():
    return scaling.rates(noisy(count=30), metric="risk", axis="samples", by="order", theory="-(order + 1) / 2")


# ------------------------------------------------------------------------------------------------------------- slopes


def test_every_arm_has_its_slope_and_theory_its_verdict(found):
    assert [rate.arm for rate in found.rates] == [{"order": 0}, {"order": 1}, {"order": 2}]
    for rate in found.rates:
        # ln of a mean of 30 has standard deviation .3 / sqrt 30 = .055; over six levels whose ln x has a sum of squares
        # of 23, the slope has .055 / sqrt 23 = .011: five of them.
        assert rate.slope == pytest.approx(SLOPES[rate.arm["order"]], abs=0.057)
        low, high = rate.interval
        assert low < rate.slope < high
        assert high - low == pytest.approx(4 * 0.0114, rel=0.5)
        assert rate.theory == SLOPES[rate.arm["order"]]
        assert rate.verdict == ("inside" if low <= rate.theory <= high else "outside")
        assert rate.least <= rate.slope <= rate.most
        assert np.exp(rate.log_coefficient) == pytest.approx(3.0, rel=0.5)
    assert found.headline.startswith("Slopes of risk in samples: ")


def test_theory_may_be_any_function_of_what_is_constant_in_an_arm():
    found = scaling.rates(EXACT, metric="risk", axis="samples", by="order", theory="-min(order + 1, 2) / 2")
    assert [rate.theory for rate in found.rates] == [-0.5, -1.0, -1.0]


def test_a_wrong_theory_is_outside():
    (rate,) = scaling.rates(noisy(count=30), metric="risk", axis="samples", where="order == 0", theory=-0.7).rates
    assert rate.verdict == "outside"
    assert rate.difference == pytest.approx(0.2, abs=0.06)


def test_without_noise_slopes_are_exact_and_have_no_interval():
    for average in ("geometric", "arithmetic", "median"):
        found = scaling.rates(EXACT, metric="risk", axis="samples", by="order", average=average, theory=-1)
        for rate in found.rates:
            slopes = [rate.slope, *(one.slope for one in (*rate.windows, *rate.local))]
            assert slopes == pytest.approx([SLOPES[rate.arm["order"]]] * len(slopes), abs=1e-10)  # rounding
            assert (rate.interval, rate.verdict, rate.bent) == (None, "no interval", False)
            assert rate.rmse_log == pytest.approx(0.0, abs=1e-12)
        assert any("fewer than 5 replicates" in warning for warning in found.warnings)


def test_the_axis_may_be_arithmetic_on_columns():
    """theta ~ (log(n)/n)^.451 of arXiv 2505.10860 has that slope against log(n)/n, and another against n."""
    frame = replicates(
        [{"samples": n} for n in LEVELS], lambda c: (np.log(c["samples"]) / c["samples"]) ** 0.451, count=1, noise=0.0
    )
    (rate,) = scaling.rates(frame, metric="risk", axis="log(samples)/samples").rates
    assert rate.slope == pytest.approx(0.451, abs=1e-10)  # rounding
    assert rate.points[0].x < rate.points[-1].x
    (against_n,) = scaling.rates(frame, metric="risk", axis="samples").rates
    assert -0.451 < against_n.slope < -0.35


def test_the_stated_window_and_all_others():
    """A slope of -.25 up to 1,000 samples and of -.5 from there: the window decides what is seen."""

    def law(cell):
        return (cell["samples"] / 1000) ** (-0.25 if cell["samples"] <= 1000 else -0.5)

    frame = replicates([{"samples": n} for n in LEVELS], law, count=1, noise=0.0)
    asked = {"metric": "risk", "axis": "samples", "least_levels": 3}
    (late,) = scaling.rates(frame, window="samples >= 1000", **asked).rates
    assert late.slope == pytest.approx(-0.5, abs=1e-10)  # rounding
    assert (late.stated.first, late.stated.last, late.stated.levels) == (1000, 30_000, 4)
    assert (late.least, late.most) == pytest.approx((-0.5, -0.25), abs=1e-10)
    assert [point.inside for point in late.points] == [n >= 1000 for n in LEVELS]
    assert [one.slope for one in late.local] == pytest.approx([-0.25, -0.25, -0.5, -0.5, -0.5])
    (whole,) = scaling.rates(frame, **asked).rates
    assert -0.5 < whole.slope < -0.25
    noisy_one = replicates([{"samples": n} for n in LEVELS], law, count=50, noise=0.2)
    told = scaling.rates(noisy_one, **asked)
    assert told.rates[0].bent
    assert any("changes along the axis" in warning for warning in told.warnings)


def test_the_average_is_a_choice():
    """Of log-normal replicates the arithmetic mean is exp(sd^2 / 2) times the geometric one, which is the median."""
    frame = replicates([{"samples": n} for n in LEVELS], power(-0.5), count=4000, noise=0.8)
    values = {
        average: scaling.rates(frame, metric="risk", axis="samples", average=average, bootstrap=0).points()["value"]
        for average in ("geometric", "arithmetic", "median")
    }
    # A mean of 4,000 has a standard error of .8 / 63 = 1.3 %, the median of 1.6 %; six levels: four of them.
    assert (values["arithmetic"] / values["geometric"]).to_numpy() == pytest.approx(np.exp(0.32), rel=0.06)
    assert (values["median"] / values["geometric"]).to_numpy() == pytest.approx(1.0, rel=0.06)


# ---------------------------------------------------------------------------------------------- the best of a setting


def risk(cell, r: int) -> float:
    """Squared error of m polynomial experts of order r - 1 (arXiv 1110.2058): approximation plus estimation."""
    return cell["n_experts"] ** (-2.0 * r) + cell["n_experts"] / cell["samples"]


def best(r: int, samples: float) -> float:
    """The m at which that is least: 2 r m^(-2r - 1) = 1 / n."""
    return (2 * r * samples) ** (1 / (2 * r + 1))


@pytest.mark.parametrize("r", [1, 2, 3])
def test_the_best_number_of_experts_grows_as_theory_says(r):
    """s/(2r + s) with s = 1. From level to level the best m moves by whole steps of the grid, so that the parabola is
    off by the same factor everywhere, and the slope is exact.

    That factor, with steps of h in ln m: about the minimum of ln(e^(-2ru) + e^u) the third derivative is -(2r - 1)
    times the second, so the vertex is too large by (2r - 1) h^2 / 6 to first order; higher ones take a quarter off.
    """
    step = 2.0 ** (2 * r + 1)
    levels = [100 * step**k for k in range(4)]
    grid = 2.0 ** (np.arange(-2, 14) / 2) * best(r, levels[0])
    cells = [{"n_experts": float(m), "samples": n} for n, m in itertools.product(levels, grid)]
    frame = replicates(cells, lambda cell: risk(cell, r), count=1, noise=0.0)
    theory = 1 / (2 * r + 1)
    (rate,) = scaling.rates(frame, metric="risk", axis="samples", optimum_over="n_experts", theory=theory).rates
    assert rate.slope == pytest.approx(theory, abs=1e-9)  # rounding
    assert rate.grid_slope == pytest.approx(theory, abs=1e-9)
    off = (2 * r - 1) * np.log(np.sqrt(2)) ** 2 / 6
    for point, n in zip(rate.points, levels, strict=True):
        assert point.value == pytest.approx(best(r, n) * np.exp(off), rel=0.4 * off)
        assert not point.edge


def test_a_best_value_at_an_end_of_what_was_run_is_in_no_slope():
    levels = [1e2, 1e3, 1e4, 1e5, 1e9]
    cells = [{"n_experts": m, "samples": n} for n, m in itertools.product(levels, (1, 2, 4, 8, 16, 32, 64, 128))]
    frame = replicates(cells, lambda cell: risk(cell, 1), count=1, noise=0.0)
    asked = {"metric": "risk", "axis": "samples", "optimum_over": "n_experts"}
    found = scaling.rates(frame, **asked)
    (rate,) = found.rates
    assert [point.edge for point in rate.points] == [False, False, False, False, True]
    assert rate.stated.last == 1e5
    assert rate.slope == pytest.approx(1 / 3, abs=0.05)
    assert any("at an end of what was run" in warning for warning in found.warnings)
    with pytest.raises(InputError, match="2 with the best n_experts at an end of what was run"):
        scaling.rates(frame[frame["samples"].isin([1e5, 1e9]) & (frame["n_experts"] < 16)], **asked)


def test_a_return_is_best_where_it_is_highest(monkeypatch):
    cells = [{"n_experts": m, "samples": n} for n, m in itertools.product(LEVELS, (1, 2, 4, 8, 16, 32, 64))]
    frame = replicates(cells, lambda cell: 1 / risk(cell, 1), count=1, noise=0.0)

    def higher(source, metric, where=None):
        return replace(read_replicates(source, metric, where), better="higher")

    monkeypatch.setattr("analysis.rates.face.read_replicates", higher)
    found = scaling.rates(frame, metric="risk", axis="samples", optimum_over="n_experts")
    for point, n in zip(found.rates[0].points, LEVELS, strict=True):
        assert point.value == pytest.approx(best(1, n), rel=0.2)  # the grid's step is a factor of 2


def test_replicates_shared_over_the_setting_narrow_the_interval_of_its_best_value():
    """Noise that all m share moves the curve and not its minimum."""
    cells = [{"n_experts": m, "samples": n} for n, m in itertools.product(LEVELS, (1, 2, 4, 8, 16, 32, 64))]
    widths = []
    for shared in (0.0, 0.99):
        frame = replicates(cells, lambda cell: risk(cell, 1), count=40, noise=0.3, shared=shared)
        (rate,) = scaling.rates(frame, metric="risk", axis="samples", optimum_over="n_experts").rates
        widths.append(rate.interval[1] - rate.interval[0])
    assert widths[1] < 0.3 * widths[0]  # noise of its own is sqrt(.01) = .1 of the other's


# ----------------------------------------------------------------------------------------- files, frames and pictures


def test_a_study_folder_gives_what_its_frame_gives(tmp_path):
    frame = noisy(count=6)
    study = write_rates(tmp_path / "planted", frame)
    of_frame = scaling.rates(frame, metric="risk", axis="samples", by="order")
    for source in (study, str(study), scaling.study(study)):
        of_study = scaling.rates(source, metric="risk", axis="samples")
        assert of_study.question.by == ("order",)  # what varies besides the axis
        assert of_study.table().round(9).equals(of_frame.table().round(9))


def test_the_same_seed_gives_the_same_intervals():
    asked = {"metric": "risk", "axis": "samples", "by": "order", "bootstrap": 200}
    frame = noisy(count=8)
    one, again, other = (scaling.rates(frame, seed=seed, **asked).table() for seed in (0, 0, 1))
    assert one.equals(again)
    assert not one["low"].equals(other["low"])
    assert one["slope"].equals(other["slope"])


def test_a_file_of_rates_gives_them_back(found, tmp_path):
    write_json(tmp_path / "rates.json", found.to_json())
    assert read_rates(tmp_path / "rates.json") == found
    write_json(tmp_path / "other.json", {"law": "hoffmann", "params": {}})
    with pytest.raises(InputError, match="not a file of rates"):
        read_rates(tmp_path / "other.json")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda document: document.update(rates=[]), "rates need arms"),
        (lambda document: document["rates"][0]["arm"].update(gate="softmax"), "each with a value of order"),
        (lambda document: document["rates"][1].update(points=[]), "levels in its stated window"),
        (lambda document: document["rates"][1]["stated"].update(slope="steep"), r"rates\[1\].stated.slope"),
        (lambda document: document["question"].update(average="mode"), "average"),
    ],
)
def test_a_damaged_file_of_rates_is_named(found, tmp_path, change, told):
    document = found.to_json()
    change(document)
    write_json(tmp_path / "rates.json", document)
    with pytest.raises(InputError, match=rf"rates.json \(file of rates.*{told}"):
        read_rates(tmp_path / "rates.json")


def test_tables_and_summary_say_what_was_found(found):
    assert list(found.table()["order"]) == [0, 1, 2]
    assert len(found.points()) == 18
    assert len(found.local()) == 15
    assert len(found.windows()) == 3 * 6  # windows of four to six of six levels: 3 + 2 + 1
    text = repr(found)
    assert "theory" in text
    assert "geometric mean over replicates" in text


# ------------------------------------------------------------------------------------------------------------ refusals


def refused(frame, match, **asked):
    with pytest.raises(InputError, match=match):
        scaling.rates(frame, **{"metric": "risk", "axis": "samples", **asked})


def test_what_has_no_slope_is_refused_with_its_place():
    refused(EXACT[EXACT["samples"] == 100], "order 0 has 1 level of samples.*a slope needs 2 levels", by="order")
    outside = "order 0 has 6 levels of samples, 0 of them in the stated window"
    refused(EXACT, outside, by="order", window="samples > 1e9")
    zero = EXACT.assign(risk=np.where(EXACT["samples"] == 300, 0.0, EXACT["risk"]))
    refused(zero, r"risk is not positive in 3 of 18 values: row 2 replicate 0/0 \(0\), row 8", by="order")
    refused(EXACT.assign(samples=1), r"`axis` 'log\(samples\)' must be a positive", axis="log(samples)", by="order")
    refused(EXACT, "no column 'gate'", by="gate")
    refused(EXACT, "no column 'frames'", axis="frames", by="order")
    refused(EXACT, "not neighbours", by="order", window="samples != 1000")


def test_runs_of_different_settings_are_not_averaged(tmp_path):
    refused(EXACT, "runs that differ in order.*would be averaged")
    study = write_rates(tmp_path / "planted", noisy(count=3))
    refused(study, "runs that differ in order.*would be averaged", by=())
    other_seeds = noisy(count=3).assign(seed=lambda frame: frame["order"])
    refused(write_rates(tmp_path / "seeds", other_seeds), "runs that differ in order", by=())
    numbered = EXACT.assign(replicate=range(len(EXACT)))
    refused(pd.concat([numbered, numbered]), "runs that differ in order would be averaged")
    refused(pd.concat([EXACT, EXACT]), "replicate 0/0 .*more than once", by="order")


def test_wrong_questions_are_named():
    refused(EXACT, "`average` must be one of", average="harmonic")
    refused(EXACT, "`least_levels` must be at least 2", by="order", least_levels=1)
    refused(EXACT, "`theory`.*several values in the arm", by="order", theory="-samples")
    refused(EXACT, "`theory`.*is no finite number", by="order", theory="1/(order - order)")
    refused(EXACT, "`optimum_over` order is in `by`", by="order", optimum_over="order")
    with pytest.raises(InputError, match="did you mean `axis`"):
        scaling.rates(EXACT, metric="risk", axes="samples")  # type: ignore[call-arg]

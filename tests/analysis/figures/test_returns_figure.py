"""The figures of returns: rows in the order of the answer, bands and costs as they are in it."""

from __future__ import annotations

from pathlib import Path

import planted_returns
import pytest
from matplotlib.text import Annotation

import scaling
from analysis.figures.returns import bands_of, overview
from analysis.figures.style import save


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> scaling.ReturnsComparison:
    folder = planted_returns.write_value_rl(tmp_path_factory.mktemp("returns") / "planted")
    asked = ["experts: soft 4 - soft-one-wide 4 within .1", "gain: soft 4 - dense 1"]
    return scaling.returns(folder, baseline="dense 1", contrasts=asked, bootstrap=200)


def test_rows_are_arms_and_pairs_with_the_best_on_top(found: scaling.ReturnsComparison) -> None:
    page = found.plot()
    titles = [ax.get_title(loc="left") for ax in page.axes]
    assert titles == [
        "Interquartile mean", "Probability of improvement", "Pairs of arms", "Performance profiles",
        "While it learns", "Against parameters", "Against FLOPs of a forward pass",
    ]  # fmt: skip
    scores, _, pairs = page.axes[:3]
    assert [label.get_text() for label in scores.get_yticklabels()][::-1] == [arm.name for arm in found.arms]
    dots = [line for line in scores.lines if line.get_marker() == "o"]
    assert [float(dot.get_xdata()[0]) for dot in reversed(dots)] == [arm.iqm.estimate for arm in found.arms]
    assert len(pairs.get_yticklabels()) == 2
    assert pairs.get_yticklabels()[-1].get_text() == "experts: soft 4 − soft-one-wide 4"


def test_bands_and_costs_are_those_of_the_answer(found: scaling.ReturnsComparison) -> None:
    profiles, curves, parameters, _ = found.plot().axes[3:]
    named = bands_of(found)
    assert named[:3] == ["dense 1", "soft 4", "soft-one-wide 4"]
    assert [tuple(line.get_ydata()) for line in profiles.lines] == [found[name].profile.estimate for name in named]
    assert found.curves is not None
    assert [tuple(line.get_xdata()) for line in curves.lines] == [found.curves.by_arm[name].x for name in named]
    places = {(float(line.get_xdata()[0]), float(line.get_ydata()[0])) for line in parameters.lines}
    assert places == {(arm.measures["n_parameters"], arm.iqm.estimate) for arm in found.arms}


def test_names_of_arms_that_cost_and_score_alike_stay_inside_their_panel(tmp_path: Path) -> None:
    import pandas as pd

    rows = [
        {"arm": arm, "seed": seed, "score": seed + 50.0 * (arm == "h"), "n_parameters": 1000 * (1 + (arm == "h"))}
        for arm in "abcdefgh"
        for seed in range(4)
    ]
    page = scaling.returns(pd.DataFrame(rows), baseline="a", by="arm", metric="score", bootstrap=200).plot()
    (costs,) = [ax for ax in page.axes if ax.get_title(loc="left") == "Against parameters"]
    low, high = costs.get_ylim()
    places = sorted(name.xy[1] for name in costs.texts if isinstance(name, Annotation))
    assert len(places) == 8
    assert low < places[0]
    assert places[-1] < high


def test_a_comparison_without_curves_and_costs_has_what_is_left(tmp_path: Path) -> None:
    import pandas as pd

    rows = [
        {"arm": arm, "seed": seed, "score": seed + more} for arm, more in (("a", 0.0), ("b", 3.0)) for seed in range(4)
    ]
    page = scaling.returns(pd.DataFrame(rows), baseline="a", metric="score", bootstrap=200).plot()
    assert len(page.axes) == 3
    assert save(page, tmp_path / "returns.svg").stat().st_size > 1000


def test_the_first_page_has_the_arms_alone(found: scaling.ReturnsComparison) -> None:
    assert len(overview(found).axes) == 2

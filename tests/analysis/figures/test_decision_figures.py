"""The figures of the decision draw what they are given: places of artists, labels, colours; and every label is
legible."""

from functools import partial

import matplotlib.colors as mc
import numpy as np
import pandas as pd
import pytest
from legible import assert_legible

from analysis import figures
from analysis.figures.style import ACCENT, MUTED

EXPERTS = (1, 4, 8, 16)
PALETTE = figures.colours(EXPERTS)
LEVELS = np.linspace(2.0, 2.2, 5)
# Costs that cross: the more experts, the flatter; the cheapest at each loss is on the front.
FRONT = pd.DataFrame(
    [
        {"n_experts": e, "loss": loss, "cost": 1e20 * (loss - 1.6) ** -4 * np.exp(3 * np.log2(e) * (loss - 2.12))}
        for e in EXPERTS for loss in LEVELS
    ]
).assign(on_front=lambda rows: rows["cost"] == rows.groupby("loss")["cost"].transform("min"))  # fmt: skip
CHOSEN = (float(FRONT["cost"].median()), 2.1)
BUDGETS, VOLUMES = 1e21 * np.geomspace(0.1, 10, 5), 1e12 * np.geomspace(1e-2, 1e2, 3)
BEST = np.array([[1, 1, 4], [1, 4, 8], [4, 8, 8], [8, 8, 16], [8, 16, -1]])
ASKED = (1e21, 1e12)
LOADS = np.geomspace(1e5, 1e9, 60)
PRICES = pd.DataFrame(
    [
        {"n_experts": e, "requests_per_month": load, "usd_per_million": 1e6 * gpus * np.ceil(load / capacity) / load}
        for e, gpus, capacity in ((1, 1, 1e6), (4, 2, 4e6), (8, 4, 3e7)) for load in LOADS
    ]
)  # fmt: skip
OVERTAKINGS = pd.DataFrame({"before": [1], "after": [8], "requests_per_month": [2e7], "usd_per_million": [0.3]})
CASES = pd.DataFrame(
    [("tokens served: tenfold", 8, 3.4, False), ("budget: half", 4, 0.6, True), ("memory: half", np.nan, np.nan, True),
     ("data: 1.2e+10 tokens", 1, 1.1, True)],
    columns=["case", "n_experts", "times", "changes"],
)  # fmt: skip
PANELS = {
    "pareto": partial(
        figures.pareto, FRONT, CHOSEN, PALETTE, unit="FLOP",
        cost_interval=(0.8 * CHOSEN[0], 1.3 * CHOSEN[0]), loss_interval=(2.08, 2.13),
    ),
    "pareto without intervals": partial(figures.pareto, FRONT, CHOSEN, PALETTE, unit="USD"),
    "pareto with endless intervals": partial(
        figures.pareto, FRONT, CHOSEN, PALETTE, unit="FLOP",
        cost_interval=(1e-3 * CHOSEN[0], 1e6 * CHOSEN[0]), loss_interval=(0.5, 9.0),
    ),
    "plane": partial(figures.best_experts, BUDGETS, VOLUMES, BEST, PALETTE, asked=ASKED, most_budget=4e21),
    "plane within": partial(figures.best_experts, BUDGETS, VOLUMES, BEST, PALETTE, asked=ASKED),
    "load": partial(figures.cost_against_load, PRICES, OVERTAKINGS, PALETTE, asked=1e7),
    "load, none asked": partial(figures.cost_against_load, PRICES, OVERTAKINGS.iloc[:0], PALETTE),
    "cases": partial(figures.what_if_cases, CASES),
}  # fmt: skip


def drawn(name):
    page = figures.figure(PANELS[name], width=4.5, height=2.6)
    return page, page.axes[0]


@pytest.mark.parametrize("name", PANELS)
def test_a_panel_returns_its_axes_and_every_text_is_inside_and_apart(name):
    page, _ = drawn(name)
    assert PANELS[name](page.add_subplot(3, 3, 9)) is page.axes[-1]
    assert_legible(*drawn(name))


def test_the_cheapest_at_every_loss_are_dots_in_the_colour_of_their_experts():
    _, ax = drawn("pareto")
    dots = ax.collections[0]
    best = FRONT[FRONT["on_front"]]
    assert len(best) == len(LEVELS), "one E is the cheapest at each loss"
    np.testing.assert_allclose(dots.get_offsets(), best[["cost", "loss"]])
    assert [mc.to_hex(tint) for tint in dots.get_facecolors()] == [PALETTE[e] for e in best["n_experts"]]
    curves = [line for line in ax.lines if line.get_marker() == "None"]
    assert [line.get_color() for line in curves] == [PALETTE[e] for e in EXPERTS]
    for line, e in zip(curves, EXPERTS, strict=True):
        np.testing.assert_array_equal(line.get_xydata(), FRONT.loc[FRONT["n_experts"] == e, ["cost", "loss"]])


def test_the_star_lies_at_the_recommendation_between_the_ends_of_its_intervals():
    _, ax = drawn("pareto")
    (star,) = [line for line in ax.lines if line.get_marker() == "*"]
    assert (star.get_xdata()[0], star.get_ydata()[0]) == CHOSEN
    across, upright = (bars.get_segments()[0] for bars in ax.collections[1:])
    np.testing.assert_allclose(across, [(0.8 * CHOSEN[0], 2.1), (1.3 * CHOSEN[0], 2.1)])
    np.testing.assert_allclose(upright, [(CHOSEN[0], 2.08), (CHOSEN[0], 2.13)])
    _, bare = drawn("pareto without intervals")
    assert len(bare.collections) == 1


def test_an_endless_interval_does_not_flatten_the_curves():
    _, bare = drawn("pareto without intervals")
    _, ax = drawn("pareto with endless intervals")
    # Half of the picture to either side: the curves keep half of it along each axis.
    share = np.ptp(np.log(bare.get_xlim())) / np.ptp(np.log(ax.get_xlim()))
    assert share == pytest.approx(0.5)
    assert np.ptp(bare.get_ylim()) / np.ptp(ax.get_ylim()) == pytest.approx(0.5)


def test_every_cell_of_the_plane_names_its_best_and_the_star_is_the_question():
    _, ax = drawn("plane")
    shown = {note.get_position(): note.get_text() for note in ax.texts}
    expected = {
        (budget, volume): "–" if BEST[i, j] < 0 else str(BEST[i, j])
        for i, budget in enumerate(BUDGETS) for j, volume in enumerate(VOLUMES)
        if (i, j) != (2, 1)
    }  # fmt: skip
    assert shown == expected
    (star,) = [line for line in ax.lines if line.get_marker() == "*"]
    assert (star.get_xdata()[0], star.get_ydata()[0]) == ASKED
    cells = ax.collections[0]
    colours = [mc.to_hex(tint) for tint in cells.to_rgba(cells.get_array().ravel())]
    assert colours == [PALETTE.get(e, "#ffffff") for e in BEST.T.ravel()]
    step = np.sqrt(BUDGETS[1] / BUDGETS[0])
    np.testing.assert_allclose(ax.get_xlim(), (BUDGETS[0] / step, BUDGETS[-1] * step))


def test_budgets_that_nothing_decides_are_hatched():
    _, ax = drawn("plane")
    (hatched,) = ax.patches
    assert hatched.get_hatch()
    assert hatched.get_extents().transformed(ax.transData.inverted()).x0 == pytest.approx(4e21)
    _, ax = drawn("plane within")
    assert not ax.patches


def test_the_price_of_every_load_is_drawn_with_rings_where_another_takes_over():
    _, ax = drawn("load")
    lines = [line for line in ax.lines if len(line.get_xdata()) == len(LOADS)]
    for line, (e, rows) in zip(lines, PRICES.groupby("n_experts"), strict=True):
        np.testing.assert_array_equal(line.get_xydata(), rows[["requests_per_month", "usd_per_million"]])
        assert line.get_color() == PALETTE[e]
    (rings,) = [line for line in ax.lines if line.get_marker() == "o"]
    assert rings.get_xydata().tolist() == [[2e7, 0.3]]
    (asked,) = [line for line in ax.lines if line.get_color() == ACCENT]
    assert set(asked.get_xdata()) == {1e7}
    _, bare = drawn("load, none asked")
    assert not bare.texts


def test_bars_of_cases_end_at_their_cost_and_those_that_change_the_best_are_red():
    _, ax = drawn("cases")
    ends = [bar.get_x() + bar.get_width() for bar in ax.patches]
    np.testing.assert_allclose(ends, [3.4, 0.6, 1.0, 1.1])
    tints = [mc.to_hex(bar.get_facecolor()) for bar in ax.patches]
    assert tints == [MUTED, ACCENT, ACCENT, ACCENT]
    assert [note.get_text() for note in ax.texts] == ["E = 8", "E = 4", "infeasible", "dense"]
    assert [label.get_text() for label in ax.get_yticklabels()] == list(CASES["case"])
    assert ax.yaxis_inverted()


def test_the_same_data_give_the_same_bytes(tmp_path):
    files = [figures.save(figures.figure(PANELS["plane"]), tmp_path / f"{i}.svg") for i in range(2)]
    assert files[0].read_bytes() == files[1].read_bytes()

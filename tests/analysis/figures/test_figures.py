"""The figures show what they were given, in one palette, legibly, and the same bytes for the same data."""

import re
from dataclasses import replace
from functools import partial

import matplotlib.colors as mc
import numpy as np
import pandas as pd
import pytest
from legible import assert_legible

from analysis import figures
from analysis.figures import Curve, colours, titled
from scaling.formatting import powers, si

PALETTE = colours([1, 4, 8, 16])
RUNS = pd.DataFrame(
    [
        {"n_experts": e, "n_active": n, "tokens": d, "loss_val": 3 - 0.1 * np.log(n * d) - 0.05 * np.log(e)}
        for e in (1, 4, 8, 16)
        for n in (37_088, 70_992, 115_136, 234_144)
        for d in (499_712, 999_424, 2_000_896, 3_999_744)
    ]
)
LINE = Curve(
    8, np.array([5e5, 1e6, 4e6]), np.array([2.0, 1.8, 1.5]), np.array([1.9, 1.7, 1.4]), np.array([2.1, 1.9, 1.6])
)
NARROW = replace(LINE, x=np.array([3.1e11, 4e11, 6e11]))
LATENCY = pd.DataFrame(
    [
        {"n_experts": e, "batch": b, "time_ms": b * e, "time_q25_ms": 0.9 * b * e, "time_q75_ms": 1.2 * b * e,
         "roofline_ms": 0.5 * b * e}
        for e in (1, 8) for b in (1, 4, 16)
    ]
)  # fmt: skip
EFFECTS = pd.DataFrame(
    [
        {"n_active": n, "tokens": d, "n_experts": e, "difference": -0.01 * e, "se": 0.002 * e}
        for n in (37_088, 115_136) for d in (499_712, 3_999_744) for e in (4, 8, 16)
    ]
)  # fmt: skip
NAMES = ["topk (bias_rate 0.001)", "topk", "dense", "hash", "lora"]
METHODS = pd.DataFrame(
    [
        {"method": name, "difference": d, "low": d - 0.01, "high": d + 0.01, "low_all": d - 0.02, "high_all": d + 0.02,
         "rank_low": rank, "group": "a"}
        for name, d, rank in zip(NAMES, (-0.08, -0.05, 0.0, 0.02, 0.9), (1, 1, 3, 3, 5), strict=True)
    ]
)  # fmt: skip
TIMES = pd.DataFrame([{"method": name, "batch": b, "times": 1 + 0.1 * b} for name in NAMES for b in (1, 8)])
METRIC = pd.DataFrame([{"method": name, "value": 0.3, "least": 0.2, "most": 0.5, "chance": 0.08} for name in NAMES])
SETTLING = pd.DataFrame(
    [
        {"method": name, "tokens": d, "saturation": 0.4 + d / 2e6, "chance": chance}
        for name, chance in zip(NAMES, (0.25, 0.25, 0.125, 0.25, 0.251), strict=True) for d in (1e4, 1e5, 1e6)
    ]
)  # fmt: skip
TWO = np.array([1, 8])
PANELS = {
    "methods": partial(figures.method_differences, METHODS, "dense"),
    "methods without intervals": partial(
        figures.method_differences, METHODS.assign(low=np.nan, high=np.nan, rank_low=np.nan, group=""), "dense"
    ),
    "method times": partial(figures.method_times, TIMES, NAMES),
    "metric": partial(figures.metric_beside_chance, METRIC, NAMES, named=True),
    "saturation": partial(figures.saturation, SETTLING, figures.method_colours(NAMES)),
    "coverage": partial(figures.coverage, RUNS, RUNS.iloc[:2], PALETTE),
    "against tokens": partial(figures.loss_against, "tokens", RUNS, [LINE], PALETTE, label="training tokens D"),
    "against size": partial(figures.loss_against, "n_active", RUNS, [], PALETTE, label="active parameters"),
    "against E": partial(
        figures.loss_against_experts,
        RUNS[RUNS["n_active"] == 37_088].assign(slice="37K"),
        [("37K", Curve(1, np.array([1.0, 4, 16]), np.array([2.0, 1.9, 1.8])))],
    ),
    "paired": partial(figures.paired_differences, EFFECTS, PALETTE),
    "latency": partial(figures.step_times, LATENCY, PALETTE),
    "latency without floors": partial(figures.step_times, LATENCY.assign(roofline_ms=np.nan), PALETTE),
    "decode times": partial(figures.decode_times, LATENCY[LATENCY["batch"] == 16], PALETTE),
    "parameters": partial(
        figures.parameter_intervals,
        {"a": 10.0, "alpha": -0.4, "gamma": 0.01},
        {"a": (1e-6, 1e9), "alpha": (-0.5, -0.35)},
    ),
    "trade-off": partial(figures.tradeoff, [LINE], (1e6, 1.8), PALETTE, unit="FLOP", bound=1.7),
    "narrow trade-off": partial(figures.tradeoff, [NARROW], (4e11, 1.8), PALETTE, unit="FLOP"),
    "losses": partial(figures.losses_of_choices, {1: 1.5, 8: 1.4}, {1: (1.45, 1.55)}, 8, PALETTE),
    "chances": partial(figures.probability_best, {1: 0.02, 4: 0.1, 8: 0.6, 16: 0.28}, PALETTE),
    "agreement": partial(figures.observed_predicted, np.array([1.0, 2.0]), np.array([1.1, 1.9]), TWO, PALETTE),
    "residuals": partial(
        figures.residuals_against, np.array([5e5, 4e6]), np.array([0.01, -0.02]), TWO, PALETTE, label="D"
    ),
}  # fmt: skip


def drawn(name):
    page = figures.figure(PANELS[name], width=4.5, height=2.6)
    return page, page.axes[0]


@pytest.mark.parametrize(
    ("value", "text"),
    [(1_234_567, "1.23M"), (2e9, "2B"), (499_712, "500K"), (999_999, "1M"), (1.5e12, "1.5T"), (37, "37"),
     (0.00012, "0.00012"), (0, "0"), (-2_500, "-2.5K"), (1e15, "1×10¹⁵"), (2.5e-7, "2.5×10⁻⁷"), (float("nan"), "–")],
)  # fmt: skip
def test_numbers_are_written_as_people_say_them(value, text):
    assert si(value) == text


def test_powers_of_ten():
    assert powers(5.684e12) == "5.68×10¹²"
    assert powers(1e22) == "1×10²²"
    assert powers(3e-7) == "3×10⁻⁷"


def test_one_colour_for_each_expert_count_darker_with_more_experts():
    luminance = {e: float(np.dot(mc.to_rgb(PALETTE[e]), (0.2126, 0.7152, 0.0722))) for e in (4, 8, 16)}
    assert luminance[4] > luminance[8] + 0.1 > luminance[16] + 0.2
    assert len(set(PALETTE.values())) == 4
    red, green, blue = mc.to_rgb(PALETTE[1])
    assert max(red, green, blue) - min(red, green, blue) < 0.15, "dense is grey"
    assert colours([8]) == {1: PALETTE[1], 8: colours([8])[8]}


@pytest.mark.parametrize("name", PANELS)
def test_a_panel_returns_its_axes_and_every_label_is_legible(name):
    page, _ = drawn(name)
    assert PANELS[name](page.add_subplot(3, 3, 9)) is page.axes[-1]
    assert_legible(*drawn(name), ticks=0 if name in ("against E", "method times") else 2)


def test_coverage_shows_every_run_and_every_failure():
    _, ax = drawn("coverage")
    runs, failed = ax.collections
    assert len(runs.get_offsets()) == len(RUNS)
    assert len(failed.get_offsets()) == 2
    # Dots of one cell stand side by side: same height, and no two in one place.
    assert len({tuple(place) for place in np.round(runs.get_offsets(), 3)}) == len(RUNS)


def test_a_law_is_drawn_with_its_band_and_the_points_where_they_are():
    _, ax = drawn("against tokens")
    line = ax.lines[0]
    np.testing.assert_array_equal(line.get_xydata(), np.column_stack([LINE.x, LINE.y]))
    assert line.get_color() == PALETTE[8]
    band, points = ax.collections
    assert {round(y, 6) for y in band.get_paths()[0].vertices[:, 1]} >= set(LINE.low) | set(LINE.high)
    np.testing.assert_allclose(points.get_offsets(), RUNS[["tokens", "loss_val"]])


def test_bars_of_paired_differences_are_95_percent():
    _, ax = drawn("paired")
    segments = np.concatenate([bars.get_segments() for bars in ax.collections])
    heights = sorted(np.ptp(segment[:, 1]) for segment in segments)
    np.testing.assert_allclose(heights, sorted(2 * 1.96 * EFFECTS["se"]))


def test_the_floor_is_drawn_beside_the_measurement():
    _, ax = drawn("latency")
    dashed = [line for line in ax.lines if line.get_linestyle() == "--"]
    solid = [line for line in ax.lines if line.get_linestyle() == "-"]
    for floor, measured in zip(dashed, solid, strict=True):
        assert floor.get_color() == measured.get_color()
        np.testing.assert_allclose(floor.get_ydata(), 0.5 * measured.get_ydata())


def test_where_no_floor_is_known_none_is_drawn():
    _, ax = drawn("latency without floors")
    assert [line.get_linestyle() for line in ax.lines] == ["-", "-"]
    some = LATENCY.assign(roofline_ms=LATENCY["roofline_ms"].where(LATENCY["batch"] > 1))
    page = figures.figure(partial(figures.step_times, some, PALETTE))
    dashed = [line for line in page.axes[0].lines if line.get_linestyle() == "--"]
    assert [list(line.get_xdata()) for line in dashed] == [[4, 16], [4, 16]]


def test_decode_times_of_a_single_repeat_have_no_quartiles():
    rows = LATENCY[LATENCY["batch"] == 16].assign(time_q25_ms=np.nan, time_q75_ms=np.nan)
    ax = figures.figure(partial(figures.decode_times, rows, PALETTE)).axes[0]
    assert [bar.get_height() for bar in ax.patches] == pytest.approx([1e3, 8e3])
    assert ax.get_ylim()[1] > 8e3


def test_decode_times_are_per_token_with_quartiles_and_beside_the_dense_model():
    rows = LATENCY[LATENCY["batch"] == 16]
    _, ax = drawn("decode times")
    per_token = 1e3 / 16
    np.testing.assert_allclose([bar.get_height() for bar in ax.patches], per_token * rows["time_ms"])
    (bars,) = ax.collections
    quartiles = [segment[:, 1] for segment in bars.get_segments()]
    np.testing.assert_allclose(quartiles, per_token * rows[["time_q25_ms", "time_q75_ms"]])
    assert [note.get_text() for note in ax.texts] == ["8×"]
    alone = figures.figure(partial(figures.decode_times, rows[rows["n_experts"] == 8], PALETTE)).axes[0]
    assert not alone.texts, "without a dense model there is nothing to compare with"


def test_the_star_is_the_recommendation():
    _, ax = drawn("trade-off")
    (star,) = [line for line in ax.lines if line.get_marker() == "*"]
    assert (star.get_xdata()[0], star.get_ydata()[0]) == (1e6, 1.8)
    _, ax = drawn("losses")
    (star,) = [line for line in ax.lines if line.get_marker() == "*"]
    assert star.get_ydata()[0] == 1.4


def test_bars_of_chances_are_the_shares():
    _, ax = drawn("chances")
    np.testing.assert_allclose([bar.get_height() for bar in ax.patches], [2, 10, 60, 28])


def test_pinned_parameters_have_no_interval_and_endless_ones_an_arrow():
    _, ax = drawn("parameters")
    markers = [line.get_marker() for line in ax.lines]
    assert markers.count("D") == 1
    assert markers.count(">") == 1, "the interval of a reaches far beyond 300 % of its estimate"


def test_the_legend_names_every_expert_count_once():
    page = figures.figure(titled(PANELS["chances"], "How sure"), PANELS["coverage"], legend=PALETTE)
    assert [text.get_text() for text in page.legends[0].get_texts()] == ["dense", "E = 4", "E = 8", "E = 16"]
    assert page.axes[0].get_title(loc="left") == "How sure"


def test_methods_stand_best_on_top_with_both_intervals_and_one_far_off_is_an_arrow():
    _, ax = drawn("methods")
    assert [label.get_text() for label in ax.get_yticklabels()] == NAMES
    assert ax.yaxis_inverted()
    bars = [line for line in ax.lines if len(line.get_xdata()) == 2 and len(set(line.get_ydata())) == 1]
    thin, thick = ([line.get_xdata() for line in bars if (line.get_linewidth() > 1) == wide] for wide in (False, True))
    shown = METHODS[METHODS["method"].isin(["topk (bias_rate 0.001)", "topk", "hash"])]
    np.testing.assert_allclose(thick, shown[["low", "high"]])
    np.testing.assert_allclose(thin, shown[["low_all", "high_all"]])
    (arrow,) = [line for line in ax.lines if line.get_marker() == ">"]
    assert arrow.get_xdata()[0] == ax.get_xlim()[1] < 0.9
    assert "+0.90" in [note.get_text() for note in ax.texts]
    red = {line.get_ydata()[0] for line in ax.lines if line.get_color() == figures.style.ACCENT}
    assert red == {0, 1}, "those that may be the best"
    _, bare = drawn("methods without intervals")
    assert not [
        line for line in bare.lines if len(line.get_xdata()) == 2 and line.get_xdata()[0] != line.get_xdata()[1]
    ]


def test_a_metric_has_its_range_over_seeds_and_its_chance():
    _, ax = drawn("metric")
    ranges, values, chances = ax.collections
    assert {tuple(segment[:, 0]) for segment in ranges.get_segments()} == {(0.2, 0.5)}
    assert set(values.get_offsets()[:, 0]) == {0.3}
    assert set(chances.get_offsets()[:, 0]) == {0.08}


def test_saturation_is_drawn_over_one_line_for_each_chance_level():
    _, ax = drawn("saturation")
    levels = [line.get_ydata()[0] for line in ax.lines if line.get_linestyle() == "--"]
    assert levels == [0.12, 0.25]  # .125 and .25, and .251 with it
    assert len(ax.lines) == len(levels) + len(NAMES)


def test_every_method_has_one_colour_and_dense_is_grey():
    tints = figures.method_colours(NAMES)
    assert len(set(tints.values())) == len(NAMES)
    assert tints["dense"] == PALETTE[1]


@pytest.mark.parametrize("suffix", [".svg", ".png", ".pdf"])
def test_the_same_data_give_the_same_bytes(tmp_path, suffix):
    files = [figures.save(figures.figure(PANELS["against E"]), tmp_path / f"{i}{suffix}") for i in range(2)]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_svg_carries_its_letters_as_outlines(tmp_path):
    drawing = figures.save(figures.figure(PANELS["coverage"]), tmp_path / "a.svg").read_text(encoding="utf-8")
    assert not re.search(r"<text\b", drawing)


def test_runs_of_like_compute_stand_side_by_side_in_one_column():
    ratios = [1.5, 1.52, 1.49, 4.4, 4.5, 30.0]
    rows = pd.DataFrame({"ratio": ratios, "n_experts": [8, 1, 4, 8, 1, 1], "error": 1.0, "low": -2.0, "high": 2.0})
    ax = figures.figure(partial(figures.roll_out_errors, rows, PALETTE), width=4).axes[0]
    places = ax.collections[-1].get_offsets()[:, 0]
    assert np.round(places).tolist() == [0, 0, 0, 1, 1, 2]
    assert np.diff(places).min() > 0.25
    assert [label.get_text() for label in ax.get_xticklabels()] == ["1.5×", "4.4–4.5×", "30×"]
    many = pd.concat([rows.assign(ratio=rows["ratio"] * 100.0**step) for step in range(5)])
    assert len(figures.figure(partial(figures.roll_out_errors, many, PALETTE)).axes[0].get_xticks()) == 6


def test_names_of_lines_that_end_together_are_apart():
    x = np.array([1.0, 4.0, 16.0])
    curves = [(name, Curve(1, x, np.full(3, loss))) for name, loss in (("b", 2.0), ("a", 2.001), ("c", 2.3))]
    points = pd.DataFrame({"slice": ["a", "b", "c"], "n_experts": 4, "loss_val": [2.0, 2.0, 2.3]})
    ax = figures.figure(partial(figures.loss_against_experts, points, curves), width=3).axes[0]
    heights = {text.get_text(): text.xy[1] for text in ax.texts}
    assert heights["a"] - heights["b"] == pytest.approx(0.08 * np.ptp(ax.get_ylim()))
    assert heights["c"] - heights["a"] > heights["a"] - heights["b"]


def test_an_endless_band_is_cut_off_with_a_note():
    runs = RUNS[RUNS["n_experts"] == 8]
    for top, notes in ((2.1, 0), (1e3, 1)):
        draw = partial(figures.loss_against, "tokens", runs, [replace(LINE, high=LINE.high + top - 2.1)], PALETTE)
        ax = figures.figure(partial(draw, label="D"), width=4).axes[0]
        assert len(ax.texts) == notes
        assert ax.get_ylim()[1] < 10

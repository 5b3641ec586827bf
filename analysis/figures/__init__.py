"""Figures: one function per panel, data in, Axes out, in one style.

A panel is a function of an `Axes` that returns it; `figure` lays panels out in a row under one legend, and `save`
writes SVG (text as outlines), PDF or PNG. Every E and every method has one colour in all figures.
"""
# The imports here are the public names of the package.
# mypy: implicit-reexport
# ruff: noqa: F401

from matplotlib.figure import Figure  # the report names the type without importing matplotlib

from analysis.figures.decision import (
    best_experts,
    cost_against_load,
    decode_times,
    losses_of_choices,
    pareto,
    probability_best,
    step_times,
    tradeoff,
    what_if_cases,
)
from analysis.figures.fit import along, cloud, profile_curve
from analysis.figures.isoflop import isoflop_frontier, isoflop_valleys
from analysis.figures.latency import measured_modelled, time_errors
from analysis.figures.law import (
    coverage,
    loss_against,
    loss_against_experts,
    observed_predicted,
    paired_differences,
    parameter_intervals,
)
from analysis.figures.methods import method_colours, method_differences, method_times, metric_beside_chance, saturation
from analysis.figures.style import Curve, Palette, Panel, colours, figure, legend_columns, pages, save, titled
from analysis.figures.validation import evidence, influence, residual_panels, residuals_against, roll_out_errors

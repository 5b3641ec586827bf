"""Figures follow from rows: the best of a search, ratios of two sides, targets reached and missed."""

import json

from benchmarks.gpu.summary import page, summarised

DEVICE = {
    "kind": "NVIDIA Test",
    "compute_capability": "9.0",
    "attention": "cudnn",
    "kernels": ["loop"],
    "versions": {"jax": "1"},
}


def row(case, **columns):
    return {"case": case, "status": "ok", "error": ""} | columns


def layer(side, kernel, tokens_per_s, which="forward and backward"):
    return row(
        f"{side} {kernel} {which}", side=side, kernel=kernel, n_experts=8, tokens_per_s=tokens_per_s, **{"pass": which}
    )


ROWS = {
    "equality": [
        row("kernel loop", off=1e-3, tolerance=1e-2, passed=True),
        row("router hash", off=2e-2, tolerance=1e-2, passed=False),
        row("step twice: as it is", off=1e-6, same_bits=False, step_ms=3.0),
        {"case": "kernel tokamax", "status": "error", "error": "NotImplementedError: a | b"},
    ],
    "utilisation": [
        row("product", of_peak=0.8),
        row("E=1 a", n_experts=1, mfu=0.41, of_product=0.5, setting="16 sequences", kernel=""),
        row("E=1 b", n_experts=1, mfu=0.47, of_product=0.6, setting="32 sequences", kernel=""),
        row("E=8 a", n_experts=8, mfu=0.2, of_product=0.3, setting="16 sequences", kernel="ragged"),
        {"case": "E=32 a", "status": "error", "error": "out of memory"},
    ],
    "experts": [
        layer("ours", "loop", 10.0), layer("ours", "tokamax", 30.0), layer("public", "jax.lax.ragged_dot", 20.0),
        layer("bound", "equal shares", 60.0), layer("ours", "loop", 5.0, "forward"),
    ],
    "cells": [row("E=8 1 together", n_experts=8, together=1),
              row("E=8 64 together", n_experts=8, together=64, speedup=12.0)],
    "serving": [row("law of 36 rows", before_median=0.5, before_p90=0.7, after_median=0.1, after_p90=0.2)],
}  # fmt: skip
STATES = {name: {"status": "done", "error": "", "seconds": 1.0} for name in ROWS}


def test_figures_are_the_best_of_a_search_beside_their_targets():
    summary = summarised(DEVICE, STATES, ROWS, tiny=False)
    found = {figure["name"]: (figure["value"], figure["target"], figure["reached"]) for figure in summary["figures"]}
    assert found == {
        "comparisons within tolerance": (1, 2, False),
        "ms, step twice: as it is": (3.0, None, None),
        "MFU, dense": (0.47, 0.45, True),
        "MFU, E = 8": (0.2, 0.35, False),
        "MoE layer, E = 8, forward and backward: ours over the best public": (1.5, 1.0, True),
        "small cells in one program, E = 8": (12.0, 5.0, True),
        "latency law, median error before": (0.5, None, None),
        "latency law, median error after": (0.1, None, None),
    }
    assert summary["wrong"] == ["router hash"]
    assert summary["parts"]["utilisation"]["failed"] == ["E=32 a: out of memory"]
    json.dumps(summary)


def test_the_page_has_every_figure_and_every_failure_in_a_table_of_its_own_width():
    text = page(summarised(DEVICE, STATES, ROWS, tiny=False))
    for figure in ("0.47", "at least 0.45", "32 sequences", "router hash", "out of memory", "NotImplementedError"):
        assert figure in text
    assert "means anything" not in text
    tables = [line for line in text.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in tables} == {5}
    assert "means anything" in page(summarised(DEVICE, {}, {}, tiny=True))

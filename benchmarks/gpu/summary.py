"""The figures of the parts beside their targets: as JSON, and as one page."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks.gpu.parts import PARTS
from benchmarks.gpu.record import ERROR, OK, Row

Rows = Mapping[str, Sequence[Row]]
BOTH = "forward and backward"
TARGETS = {"mfu_dense": 0.45, "mfu_routed": 0.35, "experts": 1.0, "cells": 5.0}


def summarised(device: Mapping[str, Any], states: Mapping[str, Any], rows: Rows, *, tiny: bool) -> dict[str, Any]:
    """What summary.json holds: the device, how each part ended, the figures, and what computed something wrong."""
    parts = {
        name: {
            **states[name],
            "cases": len(rows[name]),
            "failed": [f"{row['case']}: {row['error']}" for row in rows[name] if row["status"] == ERROR],
        }
        for name in states
    }
    return {
        "device": dict(device),
        "tiny": tiny,
        "written": time.strftime("%Y-%m-%d"),
        "parts": parts,
        "figures": figures(rows),
        "wrong": [row["case"] for row in _ok(rows, "equality") if row.get("passed") is False],
    }


def figures(rows: Rows) -> list[dict[str, Any]]:
    """Name, value, target (None without one), whether it is reached, and how the figure came about."""
    return [*_equality(rows), *_utilisation(rows), *_experts(rows), *_cells(rows), *_serving(rows)]


def page(summary: Mapping[str, Any]) -> str:
    """README.md: figures beside targets, how the parts ended, what failed."""
    device = summary["device"]
    versions = ", ".join(f"{name} {version}" for name, version in device["versions"].items())
    lines = [f"# Measured on {device['kind']}", ""]
    if summary["tiny"]:
        lines += ["**Sizes of a test on a CPU: the command was tried, and no figure here means anything.**", ""]
    lines += [
        f"`python -m benchmarks.gpu`, {summary['written']}; one device, compute capability "
        f"{device['compute_capability'] or 'none'}, attention over whole sequences by {device['attention']}, kernels "
        f"{', '.join(device['kernels'])}; {versions}. [docs/gpu.md](../../../docs/gpu.md) says what each figure means.",
        "",
        "| figure | measured | target | |",
        "|---|---|---|---|",
    ]
    for figure in summary["figures"]:
        reached = {True: "reached", False: "**missed**", None: ""}[figure["reached"]]
        target = "" if figure["target"] is None else f"at least {_shown(figure['target'])}"
        lines.append(f"| {figure['name']} | {_shown(figure['value'])} | {target} | {reached} {figure['note']} |")
    lines += ["", "| part | ended | cases | seconds |", "|---|---|---|---|"]
    for name, part in summary["parts"].items():
        ended = part["status"] + (f": {part['error']}" if part["error"] else "")
        lines.append(f"| {name} | {_cell(ended)} | {part['cases']} | {part['seconds']:.0f} |")
    missing = [part.name for part in PARTS if part.name not in summary["parts"]]
    lines += ["", f"Not run: {', '.join(missing)}."] if missing else []
    if summary["wrong"]:
        lines += ["", "## Wrong results", "", *(f"- {case}" for case in summary["wrong"])]
    failed = [f"- {name}, {_cell(case)}" for name, part in summary["parts"].items() for case in part["failed"]]
    if failed:
        lines += ["", "## Cases that failed", "", *failed]
    return "\n".join(lines) + "\n"


def _figure(
    name: str, value: Any, target: float | None = None, note: str = "", *, least: bool = True
) -> dict[str, Any]:
    reached = None
    if target is not None and value is not None:
        reached = bool(value >= target if least else value <= target)
    relation = "at least" if least else "at most"
    return {"name": name, "value": value, "target": target, "relation": relation, "reached": reached, "note": note}


def _equality(rows: Rows) -> list[dict[str, Any]]:
    judged = [row for row in _ok(rows, "equality") if row.get("passed") is not None]
    twice = [row for row in _ok(rows, "equality") if row["case"].startswith("step twice")]
    found = []
    if judged:
        passed = sum(bool(row["passed"]) for row in judged)
        worst = max(judged, key=lambda row: row["off"] / row["tolerance"])
        at = worst["off"] / worst["tolerance"]
        note = f"of {len(judged)}; the worst, {worst['case']}, is at {at:.2g} of its tolerance"
        found.append(_figure("comparisons within tolerance", passed, len(judged), note))
    for row in twice:
        note = "a step twice gives the same bits" if row["same_bits"] else f"differs by {row['off']:.2g}"
        found.append(_figure(f"ms, {row['case']}", row["step_ms"], note=note))
    return found


def _utilisation(rows: Rows) -> list[dict[str, Any]]:
    found = []
    for n_experts in (1, 8, 32):
        best = _best(_of(rows, "utilisation", n_experts=n_experts), "mfu")
        if best is not None:
            name, target = ("dense", "mfu_dense") if n_experts == 1 else (f"E = {n_experts}", "mfu_routed")
            kernel = f", kernel {best['kernel']}" if n_experts > 1 else ""
            note = f"({best['setting']}{kernel}; {best['of_product']:.2f} of a product measured here)"
            found.append(_figure(f"MFU, {name}", best["mfu"], TARGETS[target], note))
    return found


def _experts(rows: Rows) -> list[dict[str, Any]]:
    found = []
    for n_experts in (8, 32):
        for which in ("forward", BOTH):
            of = {
                side: _best(_of(rows, "experts", n_experts=n_experts, side=side, **{"pass": which}), "tokens_per_s")
                for side in ("ours", "public", "bound")
            }
            ours, public, bound = (of[side] for side in ("ours", "public", "bound"))
            if ours is None or public is None:
                continue
            speeds = [f"{one['kernel']} {one['tokens_per_s']:.3g}" for one in (ours, public, bound) if one]
            ratio = ours["tokens_per_s"] / public["tokens_per_s"]
            target = TARGETS["experts"] if which == BOTH else None
            name = f"MoE layer, E = {n_experts}, {which}: ours over the best public"
            found.append(_figure(name, ratio, target, f"({', '.join(speeds)} tokens/s)"))
    return found


def _cells(rows: Rows) -> list[dict[str, Any]]:
    found = []
    for n_experts in (8, 1):
        best = _best([row for row in _of(rows, "cells", n_experts=n_experts) if row.get("speedup")], "speedup")
        if best is not None:
            note = f"({best['together']:.0f} side by side)"
            found.append(
                _figure(f"small cells in one program, E = {n_experts}", best["speedup"], TARGETS["cells"], note)
            )
    return found


def _serving(rows: Rows) -> list[dict[str, Any]]:
    laws = [row for row in _ok(rows, "serving") if row["case"].startswith("law of")]
    if not laws:
        return []
    law = laws[-1]
    said = {
        "before": "as assumed for a device that was not measured",
        "after": "fitted to these rows",
        "held_out": "on widths, E, batches and contexts left out in turn",
    }
    return [
        _figure(f"latency law, median error {name.replace('_', ' ')}", law[f"{name}_median"], note=f"{note}; 90th "
                f"percentile {law[f'{name}_p90']:.3g}")
        for name, note in said.items()
        if law.get(f"{name}_median") is not None
    ]  # fmt: skip


def _ok(rows: Rows, part: str) -> list[Row]:
    return [row for row in rows.get(part, ()) if row["status"] == OK]


def _of(rows: Rows, part: str, **columns: Any) -> list[Row]:
    return [row for row in _ok(rows, part) if all(row.get(name) == value for name, value in columns.items())]


def _best(rows: Sequence[Row], by: str) -> Row | None:
    key: Callable[[Row], Any] = lambda row: row[by]  # noqa: E731
    return max(rows, key=key) if rows else None


def _shown(value: Any) -> str:
    return "" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)


def _cell(text: str) -> str:
    """Of a table: one line, without its separators."""
    return " ".join(text.replace("|", "/").split())

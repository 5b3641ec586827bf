"""A comparison of methods as one JSON document."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from analysis.methods.comparison import MethodComparison
from analysis.methods.router_metrics import decode_times, router_metrics


def document(study: str | Path, comparison: MethodComparison) -> dict[str, Any]:
    """The comparison as plain values for JSON, with router metrics and decode times; unknown values are null."""
    tables = {
        "methods": comparison.rows,
        "not_comparable": comparison.apart,
        "failed": comparison.failed,
        "router_metrics": router_metrics(comparison),
        "decode_times": decode_times(study, comparison),
    }
    numbers = {"seed_sd": comparison.seed_sd, "optimism": comparison.optimism}
    return {
        "cell": dict(comparison.cell),
        "reference": comparison.reference,
        "leaders": list(comparison.leaders),
        "ranked": comparison.ranked,
        "seed_df": comparison.seed_df,
        "paired": comparison.paired,
        "n_documents": comparison.n_documents,
        "warnings": list(comparison.warnings),
        **{name: None if np.isnan(value) else value for name, value in numbers.items()},
        # pandas writes NaN as null and NumPy's numbers as numbers
        **{name: json.loads(table.to_json(orient="records", double_precision=12)) for name, table in tables.items()},
    }

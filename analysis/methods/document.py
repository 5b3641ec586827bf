"""A comparison of methods as one JSON document."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from analysis.methods.comparison import MethodComparison
from analysis.methods.router_metrics import decode_times, router_metrics


def document(study: str | Path, made: MethodComparison) -> dict[str, Any]:
    """The comparison as plain values for JSON, with router metrics and decode times; what is not known is null."""
    tables = {
        "methods": made.rows, "not_comparable": made.apart, "failed": made.failed, "router_metrics": router_metrics(made),
        "decode_times": decode_times(study, made),
    }  # fmt: skip
    numbers = {"seed_sd": made.seed_sd, "optimism": made.optimism}
    return {
        "cell": dict(made.cell),
        "reference": made.reference,
        "leaders": list(made.leaders),
        "ranked": made.ranked,
        "seed_df": made.seed_df,
        "paired": made.paired,
        "n_documents": made.n_documents,
        "warnings": list(made.warnings),
        **{name: None if np.isnan(value) else value for name, value in numbers.items()},
        # pandas writes NaN as null and NumPy's numbers as numbers
        **{name: json.loads(table.to_json(orient="records", double_precision=12)) for name, table in tables.items()},
    }

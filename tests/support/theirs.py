"""A small table of other people's, and how it is written and read."""

from __future__ import annotations

import gzip

import pandas as pd

from analysis.laws import HOFFMANN
from analysis.tables import runs

GOOD = pd.DataFrame({
    "n_active": [1e8, 1e8, 1e9, 1e9], "tokens": [1e9, 1e10, 1e9, 1e10], "loss_val": [3.25, 3.0, 2.875, 2.5],
    "who": ["a", "b", "c, d", "µ"],
})  # fmt: skip


def content(frame, ending):
    """A table as the bytes of a file of that ending."""
    kind = ending.removesuffix(".gz")
    if kind in (".csv", ".tsv"):
        text = frame.to_csv(index=False, sep="," if kind == ".csv" else "\t")
    else:
        text = frame.to_json(orient="records", lines=kind != ".json")
    return gzip.compress(text.encode(), mtime=0) if ending.endswith(".gz") else text.encode()


def read(path, law=HOFFMANN, **maps):
    return runs.read_runs(path, maps, law=law)

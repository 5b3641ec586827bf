"""`scaling methods`: the registered methods, or the ranking of those that a study holds."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer


def methods(
    study: Annotated[
        Path | None, typer.Argument(metavar="[STUDY]", help="Study folder; without it, what is registered.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the draws behind ranks and joint intervals.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout, messages on stderr.")] = False,
) -> None:
    """List every router and form of experts; or rank the methods of a study, with how sure each place is.

    Differences of loss are to the dense model, with 95 % intervals that carry run-to-run noise and document sampling.
    """
    if study is None:
        _registry(as_json)
    else:
        _ranking(study, seed, as_json)


def _registry(as_json: bool) -> None:
    from scaling.config.registry import EXPERTS, ROUTERS

    routers = {
        name: {
            "arxiv": one.source,
            "causal": one.causal,
            "reads": one.options,
            "defaults": dict(one.defaults),
            "dispatches": one.dispatches,
        }
        for name, one in ROUTERS.items()
    }
    experts = {name: {"arxiv": one.source, "reads": one.options} for name, one in EXPERTS.items()}
    if as_json:
        print(json.dumps({"routers": routers, "experts": experts}))
        return
    from scaling.cli.show_fit import show_registry

    show_registry(routers, experts)


def _ranking(study: Path, seed: int, as_json: bool) -> None:
    import numpy as np

    from analysis.methods.comparison import compare_methods
    from analysis.methods.document import document
    from scaling.cli.show_fit import show_comparison

    found = compare_methods(study, np.random.default_rng(seed))
    if as_json:
        print(
            json.dumps({"study": str(study), "comparisons": [document(study, one) for one in found]}, allow_nan=False)
        )
        return
    show_comparison(found[0])
    if len(found) > 1:
        print(f"{len(found) - 1} smaller comparisons of this study: --json", file=sys.stderr)

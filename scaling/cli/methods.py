"""`scaling methods`: the registered methods, or the ranking of those that a study holds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scaling.cli.options import Json, Seed
from scaling.cli.output import note, print_json


def methods(
    study: Annotated[
        Path | None, typer.Argument(metavar="[STUDY]", help="Study folder; without it, what is registered.")
    ] = None,
    seed: Seed = 0,
    as_json: Json = False,
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
            "arxiv": router.source,
            "causal": router.causal,
            "reads": router.options,
            "defaults": dict(router.defaults),
            "dispatches": router.dispatches,
        }
        for name, router in ROUTERS.items()
    }
    experts = {name: {"arxiv": form.source, "reads": form.options} for name, form in EXPERTS.items()}
    if as_json:
        print_json({"routers": routers, "experts": experts})
    else:
        from scaling.cli.show_methods import show_registry

        show_registry(routers, experts)


def _ranking(study: Path, seed: int, as_json: bool) -> None:
    import numpy as np

    from analysis.methods.comparison import compare_methods
    from analysis.methods.document import document
    from scaling.cli.show_methods import show_comparison

    comparisons = compare_methods(study, np.random.default_rng(seed))
    if as_json:
        print_json({"study": str(study), "comparisons": [document(study, one) for one in comparisons]})
        return
    show_comparison(comparisons[0])
    if len(comparisons) > 1:
        note(f"{len(comparisons) - 1} smaller comparisons of this study: --json")

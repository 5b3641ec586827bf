"""`scaling methods`: the registered methods, or the ranking of those that a study holds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scaling.cli import options
from scaling.cli.output import deliver, print_json


def methods(
    study: Annotated[
        Path | None, typer.Argument(metavar="[STUDY]", help="A study folder. Default: list what is registered.")
    ] = None,
    seed: options.Seed = 0,
    verbose: options.Verbose = False,
    as_json: options.Json = False,
) -> None:
    """List every router and form of experts, or rank the methods of a study with intervals and groups.

    Differences of loss are to the dense model, with 95 % intervals for run-to-run noise and the sample of documents.
    """
    if study is None:
        _registry(as_json, verbose)
    else:
        _ranking(study, seed, as_json, verbose)


def _registry(as_json: bool, verbose: bool) -> None:
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
    if as_json:  # without what a page needs
        print_json({"routers": routers, "experts": experts})
        return
    from scaling.cli.show.methods import registry_page
    from scaling.cli.show.page import print_page

    print_page(registry_page(routers, experts), verbose=verbose)


def _ranking(study: Path, seed: int, as_json: bool, verbose: bool) -> None:
    import numpy as np

    from analysis.methods.comparison import compare_methods
    from analysis.methods.document import document
    from scaling.cli.show.methods import comparison_page

    comparisons = compare_methods(study, np.random.default_rng(seed))
    found = {"study": str(study), "comparisons": [document(study, one) for one in comparisons]}
    deliver(found, comparison_page(comparisons), as_json=as_json, verbose=verbose)

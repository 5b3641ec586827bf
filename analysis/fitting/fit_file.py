"""Fits on disk and by name."""

from __future__ import annotations

import pkgutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from analysis.fitting.fit import Fit
from analysis.fitting.fit_checks import require_sound
from analysis.laws import LAWS, Law
from analysis.laws.moe_shape import LEVERAGE
from scaling.errors import InputError
from scaling.values import FIT

# Fits of several laws, by the name in `law`: their homes stand above this package and are looked up when one is read.
_SEVERAL_LAWS = {"mixture": "analysis.mixture.mixture:Mixture", "ensemble": "analysis.mixture.ensemble:Ensemble"}
BESIDE = "+"
"""Between the name of a fit of leverage and that of the dense fit beside it."""
_USUAL_DENSE = "published:chinchilla-epoch"
_ENSEMBLES = {"moe": "analysis.mixture.ensemble:published_moe"}


def parse_fit(document: Mapping[str, Any], origin: str, own_law: Law | None = None) -> Fit:
    """The fit in a JSON document; `law` and `params` suffice. `own_law` is its law where that was made in Python.

    Raises InputError naming `origin`, the fields that are wrong and how to write the file anew.
    """
    FIT.check(document, origin)
    if str(document["law"]) in _SEVERAL_LAWS and own_law is None:
        several: type[Fit] = pkgutil.resolve_name(_SEVERAL_LAWS[document["law"]])
        mixture = FIT.value(several, document, origin)
        for number, member in enumerate(getattr(mixture, "members", ())):
            place = f"{origin}: members[{number}]"
            require_sound(member, _law_of(member.law, place, None), place)
        require_sound(mixture, mixture.definition, origin)
        return mixture
    loaded = FIT.value(Fit, document, origin)
    law = _law_of(loaded.law, origin, own_law)
    require_sound(loaded, law, origin)
    return loaded if law.name in LAWS else replace(loaded, own_law=law)


def _law_of(name: str, origin: str, own_law: Law | None) -> Law:
    """The law of that name: the registered one, or the one handed in. Raises InputError where neither fits."""
    if own_law is not None and own_law.name != name:
        raise InputError(f"{origin}: its law is {name!r}, and the law given is {own_law.name!r}")
    if name in LAWS:
        return LAWS[name]
    if own_law is None:
        raise InputError(
            f"{origin}: no law is called {name!r} (there are {', '.join(LAWS)}); if it was made in Python, hand it in: "
            "scaling.read_fit(path, law=...)"
        )
    return own_law


def load_fit(source: str, own_law: Law | None = None) -> Fit:
    """The fit in a file, or `published:NAME`, with draws by a rule; `published:moe` is the ensemble of MoE laws.

    `own_law` is its law where that was made in Python. `LEVERAGE+DENSE` is a fit of the law `leverage` with a dense fit
    beside it (`analysis.fitting.leveraged`). Raises InputError where there is none, or where its law is not known.
    """
    if BESIDE in source and not Path(source).is_file():
        from analysis.fitting.leveraged import with_dense

        ratio, _, dense = source.partition(BESIDE)
        return with_dense(load_fit(ratio), load_fit(dense))
    if source.startswith("published:"):
        name = source.removeprefix("published:")
        if name in _ENSEMBLES:
            ensemble: Fit = pkgutil.resolve_name(_ENSEMBLES[name])()
            return ensemble
        from analysis.fitting.published_draws import with_draws  # it imports this module for the type

        return with_draws(name)
    if not Path(source).is_file():
        raise InputError(f"{source}: no such fit; give a file that `{FIT.command}` wrote, or published:NAME")
    return parse_fit(FIT.read(source), source, own_law)


def with_dense_beside(names: Sequence[str], dense: str | None = None) -> list[str]:
    """The names of fits, those of the law `leverage` with the dense fit beside them that gives a loss.

    Raises InputError where a dense fit is named and none of them needs one.
    """
    found = [
        f"{name}{BESIDE}{dense or _USUAL_DENSE}" if BESIDE not in name and load_fit(name).law == LEVERAGE.name else name
        for name in names
    ]
    if dense is not None and found == list(names):
        raise InputError(f"`dense` stands beside a fit of law {LEVERAGE.name} alone, which gives no loss without it")
    return found

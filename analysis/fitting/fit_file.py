"""Fits on disk and by name."""

from __future__ import annotations

import pkgutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from analysis.fitting.fit import Fit
from analysis.fitting.fit_checks import require_sound
from analysis.laws import LAWS, Law
from scaling.errors import InputError
from scaling.values import FIT

# Fits of several laws, by the name in `law`: their homes stand above this package and are looked up when one is read.
_SEVERAL_LAWS = {"mixture": "analysis.mixture.mixture:Mixture", "ensemble": "analysis.mixture.ensemble:Ensemble"}
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

    `own_law` is its law where that was made in Python. Raises InputError where there is none, or where its law is not
    known.
    """
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

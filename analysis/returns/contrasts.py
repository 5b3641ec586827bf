"""Contrasts: pairs of arms that a study compares, such as its registered ones, and what an interval says of each."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from analysis.returns.bootstrap import Interval, opposed
from scaling.errors import InputError
from scaling.formatting import listed

_FORM = re.compile(r"(?:(?P<name>[^:]+):)?(?P<ours>.+?) - (?P<theirs>.+?)(?: within (?P<margin>\S+))?")
_BEST = "best of "


@dataclass(frozen=True)
class Contrast:
    """The better of the arms `ours` minus the arm `theirs`. margin: up to which a difference counts as none."""

    name: str
    ours: tuple[str, ...]
    theirs: str
    margin: float | None = None


@dataclass(frozen=True)
class ContrastResult:
    """The difference of the interquartile means of two arms and the probability that a run of `ours` scores more than
    one of `theirs`, with 95 % intervals. `ours` is the arm that was best where several were named. by_game: the
    difference in each game alone; empty where there is one game, and in files of versions that did not ask."""

    name: str
    ours: str
    theirs: str
    margin: float | None
    difference: Interval
    improvement: Interval
    by_game: Mapping[str, Interval] = field(default_factory=dict)

    @property
    def verdict(self) -> str:
        """Where the interval of the difference lies, the first of these that holds: `above 0`, `within ±margin`,
        `below 0`, `not decided`."""
        found = self.difference
        if found.above(0.0):
            return "above 0"
        if self.margin is not None and found.within(self.margin):
            return f"within ±{self.margin:g}"
        return "below 0" if found.below(0.0) else "not decided"

    @property
    def said(self) -> str:
        """The finding in a line, with the games in which it is the other way round."""
        found = self.difference.text("+.2f", "(95 % {} to {})")
        apart = opposed(self.by_game)
        return f"{self.name}: {self.ours} − {self.theirs} = {found}, {self.verdict}" + (f"; {apart}" if apart else "")


def read_contrast(text: str) -> Contrast:
    """`[NAME:] ARM - ARM [within MARGIN]`, where the first may be `best of ARM, ARM`. Raises InputError."""
    found = _FORM.fullmatch(text.strip())
    if found is None:
        raise InputError(
            f"`contrast` {text!r} is not of the form '[NAME:] ARM - ARM [within MARGIN]', with spaces around the minus"
        )
    ours, theirs = found["ours"].strip(), found["theirs"].strip()
    arms = tuple(arm.strip() for arm in ours.removeprefix(_BEST).split(",")) if ours.startswith(_BEST) else (ours,)
    name = found["name"].strip() if found["name"] else f"{ours} - {theirs}"
    return Contrast(name, arms, theirs, None if found["margin"] is None else _margin(found["margin"], text))


def best_of(contrast: Contrast, iqm: Mapping[str, float], source: str) -> str:
    """The arm of a contrast with the highest interquartile mean. Raises InputError for an arm that is not there."""
    unknown = [arm for arm in (*contrast.ours, contrast.theirs) if arm not in iqm]
    if unknown:
        raise InputError(f"{source}: `contrast` {contrast.name}: no arm {listed(map(repr, unknown))}; arms are "
                         f"{listed(iqm, most=40)}")  # fmt: skip
    return max(contrast.ours, key=iqm.__getitem__)


def _margin(text: str, of: str) -> float:
    try:
        margin = float(text)
    except ValueError:
        margin = -1.0
    if not 0 < margin < float("inf"):
        raise InputError(f"`contrast` {of!r}: the margin must be a positive number, found {text!r}")
    return margin

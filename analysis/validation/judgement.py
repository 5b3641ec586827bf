"""Judgements: what each check says of a fit, stable under resampling.

A share of intervals that hold, a weight or a standard error moves with the seed and the number of resamples. A
judgement is therefore made from repeats with seeds of its own: it holds or fails where all repeats agree, and is
undecided where they do not. Nothing that a user chooses for the figures (`rng`, `resamples`) enters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from analysis.fitting.roll_out import ErrorSummary, RollOut, brief
from analysis.validation.held_out import ExpertsLeftOut
from analysis.validation.influence import Sensitivity
from analysis.validation.law_comparison import LawComparison
from scaling.formatting import listed, percent, plural

Outcome = Literal["holds", "fails", "undecided"]
SEEDS = (0, 1, 2)
RESAMPLES, FOR_ERRORS = 100, 300
"""Resamples of a repeat, and of the standard errors that changes are measured in."""
_STATED = 0.95
_USELESS = 0.8  # where the share inside may be lower than this, too few trunks were predicted to say that it holds
_MOVED, _UNSURE = 2.0, 0.3  # standard errors; those of 300 resamples are known to 4 %, the largest of many to some 15 %
_CLOSE = 2.0  # standard errors of the difference between laws


@dataclass(frozen=True)
class Judgement:
    """`outcome` is None for a check that judges nothing, or could not be made."""

    outcome: Outcome | None
    sentence: str


def of_roll_out(repeats: Sequence[RollOut]) -> Judgement:
    """Do intervals of larger runs hold? By the share inside and its Clopper-Pearson interval over trunks."""
    cuts = plural(sum(1 for cut in repeats[0].cuts if not cut.reason), "compute cut")
    summaries = [repeat.overall for repeat in repeats if repeat.overall is not None]
    if len(summaries) < len(repeats):
        return Judgement(None, repeats[0].verdict())
    return _of_shares(f"roll-out over {cuts}", "larger runs", summaries)


def of_experts_left_out(repeats: Sequence[ExpertsLeftOut]) -> Judgement:
    """Do intervals of expert counts that were left out hold?"""
    title = "one expert count left out"
    parts = []
    for kind in ("interpolation", "extrapolation"):
        summaries = [summary for repeat in repeats if (summary := repeat.summary(kind)) is not None]
        if len(summaries) == len(repeats):
            parts.append(_of_shares(kind, "runs", summaries))
    refused = [part.label for part in repeats[0].parts if part.reason]
    sentences = [part.sentence for part in parts] + ([f"no fit without {listed(refused)}"] if refused else [])
    outcomes = {part.outcome for part in parts}
    outcome: Outcome | None = "fails" if "fails" in outcomes else "undecided" if "undecided" in outcomes else None
    return Judgement("holds" if outcomes == {"holds"} else outcome, f"{title}: {'; '.join(sentences)}")


def of_comparison(law: str, repeats: Sequence[LawComparison]) -> Judgement:
    """Does the law predict held-out trunks as well as the best, within two standard errors, however folds are dealt?"""
    if any(not repeat.contenders for repeat in repeats) or all(len(repeat.contenders) == 1 for repeat in repeats):
        return Judgement(None, repeats[0].verdict())
    close = [
        {one.law for one in repeat.contenders if -one.difference <= _CLOSE * one.difference_se} for repeat in repeats
    ]
    outcome = _agreed([law in names for names in close])
    always, sometimes = set.intersection(*close), set.union(*close)
    deals = plural(len(repeats), "deal")
    others = listed(sorted(always - {law}))
    if outcome == "holds":
        verb = "does" if len(always - {law}) == 1 else "do"
        besides = f", and so {verb} {others}" if others else ", and no other does"
        sentence = f"laws: {law} predicts held-out trunks as well as any, within two standard errors{besides}"
    elif outcome == "fails":
        verb = "predicts" if len(sometimes) == 1 else "predict"
        sentence = f"laws: {listed(sorted(sometimes))} {verb} held-out trunks better than {law}, by two standard errors"
    else:
        sentence = (
            f"laws: undecided, since {deals} of folds disagree whether {law} predicts held-out trunks as well as any"
        )
    advised = [
        one.advice.n_active
        for repeat in repeats[:1]
        for one in repeat.contenders
        if one.advice is not None and (one.law in sometimes or one.law == law)
    ]
    if len(advised) > 1:
        sentence += f"; their optimal N differ by up to a factor {max(advised) / min(advised):.2g}"
    return Judgement(outcome, sentence)


def of_sensitivity(found: Sensitivity) -> Judgement:
    """Does leaving out one trunk, or one group of runs, move the fit by more than two standard errors?"""
    kinds = (("trunk", found.trunks), ("group of runs", found.groups))
    worst = {
        name: max(exclusions, key=lambda one: one.influence or 0.0, default=None) for name, exclusions in kinds
    }  # fmt: skip
    known = {name: one for name, one in worst.items() if one is not None and one.influence is not None}
    if not known:
        return Judgement(None, found.verdict())
    parts = []
    for name, one in known.items():
        size = one.influence or 0.0
        if size <= _MOVED - _UNSURE:
            parts.append(f"no {name} moves the fit by more than two standard errors")
        else:
            how = "about" if size < _MOVED + _UNSURE else "more than"
            change = one.changes[one.moved or ""].percent
            parts.append(f"{one.title} moves {one.moved} by {brief(change, '+')} %, {how} two standard errors")
    largest = max(one.influence or 0.0 for one in known.values())
    outcome: Outcome = "holds" if largest <= _MOVED - _UNSURE else "fails"
    if _MOVED - _UNSURE < largest < _MOVED + _UNSURE:
        outcome = "undecided"
    undetermined = [one.label for one in found.groups if one.reason]
    parts += [f"without {listed(undetermined)} the runs determine no fit"] if undetermined else []
    return Judgement(outcome, f"sensitivity: {'; '.join(parts)}")


def _of_shares(title: str, what: str, summaries: Sequence[ErrorSummary]) -> Judgement:
    first = summaries[0]
    errors = f"median error {brief(first.median_error)} %, worst {brief(abs(first.worst))} %"
    intervals = [one.share_interval for one in summaries if one.share_interval is not None]
    shares = [one.share_inside for one in summaries if one.share_inside is not None]
    if len(intervals) < len(summaries):
        return Judgement(None, f"{title}: {errors}")
    outcome = _agreed([high >= _STATED for _, high in intervals])
    if outcome == "holds" and min(low for low, _ in intervals) < _USELESS:
        outcome = "undecided"
    least, most = percent(min(shares)), percent(max(shares))
    held = least if least == most else f"{least.removesuffix('%')} to {most}"
    word = {"holds": "intervals hold", "fails": "intervals are too narrow", "undecided": "undecided"}[outcome]
    count = f"{first.n_judged} {what} of {plural(first.n_trunks, 'trunk')}"
    return Judgement(outcome, f"{title}: {word}, {held} of {count} inside 95 %, {errors}")


def _agreed(held: Sequence[bool]) -> Outcome:
    return "holds" if all(held) else "fails" if not any(held) else "undecided"

"""How far to believe the law: what it made of runs it had not seen, and what would have moved it."""

from __future__ import annotations

import re
from collections.abc import Sequence

from analysis.fitting.profile import Profile
from analysis.fitting.roll_out import ErrorSummary, HeldOutRuns, RollOut, brief
from analysis.report.blocks import Block, bullets, picture, sheet, text
from analysis.report.plots import validation
from analysis.report.study import Study
from analysis.validation.checks import Checks
from analysis.validation.influence import Exclusion
from analysis.validation.law_comparison import Contender
from scaling import formatting
from scaling.formatting import flops, number, percent, plural, sentence, si

TITLE = "How far to believe the law"
_FAR = 2.0  # standard errors
_LIGHT = 0.05  # weight of a law whose advice does not count
_MOST_REASON = 150  # characters


def belief(study: Study) -> list[Block]:
    """The verdict first, then what it rests on."""
    checks = study.checks
    if checks is None:
        return []
    if checks.refused:
        return [text(sentence(f"The law was not checked: {checks.refused}"))]
    shown = [draw.__name__ for draw in validation.drawn(study)]
    blocks = [text(verdict(study, checks)), bullets(_told(checks))]
    for name, caption in (
        ("unseen_runs", _unseen(checks)),
        ("left_over", _left_over(study)),
        ("influence", _influence(study, checks)),
        ("profiles", _profiles(study, checks.profiles)),
        ("isoflop", _isoflop(checks)),
    ):
        blocks += [picture(name, caption)] if name in shown else []
        if name == "unseen_runs":
            blocks += [*_splits(checks), *_laws(checks)]
    return [*blocks, *_findings(study)]


def verdict(study: Study, checks: Checks) -> str:
    """What held on unseen runs, and what weakens it, in two or three sentences."""
    weak = _weaknesses(study, checks)
    told = f"What weakens it: {'; '.join(weak)}." if weak else _nothing_against(checks)
    return f"{_tried(study, checks)} {told}".strip()


def _tried(study: Study, checks: Checks) -> str:
    """What became of predictions of dearer runs, and whether the recommendation lies within what was tried."""
    found = checks.roll_out.overall if checks.roll_out is not None else None
    if checks.roll_out is None or found is None:
        return f"The law could not be tried on runs dearer than those it was fitted to: {_why_untried(checks)}."
    ratios = [run.ratio for cut in checks.roll_out.cuts for run in cut.runs if run.ratio is not None]
    told = f"Fitted to the cheaper runs alone, the law predicted dearer ones with a median error of {_percent(found)}"
    if found.n_inside is not None and found.share_interval is not None:
        told += (
            f"; {found.n_inside} of {found.n_judged} lie in their 95% prediction intervals, which in the median reach "
            f"{_half_width(checks.roll_out):.2g}% either way"
        )
        low, high = found.share_interval
        if low < 0.9:
            few = f"from {plural(found.n_trunks, 'trunk')} the true share may be {percent(low)} to {percent(high)}"
            told += f" ({few})"
    needed = study.decision["recommendation"]["train_flops"] / study.table.frame["train_flops"].max()
    reach = "which was tried" if needed <= max(ratios) else "further than was tried"
    return (
        f"{told}. That is at {min(ratios):.2g} to {max(ratios):.2g} times the compute of the largest run fitted; the "
        f"recommended model takes {needed:.2g} times that of the largest run of all, {reach}."
    )


def _half_width(found: RollOut) -> float:
    """Half the width of the intervals, in percent of the prediction, median."""
    rows = found.frame()
    return float(((rows["high"] - rows["low"]) / 2).median())


def _why_untried(checks: Checks) -> str:
    if checks.roll_out is None:
        return checks.unsaid["roll_out"].rstrip(".")
    reasons = [cut.reason for cut in checks.roll_out.cuts if cut.reason]
    return reasons[0].rstrip(".") if reasons else "no cut of the compute leaves runs on both of its sides"


def _weaknesses(study: Study, checks: Checks) -> list[str]:
    weak = []
    close = _close(checks)
    advised = sorted({one.advice.n_experts for one in close if one.advice is not None})
    if len(close) > 1:
        told = f"the runs do not say which of {plural(len(close), 'law')} is right ({_names(close)})"
        if len(advised) > 1:
            told += f", and these would train E = {', '.join(map(str, advised))} at {flops(checks.train_flops)} FLOP"
        weak.append(told)
    elif close and close[0].law != study.law_fit.law:
        weak.append(f"law {close[0].law} predicts unseen trunks better than {study.law_fit.law}")
    worst = _worst(checks)
    if worst is not None and (worst.influence or 0.0) > _FAR:
        weak.append(_moves(worst))
    lost = [one.label for one in checks.sensitivity.groups if one.reason] if checks.sensitivity is not None else []
    weak += [f"without {', '.join(lost)} the runs determine no law"] if lost else []
    unbounded = [one.name for one in checks.profiles if None in one.interval]
    weak += [f"the runs do not bound {', '.join(unbounded)} on both sides"] if unbounded else []
    if checks.residuals is not None and checks.residuals.faults:
        weak.append(f"its residuals show {plural(len(checks.residuals.faults), 'fault')} (below)")
    return weak


def _nothing_against(checks: Checks) -> str:
    """What was looked at without finding anything."""
    looked = []
    if checks.comparison is not None and len(checks.comparison.contenders) > 1:
        looked.append("no other law predicts unseen trunks as well")
    if _worst(checks) is not None:
        looked.append("no trunk or group of runs moves it by more than two standard errors")
    if checks.residuals is not None:
        looked.append("its residuals show no fault")
    return sentence(f"Nothing speaks against it: {'; '.join(looked)}") if looked else ""


def _close(checks: Checks) -> list[Contender]:
    """The laws within two standard errors of the best that carry some weight."""
    contenders = checks.comparison.contenders if checks.comparison is not None else ()
    near = [one for one in contenders if -one.difference <= _FAR * one.difference_se]
    return [one for one in near if one.weight >= _LIGHT]


def _names(laws: Sequence[Contender]) -> str:
    return ", ".join(f"{one.law} {one.weight:.2f}" for one in laws)


def _worst(checks: Checks) -> Exclusion | None:
    """The runs whose absence moves something most."""
    if checks.sensitivity is None:
        return None
    known = [one for one in (*checks.sensitivity.trunks, *checks.sensitivity.groups) if one.influence is not None]
    return max(known, key=lambda one: one.influence or 0.0, default=None)


def _moves(one: Exclusion) -> str:
    change = one.changes[one.moved or ""]
    left_out = f"trunk {one.label}" if one.kind == "trunk" else f"“{one.label}”"
    return (
        f"leaving out {left_out} ({plural(one.n_left_out, 'run')}) moves {one.moved} by "
        f"{_set(brief(change.percent, '+'))}%, {abs(change.in_se or 0.0):.1f} standard errors"
    )


def _told(checks: Checks) -> list[str]:
    """One line a check: what it found, or why it could not be made."""
    cuts = checks.roll_out.cuts if checks.roll_out is not None else ()
    told = [f"{_budget(cut.label)}: {note}" for cut in cuts for note in cut.notes]
    for what, name, found in (
        ("one expert count left out", "experts_left_out", checks.experts_left_out),
        ("laws", "comparison", checks.comparison),
    ):
        told.append(_not(what, checks, name) if found is None else found.verdict())
    if checks.sensitivity is not None:
        told += [checks.sensitivity.verdict(), *checks.sensitivity.notes]
    else:
        told.append(_not("runs left out", checks, "sensitivity"))
    if checks.residuals is None:
        told.append(_not("residuals", checks, "residuals"))
    elif checks.residuals.faults:
        told.append(f"residuals: {'; '.join(_of_run(fault.sentence, checks) for fault in checks.residuals.faults)}")
    else:
        told.append("residuals: no trend, unequal spread, heavy tails or outlier stands out")
    if "profiles" in checks.unsaid:
        told.append(_not("profiles", checks, "profiles"))
    return [_set(line) for line in told]


def _not(what: str, checks: Checks, name: str) -> str:
    return f"{what}: not possible here ({checks.unsaid[name]})"


def _of_run(told: str, checks: Checks) -> str:
    """A sentence on residuals with the run named where it counts rows."""
    found = checks.residuals
    if found is None or "run_id" not in checks.table.frame:
        return told
    return told.replace(f"row {found.largest} ", f"run {checks.table.frame['run_id'].iloc[found.largest]} ")


def _set(told: str) -> str:
    """A sentence of the terminal as it is printed: true minus and plus-minus signs, percent signs closed up."""
    return re.sub(r"(?<![\w.])-(?=\d)", "−", told.replace("+-", "±")).replace(" %", "%")


def _unseen(checks: Checks) -> str:
    """Caption of the figure of unseen runs and laws."""
    told = []
    if checks.roll_out is not None and checks.roll_out.overall is not None:
        cuts = sum(1 for cut in checks.roll_out.cuts if not cut.reason)
        told.append(
            f"Runs above {plural(cuts, 'cut')} in compute as the law fitted below it predicted them: measured minus "
            f"predicted, bars are 95% prediction intervals (law and noise of a run, {checks.resamples} resamples a "
            "cut), a red ring marks a run outside"
        )
    if checks.comparison is not None and len(checks.comparison.contenders) > 1:
        told.append(
            f"Weight of evidence between laws, from {checks.comparison.n_folds} folds of "
            f"{checks.comparison.n_trunks} trunks; in brackets the held-out log score against the best"
        )
    return " ".join(sentence(line) for line in told)


def _splits(checks: Checks) -> list[Block]:
    """Every split of the runs, and how those held out were predicted."""
    parts: list[tuple[str, HeldOutRuns]] = []
    parts += [(part.label, part) for part in (checks.roll_out.cuts if checks.roll_out else ())]
    left_out = checks.experts_left_out.parts if checks.experts_left_out else ()
    parts += [(f"without {part.label} ({part.kind})", part) for part in left_out]
    rows = [_split(name, part.n_fitted, part.summary) for name, part in parts if part.summary is not None]
    refused = [f"{name}: {_short(part.reason)}" for name, part in parts if part.reason]
    columns = ["fitted to", "runs", "predicted", "median error", "bias", "worst", "inside", "95% of that share"]
    caption = (
        "The law fitted to some of the runs and held against the others; errors are predicted minus measured in "
        "percent of the loss, intervals of the share count runs of one trunk as one."
    )
    blocks = [sheet(columns, rows, caption)] if rows else []
    return [*blocks, *([bullets([_set(line) for line in refused])] if refused else [])]


def _split(name: str, n_fitted: int, found: ErrorSummary) -> list[str]:
    inside = "–" if found.n_inside is None else f"{found.n_inside} of {found.n_judged}"
    ends = found.share_interval
    share = "–" if ends is None else f"{percent(ends[0])} – {percent(ends[1])}"
    bias, worst = (f"{_set(brief(value, '+'))}%" for value in (found.bias, found.worst))
    return [_budget(name), str(n_fitted), str(found.n), _percent(found), bias, worst, inside, share]


def _budget(label: str) -> str:
    """A cut as budgets are written."""
    name, _, value = label.partition(" <= ")
    return f"C ≤ {flops(float(value))} FLOP" if name == "train_flops" and value else label


def _laws(checks: Checks) -> list[Block]:
    """What every law that was compared would recommend."""
    found = checks.comparison
    if found is None:
        return []
    rows = [
        [
            one.law,
            str(one.n_free),
            f"{one.weight:.2f}" if one.weight >= validation.LEAST_WEIGHT else "< 0.01",
            "best" if one is found.contenders[0] else _set(f"{one.difference:.1f} ± {one.difference_se:.1f}"),
            f"{100 * one.rmse_held_out:.2f}%",
            *(
                ["–"] * 4
                if one.advice is None
                else [
                    str(one.advice.n_experts),
                    si(one.advice.n_active),
                    si(one.advice.tokens),
                    formatting.loss(one.advice.loss),
                ]
            ),
        ]
        for one in found.contenders
    ]
    columns = ["law", "free", "weight", "score, nats", "rms held out", "E", "active", "tokens", "loss"]
    caption = (
        f"Laws that these runs serve, by their log score on trunks held out ({found.n_folds} folds), and the model of "
        f"least loss that each would train with {flops(checks.train_flops)} FLOP (serving not counted). Where weights "
        "are shared, so is the right to be believed."
    )
    skipped = "; ".join(f"{name} ({_short(reason)})" for name, reason in found.skipped.items())
    table = [sheet(columns, rows, caption)] if rows else []
    return [*table, *([text(_set(f"Not compared: {skipped}."))] if skipped else [])]


def _left_over(study: Study) -> str:
    return (
        f"What the {study.law_fit.law} law leaves over in {plural(study.law_fit.n_runs, 'run')}, against each column; "
        "the line joins medians. Where it leaves zero, the law lacks a trend that the runs have."
    )


def _influence(study: Study, checks: Checks) -> str:
    found = checks.sensitivity
    tried = 0 if found is None else found.n_trunks_tried
    return (
        f"The law fitted again without each of {plural(tried, 'trunk')} and without groups of runs: what moves most, "
        f"in standard errors of {study.law_fit.n_draws} resamples and in percent. The optimum is that at "
        f"{flops(checks.train_flops)} FLOP. Beyond the band those runs decide more than chance does."
    )


def _profiles(study: Study, found: Sequence[Profile]) -> str:
    ends = "; ".join(f"{one.name} {_between(one.interval)}" for one in found)
    return (
        f"Above, how far the objective rises as one parameter is held and the others are fitted again; 95% profile "
        f"intervals: {ends}. Below, {study.law_fit.n_draws} bootstrap draws, the estimate as a cross: a thin cloud is "
        "a valley along which parameters trade off."
    )


def _between(interval: tuple[float | None, float | None]) -> str:
    low, high = (None if end is None else number(end, ".3g") for end in interval)
    if low is None and high is None:
        return "bounded on neither side"
    return f"{low} to {high}" if low and high else f"above {low}" if low else f"below {high}"


def _isoflop(checks: Checks) -> str:
    told = [
        "Runs of equal compute with a parabola in ln N at each budget; stars are minima, hollow ones are flagged and "
        "left out of the frontier. The method is biased where windows are wide or off centre, and uses the runs less "
        "well than the law does"
    ]
    for one in checks.isoflop:
        name = formatting.experts(one.n_experts)
        if one.bias is not None:
            factor, budget = one.bias.line_over_true, flops(one.bias.train_flops)
            told.append(
                f"on the fitted law's own surface its line for {name} gives {factor:.2f} times the true optimal N at "
                f"{budget} FLOP"
            )
        if one.line is None:
            told.append(f"no frontier for {name}: {_short(one.reason)}")
    return " ".join(sentence(line) for line in told)


def _findings(study: Study) -> list[Block]:
    """What the runs cannot say, by name."""
    rows = [[finding.name, _set(finding.message), finding.vary or "–"] for finding in study.law_fit.findings]
    if not rows:
        return [text("The design has no named fault: no axis stands still, no two move together, no valley is flat.")]
    return [
        sheet(["finding", "what it means", "vary"], rows, "What these runs leave open, and the axis to vary.", wide=1)
    ]


def _percent(found: ErrorSummary) -> str:
    return f"{found.median_error:.2g}%"


def _short(reason: str) -> str:
    """A reason without its further remedies where it is long."""
    return reason if len(reason) <= _MOST_REASON else f"{reason[:_MOST_REASON].rsplit(' ', 1)[0]} …"

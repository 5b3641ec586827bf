"""How far to believe the law: how it predicted runs that it had not seen, and what would have changed it."""

from __future__ import annotations

from analysis.fitting.roll_out import HeldOutRuns, RollOut, brief
from analysis.report.blocks import (
    ACTIVE,
    TOKENS,
    Block,
    Cell,
    bullets,
    field,
    picture,
    table,
    text,
    three_digits,
    typeset,
)
from analysis.report.plots import validation as validation_plots
from analysis.report.study import ReportStudy
from analysis.validation.checks import Checks
from analysis.validation.influence import Exclusion
from analysis.validation.law_comparison import Contender
from scaling.formatting import between, experts, flops, listed, loss, percent, plural, sentence, si

TITLE = "How far to believe the law"
_FAR = 2.0  # standard errors
_LIGHT = 0.05  # weight of a law whose advice does not count
_MOST_REASON = 150  # characters


def belief(study: ReportStudy) -> list[Block]:
    """The verdict first, then what it rests on."""
    checks = study.checks
    if checks is None:
        return []
    if checks.refused:
        return [text(sentence(f"The law was not checked: {checks.refused}"))]
    shown = {draw.__name__ for draw in validation_plots.drawn(study)}

    def figure(name: str, caption: str) -> list[Block]:
        return [picture(name, caption)] if name in shown else []

    return [
        text(verdict(study, checks)),
        bullets(findings_by_check(checks)),
        *figure("unseen_runs", _unseen(checks)),
        *_splits(checks),
        *_laws(checks),
        *figure("residuals", _residuals(study)),
        *figure("influence", _influence(study, checks)),
        *figure("profiles", _profiles(study, checks)),
        *figure("isoflop", _isoflop(checks)),
        _identifiability(study),
    ]


def verdict(study: ReportStudy, checks: Checks) -> str:
    """What held on unseen runs, and what weakens it, in two or three sentences."""
    weaknesses = _weaknesses(study, checks)
    judged = f"What weakens it: {'; '.join(weaknesses)}." if weaknesses else _nothing_against(checks)
    return f"{_on_unseen_runs(study, checks)} {judged}".strip()


def _on_unseen_runs(study: ReportStudy, checks: Checks) -> str:
    """How larger-compute runs were predicted, and whether the recommendation lies within the range that was tested."""
    roll_out = checks.roll_out
    if roll_out is None or roll_out.overall is None:
        return f"The law could not be tested on larger-compute runs than those it was fitted to: {_untested(checks)}."
    errors = roll_out.overall
    ratios = [run.ratio for cut in roll_out.cuts for run in cut.runs if run.ratio is not None]
    inside = ""
    if errors.n_inside is not None and errors.share_interval is not None:
        low, high = errors.share_interval
        inside = (
            f"; {errors.n_inside} of {errors.n_judged} lie in their 95% prediction intervals, whose median half-width "
            f"is {_half_width(roll_out):.2g}%"
        )
        if low < 0.9:
            share = f"{percent(low)} to {percent(high)}"
            inside += f" (from {plural(errors.n_trunks, 'trunk')} the true share may be {share})"
    needed = study.decision.best.train_flops / study.table.frame["train_flops"].max()
    reach = "which was tested" if needed <= max(ratios) else "further than was tested"
    return (
        "Fitted to the smaller-compute runs alone, the law predicted larger-compute ones with a median error of "
        f"{errors.median_error:.2g}%{inside}. That is at {si(min(ratios), 2)} to {si(max(ratios), 2)} times the "
        f"compute of the largest run fitted; the recommended model takes {si(needed, 2)} times that of the largest run "
        f"of all, {reach}."
    )


def _half_width(roll_out: RollOut) -> float:
    """Half the width of the intervals, in percent of the prediction, median."""
    rows = roll_out.frame()
    return float(((rows["high"] - rows["low"]) / 2).median())


def _untested(checks: Checks) -> str:
    reasons = [cut.reason for cut in checks.roll_out.cuts] if checks.roll_out else [checks.reasons["roll_out"]]
    return next(filter(None, reasons), "no cut of the compute leaves runs on both of its sides").rstrip(".")


def _weaknesses(study: ReportStudy, checks: Checks) -> list[str]:
    weaknesses, close = [], _close(checks)
    if len(close) > 1:
        names = ", ".join(f"{law.law} {law.weight:.2f}" for law in close)
        undecided = f"the runs do not decide between {plural(len(close), 'law')} ({names})"
        advised = sorted({law.advice.n_experts for law in close if law.advice is not None})
        if len(advised) > 1:
            undecided += f", and these would train E = {listed(advised)} at {flops(checks.train_flops)} FLOP"
        weaknesses.append(undecided)
    elif close and close[0].law != study.law_fit.of_one_law.law:
        weaknesses.append(f"law {close[0].law} predicts unseen trunks better than {study.law_fit.of_one_law.law}")
    worst = most_influential(checks)
    if worst is not None and (worst.influence or 0.0) > _FAR:
        weaknesses.append(_moves(worst))
    undetermined = [group.label for group in checks.sensitivity.groups if group.reason] if checks.sensitivity else []
    unbounded = [profile.name for profile in checks.profiles if None in profile.interval]
    faults = checks.residuals.faults if checks.residuals is not None else ()
    weaknesses += [f"without {', '.join(undetermined)} the runs determine no law"] if undetermined else []
    weaknesses += [f"the runs do not bound {', '.join(unbounded)} on both sides"] if unbounded else []
    return weaknesses + ([f"its residuals show {plural(len(faults), 'fault')} (below)"] if faults else [])


def _nothing_against(checks: Checks) -> str:
    """What was checked without a finding."""
    checked = [
        ("no other law predicts unseen trunks as well", len(_contenders(checks)) > 1),
        (
            "no trunk or group of runs moves it by more than two standard errors",
            most_influential(checks) is not None,
        ),
        ("its residuals show no fault", checks.residuals is not None),
    ]
    clean = "; ".join(line for line, done in checked if done)
    return sentence(f"Nothing speaks against it: {clean}") if clean else ""


def _contenders(checks: Checks) -> tuple[Contender, ...]:
    return checks.comparison.contenders if checks.comparison is not None else ()


def _close(checks: Checks) -> list[Contender]:
    """The laws within two standard errors of the best that carry some weight."""
    return [law for law in _contenders(checks) if -law.difference <= _FAR * law.difference_se and law.weight >= _LIGHT]


def most_influential(checks: Checks) -> Exclusion | None:
    """The runs whose absence moves something most."""
    if checks.sensitivity is None:
        return None
    exclusions = (*checks.sensitivity.trunks, *checks.sensitivity.groups)
    judged = [exclusion for exclusion in exclusions if exclusion.influence is not None]
    return max(judged, key=lambda exclusion: exclusion.influence or 0.0, default=None)


def _moves(exclusion: Exclusion) -> str:
    change = exclusion.changes[exclusion.moved or ""]
    left_out = f"trunk {exclusion.label}" if exclusion.kind == "trunk" else f"“{exclusion.label}”"
    return (
        f"leaving out {left_out} ({plural(exclusion.n_left_out, 'run')}) moves {exclusion.moved} by "
        f"{_signed_percent(change.percent)}, {abs(change.in_se or 0.0):.1f} standard errors"
    )


def _signed_percent(value: float) -> str:
    return f"{typeset(brief(value, '+'))}%"


def findings_by_check(checks: Checks) -> list[str]:
    """One line a check: its finding, or why it could not be made."""

    def impossible(check: str, name: str) -> str:
        return f"{check}: not possible here ({checks.reasons[name]})"

    cuts = checks.roll_out.cuts if checks.roll_out is not None else ()
    lines = [f"{_budget(cut.label)}: {note}" for cut in cuts for note in cut.notes]
    for check, name, finding in (
        ("one expert count left out", "experts_left_out", checks.experts_left_out),
        ("laws", "comparison", checks.comparison),
        ("runs left out", "sensitivity", checks.sensitivity),
    ):
        lines.append(impossible(check, name) if finding is None else finding.verdict())
    lines += checks.sensitivity.notes if checks.sensitivity is not None else ()
    if checks.residuals is None:
        lines.append(impossible("residuals", "residuals"))
    else:
        faults = "; ".join(_with_run_id(fault.sentence, checks) for fault in checks.residuals.faults)
        lines.append(f"residuals: {faults or 'no trend, unequal spread, heavy tails or outlier stands out'}")
    lines += [impossible("profiles", "profiles")] if "profiles" in checks.reasons else []
    return lines


def _with_run_id(fault: str, checks: Checks) -> str:
    """A sentence on residuals with the run named where it counts rows."""
    residuals, frame = checks.residuals, checks.table.frame
    if residuals is None or "run_id" not in frame:
        return fault
    return fault.replace(f"row {residuals.largest} ", f"run {frame['run_id'].iloc[residuals.largest]} ")


def _unseen(checks: Checks) -> str:
    """Caption of the figure of unseen runs and laws."""
    lines = []
    if checks.roll_out is not None and checks.roll_out.overall is not None:
        cuts = sum(1 for cut in checks.roll_out.cuts if not cut.reason)
        lines.append(
            f"Runs above {plural(cuts, 'cut')} in compute against the predictions of the law fitted below it: measured "
            f"minus predicted, bars are 95% prediction intervals (law and noise of a run, {checks.resamples} resamples "
            "a cut), a red ring marks a run outside"
        )
    if checks.comparison is not None and len(checks.comparison.contenders) > 1:
        lines.append(
            f"Weight of evidence between laws, from {checks.comparison.n_folds} folds of {checks.comparison.n_trunks} "
            "trunks; in brackets the held-out log score against the best"
        )
    return " ".join(map(sentence, lines))


def _splits(checks: Checks) -> list[Block]:
    """Every split of the runs, and how those held out were predicted."""
    cuts = checks.roll_out.cuts if checks.roll_out is not None else ()
    left_out = checks.experts_left_out.parts if checks.experts_left_out is not None else ()
    parts: list[tuple[str, HeldOutRuns]] = [(_budget(part.label), part) for part in cuts]
    parts += [(f"without {part.label} ({part.kind})", part) for part in left_out]
    judged = [
        vars(part.summary) | {"name": name, "n_fitted": part.n_fitted}
        for name, part in parts
        if part.summary is not None
    ]
    refused = [f"{name}: {_shortened(part.reason)}" for name, part in parts if part.reason]
    columns: dict[str, Cell] = {
        "fitted to": field("name"),
        "runs": field("n_fitted"),
        "predicted": field("n"),
        "median error": field("median_error", lambda error: f"{error:.2g}%"),
        "bias": field("bias", _signed_percent),
        "worst": field("worst", _signed_percent),
        "inside": lambda split: None if split["n_inside"] is None else f"{split['n_inside']} of {split['n_judged']}",
        "95% of that share": field("share_interval", lambda ends: between(ends, percent)),
    }
    caption = (
        "The law fitted to some of the runs and compared with the others; errors are predicted minus measured in "
        "percent of the loss, intervals of the share count runs of one trunk as one."
    )
    return [*([table(judged, columns, caption)] if judged else []), *([bullets(refused)] if refused else [])]


def _budget(label: str) -> str:
    """A cut as budgets are written."""
    name, _, value = label.partition(" <= ")
    return f"C ≤ {flops(float(value))} FLOP" if name == "train_flops" and value else label


def _laws(checks: Checks) -> list[Block]:
    """What every law that was compared would recommend."""
    comparison = checks.comparison
    if comparison is None:
        return []
    best = comparison.contenders[:1]

    def score(law: Contender) -> str:
        return "best" if law in best else f"{law.difference:.1f} ± {law.difference_se:.1f}"

    columns: dict[str, Cell] = {
        "law": field("law"),
        "free": field("n_free"),
        "weight": lambda law: f"{law.weight:.2f}" if law.weight >= validation_plots.LEAST_WEIGHT else "< 0.01",
        "score, nats": score,
        "rms held out": field("rmse_held_out", lambda error: f"{100 * error:.2f}%"),
        "E": field("advice", field("n_experts")),
        "active": field("advice", ACTIVE),
        "tokens": field("advice", TOKENS),
        "loss": field("advice", field("loss", loss)),
    }
    caption = (
        f"Laws that can be fitted to these runs, by their log score on held-out trunks ({comparison.n_folds} folds), "
        f"and the model of least loss that each would train with {flops(checks.train_flops)} FLOP (serving not "
        "counted). Where laws share the weight, none of their recommendations stands alone."
    )
    skipped = "; ".join(f"{name} ({_shortened(reason)})" for name, reason in comparison.skipped.items())
    laws = [table(comparison.contenders, columns, caption)] if comparison.contenders else []
    return [*laws, *([text(f"Not compared: {skipped}.")] if skipped else [])]


def _residuals(study: ReportStudy) -> str:
    fit = study.law_fit.of_one_law
    return (
        f"Residuals of the {fit.law} law in {plural(fit.n_runs, 'run')} against each column; the "
        "line joins medians. Where it leaves zero, the law lacks a trend that the runs have."
    )


def _influence(study: ReportStudy, checks: Checks) -> str:
    trunks = 0 if checks.sensitivity is None else checks.sensitivity.n_trunks_tried
    return (
        f"The law refitted without each of {plural(trunks, 'trunk')} and without groups of runs: the largest changes, "
        f"in standard errors of {study.law_fit.of_one_law.n_draws} resamples and in percent. The optimum is that at "
        f"{flops(checks.train_flops)} FLOP. Changes beyond the band are larger than chance explains."
    )


def _profiles(study: ReportStudy, checks: Checks) -> str:
    intervals = "; ".join(f"{profile.name} {_ends(*profile.interval)}" for profile in checks.profiles)
    return (
        "Above, the rise of the objective as one parameter is held and the others are refitted; 95% profile intervals: "
        f"{intervals}. Below, {study.law_fit.n_draws} bootstrap draws, the estimate as a cross: a thin cloud is a "
        "valley along which parameters trade off."
    )


def _ends(low: float | None, high: float | None) -> str:
    if low is None:
        return "bounded on neither side" if high is None else f"below {three_digits(high)}"
    return f"above {three_digits(low)}" if high is None else f"{three_digits(low)} to {three_digits(high)}"


def _isoflop(checks: Checks) -> str:
    lines = [
        "Runs of equal compute with a parabola in ln N at each budget; stars are minima, hollow ones are flagged and "
        "left out of the frontier. The method is biased where windows are wide or off centre, and uses the runs less "
        "efficiently than the law does"
    ]
    for of_e in checks.isoflop:
        name = experts(of_e.n_experts)
        if of_e.bias is not None:
            lines.append(
                f"on the fitted law's own surface its line for {name} gives {of_e.bias.line_over_true:.2f} times the "
                f"true optimal N at {flops(of_e.bias.train_flops)} FLOP"
            )
        if of_e.line is None:
            lines.append(f"no frontier for {name}: {_shortened(of_e.reason)}")
    return " ".join(map(sentence, lines))


def _identifiability(study: ReportStudy) -> Block:
    """What the runs cannot identify, by name."""
    findings = study.law_fit.of_one_law.findings
    if not findings:
        return text("The design identifies every parameter.")
    columns = {
        "finding": field("name"),
        "meaning": field("message"),
        "vary": field("vary", lambda axis: axis or None),
    }
    return table(findings, columns, "What these runs leave open, and the axis to vary.", wide="meaning")


def _shortened(reason: str) -> str:
    """A reason without its further remedies where it is long."""
    return reason if len(reason) <= _MOST_REASON else f"{reason[:_MOST_REASON].rsplit(' ', 1)[0]} …"

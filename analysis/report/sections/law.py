"""The section on the law: parameters, intervals, and other laws."""

from __future__ import annotations

from analysis.fitting.fit import Fit
from analysis.mixture.ensemble import Ensemble
from analysis.report.blocks import Block, Cell, field, formula, picture, table, text, three_digits
from analysis.report.plots.decision import palette_of
from analysis.report.plots.study import sliced
from analysis.report.sections.serving import ASSUMPTIONS
from analysis.report.study import ReportStudy
from analysis.report.subject import Subject
from scaling.formatting import between, loss, number, plural

_OF_ENSEMBLE = (
    "The constants of each law are those of its fit, `published:NAME`; what each law advises alone, and its weight, "
    "stand under “The decision in detail”."
)


def law(subject: Subject) -> list[Block]:
    """The law behind the decision: its form, parameters, and how well it describes the runs."""
    fit = subject.law_fit
    draws = f"{fit.n_draws} bootstrap resamples by trunk" if fit.n_draws else "no resamples"
    if fit.status == "published":
        draws = f"{fit.n_draws} draws" if fit.n_draws else "no draws"
    how = [text(_how_fitted(fit)), *_intervals(subject)]
    how += [formula(fit.definition.typst)] if fit.definition.typst else []
    parts = [*how, text(_OF_ENSEMBLE) if isinstance(fit, Ensemble) else _parameters(fit, draws)]
    return (
        [*parts, *_against_runs(subject, draws), *_other_laws(subject)] if isinstance(subject, ReportStudy) else parts
    )


def _against_runs(study: ReportStudy, draws: str) -> list[Block]:
    """The law beside the runs."""
    fit = study.law_fit
    intervals = (
        f"The 95% intervals in percent of each estimate ({draws}); open diamonds are pinned. Long bars are what the "
        "grid leaves open."
    )
    along = f"Loss against tokens and against size: dots are runs, lines the law, bands its 95% interval over {draws}."
    if not sliced(study):
        along = (
            "The law along tokens and along size, other columns at their medians: lines are the law, bands its 95% "
            f"interval over {draws}, dots the runs moved there along the law, so that their scatter is the residual."
        )
    sides = "Both" if len(palette_of(study)) == 1 else "Left: loss against E at the corners of the grid. Middle, right"
    residuals = (
        f"{sides}: residuals of the law in {plural(fit.n_runs, 'run')}; a trend, or colours in order, would mean that "
        "the law is wrong there."
    )
    return [
        picture("parameters", intervals, 0.7),
        picture("loss_against_size_and_tokens", along),
        picture("loss_against_experts", residuals),
    ]


def _how_fitted(fit: Fit) -> str:
    """Source, data and objective of a fit, and what it reached."""
    law = f"Law {fit.law}, from {fit.definition.source}; N is {fit.definition.n_column}."
    if _as_printed(fit):
        ranges = "; ".join(f"{name} {between(ends)}" for name, ends in fit.domain.items())
        return f"{law} Its constants were not fitted here: {fit.source}." + (f" Fitted range: {ranges}." * bool(ranges))
    minimised = f"summed Huber loss with δ = {fit.delta:g}" if fit.objective_kind == "huber" else fit.objective_kind
    reached = condition = ""
    if fit.objective is not None and fit.rmse_log is not None:
        reached = (
            f", {fit.objective:.6g} at the minimum, which {fit.n_starts_at_minimum} of {fit.n_starts} starts reached. "
            f"Root mean square of log residuals {_percent(fit.rmse_log)}"
        )
    if fit.condition is not None:
        condition = f"; condition number of the scaled Jacobian {fit.condition:.3g}"
    return (
        f"{law} Fitted to {plural(fit.n_runs, 'run')} on {plural(fit.n_trunks, 'trunk')}; minimised: {minimised} of "
        f"{fit.residual} residuals{reached}{condition}."
    )


def _as_printed(fit: Fit) -> bool:
    """Whether the constants were printed by somebody else or handed in, and not fitted here."""
    return fit.status == "published" or not fit.n_runs


def _parameters(fit: Fit, draws: str) -> Block:
    def meaning(name: str) -> str:
        origin = "published" if _as_printed(fit) else "fitted"
        if name in fit.pinned:
            origin = f"pinned: {fit.pinned[name].source}"
        return f"{fit.definition.parameter(name).meaning}; {origin}"

    columns: dict[str, Cell] = {
        "parameter": str,
        "value": lambda name: number(fit.params[name]),
        "95% interval": lambda name: between(fit.intervals.get(name), three_digits),
        "meaning": meaning,
    }
    caption = f"Parameters of the law ({draws})"
    caption += "; pinned ones were not estimated." if fit.pinned else "."
    if not fit.n_draws and not fit.n_runs:
        del columns["95% interval"]
        caption = "Parameters of the law."
    return table(fit.definition.names, columns, caption, wide="meaning")


def _intervals(subject: Subject) -> list[Block]:
    """What kind the intervals are, and what a new run would measure; nothing for a fit without draws."""
    fit, chosen = subject.law_fit, subject.decision.best
    if not fit.n_draws:
        return []
    kind = "Intervals are bias-corrected and accelerated (BCa), from resamples of trunks and a jackknife over them"
    if fit.status == "published":
        kind = f"Intervals are quantiles of {fit.n_draws} draws, made as section “{ASSUMPTIONS}” says"
    elif not fit.jackknife:
        kind = "This fit was stored without a jackknife, so its intervals lack the acceleration of BCa: fit it again"
    elif fit.resampled.supply != "many":
        kind += "; with so few trunks for so many parameters, they are corrected less and widened"
    run = ""
    if chosen.run_interval is not None:
        run = (
            f": training the recommended model would measure {between(chosen.run_interval, loss)} nats per token, "
            f"where the law alone gives {between(chosen.loss_interval, loss)}"
        )
    return [text(f"{kind}. They are those of the law; a prediction interval adds the noise of a run{run}.")]


def _other_laws(study: ReportStudy) -> list[Block]:
    if len(study.fits) < 2:
        return []
    fits = [vars(fit) | {"name": name, "best": study.best_experts[name]} for name, fit in study.fits.items()]
    columns = {"fit": field("name"), "law": field("law"), "rms of log residuals": field("rmse_log", _percent)}
    columns |= {"runs": field("n_runs"), "status": field("status"), "E it recommends": field("best")}
    caption = "Every fit of this study and the E that it recommends for the question of page 1."
    return [table(fits, columns, caption)]


def _percent(residual: float) -> str:
    return f"{100 * residual:.2f}%"

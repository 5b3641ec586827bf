"""The section on the law: parameters, intervals, and other laws."""

from __future__ import annotations

from analysis.report.blocks import Block, picture, sheet, text
from analysis.report.plots.study import palette_of, sliced
from analysis.report.study import Study
from scaling import formatting
from scaling.formatting import between


def law(study: Study) -> list[Block]:
    """The law behind the decision: its form, parameters, and how well it describes the runs."""
    fit = study.law_fit
    definition = fit.definition
    minimised = f"summed Huber loss with δ = {fit.delta:g}" if fit.objective_kind == "huber" else fit.objective_kind
    told = (
        f"Law {fit.law}, from {definition.source}; N is {definition.n_column}. Fitted to "
        f"{formatting.plural(fit.n_runs, 'run')} on "
        f"{formatting.plural(fit.n_trunks, 'trunk')}; minimised: {minimised} of {fit.residual} residuals"
    )
    if fit.objective is not None and fit.rmse_log is not None:
        told += (
            f", {fit.objective:.6g} at the minimum, which {fit.n_starts_at_minimum} of {fit.n_starts} starts reached. "
            f"Root mean "
            f"square of log residuals {100 * fit.rmse_log:.2f}%"
        )
    if fit.condition is not None:
        told += f"; condition number of the scaled Jacobian {fit.condition:.3g}"
    draws = f"{fit.n_draws} bootstrap resamples by trunk" if fit.n_draws else "no resamples"
    rows = []
    for name in definition.names:
        pin = fit.pinned.get(name)
        origin = "fitted" if pin is None else f"pinned: {pin.source}"
        ends = between(fit.intervals.get(name), lambda value: formatting.number(value, ".3g"))
        rows.append(
            [name, formatting.number(fit.params[name]), ends, f"{definition.parameter(name).meaning}; {origin}"]
        )
    columns = ["parameter", "value", "95% interval", "meaning"]
    intervals = (
        f"The same intervals in percent of each estimate ({draws}); open diamonds are pinned. Long bars are what the "
        f"grid "
        "leaves open."
    )
    axes = f"Loss against tokens and against size: dots are runs, lines the law, bands its 95% interval over {draws}."
    if not sliced(study):
        axes = (
            "The law along tokens and along size, others at their medians: lines are the law, bands its 95% interval "
            f"over {draws}, dots the runs brought there by it, so that their scatter is what it leaves over."
        )
    sides = (
        "Left: loss against E at the corners of the grid. Middle and right" if len(palette_of(study)) > 1 else "Both"
    )
    left_over = (
        f"{sides}: what the law leaves over in "
        f"{fit.n_runs} runs; a trend, or colours in order, would mean that it is wrong there."
    )
    return [
        text(f"{told}."),
        *_intervals(study),
        {"kind": "math", "text": definition.typst},
        sheet(columns, rows, f"Parameters of the law ({draws}); pinned ones were not estimated.", wide=3),
        picture("parameters", intervals, 0.7),
        picture("loss_against_size_and_tokens", axes),
        picture("loss_against_experts", left_over),
        *_other_laws(study),
    ]


def _intervals(study: Study) -> list[Block]:
    """What kind the intervals are, and what a new run would measure; nothing for a fit without draws."""
    fit, chosen = study.law_fit, study.decision["recommendation"]
    if not fit.n_draws:
        return []
    told = "Intervals are bias-corrected and accelerated (BCa), from resamples of trunks and a jackknife over them"
    if not fit.jackknife:
        told = "This fit was stored without a jackknife, so its intervals lack the acceleration of BCa: fit it again"
    elif fit.resampled.supply != "many":
        told += "; trunks are few here for so many parameters, so they are corrected less and widened"
    told += ". They are those of the law; a prediction interval adds the noise of a run"
    if study.new_run is not None:
        told += (
            f": training the recommended model would measure {between(study.new_run, formatting.loss)} nats per token, "
            f"where the law alone says {between(chosen['loss_interval'], formatting.loss)}"
        )
    return [text(f"{told}.")]


def _other_laws(study: Study) -> list[Block]:
    if len(study.fits) < 2:
        return []
    rows = [
        [
            name,
            fit.law,
            "–" if fit.rmse_log is None else f"{100 * fit.rmse_log:.2f}%",
            str(fit.n_runs),
            fit.status,
            study.implied[name],
        ]
        for name, fit in study.fits.items()
    ]
    columns = ["fit", "law", "rms of log residuals", "runs", "status", "E it recommends"]
    return [sheet(columns, rows, "Every fit of this study and the E that it recommends for the question of page 1.")]

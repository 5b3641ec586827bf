"""The evidence behind a decision, section by section: words and numbers only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import pandas as pd

from analysis.figures import si
from analysis.laws import EXPERTS, TOKENS
from analysis.question import Question
from analysis.report import words
from analysis.report.blocks import Block, bullets, heading, picture, sheet, text
from analysis.report.pictures import palette_of, sizes_of, sliced
from analysis.report.study import Study
from analysis.report.words import between, flops, sentence
from scaling.serving import SERVICE

_MOST_FAILED = 12
_USUAL = asdict(Question(train_flops=1.0))
_PROVENANCE = ("corpus", "corpus_hash", "code_version", "versions", "device_kind", "executor", "schema_version")


def evidence(study: Study) -> list[Block]:
    """Which runs there are, and which are left out."""
    frame, failed = study.table.frame, study.failed
    compute = frame["train_flops"]
    told = (
        f"{words.plural(len(frame), 'run')} carry a loss: E in {_listed(frame[EXPERTS])}; active parameters "
        f"{si(frame['n_active'].min())} to {si(frame['n_active'].max())}; training tokens {si(frame[TOKENS].min())} to "
        f"{si(frame[TOKENS].max())}; counted compute {flops(compute.min())} to {flops(compute.max())} FLOP."
    )
    blocks: list[Block] = [text(told)]
    if study.answers:
        crossed = f"; {words.plural(len(failed), 'failed cell')} crossed out" if len(failed) else "; no cell failed"
        dots = f"Coverage of the grid: one dot per run ({len(frame)}){crossed}. Dots of one cell stand side by side."
        blocks = [text(f"{told} {_beyond(study)}"), picture("coverage", dots, 0.74)]
    if study.table.dropped:
        blocks.append(bullets([f"left out: {words.plural(n, 'run')} with {why}" for why, n in study.table.dropped]))
    if len(failed):
        rows = [
            [
                str(row["run_id"]),
                str(row[EXPERTS]),
                si(row["n_active"]),
                si(row[TOKENS]),
                str(row["status"]),
                _first_line(row["error"]),
            ]
            for _, row in failed.head(_MOST_FAILED).iterrows()
        ]
        more = f" The first {_MOST_FAILED} of {len(failed)}." if len(failed) > _MOST_FAILED else ""
        columns = ["run", "E", "active", "tokens", "status", "error"]
        blocks.append(sheet(columns, rows, f"Failed cells; none of them carries a loss.{more}", wide=5))
    return blocks + [text(sentence(note)) for note in study.table.notes]


def _beyond(study: Study) -> str:
    """How far the recommendation lies beyond the runs, and how much these differ from seed to seed."""
    chosen, noise = study.decision["recommendation"]["train_flops"], study.law_fit.noise
    largest = study.table.frame["train_flops"].max()
    repeated = (
        "No configuration was repeated with another seed, so run-to-run noise is not estimated."
        if noise is None
        else f"Configurations repeated with other seeds put run-to-run noise at {100 * noise:.2g}% of the loss."
    )
    return (
        f"Training the recommended model takes {chosen / largest:.2g} times the compute of the largest run. {repeated}"
    )


def expert_effect(study: Study) -> list[Block]:
    """What experts do at equal active size, without any law."""
    effects, left_out = study.effects.rows, _unpaired(study)
    if effects.empty:
        reason = "No routed run has a dense twin, equal but for its experts, evaluated on the same tokens."
        return [text(" ".join(filter(None, (reason, left_out))))]
    clear = int((effects["difference"] < -3 * effects["se"]).sum())
    worse = int((effects["difference"] > 3 * effects["se"]).sum())
    largest = effects[sizes_of(effects) == sizes_of(effects).max()]
    largest = largest[largest[TOKENS] == largest[TOKENS].max()]
    seeds = len(set(largest["seed"])) > 1
    each = [
        f"E = {int(row[EXPERTS])}"
        + (f" (seed {int(row['seed'])}): " if seeds else ": ")
        + f"{words.number(row['difference'], '+.3f')} ± {1.96 * row['se']:.3f}"
        for _, row in largest.iterrows()
    ]
    told = (
        f"Of {words.plural(len(effects), 'routed run')} with a dense twin (active size within 2%, otherwise equal but "
        f"for the experts), {clear} have a lower loss and {worse} a higher one by more than three standard errors. At "
        f"the largest size and budget loss changes by, in nats per token with 95% intervals, {'; '.join(each)}. "
        f"{left_out}"
    )
    n_documents = int(effects["n_documents"].min())
    caption = (
        f"Loss of routed runs minus that of their dense twins, paired over {n_documents} held-out documents; bars are "
        "95% intervals clustered by document (the spread between seeds is not in them). Below the line experts help."
    )
    return [text(told.strip()), picture("paired", caption)]


def _unpaired(study: Study) -> str:
    """How many routed runs have no place in the comparison, and why; nothing where all have one."""
    told = []
    if study.effects.without_twin:
        told.append(f"{words.plural(study.effects.without_twin, 'routed run')} without a dense twin")
    if study.effects.not_comparable:
        count = words.plural(study.effects.not_comparable, "routed run")
        told.append(f"{count} whose twin was evaluated on other tokens, or not at all")
    return f"Left out: {' and '.join(told)}." if told else ""


def law(study: Study) -> list[Block]:
    """The law behind the decision: its form, parameters, and how well it describes the runs."""
    fit = study.law_fit
    definition = fit.definition
    minimised = f"summed Huber loss with δ = {fit.delta:g}" if fit.objective_kind == "huber" else fit.objective_kind
    told = (
        f"Law {fit.law}, from {definition.source}; N is {definition.n_column}. Fitted to "
        f"{words.plural(fit.n_runs, 'run')} on "
        f"{words.plural(fit.n_trunks, 'trunk')}; minimised: {minimised} of {fit.residual} residuals"
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
        ends = between(fit.intervals.get(name), lambda value: words.number(value, ".3g"))
        rows.append([name, words.number(fit.params[name]), ends, f"{definition.parameter(name).meaning}; {origin}"])
    columns = ["parameter", "value", "95% interval", "meaning"]
    intervals = (
        f"The same intervals in percent of each estimate ({draws}); open diamonds are pinned. Long bars are what the "
        f"grid "
        "leaves open."
    )
    axes = f"Loss against tokens and against size: dots are runs, lines the law, bands its 95% interval over {draws}."
    if not sliced(study):
        axes = (
            "The law along tokens and along size, others at their medians: lines are the law, bands its 95% interval over "
            f"{draws}, dots the runs brought there by it, so that their scatter is what it leaves over."
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
            f": training the recommended model would measure {between(study.new_run, words.loss)} nats per token, where "
            f"the law alone says {between(chosen['loss_interval'], words.loss)}"
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


def reproduction(study: Study) -> list[Block]:
    """Commands, hashes and versions."""
    frame = study.table.frame
    spent = f"{flops(frame['train_flops'].sum())} FLOP"
    if frame["wall_s"].notna().any():
        spent += f", {frame['wall_s'].sum() / 3600:.2g} hours"
    facts = [("runs", str(len(frame))), *((name, _listed(frame[name])) for name in _PROVENANCE)]
    facts.append(("training of all runs", spent))
    if study.answers:
        facts += [(f"{name}, of the analysis", value) for name, value in study.law_fit.versions.items()]
    blocks = [
        {"kind": "code", "text": "\n".join(_commands(study))},
        sheet(["what", "value"], facts, "What the runs were made with; several values mean that runs differ.", wide=1),
    ]
    grid = study.grid.strip()
    return [*blocks, heading("The grid, as resolved"), {"kind": "code", "text": grid}] if grid else blocks


def _commands(study: Study) -> list[str]:
    """The commands that lead from the grid to this report; numbers are written out in full."""
    folder = study.path.name
    trained = [f"scaling sweep run {folder}/grid.yaml --out {folder}"] if study.grid else []
    if not study.answers:
        return [*trained, f"scaling methods {folder}", f"scaling report {folder} --out report.pdf"]
    fit, asked = study.law_fit, study.decision["question"]
    aside = ("service", "rented", "settings")
    given = {k: value for k, value in asked.items() if value and value != _USUAL.get(k) and k not in aside}
    shown = {name: str(value) for name, value in given.items() if isinstance(value, (str, int))}
    shown |= {name: f"{value:.17g}" for name, value in given.items() if isinstance(value, float)}
    shown |= {"n_experts": ",".join(map(str, asked["n_experts"]))} if asked["n_experts"] else {}
    flags = [f"--{name.replace('_', '-')} {value}" for name, value in shown.items()] + _service_flags(asked, folder)
    flags += [f"--set {name}={value:.17g}" for name, value in (asked.get("settings") or {}).items()]
    pins = [f"--pin {name}={pin.value:.17g}" for name, pin in fit.pinned.items() if pin.source == "as asked"]
    stored = f"{folder}/fits/{next(name for name, other in study.fits.items() if other is fit)}.json"
    answered = f"{folder}/recommendations/{next(iter(study.answers))}.json"
    return [
        *trained,
        " ".join(
            [
                f"scaling fit {folder} --law {fit.law} --bootstrap {fit.n_draws + fit.draws_failed}",
                *pins,
                f"--out {stored}",
            ]
        ),
        *(
            [f"scaling latency {folder} --out {folder}/latency.json"]
            if any("--latency" in flag for flag in flags)
            else []
        ),
        " ".join([f"scaling recommend {stored}", *flags, f"--out {answered}"]),
        f"scaling report {folder} --out report.pdf",
    ]


def _service_flags(asked: Mapping[str, Any], folder: str) -> list[str]:
    """The options of how a model is served, where they are not the defaults; a device of one's own comes from a file."""
    service, usual = asked.get("service") or {}, asdict(SERVICE)
    flags = [
        f"--{name.replace('_', '-')} {service[name]:.17g}"
        for name in ("prompt", "generated", "utilisation", "max_batch", "max_devices", "max_fleet", "skew")
        if name in service and service[name] != usual[name]
    ]
    for name, option in (("ttft_s", "--ttft-ms"), ("tpot_s", "--tpot-ms")):
        flags += [f"{option} {1e3 * service[name]:.17g}"] if service.get(name) else []
    flags += ["--reads-all"] if service.get("reads_all") else []
    reached = service.get("efficiency") or usual["efficiency"]
    if reached["source"].startswith("measured"):
        return [*flags, f"--latency {folder}/latency.json"]
    for name in ("bandwidth_share", "flops_share"):
        if reached[name] != usual["efficiency"][name]:
            flags.append(f"--{name.replace('_', '-')} {reached[name]:.17g}")
    return [*flags, *(["--devices devices.yaml"] if asked.get("rented") else [])]


def _listed(values: pd.Series) -> str:
    distinct = sorted(values.dropna().unique())
    shown = [str(int(v)) if isinstance(v, (float, int)) and float(v).is_integer() else str(v) for v in distinct[:12]]
    return ", ".join(shown) + (f" and {len(distinct) - 12} more" if len(distinct) > 12 else "") or "not recorded"


def _first_line(error: object) -> str:
    lines = str(error or "").strip().splitlines()
    return (lines[0][:160] if lines else "") or "–"

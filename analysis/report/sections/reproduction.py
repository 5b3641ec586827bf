"""The section on reproduction: versions and the commands that make the report again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from analysis.decision.question import Question
from analysis.report.blocks import Block, Cell, code, heading, table
from analysis.report.sections.runs import distinct
from analysis.report.study import Study
from scaling.formatting import flops
from scaling.serving.service import SERVICE

_DEFAULTS = asdict(Question(train_flops=1.0))
_PROVENANCE = ("corpus", "corpus_hash", "code_version", "versions", "device_kind", "executor", "schema_version")


def reproduction(study: Study) -> list[Block]:
    """Commands, hashes and versions."""
    frame = study.table.frame
    spent = f"{flops(frame['train_flops'].sum())} FLOP"
    if frame["wall_s"].notna().any():
        spent += f", {frame['wall_s'].sum() / 3600:.2g} hours"
    facts = {"runs": str(len(frame))} | {name: distinct(frame[name]) for name in _PROVENANCE}
    facts["training of all runs"] = spent
    if study.answers:
        facts |= {f"{name}, of the analysis": value for name, value in study.law_fit.versions.items()}
    caption = "What the runs were made with; several values mean that runs differ."
    columns: dict[str, Cell] = {"what": str, "value": facts.__getitem__}
    blocks = [code("\n".join(_commands(study))), table(facts, columns, caption, wide="value")]
    grid = study.grid.strip()
    return [*blocks, heading("The grid, as resolved"), code(grid)] if grid else blocks


def _commands(study: Study) -> list[str]:
    """The commands that lead from the grid to this report; numbers are written out in full."""
    folder = study.path.name
    commands = [f"scaling sweep run {folder}/grid.yaml --out {folder}"] if study.grid else []
    if study.answers:
        commands += _decision_commands(study, folder)
    else:
        commands.append(f"scaling methods {folder}")
    return [*commands, f"scaling report {folder} --out report.pdf"]


def _decision_commands(study: Study, folder: str) -> list[str]:
    """Fit, latency law where the price rests on it, and recommendation."""
    fit, question = study.law_fit, study.decision["question"]
    fit_file = f"{folder}/fits/{next(name for name, other in study.fits.items() if other is fit)}.json"
    answer_file = f"{folder}/recommendations/{next(iter(study.answers))}.json"
    pins = [f"--pin {name}={pin.value:.17g}" for name, pin in fit.pinned.items() if pin.source == "as asked"]
    service = _service_options(question, folder)
    measured = any(option.startswith("--latency") for option in service)
    resamples = fit.n_draws + fit.draws_failed
    return [
        " ".join([f"scaling fit {folder} --law {fit.law} --bootstrap {resamples}", *pins, f"--out {fit_file}"]),
        *([f"scaling latency {folder} --out {folder}/latency.json"] if measured else []),
        " ".join([f"scaling recommend {fit_file}", *_question_options(question), *service, f"--out {answer_file}"]),
    ]


def _question_options(question: Mapping[str, Any]) -> list[str]:
    """The options of a question that are not the defaults, but those of the service."""
    options = []
    for name, value in question.items():
        if name == "n_experts" and value:
            options.append(_option(name, ",".join(map(str, value))))
        elif isinstance(value, (str, int, float)) and value and value != _DEFAULTS.get(name):
            options.append(_option(name, value))
    return options + [f"--set {name}={value:.17g}" for name, value in (question.get("settings") or {}).items()]


def _service_options(question: Mapping[str, Any], folder: str) -> list[str]:
    """The options of how a model is served that are not the defaults; a device of one's own comes from a file."""
    service, defaults = question.get("service") or {}, asdict(SERVICE)
    options = [
        _option(name, service[name])
        for name in ("prompt", "generated", "utilisation", "max_batch", "max_devices", "max_fleet", "skew")
        if name in service and service[name] != defaults[name]
    ]
    options += [
        _option(f"{name}_ms", 1e3 * service[f"{name}_s"]) for name in ("ttft", "tpot") if service.get(f"{name}_s")
    ]
    options += ["--reads-all"] if service.get("reads_all") else []
    assumed = defaults["efficiency"]
    reached = service.get("efficiency") or assumed
    if reached["source"].startswith("measured"):
        return [*options, f"--latency {folder}/latency.json"]
    shares = [name for name in ("bandwidth_share", "flops_share") if reached[name] != assumed[name]]
    options += [_option(name, reached[name]) for name in shares]
    return [*options, *(["--devices devices.yaml"] if question.get("rented") else [])]


def _option(name: str, value: str | float) -> str:
    return f"--{name.replace('_', '-')} {value if isinstance(value, (str, int)) else format(value, '.17g')}"

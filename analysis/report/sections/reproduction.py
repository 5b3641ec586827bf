"""The section on reproduction: versions and the commands that make the report again."""

from __future__ import annotations

from dataclasses import fields

from analysis.decision.question import Question
from analysis.report.blocks import Block, Cell, code, heading, table, text
from analysis.report.sections.runs import distinct
from analysis.report.study import LATENCY_LAW, ReportStudy
from analysis.report.subject import Subject
from scaling.formatting import flops, sentence, si
from scaling.serving.families import FAMILIES
from scaling.serving.precision import FORMATS
from scaling.serving.service import SERVICE, Service
from scaling.serving.step_time import ASSUMED

_DEFAULTS = Question(train_flops=1.0)
_WAYS = ("prefix_hit", "drafted", "accepted")
_PROVENANCE = ("corpus", "corpus_hash", "code_version", "versions", "device_kind", "executor", "schema_version")


def reproduction(subject: Subject) -> list[Block]:
    """Commands, hashes and versions."""
    if not isinstance(subject, ReportStudy):
        made_with = "; ".join(f"{what}: {value}" for what, value in _of_analysis(subject).items())
        return [code("\n".join(_commands(subject))), text(sentence(made_with))]
    facts = {**_of_runs(subject), **_of_analysis(subject)}
    caption = "What this was made with; several values mean that runs differ."
    columns: dict[str, Cell] = {"what": str, "value": facts.__getitem__}
    blocks = [code("\n".join(_commands(subject))), table(facts, columns, caption, wide="value")]
    grid = subject.grid.strip()
    return [*blocks, heading("The grid, as resolved"), code(grid)] if grid else blocks


def _of_runs(study: ReportStudy) -> dict[str, str]:
    frame = study.table.frame
    spent = f"{flops(frame['train_flops'].sum())} FLOP"
    if frame["wall_s"].notna().any():
        spent += f", {si(frame['wall_s'].sum() / 3600, 2)} hours"
    recorded = {name: distinct(frame[name]) for name in _PROVENANCE if frame[name].notna().any()}
    return {"runs": str(len(frame)), **recorded, "training of all runs": spent}


def _of_analysis(subject: Subject) -> dict[str, str]:
    if not subject.answers:
        return {}
    answer, fit = subject.decision, subject.law_fit
    facts = {
        "source of the fit": fit.source,
        "hash of the runs fitted": fit.made_from,
        "hash of the fit": answer.fit_hash,
        "hash of fit, question and speed": answer.made_from,
        **{f"{name}, of the analysis": value for name, value in fit.versions.items()},
    }
    return {name: value for name, value in facts.items() if value}


def _commands(subject: Subject) -> list[str]:
    """The commands that lead to this report; numbers are written out in full."""
    if not isinstance(subject, ReportStudy):
        (name,) = subject.answers
        asked = _recommend(subject.decision.law_file or "fit.json", subject, LATENCY_LAW, f"{name}.json")
        return [asked, f"scaling report {name}.json --out report.pdf"]
    folder = subject.path.name
    commands = [f"scaling sweep run {folder}/grid.yaml --out {folder}"] if subject.grid else []
    commands += _decision_commands(subject, folder) if subject.answers else [f"scaling methods {folder}"]
    return [*commands, f"scaling report {folder} --out report.pdf"]


def _decision_commands(study: ReportStudy, folder: str) -> list[str]:
    """Fit, latency law where the price rests on it, and recommendation."""
    fit = study.law_fit
    fit_file = f"{folder}/fits/{next(name for name, other in study.fits.items() if other is fit)}.json"
    law_file = f"{folder}/{LATENCY_LAW}"
    pins = [f"--pin {name}={pin.value:.17g}" for name, pin in fit.pinned.items() if pin.source == "as asked"]
    resamples = fit.n_draws + fit.draws_failed
    law = [] if fit.of_one_law is not fit else [f"--law {fit.law}"]
    return [
        " ".join([f"scaling fit {folder}", *law, f"--bootstrap {resamples}", *pins, f"--out {fit_file}"]),
        *([f"scaling latency {folder} --out {law_file}"] if _was_measured(study.decision.question.service) else []),
        _recommend(fit_file, study, law_file, f"{folder}/recommendations/{next(iter(study.answers))}.json"),
    ]


def _recommend(fit_file: str, subject: Subject, law_file: str, out: str) -> str:
    question = subject.decision.question
    options = [*_question_options(question), *_service_options(question, law_file)]
    return " ".join([f"scaling recommend {fit_file}", *options, f"--out {out}"])


def _question_options(question: Question) -> list[str]:
    """The options of a question that are not the defaults, but those of the service."""
    options = []
    for name in (field.name for field in fields(question)):
        value = getattr(question, name)
        if name == "n_experts" and value:
            options.append(_option(name, ",".join(map(str, value))))
        elif isinstance(value, (str, int, float)) and value and value != getattr(_DEFAULTS, name):
            options.append(_option(name, value))
    if question.family is not None:
        known = question.family.name in FAMILIES
        options.append(f"--family {question.family.name}" if known else "--like config.json")
        family = question.family
        built = {"top-k": family.top_k, "shared": family.n_shared, "granularity": family.granularity}
        options += [f"--{name} {value:g}" for name, value in built.items() if value is not None]
    shapes = {"top-k": question.top_k, "granularity": question.granularity, "shared": question.n_shared}
    options += [f"--{name} {','.join(f'{each:g}' for each in values)}" for name, values in shapes.items() if values]
    return options + [f"--set {name}={value:.17g}" for name, value in question.settings.items()]


def _service_options(question: Question, law_file: str) -> list[str]:
    """The options of how a model is served that are not the defaults; a device of one's own comes from a file."""
    service = question.service
    options = [
        _option(name, getattr(service, name))
        for name in ("prompt", "generated", "utilisation", "max_batch", "max_devices", "max_fleet", "skew")
        if getattr(service, name) != getattr(SERVICE, name)
    ]
    limits = {"ttft_ms": service.ttft_s, "tpot_ms": service.tpot_s}
    options += [_option(name, 1e3 * value) for name, value in limits.items() if value]
    options += ["--reads-all"] if service.reads_all else []
    options += _formats(service)
    options += [_option(name, getattr(service, name)) for name in _WAYS if getattr(service, name)]
    options += ["--apart"] if service.apart else []
    if service.engine is not None:
        return [*options, f"--speed {service.engine.name or 'speed.json'}"]
    if _was_measured(service):
        return [*options, f"--latency {law_file}"]
    if question.device is not None and service.efficiency == ASSUMED:
        options.append("--speed assumed")
    shares = {name: getattr(service.efficiency, name) for name in ("bandwidth_share", "flops_share")}
    options += [_option(name, share) for name, share in shares.items() if share != getattr(ASSUMED, name)]
    return [*options, *(["--devices devices.yaml"] if question.rented else [])]


def _formats(service: Service) -> list[str]:
    """The options of number formats that are not 16 bits."""
    named = {format.bits / 8: format.name for format in reversed(FORMATS.values())}
    bytes_of = {
        "weights": service.bytes_per_weight, "experts-in": service.bytes_per_expert, "kv": service.bytes_per_kv
    }  # fmt: skip
    return [
        f"--{option} {named[size]}"
        for option, size in bytes_of.items()
        if size not in (None, 2.0) and size in named and not _was_measured(service)
    ]


def _was_measured(service: Service) -> bool:
    return service.efficiency.source.startswith("measured")


def _option(name: str, value: str | float) -> str:
    return f"--{name.replace('_', '-')} {value if isinstance(value, (str, int)) else _number(value)}"


def _number(value: float) -> str:
    """The shortest text that reads as the same number."""
    return f"{value:.0f}" if value.is_integer() and abs(value) < 1e15 else repr(float(value))

"""The commands that make a report again: every option that its numbers depend on, in full."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path

from analysis.decision.answer import Answer
from analysis.decision.asked import Asked
from analysis.decision.question import Question
from analysis.fitting.fit import AS_ASKED, Fit
from analysis.fitting.fit_options import FitOptions
from analysis.fitting.objective import HUBER
from analysis.latency.law import LatencyLaw
from analysis.report.study import LATENCY_LAW, ReportStudy
from analysis.report.subject import Subject
from analysis.tables.reading_log import Selection
from analysis.training_speed.speeds import training_speed
from scaling.serving.devices import DEVICES
from scaling.serving.families import FAMILIES
from scaling.serving.precision import FORMATS
from scaling.serving.service import SERVICE, Service
from scaling.serving.step_time import ASSUMED
from scaling.serving.training_speed import TrainingLaw

_DEFAULTS = Question(train_flops=1.0)
_RESAMPLES = 400  # of `scaling latency`
_SETTINGS = ("prompt", "generated", "utilisation", "max_batch", "max_devices", "max_fleet")
_WAYS = ("prefix_hit", "drafted", "accepted")
_FORMATS = {"weights": "weights", "experts": "experts-in", "kv": "kv"}
_SHARES = ("bandwidth_share", "flops_share")
_UNFITTED = ("published", "given")
_NOTHING = Asked()


def commands(subject: Subject) -> list[str]:
    """The commands that lead to this report, in their order; numbers are written out in full.

    A file that the answer does not name stands by the name that its command suggests.
    """
    if not isinstance(subject, ReportStudy):
        (name,) = subject.answers
        out = f"{name}.json"
        asked = recommend_command(subject.decision, subject.law_fit, out=out)
        fitted = _of_source(subject.law_fit, subject.decision.law_file)
        return [*fitted, asked, _words("scaling report", out, "--out report.pdf")]
    folder = subject.path.name
    found = [_words("scaling sweep run", f"{folder}/grid.yaml", "--out", folder)] if subject.grid else []
    found += _decision_commands(subject, folder) if subject.answers else [_words("scaling methods", folder)]
    given = [_option(name, path) for name, path in subject.given.items()]
    return [*found, _words("scaling report", folder, *given, "--out report.pdf")]


def _decision_commands(study: ReportStudy, folder: str) -> list[str]:
    """Fit, latency law where the price rests on it, and recommendation."""
    fit, answer = study.law_fit, study.decision
    inside = f"{folder}/fits/{next(name for name, other in study.fits.items() if other is fit)}.json"
    fit_file = study.elsewhere or inside
    law_file = _asked(answer).names.get("latency", f"{folder}/{LATENCY_LAW}")
    out = study.given.get("answer", f"{folder}/recommendations/{next(iter(study.answers))}.json")
    found = _of_source(fit, fit_file) if study.elsewhere else [fit_command(fit, _source(fit, folder), fit_file)]
    if _was_measured(answer.question.service) and Path(law_file).name == LATENCY_LAW:
        found.append(_latency_command(study.latency_law, folder, law_file))
    return [*found, recommend_command(answer, fit, fit_file, law_file, out)]


def _latency_command(law: LatencyLaw | None, folder: str, out: str) -> str:
    """`scaling latency` with the options that made a latency law."""
    if law is None:  # the answer names one that is not in the folder
        return _words("scaling latency", folder, "--out", out)
    words = [f"--resamples {len(law.draws)}"] if len(law.draws) != _RESAMPLES else []
    words += [f"--seed {law.seed}"] if law.seed else []
    name = law.device.name
    words += [_option("device", name)] if name in DEVICES and DEVICES[name] == law.device else []
    return _words("scaling latency", _source(law, folder), *words, *_read_as(law.selection), "--out", out)


def _read_as(selection: Selection | FitOptions) -> list[str]:
    """The options of how a table was read."""
    words = [_option("map", f"{name}={text}") for name, text in selection.mapping.items()]
    words += [] if selection.where is None else [_option("where", selection.where)]
    dropped = selection.drop_highest_loss
    return words + ([f"--drop-highest-loss {dropped}"] if dropped else [])


def _source(fitted: Fit | LatencyLaw, folder: str) -> str:
    """What was fitted: the study by the name that its folder has now, or a file."""
    return fitted.source if Path(fitted.source).suffix else folder


def _of_source(fit: Fit, fit_file: str) -> list[str]:
    """The command behind a fit outside a study; none where it is published, or does not say what it was fitted to."""
    if fit.status in _UNFITTED or not (fit.options and fit.source and fit_file):
        return []
    return [fit_command(fit, fit.source, fit_file)]


def fit_command(fit: Fit, runs: str, out: str) -> str:
    """`scaling fit` with the options that made a fit."""
    options = fit.options or FitOptions(fit.n_draws + fit.draws_failed)
    words = []
    if options.start_from:
        words.append(_option("from", options.start_from))
    else:
        words += [] if fit.of_one_law is not fit else [f"--law {fit.law}"]
        words += _objective(fit)
    words.append(f"--bootstrap {options.bootstrap}")
    words += [f"--seed {options.seed}"] if options.seed else []
    if not options.start_from:
        words += [f"--starts {options.starts}"] if options.starts != FitOptions.starts else []
        words += [] if options.auto_pin else ["--no-auto-pin"]
        words += [f"--pin {name}={pin.value:.17g}" for name, pin in fit.pinned.items() if pin.source == AS_ASKED]
    return _words("scaling fit", runs, *words, *_read_as(options), "--out", out)


def _objective(fit: Fit) -> list[str]:
    chosen = {"objective": fit.objective_kind, "residual": fit.residual, "delta": fit.delta}
    usual = {"objective": HUBER.kind, "residual": HUBER.residual, "delta": HUBER.delta}
    return [_option(name, value) for name, value in chosen.items() if value != usual[name]]


def recommend_command(
    answer: Answer, fit: Fit, fit_file: str = "", law_file: str = LATENCY_LAW, out: str = "answer.json"
) -> str:
    """`scaling recommend` with the options that an answer was asked with.

    `fit_file` is where the fit behind it lies now ("": where the answer says), `law_file` the latency law.
    """
    asked = _asked(answer)
    question = asked.question or answer.question
    several = [name for name in asked.fits if name]
    files = several if len(several) > 1 or asked.rivals else [fit_file or answer.law_file or "fit.json"]
    names = {"latency": law_file, **asked.names}
    options = [
        *(_option("rival", name) for name in asked.rivals),
        *_question_options(question, names),
        *_service_options(question, fit, names),
        *(_option(name, names[name]) for name in ("weigh_by",) if name in names),
        *(["--no-what-if"] if answer.what_if is None else []),
    ]
    return _words("scaling recommend", *files, *options, "--out", out)


def _asked(answer: Answer) -> Asked:
    return answer.asked or _NOTHING


def _question_options(question: Question, names: Mapping[str, str]) -> list[str]:
    """The options of a question that are not the defaults, but those of the service."""
    options = []
    for name in (field.name for field in fields(question)):
        value = getattr(question, name)
        if name == "n_experts" and value:
            options.append(_option(name, ",".join(map(str, value))))
        elif isinstance(value, (str, int, float)) and value and value != getattr(_DEFAULTS, name):
            options.append(_option(name, value))
    if question.reference_fit is not None:
        options.append(_option("reference_fit", question.reference_fit.name))
    if question.reference_model is not None:
        options.append(_option("reference_model", ",".join(map(_number, question.reference_model))))
    options += _training_speed(question, names)
    options += _shapes(question, names)
    return options + [f"--set {name}={value:.17g}" for name, value in question.settings.items()]


def _training_speed(question: Question, names: Mapping[str, str]) -> list[str]:
    """What training takes, by its name or file, where it is not the one assumed by default."""
    speed = question.training_speed
    if "training_speed" in names or speed is None or speed == training_speed():
        return _named(names, "training_speed")
    return [_option("training_speed", "training-speed.json" if isinstance(speed, TrainingLaw) else speed.name)]


def _shapes(question: Question, names: Mapping[str, str]) -> list[str]:
    """The lineage that is priced, and the shapes of experts that are compared."""
    options = [*_named(names, "family"), *_named(names, "like")]
    shapes = {"top-k": question.top_k, "granularity": question.granularity, "shared": question.n_shared}
    family = question.family
    if family is not None:
        known = f"--family {family.name}" if family.name in FAMILIES else "--like config.json"
        options = options or [known]
        built = {"top-k": family.top_k, "granularity": family.granularity, "shared": family.n_shared}
        one = {name: () if value is None else (value,) for name, value in built.items()}
        shapes = {name: values or one[name] for name, values in shapes.items()}
    return options + [
        f"--{name} {','.join(_number(each) for each in values)}" for name, values in shapes.items() if values
    ]


def _service_options(question: Question, fit: Fit, names: Mapping[str, str]) -> list[str]:
    """The options of how a model is served that are not the defaults."""
    service = question.service
    options = [_option(n, getattr(service, n)) for n in _SETTINGS if getattr(service, n) != getattr(SERVICE, n)]
    options += [_option("skew", service.skew)] if service.skew or fit.router_skew else []
    limits = {"ttft_ms": service.ttft_s, "tpot_ms": service.tpot_s}
    options += [_option(name, _milliseconds(value)) for name, value in limits.items() if value]
    options += ["--reads-all"] if service.reads_all and not _was_measured(service) else []
    options += _formats(service, names)
    options += [_option(name, getattr(service, name)) for name in _WAYS if getattr(service, name)]
    options += ["--apart"] if service.apart else []
    return [*options, *_speed(question, names), *_devices(question, names)]


def _speed(question: Question, names: Mapping[str, str]) -> list[str]:
    """How fast the device is: a file or name, or shares of its peaks."""
    service = question.service
    if question.device is None:
        return []
    if "throughput" in names or "speed" in names:
        return [*_named(names, "throughput"), *_named(names, "speed")]
    if service.engine is not None:
        return [_option("speed", service.engine.name or "speed.json")]
    if _was_measured(service):
        return _named(names, "latency")
    if service.efficiency == ASSUMED:
        return ["--speed assumed"]
    given = [name for name in _SHARES if f"--{name.replace('_', '-')}" in service.efficiency.source]
    return [_option(name, getattr(service.efficiency, name)) for name in given or _SHARES]


def _devices(question: Question, names: Mapping[str, str]) -> list[str]:
    """The file of a device of one's own; a device that was measured comes with its latency law."""
    if "devices" in names:
        return _named(names, "devices")
    return ["--devices devices.yaml"] if question.rented and not _was_measured(question.service) else []


def _formats(service: Service, names: Mapping[str, str]) -> list[str]:
    """The number formats of weights, experts and cache, by name or as their bytes and arithmetic say."""
    if _was_measured(service) or any(name in names for name in _FORMATS):
        return [_option(option, names[name]) for name, option in _FORMATS.items() if name in names]
    kept = {
        "weights": (service.bytes_per_weight, service.arithmetic),
        "experts": (service.bytes_per_expert, service.expert_arithmetic),
        "kv": (service.bytes_per_kv, None),
    }
    usual = {
        "weights": SERVICE.bytes_per_weight,
        "experts": service.bytes_per_weight,
        "kv": SERVICE.bytes_per_kv,
    }
    found = []
    for name, (size, arithmetic) in kept.items():
        if size is None or (size == usual[name] and not arithmetic):
            continue
        of_size = [one for one in FORMATS.values() if one.bits / 8 == size]
        alike = [one for one in of_size if one.arithmetic == (arithmetic or "")]
        found += [f"--{_FORMATS[name]} {one.name}" for one in (alike or of_size)[:1]]
    return found


def _was_measured(service: Service) -> bool:
    return service.efficiency.source.startswith("measured")


def _named(names: Mapping[str, str], name: str) -> list[str]:
    return [_option(name, names[name])] if name in names else []


def _milliseconds(seconds: float) -> float:
    """The shortest number of milliseconds that is read as so many seconds."""
    exact = 1e3 * seconds
    return next(
        (rounded for digits in range(1, 17) if (rounded := float(f"{exact:.{digits}g}")) / 1e3 == seconds), exact
    )


def _option(name: str, value: str | float) -> str:
    text = str(value) if isinstance(value, (str, int)) else _number(value)
    return f"--{name.replace('_', '-')} {shlex.quote(text)}"


def _words(command: str, *words: str) -> str:
    """A command line; options are quoted already, names of files as they need."""
    parts = [word if word.startswith("--") else shlex.quote(word) for word in words]
    return " ".join([command, *parts])


def _number(value: float) -> str:
    """The shortest text that reads as the same number."""
    return f"{value:.0f}" if float(value).is_integer() and abs(value) < 1e15 else repr(float(value))

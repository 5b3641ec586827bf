"""The functions of `import scaling`: from runs to a law, from a law to a recommendation and its report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from analysis.decision import answer as answers
from analysis.decision import serve as serving
from analysis.decision.allocation import Allocation
from analysis.decision.answer import Answer
from analysis.decision.question import Goal, Question
from analysis.decision.reference import allocation_of
from analysis.decision.serve import Serving
from analysis.fitting import bootstrap as resampling
from analysis.fitting import fit as fitting
from analysis.fitting.fit import Fit
from analysis.fitting.fit_file import load_fit
from analysis.fitting.fit_options import FitOptions
from analysis.fitting.objective import Kind, Objective, Residual
from analysis.fitting.published import PUBLISHED, published_name
from analysis.fitting.recalibration import DRAWS, recalibrated
from analysis.latency.law import LatencyLaw, latency_document, load_latency_law
from analysis.latency.speeds import with_speed
from analysis.laws import LAWS, Law, law_named
from analysis.mixture.alone import with_discrepancy
from analysis.mixture.fitted_mixture import fit_mixture
from analysis.tables.runs import RunTable, read_runs
from analysis.tables.study import Study
from analysis.tables.tasks import with_target
from analysis.training_speed import speeds as training_speeds
from analysis.training_speed.law import FittedTrainingLaw, fit_training_speed
from analysis.training_speed.table import read_training
from scaling import live
from scaling.architecture import Architecture
from scaling.arguments import checked
from scaling.errors import InputError
from scaling.files import write_json
from scaling.serving import devices as device_table
from scaling.serving.device import Device
from scaling.serving.engine_speed import EngineSpeed
from scaling.serving.families import ArchitectureFamily, architecture_family, read_model
from scaling.serving.precision import served_in
from scaling.serving.service import SERVICE, Service
from scaling.serving.training_speed import TrainingSpeed
from scaling.values import FIT

if TYPE_CHECKING:
    from analysis.report.build import WrittenReport

_OF_SERVICE = {field.name: f"service=scaling.Service({field.name}=...)" for field in fields(Service)}
_ELSEWHERE = _OF_SERVICE | {
    **{f"{name}_ms": f"service=scaling.Service({name}_s=...), in seconds" for name in ("ttft", "tpot")},
    "bandwidth_share": "service=scaling.Service(efficiency=...), or `latency`, the law of a measured device",
    "flops_share": "service=scaling.Service(efficiency=...), or `latency`, the law of a measured device",
    "set": "settings={column: value}",
    "devices": "`device`, a scaling.Device with its own peak, memory and price",
    "experts_in": "`experts`",
    "like": "family=scaling.family_like(scaling.read_model(...))",
    "shared": "n_shared=(0, 1)",
    "dense": "fit='LEVERAGE+DENSE', the names of both",
    "rival": "answers of both, and their `best`",
}
"""What takes the place of options of `scaling recommend` that its function does not have."""


@checked({"source": "a study folder, a file of runs or a DataFrame (pandas.DataFrame(...) makes one)"})
def load(
    source: str | Path | pd.DataFrame,
    *,
    map: Mapping[str, str | float] | None = None,
    where: str | None = None,
    law: str | Law | None = None,
    drop_highest_loss: int = 0,
    target: str | None = None,
) -> RunTable:
    """The runs of a study folder, a file (CSV, TSV, JSON, JSON lines, Parquet) or a DataFrame.

    `map` names our columns in the table, {"n_active": "params"}, or computes them, {"tokens": "steps * 2**20"}; `where`
    is a pandas query over the columns after that. With a `law` runs that it cannot be fitted to are left out now; `fit`
    does it otherwise. Loss is in nats per token. `target` names another column that laws are to be fitted to, such as a
    metric of another task, whose budget then stands for tokens. Raises InputError where the source cannot be read, a
    column is missing or no run is left.
    """
    expressions = with_target(source, {name: str(value) for name, value in (map or {}).items()}, target)
    return read_runs(source, expressions, where, None if law is None else _law(law), drop_highest_loss)


@checked()
def study(folder: str | Path) -> Study:
    """A study folder's tables as DataFrames: `.runs`, `.curves`, `.evals`, `.latency`, with `run_id` in each.

    `.plot_curves()` draws training, of cells that are not done too. Raises InputError where it holds no runs.
    """
    found = Study(Path(folder))
    if not live.files(found.path):
        found.runs  # noqa: B018  a folder without runs is named now
    return found


@checked()
def law(name: str) -> Law:
    """The law of that name. Raises InputError listing the names there are."""
    return law_named(name)


def laws() -> pd.DataFrame:
    """Every law by name: formula, the columns it reads, parameters, source, and the published fits (`read_fit`)."""
    rows = {
        law.name: {
            "formula": law.formula,
            "columns": ", ".join(law.columns),
            "parameters": ", ".join(law.names),
            "source": law.source,
            "published": ", ".join(f"published:{name}" for name, fit in PUBLISHED.items() if fit.law == law.name),
        }
        for law in LAWS.values()
    }
    return pd.DataFrame.from_dict(rows, orient="index")


@checked({"runs": "a table that scaling.load(...) gave"})
def fit(
    runs: RunTable,
    law: str | Law | None = None,
    *,
    objective: Kind = "huber",
    residual: Residual = "log",
    delta: float = 1e-3,
    pin: Mapping[str, float] | None = None,
    auto_pin: bool = True,
    starts: int = 64,
    bootstrap: int | None = None,
    seed: int = 0,
    start_from: Fit | str | Path | None = None,
) -> Fit:
    """Fit a mixture of laws, or one `law`, to runs, with 95 % intervals from `bootstrap` resamples of trunks.

    The mixture weighs its laws by how well each predicts larger runs from smaller ones, and its intervals are meant to
    hold beyond the largest run (`analysis.mixture.fitted_mixture.fit_mixture`); those of one law hold if that law does.
    `law` is a name of `laws()` or a `Law` of your own, which need not be registered. `bootstrap` None: 400 resamples,
    none for more than 50,000 runs; 0: none. `pin` holds parameters of one law at values; with `auto_pin` those that the
    runs cannot identify are held at published values. Runs that the law cannot be fitted to are left out and counted.
    The minimum is that of the summed objective over `starts` starts (`analysis.fitting.fit.fit`). With `start_from`, a
    fit, its file or `published:NAME`, a few runs recalibrate that fit instead, its law shrunk to its values
    (`analysis.fitting.recalibration.recalibrated`); `bootstrap` is then the number of draws, 1,000 by default, and
    `law`, `pin` and the objective are those of that fit. Raises InputError for a missing column, an unknown law or
    parameter.
    """
    if start_from is not None:
        if law is not None or pin:
            raise InputError(f"`{'law' if law is not None else 'pin'}` contradicts `start_from`, whose law is fitted")
        start = start_from if isinstance(start_from, Fit) else read_fit(start_from)
        name = "" if isinstance(start_from, Fit) else str(start_from)
        count = DRAWS if bootstrap is None else bootstrap
        moved = recalibrated(runs, start, count, name=name, seed=seed)
        return replace(moved, options=FitOptions.of(runs, count, seed=seed, start_from=name) if name else None)
    kind = Objective(objective, residual, delta)
    if law is None:
        if pin:
            raise InputError("`pin` holds parameters of one law: name it with `law`")
        resamples = resampling.usual_count(runs) if bootstrap is None else bootstrap
        made = FitOptions.of(runs, resamples, seed=seed, starts=starts, auto_pin=auto_pin)
        mixed = fit_mixture(runs, objective=kind, auto_pin=auto_pin, n_starts=starts, resamples=resamples, seed=seed)
        return replace(mixed, options=made)
    definition = _law(law)
    table = runs.for_law(definition)
    fitted = fitting.fit(table, definition, objective=kind, pin=pin, auto_pin=auto_pin, n_starts=starts, seed=seed)
    resamples = resampling.usual_count(table) if bootstrap is None else bootstrap
    made = FitOptions.of(table, resamples, seed=seed, starts=starts, auto_pin=auto_pin)
    drawn = resampling.bootstrap(replace(fitted, options=made), table, resamples, np.random.default_rng(seed))
    return with_discrepancy(drawn, table, seed)


@checked()
def device(name: str) -> Device:
    """The device of that name; `cpu` is measured on this computer. Raises InputError listing the names there are."""
    return device_table.device(name)


def devices() -> pd.DataFrame:
    """Every device by name: peak, bandwidth, memory and rent, with their sources; without `cpu`, which is measured."""
    return pd.DataFrame([asdict(row) for row in device_table.DEVICES.values()]).set_index("name")


@checked(_ELSEWHERE)
def recommend(
    fit: Fit | str | Mapping[str, Fit],
    *,
    train_flops: float | None = None,
    train_usd: float | None = None,
    target_loss: float | None = None,
    lifetime_cost: float | None = None,
    minimise: Goal | None = None,
    serve_tokens: float = 0.0,
    requests_per_month: float | None = None,
    months: float = 12.0,
    n_experts: int | Sequence[int] = (),
    reference_experts: int = 1,
    reference_fit: Fit | str | None = None,
    reference_model: tuple[float, float] | None = None,
    reference_loss: float | None = None,
    memory_gb: float | None = None,
    data_tokens: float | None = None,
    usd_per_million: float | None = None,
    device: str | Device | None = None,
    usd_per_hour: float | None = None,
    mfu: float | None = None,
    training_speed: str | Path | TrainingSpeed | FittedTrainingLaw | None = None,
    settings: Mapping[str, float] | None = None,
    family: str | ArchitectureFamily | None = None,
    top_k: int | Sequence[int] = (),
    granularity: float | Sequence[float] = (),
    n_shared: int | Sequence[int] = (),
    weights: str | None = None,
    experts: str | None = None,
    kv: str | None = None,
    service: Service | None = None,
    speed: str | Path | EngineSpeed | None = None,
    latency: LatencyLaw | None = None,
    what_if: bool = True,
) -> Answer:
    """Which expert count, size and token budget, at what cost, and how sure that is.

    `fit` is a fit, `published:NAME`, or fits by name of runs with one k each. `top_k`, `granularity` and `n_shared` are
    shapes of experts to compare (`Answer.shapes`); none: those that the law knows. Give one of `train_flops`,
    `train_usd`, `target_loss` and `lifetime_cost`;
    fields are those of `Question`, with a fit or its file as `reference_fit`. `device` is a name of `devices()` or a
    `Device`; `latency` a latency law measured on it, from which speed and its uncertainty follow; else `speed` says how
    fast an engine is (`serve`). `training_speed` says what training takes: `assumed` (None: MFU falls with E as
    published), `constant`, `published:NAME`, or what `scaling.training_speed` gave or its file; `mfu` is the share at
    E = 1. `family` are the models that are priced, a name or an `ArchitectureFamily`; None: the fit's own. `weights`,
    `experts` and `kv` are number formats, as in `serve`. `service` None: the defaults, with the routers as uneven as
    the runs showed. `what_if` also asks what would change the answer. Raises InputError where the question contradicts
    itself or no model answers it.
    """
    several = dict(fit) if isinstance(fit, Mapping) else {}
    if isinstance(fit, Mapping):
        if not several:
            raise InputError("`fit` has no fit in it: give one, or several by name")
        fit = next(iter(several.values()))
    elif isinstance(fit, str):
        fit = read_fit(fit)
    n_experts = tuple(map(int, n_experts if isinstance(n_experts, Sequence) else (n_experts,)))
    if service is None:
        service = replace(SERVICE, skew=fit.router_skew or 0.0)
    rented = device if isinstance(device, Device) else None
    name = device.name if isinstance(device, Device) else device
    if latency is not None:
        if name not in (None, latency.device.name):
            raise InputError(f"`latency` was measured on {latency.device.name}, not on `device` {name}")
        if speed is not None:
            raise InputError("`latency` and `speed` say the same: give one")
        service, name, rented = latency.measured(service), latency.device.name, rented or latency.device
    speeds = None if latency is None else latency.speeds
    if name is None:
        for field, value in (("weights", weights), ("experts", experts), ("kv", kv), ("speed", speed)):
            if value is not None:
                raise InputError(f"`{field}` needs `device`: without one, cost is in FLOPs")
    else:
        if latency is None:
            service, speeds = with_speed(service, name, speed)
        service = served_in(service, rented or device_table.device(name), weights=weights, experts=experts, kv=kv)
    named: dict[str, object] = {"speed": speed, "training_speed": training_speed, "family": family}
    named |= {"weights": weights, "experts": experts, "kv": kv}
    law_of_training = training_speed.law if isinstance(training_speed, FittedTrainingLaw) else training_speed
    trained = None if name is None and law_of_training is None else training_speeds.training_speed(law_of_training)
    question = Question(
        train_flops=train_flops,
        train_usd=train_usd,
        target_loss=target_loss,
        lifetime_cost=lifetime_cost,
        minimise=minimise,
        serve_tokens=serve_tokens,
        requests_per_month=requests_per_month,
        months=months,
        n_experts=n_experts,
        reference_experts=reference_experts,
        reference_fit=None if reference_fit is None else _allocation(reference_fit, reference_experts),
        reference_model=reference_model,
        reference_loss=reference_loss,
        memory_gb=memory_gb,
        data_tokens=data_tokens,
        usd_per_million=usd_per_million,
        device=name,
        rented=rented,
        usd_per_hour=usd_per_hour,
        mfu=mfu,
        training_speed=trained,
        settings=settings or {},
        service=service,
        family=architecture_family(family) if isinstance(family, str) else family,
        top_k=tuple(map(int, top_k if isinstance(top_k, Sequence) else (top_k,))),
        granularity=tuple(map(float, granularity if isinstance(granularity, Sequence) else (granularity,))),
        n_shared=tuple(map(int, n_shared if isinstance(n_shared, Sequence) else (n_shared,))),
    )
    return answers.answer(
        fit,
        question,
        speeds,
        law_file=next(iter(several), published_name(fit)),
        of_other_k=dict(list(several.items())[1:]),
        what_if=what_if,
        cost_curves=what_if,
        names={field: str(value) for field, value in named.items() if isinstance(value, str | Path)},
    )


@checked({"model": "a name, a config.json, or a scaling.Architecture"})
def serve(
    model: str | Path | Architecture,
    *,
    device: str | Device,
    weights: str | None = None,
    experts: str | None = None,
    kv: str | None = None,
    prompt: int = 1024,
    generated: int = 1024,
    service: Service | None = None,
    speed: str | Path | EngineSpeed | None = None,
) -> Serving:
    """What a model costs to serve on a device: latency, speed and price at concurrencies 1, 2, 4, ...

    `model` is the name of a public model, a `config.json` or its folder, or an architecture, such as
    `scaling.architecture_family("qwen3").model(3e9, 64)`. `weights`, `experts` (routed ones, where they differ) and
    `kv` are number formats: bf16, fp8, nvfp4, ... `service` holds all else; None: the defaults, busy all the time.
    `speed` is `published:vllm-h100`, a file that `scaling latency` wrote, or `assumed`; None: the published speed of
    the device where it has one. Raises InputError where the model does not fit or keeps no limit on latency.
    """
    described = model if isinstance(model, Architecture) else read_model(model)
    on = device if isinstance(device, Device) else device_table.device(device)
    lengths = replace(service or Service(utilisation=1.0), prompt=prompt, generated=generated)
    at_speed, speeds = with_speed(lengths, on.name, speed)
    return serving.serve(described, on, served_in(at_speed, on, weights=weights, experts=experts, kv=kv), speeds)


@checked({"of": "an answer of scaling.recommend, the file of one, or a study folder"})
def report(of: Answer | Study | str | Path, out: str | Path, *, fit: Fit | None = None) -> WrittenReport:
    """Write a PDF report of an answer, of an answer's file or of a study folder to `out`.

    `fit` is the fit behind an answer that was read from a file; an answer of `recommend` has its own. Raises InputError
    where matplotlib or typst are missing, WorkError where the PDF cannot be made.
    """
    from analysis.report import build

    if not isinstance(of, Answer):
        return build.build_report(of.path if isinstance(of, Study) else of, out)
    behind = fit or of.fit
    if behind is None and of.law_file.startswith("published:"):
        behind = read_fit(of.law_file)
    if behind is None:
        raise InputError(f"an answer read from a file needs the fit behind it: `fit` ({of.law_file or 'its file'})")
    return build.report_answer(of, behind, out)


@checked()
def read_fit(source: str | Path, law: Law | None = None) -> Fit:
    """The fit in a file, or `published:NAME`. `law` is its law where that was made in Python.

    Raises InputError where the file is no fit, or its law is not known.
    """
    return load_fit(str(source), law)


@checked()
def read_latency(path: str | Path) -> LatencyLaw:
    """The latency law in a file that `scaling latency` wrote. Raises InputError where it is none."""
    return load_latency_law(path)


@checked({"runs": "a study folder, or a file of runs with a measured speed"})
def training_speed(
    runs: str | Path,
    *,
    map: Mapping[str, str | float] | None = None,
    where: str | None = None,
    device: str | None = None,
    bootstrap: int = 400,
    seed: int = 0,
) -> FittedTrainingLaw:
    """The law of measured training speed: device-seconds a token as a sum of terms, with its errors.

    `runs` is a study folder or a file whose rows say their model and how fast it trained
    (`analysis.training_speed.table.read_training`); `map` and `where` are as in `load`; `device` names what trained,
    where the rows do not. `bootstrap` draws carry its uncertainty on. Raises InputError where rows contradict each
    other, are impossible on the device, or are too few.
    """
    expressions = {name: str(value) for name, value in (map or {}).items()}
    table = read_training(runs, expressions, where, device)
    return fit_training_speed(table, np.random.default_rng(seed), bootstrap)


@checked()
def read_answer(path: str | Path) -> Answer:
    """The answer in a file that `scaling recommend` wrote. Raises InputError where it is none."""
    return answers.read_answer(path)


@checked({"value": "a fit, a latency law, a training-speed law or an answer"})
def write(value: Fit | LatencyLaw | FittedTrainingLaw | Answer, path: str | Path) -> None:
    """Write a fit, a law of latency or training speed, or an answer to a JSON file, as the command line does.

    Raises WorkError.
    """
    if isinstance(value, Answer):
        document = answers.answer_document(value)
    elif isinstance(value, FittedTrainingLaw):
        document = value.document()
    else:
        document = FIT.document(value) if isinstance(value, Fit) else latency_document(value)
    write_json(Path(path), document)


def _allocation(fit: Fit | str, n_experts: int) -> Allocation:
    """How a fit, or the one in a file, divides a budget."""
    if isinstance(fit, str):
        return allocation_of(read_fit(fit), fit, n_experts)
    return allocation_of(fit, published_name(fit) or f"the fit of {fit.law}", n_experts)


def _law(law: str | Law) -> Law:
    return law if isinstance(law, Law) else law_named(law)

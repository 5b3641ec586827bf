"""The section on reproduction: versions and the commands that make the report again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from analysis.decision.question import Question
from analysis.report.blocks import Block, heading, sheet
from analysis.report.sections.runs import listed
from analysis.report.study import Study
from scaling.formatting import flops
from scaling.serving.service import SERVICE

_USUAL = asdict(Question(train_flops=1.0))
_PROVENANCE = ("corpus", "corpus_hash", "code_version", "versions", "device_kind", "executor", "schema_version")


def reproduction(study: Study) -> list[Block]:
    """Commands, hashes and versions."""
    frame = study.table.frame
    spent = f"{flops(frame['train_flops'].sum())} FLOP"
    if frame["wall_s"].notna().any():
        spent += f", {frame['wall_s'].sum() / 3600:.2g} hours"
    facts = [("runs", str(len(frame))), *((name, listed(frame[name])) for name in _PROVENANCE)]
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
    """The options of how a model is served, where they are not the defaults; a device of one's own comes from a
    file."""
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

"""Scaling laws for mixtures of experts: load runs, fit a law, price serving, recommend an expert count.

    runs = scaling.load("results/quickstart")            # or a CSV, Parquet, DataFrame; map={"n_active": "params"}
    fit = scaling.fit(runs)                              # a mixture of laws; law="joint-moe" fits one
    fit.summary()
    fit.predict(frame)                                   # DataFrame: loss and both intervals
    answer = scaling.recommend(fit, train_flops=1e21, serve_tokens=1e12, device="h100")
    answer.table(); answer.plot(); scaling.report(answer, "plan.pdf")
    study = scaling.study("results/quickstart")          # .runs, .curves, .evals, .latency

Names are imported when they are first used: `import scaling` alone loads nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from analysis.decision.answer import Answer as Answer
    from analysis.decision.question import Question as Question
    from analysis.fitting.fit import Fit as Fit
    from analysis.latency.law import LatencyLaw as LatencyLaw
    from analysis.laws.law import Law as Law
    from analysis.laws.law import Parameter as Parameter
    from analysis.rates.face import rates as rates
    from analysis.rates.rates import Rates as Rates
    from analysis.returns.comparison import ReturnsComparison as ReturnsComparison
    from analysis.returns.face import returns as returns
    from analysis.tables.runs import RunTable as RunTable
    from analysis.tables.study import Study as Study
    from analysis.worth.face import worth as worth
    from analysis.worth.worth import Worth as Worth
    from scaling.architecture import Architecture as Architecture
    from scaling.errors import InputError as InputError
    from scaling.errors import WorkError as WorkError
    from scaling.public import device as device
    from scaling.public import devices as devices
    from scaling.public import fit as fit
    from scaling.public import law as law
    from scaling.public import laws as laws
    from scaling.public import load as load
    from scaling.public import read_answer as read_answer
    from scaling.public import read_fit as read_fit
    from scaling.public import read_latency as read_latency
    from scaling.public import recommend as recommend
    from scaling.public import report as report
    from scaling.public import serve as serve
    from scaling.public import study as study
    from scaling.public import training_speed as training_speed
    from scaling.public import write as write
    from scaling.serving.device import Device as Device
    from scaling.serving.families import architecture_family as architecture_family
    from scaling.serving.families import family_like as family_like
    from scaling.serving.families import read_model as read_model
    from scaling.serving.service import Service as Service

    __version__: str

_FUNCTIONS = (
    "load", "study", "laws", "law", "fit", "devices", "device", "recommend", "report", "read_fit", "read_latency",
    "read_answer", "write", "serve", "training_speed",
)  # fmt: skip
_HOMES = {
    **dict.fromkeys(_FUNCTIONS, "scaling.public"),
    "RunTable": "analysis.tables.runs",
    "Study": "analysis.tables.study",
    "Law": "analysis.laws.law",
    "Parameter": "analysis.laws.law",
    "Fit": "analysis.fitting.fit",
    "LatencyLaw": "analysis.latency.law",
    "Architecture": "scaling.architecture",
    "Device": "scaling.serving.device",
    "Service": "scaling.serving.service",
    "architecture_family": "scaling.serving.families",
    "family_like": "scaling.serving.families",
    "read_model": "scaling.serving.families",
    "Question": "analysis.decision.question",
    "Answer": "analysis.decision.answer",
    "worth": "analysis.worth.face",
    "Worth": "analysis.worth.worth",
    "rates": "analysis.rates.face",
    "Rates": "analysis.rates.rates",
    "returns": "analysis.returns.face",
    "ReturnsComparison": "analysis.returns.comparison",
    "InputError": "scaling.errors",
    "WorkError": "scaling.errors",
}
__all__ = [*_HOMES]


def __getattr__(name: str) -> Any:
    """A public name, imported when it is first used, or `__version__`.

    Raises InputError where another package named `analysis` or `sweeps` hides ours.
    """
    if name == "__version__":
        from scaling.distribution import version

        return version()
    if name not in _HOMES:
        raise AttributeError(f"module 'scaling' has no attribute {name!r}")
    from importlib import import_module

    from scaling.distribution import require_own_packages

    require_own_packages()
    value = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES, "__version__"})

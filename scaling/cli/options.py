"""Options that commands share, how their values are read, and their names in messages."""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Annotated, Any

import typer

from scaling.bounds import MOST_FLOPS, MOST_SEED, outside
from scaling.distribution import require_installed
from scaling.errors import InputError

_MOST_WHOLE, _MOST_HOURS, _MOST_IN_LIST = 10**9, 1e6, 100
_PICTURES = (".png", ".svg", ".pdf")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
# What stands in quotes behind a field is the user's own, in which backticks are names of columns. A name behind the
# word column, or one that is proposed for a word of a file, is no option either.
_FIELD = re.compile(r"""(?<=` )(?:'[^'\n]*'|"[^"\n]*")|(?<!column )(?<!did you mean )`([a-z][a-z0-9_]*)`""")
# Fields that are called otherwise than the option that fills them.
_OPTION_OF_FIELD = {
    "bench_batch": "--batch",
    "n_budgets": "--groups",
    "n_starts": "--starts",
    "objective_kind": "--objective",
    "rented": "--devices",
}
_options: ContextVar[Mapping[str, str]] = ContextVar("options of the command that runs", default={})  # noqa: B039


class ObjectiveName(enum.StrEnum):
    """What is summed over residuals."""

    huber = "huber"
    lad = "lad"
    least_squares = "least-squares"
    asymmetric = "asymmetric"


class ResidualName(enum.StrEnum):
    """Prediction minus observation of what."""

    log = "log"
    raw = "raw"


def number(text: str | float, name: str | None = None) -> float:
    """A number with suffixes such as 1.2B. Raises BadParameter, with the name of the option or the one typer adds."""
    from scaling.numbers import parse_number

    try:
        return parse_number(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=name) from error


def quantity(*units: str) -> Callable[[str | float], float]:
    """A parser of an option whose unit is in its name (the first of `units`): `80` or `80 GB`, never `80G`."""

    def parsed(text: str | float) -> float:
        from scaling.numbers import parse_quantity

        try:
            return parse_quantity(text, units)
        except ValueError as error:
            raise typer.BadParameter(str(error)) from error

    parsed.__name__ = "number"
    return parsed


def whole_number(text: str | float) -> int:
    """A whole number from 1. Raises BadParameter."""
    value = number(text)
    if not (1 <= value <= _MOST_WHOLE and value == int(value)):
        raise typer.BadParameter(f"takes a whole number from 1 to {_MOST_WHOLE:,}, found {text}")
    return int(value)


def compute(text: str | float) -> float:
    """A budget in FLOPs. Raises BadParameter where it is not a positive number."""
    value = number(text)
    if wrong := outside(value, MOST_FLOPS):
        raise typer.BadParameter(f"{wrong} FLOPs")
    return value


def hours(text: str | float) -> float:
    """A time in hours. Raises BadParameter."""
    value = number(text)
    if wrong := outside(value, _MOST_HOURS):
        raise typer.BadParameter(wrong)
    return value


def _picture(name: str) -> Path:
    """The path of a figure. Raises BadParameter for a suffix that cannot be drawn, and without matplotlib."""
    path = Path(name)
    try:
        require_installed("a figure", "matplotlib")
    except InputError as error:
        raise typer.BadParameter(str(error)) from error
    if path.suffix.lower() not in _PICTURES:
        raise typer.BadParameter(f"expected a name that ends in {', '.join(_PICTURES)}, found {name}")
    return path


Runs = Annotated[
    str, typer.Argument(metavar="RUNS", help="A study folder, or a CSV, TSV, JSONL or Parquet file, one run a row.")
]
StudyFolder = Annotated[Path, typer.Argument(metavar="DIR", help="The study's folder.")]
FitArgument = Annotated[str, typer.Argument(metavar="FIT", help="A file that `fit --out` wrote, or published:NAME.")]
FitArguments = Annotated[
    list[str],
    typer.Argument(
        metavar="FIT...", help="A file that `fit --out` wrote, or published:NAME; several: of runs with one k each."
    ),
]
LawName = Annotated[str, typer.Option(help="Name of the law; `scaling laws` lists them.")]
Maps = Annotated[
    list[str] | None,
    typer.Option(
        "--map",
        metavar="COLUMN=EXPR",
        help="Our COLUMN (n_active, tokens, loss_val, ...) is EXPR: a column of the table, a number, or arithmetic on "
        "them, e.g. 'tokens=tokens_b*1e9', 'loss_val=log(ppl)', n_experts=1, 'n_active=`size (M)`*1e6'. Texts are "
        "joined by \"trunk_id=sweep + '-' + model\"; decimal_comma(COLUMN) says what a comma is.",
    ),
]
Where = Annotated[
    str | None,
    typer.Option(
        metavar="EXPR",
        help="Keep rows where this holds, e.g. \"n_experts in [1, 8] and loss_val < 4 and router == 'topk'\": + - * / "
        "** % // log exp sqrt abs min max, comparisons, and, or, not, `in [...]`, `is None` for a missing cell.",
    ),
]
DropHighest = Annotated[int, typer.Option(metavar="N", min=0, help="Leave out the N runs of highest loss.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="COLUMN=VALUE", help="Any other column of the law, e.g. n_dense_nonembed=1.2B."),
]
ObjectiveOption = Annotated[ObjectiveName, typer.Option(help="Penalty summed over residuals.")]
ResidualOption = Annotated[ResidualName, typer.Option(help="Residuals of ln loss, or of the loss in nats.")]
Delta = Annotated[
    float, typer.Option(parser=quantity("residuals"), help="Corner of huber and asymmetric, in the residual's units.")
]
Pins = Annotated[list[str] | None, typer.Option("--pin", metavar="NAME=VALUE", help="Hold a parameter at a value.")]
Seed = Annotated[int, typer.Option(min=0, max=MOST_SEED, help="Of all that chance decides: starts, resamples, folds.")]
Budget = Annotated[
    float | None, typer.Option(metavar="C", parser=compute, help="Training FLOPs to predict the optimum at.")
]
TrainFlops = Annotated[float | None, typer.Option(metavar="C", parser=number, help="Training budget in FLOPs.")]
TargetLoss = Annotated[
    float | None,
    typer.Option(metavar="L", parser=quantity("nats per token", "nats"), help="Loss to reach, nats per token."),
]
ServeTokens = Annotated[
    float | None,
    typer.Option(metavar="T", parser=number, help="Output tokens served over the model's life; else none."),
]
ExpertCounts = Annotated[
    str | None,
    typer.Option(metavar="LIST", help="Expert counts to compare, e.g. 1,4,8. Default: those of the fit's runs."),
]
MemoryGb = Annotated[
    float | None,
    typer.Option(
        metavar="M", parser=quantity("GB"), help="Memory for weights and 16k cached tokens in bf16, GB = 1e9 bytes."
    ),
]
Figure = Annotated[
    Path | None, typer.Option(metavar="FILE", parser=_picture, help="Draw it on one page: .png, .svg or .pdf.")
]
Document = Annotated[Path | None, typer.Option(metavar="FILE.json", help="File for the answer, as JSON.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document; messages go to standard error.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Print everything: all rows, formulas, assumptions.")]


def pairs(items: Sequence[str] | None, option: str) -> dict[str, str]:
    """{NAME: VALUE} of options written NAME=VALUE. Raises InputError for another form, or a name twice."""
    values: dict[str, str] = {}
    for item in items or ():
        name, separator, value = (part.strip() for part in item.partition("="))
        if not separator or not name or not value:
            raise InputError(f"{option} takes NAME=VALUE, found {item!r}")
        if name in values:
            raise InputError(f"{option} names {name!r} twice")
        values[name] = value
    return values


def number_pairs(items: Sequence[str] | None, option: str) -> dict[str, float]:
    """{NAME: number} of options written NAME=VALUE. Raises BadParameter for what is no number."""
    return {name: number(text, f"{option} {name}") for name, text in pairs(items, option).items()}


def number_list(text: str | None, option: str) -> tuple[float, ...]:
    """Numbers with commas between them; none where the option was not given. Raises BadParameter for what is none."""
    parts = [] if text is None else text.split(",")
    if len(parts) > _MOST_IN_LIST:
        raise InputError(f"{option} takes at most {_MOST_IN_LIST} numbers, found {len(parts)}")
    return tuple(number(part.strip(), option) for part in parts)


def whole_list(text: str | None, option: str, least: int = 1) -> tuple[int, ...]:
    """Whole numbers from `least`, 0 or 1, with commas between them; none where the option was not given."""
    if text is None:
        return ()
    parts = text.split(",")
    if len(parts) > _MOST_IN_LIST:
        raise InputError(f"{option} takes at most {_MOST_IN_LIST} numbers, found {len(parts)}")
    try:
        return tuple(0 if least == 0 and part.strip() == "0" else whole_number(part) for part in parts)
    except typer.BadParameter as error:
        raise InputError(
            f"{option} takes whole numbers with commas between them, such as 1,4,8; {error.message}"
        ) from error


def pair(text: str | None, option: str) -> tuple[float, float] | None:
    """Two numbers with a comma between them; None where the option was not given. Raises InputError."""
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",")]
    if len(parts) != 2 or not all(parts):
        raise InputError(f"{option} takes two numbers with a comma between them, such as 30B,600B; found {text!r}")
    return number(parts[0], option), number(parts[1], option)


@contextmanager
def options_of(parameters: Iterable[Any]) -> Iterator[None]:
    """While a command with these click parameters runs, what is printed names their options."""
    options: dict[str, str] = {}
    for parameter in parameters:
        for option in parameter.opts:
            if option.startswith("--"):
                options |= {parameter.name: option, option[2:].replace("-", "_"): option}
    renamed = {field: option for field, option in _OPTION_OF_FIELD.items() if option in options.values()}
    token = _options.set(renamed | options)
    try:
        yield
    finally:
        _options.reset(token)


def printable(text: str) -> str:
    """The text with its control characters escaped but line ends and tabs: a name in a file must not steer a
    terminal."""
    return _CONTROL.sub(lambda found: repr(found[0])[1:-1], text)


def with_options(text: str) -> str:
    """The text with `memory_gb` as --memory-gb where the command that runs has that option; other words as they are.

    Below the command line a message names fields, so that it reads as well in a notebook; a JSON document keeps them.
    """
    return _FIELD.sub(lambda field: _options.get().get(field[1] or "", field[0]), text)

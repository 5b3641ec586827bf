"""Options and habits that commands share: how tables are named, how numbers are read, what goes to which stream."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Annotated

import typer

from scaling.errors import InputError

PICTURES = (".png", ".svg", ".pdf")


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


Runs = Annotated[
    str, typer.Argument(metavar="RUNS", help="A study folder, or a CSV, TSV, JSONL or Parquet file, one run a row.")
]
FitArgument = Annotated[str, typer.Argument(metavar="FIT", help="A file that `fit --out` wrote, or published:NAME.")]
Maps = Annotated[
    list[str] | None,
    typer.Option(
        "--map",
        metavar="COLUMN=EXPR",
        help="Our COLUMN (n_active, tokens, loss_val, ...) is EXPR: a column of the table, a number, or arithmetic on them, "
        "e.g. 'tokens=tokens_b*1e9', 'loss_val=log(ppl)', n_experts=1, 'n_active=`size (M)`*1e6'.",
    ),
]
Where = Annotated[
    str | None, typer.Option(metavar="EXPR", help="Keep rows where this holds, e.g. 'n_experts == 1 and loss_val < 4'.")
]
DropHighest = Annotated[
    int, typer.Option("--drop-highest-loss", metavar="N", help="Leave out the N runs of highest loss.")
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="COLUMN=VALUE", help="Any other column of the law, e.g. n_dense_nonembed=1.2B."),
]
ObjectiveOption = Annotated[ObjectiveName, typer.Option("--objective", help="Penalty summed over residuals.")]
ResidualOption = Annotated[
    ResidualName, typer.Option("--residual", help="Residuals of ln loss, or of the loss in nats.")
]
Delta = Annotated[str, typer.Option(help="Corner of huber and asymmetric, in the residual's units.")]
Pins = Annotated[list[str] | None, typer.Option("--pin", metavar="NAME=VALUE", help="Hold a parameter at a value.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]


def pairs(items: Sequence[str] | None, option: str) -> dict[str, str]:
    """{NAME: VALUE} of options written NAME=VALUE. Raises InputError for another form, or a name twice."""
    found: dict[str, str] = {}
    for item in items or ():
        name, separator, value = item.partition("=")
        if not separator or not name.strip() or not value.strip():
            raise InputError(f"{option} takes NAME=VALUE, found {item!r}")
        if name.strip() in found:
            raise InputError(f"{option} names {name.strip()!r} twice")
        found[name.strip()] = value.strip()
    return found


def settings_of(items: Sequence[str] | None) -> dict[str, float]:
    """The numbers of --set COLUMN=VALUE."""
    return {name: number(value, f"--set {name}") for name, value in pairs(items, "--set").items()}


def pins_of(items: Sequence[str] | None) -> dict[str, float]:
    """The numbers of --pin NAME=VALUE."""
    return {name: number(value, f"--pin {name}") for name, value in pairs(items, "--pin").items()}


def number(text: str, option: str) -> float:
    """A number with suffixes such as 1.2B. Raises InputError naming the option."""
    from scaling.config.fields import parse_number

    try:
        return parse_number(text)
    except ValueError as error:
        raise InputError(f"{option}: {error}") from error


def optional(text: str | None, option: str) -> float | None:
    """`number`, or None where the option was not given."""
    return None if text is None else number(text, option)


def whole_list(text: str | None, option: str) -> tuple[int, ...]:
    """Whole numbers with commas between them; none where the option was not given."""
    if text is None:
        return ()
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise InputError(
            f"{option} takes whole numbers with commas between them, such as 1,4,8; found {text!r}"
        ) from error

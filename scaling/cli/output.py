"""What a command prints: the answer on standard output, messages on standard error, files whole or not at all."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from analysis.figures import Figure

_FIELD = re.compile(r"`([a-z][a-z0-9_]*)`")
# Fields that are called otherwise than the option that fills them.
_OPTION_OF_FIELD = {
    "bench_batch": "--batch",
    "n_budgets": "--groups",
    "n_starts": "--starts",
    "objective_kind": "--objective",
    "rented": "--devices",
}
_options: ContextVar[Mapping[str, str]] = ContextVar("options of the command that runs", default={})  # noqa: B039


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


def with_options(text: str) -> str:
    """The text with `memory_gb` as --memory-gb where the command that runs has that option; other words as they are.

    Below the command line a message names fields, so that it reads as well in a notebook; a JSON document keeps them.
    """
    return _FIELD.sub(lambda field: _options.get().get(field[1], field[0]), text)


def note(text: str) -> None:
    """A message to a person, on standard error."""
    print(with_options(text), file=sys.stderr)


def warn(warnings: Iterable[str]) -> None:
    """Each warning on standard error."""
    for warning in warnings:
        note(f"warning: {warning}")


def note_table(dropped: Sequence[tuple[str, int]], notes: Sequence[str]) -> None:
    """What was left out of a table, and what was assumed, on standard error."""
    for reason, count in dropped:
        note(f"left out: {count} rows ({reason})")
    for assumption in notes:
        note(f"note: {assumption}")


def print_answer(document: Mapping[str, Any], as_json: bool, text: str) -> None:
    """The answer on standard output: the document, or words."""
    deliver(document, None, as_json, lambda: print(with_options(text), flush=True))


def print_json(document: Mapping[str, Any] | Sequence[Any]) -> None:
    """One JSON document on standard output."""
    print(json.dumps(document, allow_nan=False), flush=True)


def deliver(document: Mapping[str, Any], out: Path | None, as_json: bool, show: Callable[[], None]) -> None:
    """The answer into a file where one is named, and on standard output: the document, or as `show` puts it."""
    if out is not None:
        write_json(out, document)
    if as_json:
        print_json(document)
    else:
        show()


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Write JSON whole or not at all."""
    from scaling.files import write_atomically

    write_atomically(path, json.dumps(document, allow_nan=False, indent=1).encode())


def save_figure(page: Figure, path: Path) -> None:
    """Draw a page into a file, whose folder is made where it is missing."""
    from analysis.figures import save

    path.parent.mkdir(parents=True, exist_ok=True)
    save(page, path)

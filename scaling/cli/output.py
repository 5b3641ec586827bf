"""What a command delivers: a page or a JSON document on standard output, and files whole or not at all."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scaling.cli.options import printable, with_options

if TYPE_CHECKING:
    from analysis.figures import Figure
    from scaling.cli.show.page import Page


def note(text: str) -> None:
    """A message to a person, on standard error."""
    print(printable(with_options(text)), file=sys.stderr)


def deliver(
    document: Mapping[str, Any],
    page: Page,
    *,
    as_json: bool,
    out: Path | None = None,
    verbose: bool = False,
    lines: int | None = None,
) -> None:
    """Write the document into a file where one is named; print it, or the page, on standard output.

    With `as_json` the document is alone there, and the page's messages go to standard error.
    """
    if out is not None:
        from scaling.files import write_json

        write_json(out, document)
    if as_json:
        print_json(document)
        for message in page.messages:
            note(message)
        return
    from scaling.cli.show.page import LINES, print_page

    print_page(page, verbose=verbose, lines=lines or LINES)


def print_json(document: Mapping[str, Any] | Sequence[Any]) -> None:
    """One JSON document on standard output."""
    print(json.dumps(document, allow_nan=False), flush=True)


def save_figure(page: Figure, path: Path) -> None:
    """Draw a page into a file, whose folder is made where it is missing."""
    from analysis.figures import save

    save(page, path)

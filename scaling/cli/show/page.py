"""A page: what a command prints, the answer first, in at most 30 lines unless all of it is asked for."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import click

from scaling.cli.options import printable, with_options
from scaling.cli.show.tables import table_lines
from scaling.formatting import listed, plural
from scaling.table import Table

LINES = 30
_FOR_TEXT, _FOR_NOTES = 12, 8  # lines kept for texts below long tables, and for the notes among them
_BOUND = "\x1f"  # a space that does not break a line
_MOST_WIDTH = 120  # of sentences
_LETTERS_OF_NOTE = 230


@dataclass(frozen=True)
class Page:
    """What a command has to say, in the order in which it is printed.

    `answer`: the decision or finding, in one line. `why`: sentences on what it rests on. `tables`: the values behind
    it. `notes`: what else was found, and what to know. `read`: what was left out of the input, and what was assumed of
    it. `warnings`: what to doubt. `details`: tables, formulas and assumptions, printed with --verbose alone; `more` is
    what they are called.
    """

    answer: str
    why: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    notes: tuple[str, ...] = ()
    read: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    details: tuple[Table | str, ...] = ()
    more: str = "formulas and assumptions"

    @property
    def messages(self) -> tuple[str, ...]:
        """What a program's user should see beside the JSON document."""
        return (*self.read, *(f"warning: {warning}" for warning in self.warnings))


def of_reading(dropped: Sequence[tuple[str, int]], notes: Sequence[str]) -> tuple[str, ...]:
    """What was left out of a table, and what was assumed of it, as the `read` of a page."""
    return (*(f"left out: {plural(count, 'row')} ({reason})" for reason, count in dropped), *notes)


def print_page(page: Page, *, verbose: bool = False, lines: int = LINES) -> None:
    """Print a page on standard output, cut to a number of lines unless `verbose`."""
    width = shutil.get_terminal_size().columns
    answer, *rest = map(printable, page_lines(page, width, None if verbose else lines))
    click.echo("\n".join([click.style(answer, bold=True), *rest]))


def page_lines(page: Page, width: int, most: int | None) -> list[str]:
    """The lines of a page. With `most`, what does not fit is counted in the last line; the answer is never cut."""
    head = [line for text in (page.answer, *page.why) for line in _wrap(text, width)]
    notes = [_wrap(f"- {note}", width) for note in (*page.notes, *page.read)]
    warnings = [_wrap(f"warning: {warning}", width) for warning in grouped(page.warnings)]
    if most is None:
        tables = [line for table in page.tables for line in _table(table, width)[0]]
        details = [_detail(part, width) for part in page.details]
        return [*head, *tables, *_apart(notes), *_apart(details), *_apart(warnings)]
    short = [_wrap(f"- {_shortened(note)}", width) for note in (*page.notes, *page.read)]
    room = most - len(head) - 1
    text = min(len(_apart(short)) + len(_apart(warnings)), _FOR_TEXT)
    tables, rows_left = _tables(page.tables, width, room - text)
    room -= len(tables)
    kept, warnings_left = _fitting(warnings, room - min(_FOR_NOTES, len(_apart(short))))
    known, notes_left = _fitting(short, room - len(kept))
    left_out = [
        plural(n, noun) for n, noun in ((rows_left, "row"), (notes_left, "note"), (warnings_left, "warning")) if n
    ]
    left_out += [page.more] if page.details else ["whole sentences"] if short != notes else []
    more = [f"--verbose adds {listed(left_out)}."] if left_out else []
    return [*head, *tables, *known, *kept, *more]


def grouped(warnings: Iterable[str]) -> list[str]:
    """Warnings of one subject (`the fit: ...`) joined into one, each subject where it first appears."""
    groups: dict[str, list[str]] = {}
    for warning in dict.fromkeys(warnings):
        subject, colon, text = warning.partition(": ")
        short = bool(colon) and len(subject.split()) <= 2
        groups.setdefault(subject if short else warning, []).append(text if short else "")
    return [f"{subject}: {'; '.join(texts)}" if any(texts) else subject for subject, texts in groups.items()]


def _fitting(blocks: Sequence[Sequence[str]], room: int) -> tuple[list[str], int]:
    """As many blocks as fit, after a blank line, and the number of those that do not."""
    kept = list(blocks)
    while kept and len(_apart(kept)) > room:
        kept.pop()
    return _apart(kept), len(blocks) - len(kept)


def _apart(blocks: Sequence[Sequence[str]]) -> list[str]:
    """The lines of blocks, after a blank one."""
    return ["", *(line for block in blocks for line in block)] if blocks else []


def _tables(tables: Sequence[Table], width: int, room: int) -> tuple[list[str], int]:
    """Tables in `room` lines, those that are too long cut alike, and the number of rows left out."""
    lines: list[str] = []
    rows_left = 0
    whole = [len(_table(table, width)[0]) for table in tables]
    for number, table in enumerate(tables):
        left = room - len(lines)
        share = max(left // (len(tables) - number), left - sum(whole[number + 1 :]))
        some, cut = _table(table, width, share)
        lines += some
        rows_left += cut
    return lines, rows_left


def _table(table: Table, width: int, room: int | None = None) -> tuple[list[str], int]:
    """A table with its title and notes after a blank line, in `room` lines, and the number of rows left out."""
    table = replace(table, rows=tuple(tuple(row) for row in table.rows))
    heading, rows = table_lines(table, width)
    title = _wrap(table.title, width) if table.title else []
    notes = [line for note in table.notes for line in _wrap(note, width)]
    kept = list(rows)
    while room is not None and len(kept) > 2 and 1 + len(title + heading + notes) + sum(map(len, kept)) > room:
        kept.pop()
    lines = ["", *title, *heading, *(line for row in kept for line in row), *notes]
    return [with_options(line) for line in lines], len(rows) - len(kept)


def _detail(part: Table | str, width: int) -> list[str]:
    return _wrap(f"- {part}", width) if isinstance(part, str) else _table(part, width)[0]


def _shortened(text: str) -> str:
    return textwrap.shorten(text, _LETTERS_OF_NOTE, placeholder=" …", break_on_hyphens=False)


def _wrap(text: str, width: int) -> list[str]:
    """Lines of text, in which `E = 8` and `95 %` stay together."""
    bound = with_options(text).replace(" = ", f"{_BOUND}={_BOUND}").replace(" %", f"{_BOUND}%")
    indent = "  " if text.startswith(("- ", "warning: ")) else ""
    lines = textwrap.wrap(
        bound, min(width, _MOST_WIDTH), subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
    return [line.replace(_BOUND, " ") for line in lines]

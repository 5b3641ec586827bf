"""What commands print: a field in backticks is the option of the command that runs, anything else stays as it is."""

from __future__ import annotations

import json
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from scaling.cli.console import PlainTable, Terminal
from scaling.cli.main import Command, app
from scaling.cli.output import note, print_answer, print_json, with_options
from scaling.errors import InputError, WorkError

TEXT = "`memory_gb` needs `tokens`; `map` it, or `scaling fit` with `d_model`"
SHOWN = "--memory-gb needs `tokens`; --map it, or `scaling fit` with `d_model`"


def command(
    memory_gb: Annotated[str | None, typer.Option()] = None,
    maps: Annotated[list[str] | None, typer.Option("--map")] = None,
    fail: Annotated[str, typer.Option()] = "",
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Print in every way there is."""
    note(TEXT)
    if fail:
        raise {"input": InputError, "work": WorkError}[fail](TEXT)
    print_answer({"text": TEXT}, as_json, TEXT)
    if not as_json:
        table = PlainTable("heading")
        table.add_row(TEXT)
        terminal = Terminal(200)
        terminal.print(table)
        terminal.print(f"{TEXT} [bold]")


@pytest.fixture
def call():
    commands = typer.Typer()
    commands.command(cls=Command)(command)
    commands.command("other", cls=Command)(lambda: note(TEXT))
    return lambda *words: CliRunner().invoke(commands, words)


def test_fields_are_options_to_a_person_and_fields_in_a_document(call) -> None:
    ended = call("command")
    assert [line.rstrip() for line in ended.stdout.splitlines()] == [SHOWN, "heading", SHOWN, f"{SHOWN} [bold]"]
    assert ended.stderr.splitlines() == [SHOWN]
    assert json.loads(call("command", "--json").stdout) == {"text": TEXT}


@pytest.mark.parametrize(("kind", "status", "word"), [("input", 2, "error"), ("work", 1, "failed")])
def test_an_error_names_options_and_ends_with_its_status(call, kind: str, status: int, word: str) -> None:
    ended = call("command", "--fail", kind)
    assert ended.exit_code == status
    assert ended.stdout == ""
    assert ended.stderr.splitlines() == [SHOWN, f"{word}: {SHOWN}"]


def test_options_are_those_of_the_command_that_runs(call, capsys) -> None:
    assert call("other").stderr.splitlines() == [TEXT]
    assert with_options(TEXT) == TEXT  # none runs
    print_json({"text": TEXT})
    assert json.loads(capsys.readouterr().out) == {"text": TEXT}


@pytest.mark.parametrize("words", [("fit", "absent.csv", "--law", "nothing"), ("sweep", "plan", "absent.yaml")])
def test_every_command_ends_on_wrong_input_with_one_message(words: tuple[str, ...]) -> None:
    ended = CliRunner().invoke(app, words)
    assert ended.exit_code == 2
    assert ended.stderr.startswith("error: ")
    assert len(ended.stderr.splitlines()) == 1

"""What commands print: the answer first, within lines and width; fields as options; one message for an error."""

from __future__ import annotations

import json
from typing import Annotated

import click
import pytest
import typer
from typer.testing import CliRunner

from scaling.cli.main import Command, app
from scaling.cli.options import options_of, with_options
from scaling.cli.output import deliver, note, print_json
from scaling.cli.show.page import Page, grouped, of_reading, page_lines
from scaling.cli.show.progress import progress
from scaling.cli.show.tables import text_table
from scaling.errors import InputError, WorkError
from scaling.progress import part

TEXT = "`memory_gb` needs `tokens`; `map` it, or `scaling fit` with `d_model`"
SHOWN = "--memory-gb needs `tokens`; --map it, or `scaling fit` with `d_model`"


def command(
    memory_gb: Annotated[str | None, typer.Option()] = None,
    maps: Annotated[list[str] | None, typer.Option("--map")] = None,
    fail: Annotated[str, typer.Option()] = "",
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Print in every way there is."""
    if fail:
        raise {"input": InputError, "work": WorkError}[fail](TEXT)
    table = text_table("", ["heading"], [[TEXT]], ["heading"])
    page = Page(f"{TEXT} [bold]", tables=(table,), read=(TEXT,), warnings=(TEXT,))
    deliver({"text": TEXT}, page, as_json=as_json)


def test_a_column_and_a_word_proposed_for_a_file_are_no_options() -> None:
    with options_of([click.Option(["--top-k"])]):
        assert with_options("t.csv: column `top_k` is missing") == "t.csv: column `top_k` is missing"
        assert with_options("unknown topk; did you mean `top_k`") == "unknown topk; did you mean `top_k`"
        assert with_options("`top_k` must be positive") == "--top-k must be positive"


@pytest.fixture
def call():
    commands = typer.Typer()
    commands.command(cls=Command)(command)
    commands.command("other", cls=Command)(lambda: note(TEXT))
    return lambda *words: CliRunner().invoke(commands, words, env={"COLUMNS": "100"})


def test_fields_are_options_to_a_person_and_fields_in_a_document(call) -> None:
    ended = call("command")
    shown = [line for line in ended.stdout.splitlines() if line]
    assert shown == [f"{SHOWN} [bold]", "heading", SHOWN, f"- {SHOWN}", f"warning: {SHOWN}"]
    assert ended.stderr == ""
    ended = call("command", "--json")
    assert json.loads(ended.stdout) == {"text": TEXT}
    assert ended.stderr.splitlines() == [SHOWN, f"warning: {SHOWN}"]


@pytest.mark.parametrize(("kind", "status", "word"), [("input", 2, "error"), ("work", 1, "failed")])
def test_an_error_names_options_and_ends_with_its_status(call, kind: str, status: int, word: str) -> None:
    ended = call("command", "--fail", kind)
    assert ended.exit_code == status
    assert ended.stdout == ""
    assert ended.stderr.splitlines() == [f"{word}: {SHOWN}"]


def test_options_are_those_of_the_command_that_runs(call, capsys) -> None:
    assert call("other").stderr.splitlines() == [TEXT]
    assert with_options(TEXT) == TEXT  # none runs
    print_json({"text": TEXT})
    assert json.loads(capsys.readouterr().out) == {"text": TEXT}


def test_backticks_of_the_users_own_expression_stay(tmp_path) -> None:
    """`seed` is an option of `fit`, and here the name of a column."""
    (tmp_path / "runs [1].csv").write_text("n_active,tokens,loss_val\n1e8,1e9,3\n")
    for words in (("--where", "`seed` > 1"), ("--where", "`seed` = 1")):
        ended = CliRunner().invoke(app, ["fit", str(tmp_path / "runs [1].csv"), "--law", "hoffmann", *words])
        assert ended.exit_code == 2
        assert f"--where '{words[1]}'" in ended.stderr


@pytest.mark.parametrize("words", [("fit", "absent.csv", "--law", "nothing"), ("sweep", "plan", "absent.yaml")])
def test_every_command_ends_on_wrong_input_with_one_message(words: tuple[str, ...]) -> None:
    ended = CliRunner().invoke(app, words)
    assert ended.exit_code == 2
    assert ended.stderr.startswith("error: ")
    assert len(ended.stderr.splitlines()) == 1


# -------------------------------------------------------------------------------------------------- pages


def long_page() -> Page:
    return Page(
        "the answer",
        ("why it is so",),
        (text_table("", ["n", "text"], [[str(i), "word " * 30] for i in range(40)], ["text"]),),
        tuple(f"note {i} {'long ' * 60}" for i in range(9)),
        of_reading([("reason", 1), ("other", 3)], ["assumed"]),
        tuple(f"doubt {i}" for i in range(50)),
        ("formula",),
    )


def test_a_long_page_is_cut_and_says_how_much_is_left() -> None:
    page = long_page()
    lines = page_lines(page, 80, 30)
    assert len(lines) <= 30
    assert max(map(len, lines)) <= 80
    assert lines[:2] == ["the answer", "why it is so"]
    shown = sum(line.startswith("warning: ") for line in lines)
    assert 0 < shown < 50
    assert f"{50 - shown} warnings" in lines[-1]
    whole = page_lines(page, 80, None)
    assert sum(line.startswith("warning: ") for line in whole) == 50
    assert [line for line in whole if line.startswith("- left out")] == [
        "- left out: 1 row (reason)",
        "- left out: 3 rows (other)",
    ]
    assert "- formula" in whole
    assert "…" not in "".join(whole)


def test_a_short_page_is_whole_and_says_nothing_of_the_rest() -> None:
    page = Page("the answer", tables=(text_table("", ["n"], [["1"]]),), notes=("a note",), warnings=("a doubt",))
    assert page_lines(page, 80, 30) == ["the answer", "", "n", "1", "", "- a note", "", "warning: a doubt"]
    assert page_lines(page, 80, 30) == page_lines(page, 80, None)


def test_warnings_of_one_subject_are_one() -> None:
    warnings = ["the fit: a", "other b", "the fit: c", "the fit: a", "a long subject here: d"]
    assert grouped(warnings) == ["the fit: a; c", "other b", "a long subject here: d"]


def test_numbers_are_never_broken_and_words_wrap() -> None:
    table = text_table("", ["two words", "text"], [["10 MB", "some words that do not fit"]], ["text"])
    lines = page_lines(Page("a", tables=(table,)), 20, None)[2:]
    assert max(map(len, lines)) <= 20
    assert lines[0].split()[0] == "two"
    assert any("10 MB  some" in line for line in lines)


def test_progress_is_silent_where_nobody_watches(capsys) -> None:
    with progress("working") as report:
        report(0.5)
    assert capsys.readouterr() == ("", "")
    shares = []
    part(shares.append, 0.2, 0.6)(0.5)
    assert shares == pytest.approx([0.4])

"""Where commands write: any name is a name, either case of an ending counts, and a place that cannot be is named."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from scaling.cli.main import app
from scaling.cli.options import printable

ASKED = ("recommend", "published:chinchilla-epoch", "--train-flops", "1e21", "--no-what-if")
NAMES = [
    "[red]x[bold].json",
    "brackets[0]*?.JSON",
    "a#b%c &d'e\"f`tokens`.json",
    "ünï ☃ 日本.json",
    "$(id) ; $HOME \\n.json",
    "-dash.json",
    "no ending",
    "two\nlines.json",
]


def ended(*words: str) -> tuple[int, str]:
    """Status and output of a command, which must not end in a traceback."""
    result = CliRunner().invoke(app, words, env={"COLUMNS": "200"})
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


@pytest.mark.parametrize("name", NAMES)
def test_a_file_has_the_name_that_was_given(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert ended(*ASKED, "--out", name)[0] == 0
    assert os.listdir() == [name]
    assert "recommendation" in json.loads(Path(name).read_text())
    status, said = ended("predict", f"./{name}", "--n-active", "1e9", "--tokens", "1e10")
    assert status == 2, "an answer is no fit"
    assert name in said.replace("--tokens", "`tokens`")


@pytest.mark.parametrize("place", ["folder.json", "file/x.json", "/proc/x.json", "/dev/full"])
def test_a_place_that_cannot_be_written_is_named(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder.json").mkdir()
    Path("file").touch()
    before = sorted(Path().rglob("*"))
    status, said = ended(*ASKED, "--out", place)
    (line,) = said.splitlines()
    assert status == 1
    assert line.startswith(f"failed: {place}: cannot be written")
    assert sorted(Path().rglob("*")) == before, "nothing half written is left"


def test_what_would_steer_a_terminal_is_escaped(tmp_path: Path) -> None:
    name = "a\x1b]0;title\x07\x9b31m\u202egnp.fit"
    status, said = ended("predict", str(tmp_path / name), "--tokens", "1e9")
    assert status == 2
    assert r"a\x1b]0;title\x07\x9b31m\u202egnp.fit" in said
    assert printable("two\nlines\tü ☃") == "two\nlines\tü ☃"

"""Programs written by a command: what it is told, and what becomes of its answers."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import pytest

from scaling.errors import InputError, WorkError
from scaling.tasks.rl.rewards.features import FEATURES
from scaling.tasks.rl.rewards.library import resolved_program
from scaling.tasks.rl.rewards.writing import extracted, prompt, written

# Answers what stands in the file beside it, one answer a call, and keeps what it was asked.
WRITER = """
import pathlib, sys
here = pathlib.Path(__file__).parent
asked = sorted(here.glob("asked*"))
(here / f"asked{len(asked)}").write_text(sys.stdin.read())
print((here / "answers").read_text().split("=====")[len(asked)])
"""


def command(folder: Path, *answers: str) -> str:
    (folder / "writer.py").write_text(WRITER)
    (folder / "answers").write_text("=====".join(answers))
    return shlex.join([sys.executable, str(folder / "writer.py")])


def test_the_prompt_names_all_that_a_program_may_read() -> None:
    for game, features in FEATURES.items():
        text = prompt(game, "stay alive")
        assert "stay alive" in text
        assert all(f"  {name}: " in text and f"  next_{name}: " in text for name in features)


def test_an_answer_that_is_refused_goes_back_with_the_reason(tmp_path: Path) -> None:
    asks = command(tmp_path, "I would write\n```\n0.1 * ball_z\n```\n", "```text\n# better\n0.1 * (ball_y == 8)\n```")
    made = written("breakout", asks, tries=3)
    assert made.text == "0.1 * (ball_y == 8)"
    assert len(made.refused) == 1
    first, second = ((tmp_path / f"asked{number}").read_text() for number in range(2))
    assert first == prompt("breakout") == made.prompt
    assert second.startswith(first)
    assert "0.1 * ball_z" in second
    assert made.refused[0] in second
    file = tmp_path / "program.txt"
    file.write_text(made.document)
    assert made.document.startswith("# written by python")
    assert str(tmp_path) not in made.document
    assert resolved_program("program", "breakout", str(file)) == made.text


def test_a_command_that_never_passes_fails_in_the_end(tmp_path: Path) -> None:
    with pytest.raises(WorkError, match=r"no program of 2 passed; .*line 1, column 1"):
        written("breakout", command(tmp_path, "ball_z", "ball_q"), tries=2)


@pytest.mark.parametrize(
    ("words", "kind", "said"),
    [
        ("", InputError, "empty"),
        ("'", InputError, "No closing quotation"),
        ("/no/such/command", InputError, "No such file"),
        (f"{shlex.quote(sys.executable)} -c 'raise SystemExit(3)'", WorkError, "ended with status 3"),
        (f"{shlex.quote(sys.executable)} -c 'import time; time.sleep(60)'", WorkError, "within 0.5 s"),
    ],
)
def test_a_command_that_does_not_answer(words: str, kind: type[Exception], said: str) -> None:
    with pytest.raises(kind, match=said):
        written("breakout", words, timeout_s=0.5 if "sleep" in words else 60)


def test_the_program_of_an_answer_is_its_last_block() -> None:
    assert extracted("a\n```\none\n```\nb\n```python\ntwo\n```\nc") == "two"
    assert extracted("  0.1\n") == "0.1"

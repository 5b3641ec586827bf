"""Has somebody else's program, such as a language model, write a reward program: the prompt, the checks, the retries.

After Text2Reward (arXiv 2309.11489): the writer reads a goal and a compact description of the environment and answers
with a program; what is wrong with it goes back to the writer.
"""

from __future__ import annotations

import hashlib
import re
import shlex
import subprocess
from dataclasses import dataclass
from datetime import date

from scaling.errors import InputError, WorkError
from scaling.tasks.rl.rewards.check import MOST_REWARD, checked_program, readable
from scaling.tasks.rl.rewards.features import ACTIONS, PLAY, features_of
from scaling.tasks.rl.rewards.program import LANGUAGE

GOAL = "Collect as much of the game's own reward as possible."
_FENCED = re.compile(r"```[^\n]*\n(.*?)```", re.DOTALL)
_MOST_SHOWN = 400  # characters of what a command says


@dataclass(frozen=True)
class Written:
    """A program that passed the checks, and how it came about: answers that were refused, and the first prompt."""

    text: str
    refused: tuple[str, ...]
    prompt: str
    command: str

    @property
    def document(self) -> str:
        """The file that a cell can name: the program under comments that say where it is from.

        Of the command only its first word is kept: the others may hold keys.
        """
        digest = hashlib.sha256(self.prompt.encode()).hexdigest()[:16]
        name = shlex.split(self.command)[0].rpartition("/")[2]
        tries = len(self.refused) + 1
        head = f"# written by {name} on {date.today()}, answer {tries}; sha256 of the prompt begins with {digest}"
        return f"{head}\n{self.text}\n"


def prompt(game: str, goal: str = GOAL) -> str:
    """What the writer reads. Raises ValueError for a game without features."""
    one = next(iter(features_of(game)))
    names = "\n".join(f"  {name}: {meaning}" for name, meaning in readable(game).items())
    actions = ", ".join(f"{number} {name}" for number, name in enumerate(ACTIONS[game]))
    return f"""Write a dense reward for a reinforcement learner.

The game: {PLAY[game]}
The goal: {goal}

What you write is added to the game's own reward of each step. It is evaluated with these names:
{names}
Actions: {actions}. Rows count down from the top and columns to the right, both from 0.

The language: {LANGUAGE}.
Lines may name values, `name = expression`; the last line is the reward of the step, an expression without a name.
Comments begin with #. There are no loops, functions of your own, texts or indices. The reward must be finite wherever
the names are in their ranges, and at most {MOST_REWARD:g} in size; a few hundredths a step are enough beside the game's
own rewards of 1.

Example of the form:
```
moved = next_{one} - {one}
0.01 * abs(moved)
```
Answer with the program alone, in one block between ``` and ```.
"""


def written(game: str, command: str, *, goal: str = GOAL, tries: int = 3, timeout_s: float = 300.0) -> Written:
    """A checked program by a command that reads the prompt on standard input and writes its answer to standard output.

    A program that is refused goes back with the reason, at most `tries` answers in all. The command is run without a
    shell. Raises InputError for a command that cannot be run, and WorkError where it fails, takes longer than
    `timeout_s` seconds or gives no program that passes.
    """
    first = asked = prompt(game, goal)
    refused: list[str] = []
    for _ in range(tries):
        answer = _answered(command, asked, timeout_s)
        text = extracted(answer)
        try:
            return Written(checked_program(text, game).text, tuple(refused), first, command)
        except InputError as error:
            refused.append(str(error))
            asked = f"{first}\nYour answer was:\n```\n{text}\n```\nIt was refused: {error}\nCorrect it.\n"
    raise WorkError(f"no program of {tries} passed; the last one: {refused[-1]}")


def extracted(answer: str) -> str:
    """The program of an answer: its last fenced block, or all of it."""
    blocks = _FENCED.findall(answer)
    return (blocks[-1] if blocks else answer).strip()


def _answered(command: str, text: str, timeout_s: float) -> str:
    """What a command says to this text."""
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise InputError(f"`reward_command`: {command!r}: {error}") from error
    if not words:
        raise InputError("`reward_command` is empty; name a program that reads a prompt and writes a reward program")
    try:
        done = subprocess.run(words, input=text, capture_output=True, text=True, timeout=timeout_s, check=False)
    except OSError as error:
        raise InputError(f"`reward_command`: {words[0]}: {error.strerror or error}") from error
    except subprocess.TimeoutExpired as error:
        raise WorkError(f"{words[0]} gave no answer within {timeout_s:g} s") from error
    if done.returncode:
        said = done.stderr.strip()[-_MOST_SHOWN:] or "it said nothing"
        raise WorkError(f"{words[0]} ended with status {done.returncode}: {said}")
    return done.stdout

"""`scaling reward`: what rewards may read, and reward programs checked and written."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scaling.cli import options
from scaling.cli.output import deliver
from scaling.errors import InputError

if TYPE_CHECKING:
    from scaling.tasks.rl.rewards.play import Trial

Game = Annotated[str, typer.Argument(metavar="GAME", help="A game of MinAtar, such as breakout.")]


def show(game: Game, verbose: options.Verbose = False, as_json: options.Json = False) -> None:
    """List what a reward of a game may read, and the potential and the programs that ship."""
    from scaling.cli.show.page import Page
    from scaling.table import Column, Table
    from scaling.tasks.rl.rewards.check import NEXT
    from scaling.tasks.rl.rewards.library import POTENTIALS, PROGRAMS

    names = _readable(game)
    columns = (Column("name", "name", text=True), Column("meaning", "meaning", text=True))
    rows = tuple((name, meaning) for name, meaning in names.items() if not name.startswith(NEXT))
    ships = {**PROGRAMS[game], "(potential)": POTENTIALS[game]}
    texts = tuple((name, text.replace("\n", "; ")) for name, text in ships.items())
    page = Page(
        f"{game}: {len(rows)} names that a reward may read, and {len(PROGRAMS[game])} programs that ship.",
        why=(f"A program may read the features of the state that a step led to as well: {NEXT}NAME.",),
        tables=(Table("Names", columns, rows), Table("Programs", columns, texts)),
    )
    document = {"game": game, "names": names, "potential": POTENTIALS[game], "programs": PROGRAMS[game]}
    deliver(document, page, as_json=as_json, verbose=verbose)


def check(
    game: Game,
    program: Annotated[
        str, typer.Argument(metavar="PROGRAM", help="Its text, its file (.txt, .reward), or one that ships.")
    ],
    discount: Annotated[float, typer.Option(metavar="GAMMA", help="The learner's discount.")] = 0.99,
    as_json: options.Json = False,
) -> None:
    """Check a reward program, and try it on random play.

    It must be in the language, read names of the game alone, and be finite and not large wherever these are in their
    ranges. Random play then tells whether it is potential-based shaping, which changes no optimal policy. Needs the
    extra `rl`.
    """
    from scaling.tasks.rl.rewards.library import resolved_program
    from scaling.tasks.rl.rewards.play import tried

    _readable(game)
    if not 0 <= discount <= 1:
        raise InputError(f"`discount` must be from 0 to 1, found {discount:g}")
    try:
        text = resolved_program("program", game, program)
    except ValueError as error:
        raise InputError(str(error)) from error
    _deliver(game, text, tried(text, game, discount), as_json)


def write(
    game: Game,
    reward_command: Annotated[
        str,
        typer.Option(metavar="COMMAND", help="Reads the prompt and writes its answer; run without a shell."),
    ],
    out: Annotated[Path, typer.Option(metavar="FILE", help="The file for the program; ends in .txt or .reward.")],
    goal: Annotated[str | None, typer.Option(metavar="TEXT", help="What to reward. Default: the game itself.")] = None,
    tries: Annotated[int, typer.Option(metavar="N", min=1, max=20, help="Answers at most; errors go back.")] = 3,
    timeout: Annotated[int, typer.Option(metavar="S", min=1, max=86_400, help="Seconds for one answer.")] = 300,
    as_json: options.Json = False,
) -> None:
    """Have a command, such as a language model, write a reward program.

    It reads the game, the names, the language and the goal on standard input. What it answers is checked; what is wrong
    goes back to it. The file says which command wrote it; `reward_program: FILE` in a grid learns from it.
    """
    from scaling.files import write_atomically
    from scaling.tasks.rl.rewards.library import SUFFIXES
    from scaling.tasks.rl.rewards.writing import GOAL, written

    _readable(game)
    if out.suffix not in SUFFIXES:
        raise InputError(f"`out` {out} must end in {' or '.join(SUFFIXES)}, by which a grid knows a file")
    made = written(game, reward_command, goal=goal or GOAL, tries=tries, timeout_s=timeout)
    write_atomically(out, made.document.encode())
    _deliver(game, made.text, None, as_json, {"file": str(out), "refused": list(made.refused)})


def _readable(game: str) -> dict[str, str]:
    """What a program may read. Raises InputError for a game without features."""
    from scaling.tasks.rl.rewards.check import readable

    try:
        return readable(game)
    except ValueError as error:
        raise InputError(str(error)) from error


def _deliver(game: str, text: str, trial: Trial | None, as_json: bool, further: dict[str, Any] | None = None) -> None:
    from scaling.cli.show.page import Page

    further = further or {}
    document: dict[str, Any] = {"game": game, "program": text, **further}
    lines = tuple(f"    {line}" for line in text.splitlines())
    notes: tuple[str, ...] = ()
    if trial is not None:
        found = trial.telescoping
        document["random_play"] = {
            "least": trial.least, "most": trial.most, "mean": trial.mean, "share_not_zero": trial.share,
            "verdict": found.verdict, "residual": found.residual, "transitions": found.transitions,
            "states": found.states,
        }  # fmt: skip
        notes = (
            f"In random play it is {trial.least:g} to {trial.most:g} a step, {trial.mean:.3g} in the mean, and not 0 "
            f"in {100 * trial.share:.0f} % of the steps.",
            _MEANS[found.verdict].format(residual=100 * found.residual),
        )
    where = f", in {further['file']}" if "file" in further else ""
    deliver(document, Page(f"The program passes for {game}{where}.", why=lines, notes=notes), as_json=as_json)


_MEANS = {
    "shaping": "It is a difference of potentials there, up to {residual:.2g} %: it changes no optimal policy (Ng, "
    "Harada and Russell, ICML 1999).",
    "other": "It is no difference of potentials of what it reads ({residual:.0f} % of it is left): a policy that is "
    "optimal for it need not be optimal for the game.",
    "undecided": "Random play was too short to tell whether it is a difference of potentials.",
}

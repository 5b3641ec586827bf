"""`scaling`: mounts the commands and turns errors into one message and an exit status."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperCommand

from scaling.cli import import_table, methods, rates, report, returns, reward
from scaling.cli.decision import recommend, serve, worth
from scaling.cli.fitting import fit, isoflop, validate
from scaling.cli.options import options_of
from scaling.cli.output import note
from scaling.cli.sweeps import suggest, sweep
from scaling.cli.timing import bench, latency, training_speed
from scaling.distribution import import_failed, require_own_packages
from scaling.errors import InputError, Stopped, WorkError


class Command(TyperCommand):
    """Wrong input ends with status 2, failed work with 1, Ctrl-C with 130, another signal that a command handles with
    128 + its number; each says one thing on standard error."""

    def invoke(self, ctx: Any) -> Any:
        with options_of(self.params):
            try:
                require_own_packages()
                return super().invoke(ctx)
            except InputError as error:
                _exit(2, f"error: {error}", error)
            except WorkError as error:
                _exit(1, f"failed: {error}", error)
            except ImportError as error:
                if (lacking := import_failed(error)) is None:
                    raise
                _exit(2, f"error: {lacking}", error)
            except BrokenPipeError:  # `| head` has read enough
                raise
            except OSError as error:  # what a command writes to, standard output among it, is full or gone
                place = f"{error.filename or 'output'}: {error.strerror or error}"
                _exit(1, f"failed: {place}; make room or name another place", error)
            except KeyboardInterrupt as error:
                _exit(130, "interrupted: what is on disk is whole; the same command goes on from there", error)
            except Stopped as error:
                _exit(128 + error.number, str(error), error)


def _exit(status: int, message: str, error: BaseException) -> NoReturn:
    note(message)
    raise typer.Exit(status) from error


def _version(wanted: bool) -> None:
    if wanted:
        from scaling import __version__

        typer.echo(__version__)
        raise typer.Exit


def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None: ...


def _command_line() -> typer.Typer:
    """`scaling` with all its commands, in the order in which they are used."""
    # Rich help costs a third of the start-up time and says nothing more.
    app = typer.Typer(
        callback=_options, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False,
        add_completion=False,
        help="Scaling laws for mixtures of experts: train a grid, measure serving, fit, recommend an expert degree.",
    )  # fmt: skip
    sweeps = typer.Typer(
        no_args_is_help=True, rich_markup_mode=None, help="Train grids: run, plan, suggest, status, grids."
    )
    for step in (sweep.run, sweep.plan, suggest.suggest, sweep.status, sweep.pack, sweep.grids):
        sweeps.command(cls=Command)(step)
    app.add_typer(sweeps, name="sweep")
    rewards = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Reward programs: show, check, write.")
    for of_programs in (reward.show, reward.check, reward.write):
        rewards.command(cls=Command)(of_programs)
    app.add_typer(rewards, name="reward")
    app.command("import", cls=Command)(import_table.import_table)
    analysis = (fit.laws, fit.fit, fit.predict, validate.validate, isoflop.isoflop, recommend.recommend, worth.worth)
    measured = (bench.bench, latency.latency, training_speed.training_speed)
    for command in (*analysis, serve.serve, methods.methods, rates.rates, returns.returns, *measured, report.report):
        app.command(cls=Command)(command)
    return app


app = _command_line()


def main() -> None:
    """Entry point of the `scaling` command."""
    os.environ["MPLBACKEND"] = "agg"  # figures go to files: another backend could only fail
    _open_streams()
    app()


def _open_streams() -> None:
    """Have all three standard streams: a file would take the place of one that is closed, and hold what is printed.

    What the encoding of a stream lacks is escaped.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            with contextlib.suppress(OSError):
                os.fstat(number)
                continue  # open, for another use than Python's
            nowhere = os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free: this one
            setattr(sys, name, os.fdopen(nowhere, "r" if number == 0 else "w", encoding="utf-8"))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")


if __name__ == "__main__":
    main()

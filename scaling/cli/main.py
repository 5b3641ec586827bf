"""`scaling`: mounts the command groups and turns errors into one message and an exit status."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from scaling.errors import InputError, WorkError


class _Group(TyperGroup):
    """Wrong input ends with status 2, failed work with 1, Ctrl-C with 130; each says one thing on standard error."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except InputError as error:
            typer.echo(f"error: {error}", err=True)
            raise typer.Exit(2) from error
        except WorkError as error:
            typer.echo(f"failed: {error}", err=True)
            raise typer.Exit(1) from error
        except OSError as error:  # what a command writes to, standard output among it, is full or gone
            typer.echo(
                f"failed: {error.filename or 'output'}: {error.strerror}; make room or name another place", err=True
            )
            raise typer.Exit(1) from error
        except KeyboardInterrupt as error:
            typer.echo("interrupted: what is on disk is whole; the same command goes on from there", err=True)
            raise typer.Exit(130) from error


# Rich help costs a third of the start-up time and says nothing more.
app = typer.Typer(
    cls=_Group, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=False,
    help="Scaling laws for mixtures of experts: train a grid, measure serving, fit, recommend an expert degree.",
)  # fmt: skip


def _version(wanted: bool) -> None:
    if wanted:
        from scaling import __version__

        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None: ...


def _mount() -> None:
    from scaling.cli import bench, fit, import_table, isoflop, latency, methods, recommend, report, sweep, validate

    for group in (sweep, import_table, fit, validate, isoflop, recommend, methods, bench, latency, report):
        group.register(app)


_mount()


def main() -> None:
    """Entry point of the `scaling` command."""
    app()


if __name__ == "__main__":
    main()

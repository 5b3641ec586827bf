"""`scaling sweep suggest`: the cells to train next, as a grid that `sweep run` takes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scaling.cli.options import Json, optional, whole_list
from scaling.cli.output import print_json
from scaling.errors import InputError

if TYPE_CHECKING:
    from analysis.decision.question import Question


def suggest(
    study: Annotated[
        str, typer.Argument(metavar="DIR", help="A study's folder, or a grid all of whose cells were run (with --fit).")
    ],
    out: Annotated[Path, typer.Option("--out", help="The grid.yaml to write.")],
    fit: Annotated[
        str | None, typer.Option(metavar="FIT", help="A fit with draws. Default: the one under DIR/fits.")
    ] = None,
    question: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="A file that `recommend --out` wrote, whose question is asked. Default: the one under DIR/recommendations; "
            "the options below ask another.",
        ),
    ] = None,
    train_flops: Annotated[str | None, typer.Option(metavar="C", help="Asked: training budget in FLOPs.")] = None,
    target_loss: Annotated[str | None, typer.Option(metavar="L", help="Asked: loss to reach, nats per token.")] = None,
    serve_tokens: Annotated[
        str | None, typer.Option(metavar="T", help="Asked: tokens served over the model's life.")
    ] = None,
    n_experts: Annotated[str | None, typer.Option(metavar="LIST", help="Asked: expert counts to compare.")] = None,
    memory_gb: Annotated[str | None, typer.Option(metavar="M", help="Asked: memory, GB = 1e9 bytes.")] = None,
    flops: Annotated[
        str | None,
        typer.Option(
            metavar="C",
            help="FLOPs that the new cells may take. Default: of the dearest run and a tenth of the study the more.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of what is simulated.")] = 0,
    as_json: Json = False,
) -> None:
    """Propose the cells that most reduce the expected regret of the recommendation per FLOP.

    Candidates are the widths studied, those between and one step beyond, token budgets up to four times the longest,
    and the E compared, with seeds of their own. `scaling sweep run` takes the grid that is written and adds to the
    study.
    """
    from analysis.decision.question import Question
    from analysis.fitting import fit_file
    from sweeps.propose import propose_cells

    place = Path(study)
    known = fit_file.load_fit(
        fit or str(_only(place, "fits", "--fit FILE", "`scaling fit DIR --bootstrap 1000 --out` makes one"))
    )
    if train_flops is None and target_loss is None:
        if any(value is not None for value in (serve_tokens, n_experts, memory_gb)):
            raise InputError("--serve-tokens, --n-experts and --memory-gb need --train-flops or --target-loss")
        told = "`scaling recommend FIT ... --out` makes one; or ask with --train-flops or --target-loss"
        asked = _read_question(question or _only(place, "recommendations", "--question FILE", told))
    elif question is not None:
        raise InputError("--question FILE asks one question, --train-flops or --target-loss another: give one")
    else:
        asked = Question(
            train_flops=optional(train_flops, "--train-flops"),
            target_loss=optional(target_loss, "--target-loss"),
            serve_tokens=optional(serve_tokens, "--serve-tokens") or 0.0,
            n_experts=whole_list(n_experts, "--n-experts"),
            memory_gb=optional(memory_gb, "--memory-gb"),
        )
    made = propose_cells(place, known, asked, out, optional(flops, "--flops"), seed)
    if as_json:
        print_json(made)
    else:
        _show(made)


def _only(place: Path, kind: str, option: str, remedy: str) -> Path:
    """The one JSON file of a kind in a study's folder. Raises InputError where there is none, or several."""
    found = sorted((place / kind).glob("*.json")) if place.is_dir() else []
    if len(found) == 1:
        return found[0]
    if found:
        raise InputError(f"{place / kind} has {', '.join(path.name for path in found)}: name one with {option}")
    raise InputError(f"{place} has no {kind}/*.json: give {option}; {remedy}")


def _read_question(path: Path) -> Question:
    """The question of a recommendation on disk. Raises InputError where the file is none."""
    import json

    from analysis.decision.question import Question

    try:
        return Question.from_json(json.loads(path.read_text(encoding="utf-8"))["question"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: no recommendation ({type(error).__name__}: {error}); `recommend --out` writes one"
        ) from error


def _show(told: Mapping[str, Any]) -> None:
    """The suggestion for a person at a terminal."""
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True, markup=False)
    for reason in told["undecided_because"]:
        console.print(f"Undecided: {reason}.")
    if told["regret_before"] is not None:
        console.print(
            f"Expected regret {told['regret_before']:.2%} now, {told['regret_after']:.2%} after the "
            f"{len(told['cells'])} cells below ({told['method']}).",
            style="bold",
        )
    console.print(
        f"They take {told['train_flops']:.3g} FLOPs, {told['share_of_study']:.1%} of what the study cost, of at most "
        f"{told['budget']:.3g} ({told['budget_because']}); chosen of {told['n_candidates']} candidates."
    )
    for cell in told["cells"]:
        console.print(
            f"E = {cell['n_experts']}, d_model {cell['d_model']}, {cell['tokens']:,} tokens, seed {cell['seed']}: "
            f"{cell['reason']}"
        )
    console.print(f"Written to {told['grid']}; `scaling sweep run` takes it.")

"""`scaling sweep suggest`: the cells to train next, as a grid that `sweep run` takes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scaling.cli import options, serving_options
from scaling.cli.output import deliver
from scaling.errors import InputError


def suggest(
    study: Annotated[
        Path,
        typer.Argument(metavar="DIR", help="A study's folder, or a grid all of whose cells were run (with --fit)."),
    ],
    out: Annotated[Path, typer.Option("--out", help="The grid.yaml to write.")],
    fit: Annotated[
        str | None, typer.Option(metavar="FIT", help="A fit with draws. Default: the one under DIR/fits.")
    ] = None,
    question_file: Annotated[
        Path | None,
        typer.Option(
            "--question",
            metavar="FILE",
            help="A file that `recommend --out` wrote, whose question is asked. Default: the one under "
            "DIR/recommendations; the options below ask another.",
        ),
    ] = None,
    train_flops: options.TrainFlops = None,
    target_loss: options.TargetLoss = None,
    serve_tokens: options.ServeTokens = None,
    n_experts: options.ExpertCounts = None,
    memory_gb: options.MemoryGb = None,
    latency: serving_options.Latency = None,
    flops: Annotated[
        float | None,
        typer.Option(
            metavar="C",
            parser=options.compute,
            help="FLOPs that the new cells may take. Default: of the largest run and a tenth of the study the more.",
        ),
    ] = None,
    seed: options.Seed = 0,
    verbose: options.Verbose = False,
    as_json: options.Json = False,
) -> None:
    """Propose the cells that most reduce the expected regret of the recommendation per FLOP.

    Candidates are the widths studied, those between and one step beyond, token budgets up to four times the longest,
    and the E compared, with seeds of their own. `scaling sweep run` takes the grid that is written and adds to the
    study.
    """
    from analysis.decision.answer import read_answer, study_fit, study_question
    from analysis.decision.question import Question
    from analysis.fitting.fit_file import load_fit
    from scaling.cli.show.progress import progress
    from scaling.cli.show.sweep import suggestion_page
    from sweeps.propose import propose_cells

    fitted = load_fit(fit or str(study_fit(study)))
    if train_flops is not None or target_loss is not None:
        if question_file is not None:
            raise InputError("--question FILE asks one question, --train-flops or --target-loss another: give one")
        question = Question(
            train_flops=train_flops,
            target_loss=target_loss,
            serve_tokens=serve_tokens or 0.0,
            n_experts=options.whole_list(n_experts, "--n-experts"),
            memory_gb=memory_gb,
        )
    elif any(value is not None for value in (serve_tokens, n_experts, memory_gb)):
        raise InputError("--serve-tokens, --n-experts and --memory-gb need --train-flops or --target-loss")
    else:
        question = study_question(study) if question_file is None else read_answer(question_file).question
    speeds = serving_options.speeds_of(question.service, question.device, latency)
    with progress("choosing cells") as report:
        suggestion = propose_cells(study, fitted, question, out, flops, seed, speeds, progress=report)
    deliver(suggestion, suggestion_page(suggestion), as_json=as_json, verbose=verbose)

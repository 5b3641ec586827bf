"""`scaling recommend`: which expert count, size and token budget."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scaling.cli.options import (
    FitArgument,
    Json,
    Settings,
    note,
    number,
    optional,
    print_json,
    settings_of,
    whole_list,
    write,
)


def register(app: typer.Typer) -> None:
    """Add the `recommend` command."""
    app.command()(recommend)


def recommend(
    fit: FitArgument,
    train_flops: Annotated[str | None, typer.Option(metavar="C", help="Training budget in FLOPs.")] = None,
    target_loss: Annotated[str | None, typer.Option(metavar="L", help="Loss to reach, nats per token.")] = None,
    serve_tokens: Annotated[str, typer.Option(metavar="T", help="Tokens served over the model's life.")] = "0",
    n_experts: Annotated[
        str | None, typer.Option(metavar="LIST", help="Expert counts to compare, e.g. 1,4,8. Default: those studied.")
    ] = None,
    device: Annotated[
        str | None, typer.Option(metavar="NAME", help="Count cost in USD on this device (h100, ...).")
    ] = None,
    usd_per_hour: Annotated[
        str | None, typer.Option(help="Rent of one device, USD per hour, instead of the table's.")
    ] = None,
    mfu: Annotated[
        str | None, typer.Option(help="Share of the device's peak that training reaches; without it .4.")
    ] = None,
    memory_gb: Annotated[
        str | None, typer.Option(metavar="M", help="Memory for weights and 16k cached tokens in bf16, GB = 1e9 bytes.")
    ] = None,
    reference_experts: Annotated[
        int, typer.Option(metavar="E", min=1, help="With a budget and a volume: keep the loss of this E's best model.")
    ] = 1,
    settings: Settings = None,
    out: Annotated[Path | None, typer.Option(help="File for the recommendation.")] = None,
    as_json: Json = False,
) -> None:
    """Recommend an expert count, a size and a token budget, and say how sure that is.

    With --target-loss: least lifetime cost. With --train-flops: least loss; with --serve-tokens too: least lifetime
    cost among the models trained within the budget that are no worse than the best dense one.
    """
    from analysis.fit import load
    from analysis.recommend import Question
    from analysis.recommend import recommend as ask
    from scaling.cli.printing import show_recommendation

    question = Question(
        train_flops=optional(train_flops, "--train-flops"),
        target_loss=optional(target_loss, "--target-loss"),
        serve_tokens=number(serve_tokens, "--serve-tokens"),
        n_experts=whole_list(n_experts, "--n-experts"),
        memory_gb=optional(memory_gb, "--memory-gb"),
        device=device,
        usd_per_hour=optional(usd_per_hour, "--usd-per-hour"),
        mfu=optional(mfu, "--mfu"),
        reference_experts=reference_experts,
        settings=settings_of(settings),
    )
    found = ask(load(fit), question)
    if out is not None:
        write(out, found.to_json())
    for warning in found.warnings:
        note(f"warning: {warning}")
    if as_json:
        print_json(found.to_json())
    else:
        show_recommendation(found)

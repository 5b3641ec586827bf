"""`scaling bench`: measured latency of one configuration on this device."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

SHOWN = {
    "phase": "phase",
    "batch": "batch",
    "context": "context",
    "time_ms": "median ms",
    "time_q25_ms": "q25 ms",
    "time_q75_ms": "q75 ms",
    "tokens_per_s": "tokens/s",
    "distinct_experts": "experts hit",
    "roofline_ms": "floor ms",
}


def register(app: typer.Typer) -> None:
    """Add the `bench` command."""
    app.command("bench")(bench)


def bench(
    d_model: Annotated[str, typer.Option(help="Width of the residual stream.")] = "64",
    n_layers: Annotated[str, typer.Option(help="Blocks.")] = "2",
    n_experts: Annotated[str, typer.Option(help="E, experts per MoE layer.")] = "1",
    top_k: Annotated[str, typer.Option(help="k, experts per token.")] = "1",
    d_expert: Annotated[
        str | None, typer.Option(help="Hidden units of one expert; 2 d_model / k if not given.")
    ] = None,
    router: Annotated[str, typer.Option(help="How tokens choose experts.")] = "topk",
    batch: Annotated[str, typer.Option(help="Sequences at once, a comma between.")] = "1,8",
    context: Annotated[str, typer.Option(help="Tokens of prompt and cache, a comma between.")] = "128",
    repeats: Annotated[str, typer.Option(help="Timed calls of each.")] = "15",
    cpus: Annotated[str | None, typer.Option(help="CPU threads; all of them if not given.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout, messages on stderr.")] = False,
) -> None:
    """Measure prefill and decode with a KV cache: median and quartiles in milliseconds, compilation left out.

    Run it with the machine to itself. Weights are untrained, prompts are Python source text.
    """
    import os

    from pydantic import ValidationError

    from scaling.config import RunConfig
    from scaling.errors import InputError

    if cpus is not None and not (cpus.isdigit() and int(cpus) > 0):
        raise InputError(f"--cpus: expected a whole number from 1, found {cpus!r}")
    if cpus is not None:
        os.environ["NPROC"] = cpus  # XLA reads it once, when it starts
    model = {"d_model": d_model, "n_layers": n_layers, "n_experts": n_experts, "top_k": top_k, "d_expert": d_expert}
    wanted = {"batch": batch.split(","), "context": context.split(","), "repeats": repeats}
    try:
        config = RunConfig.model_validate({"model": {**model, "router": router}, "bench": wanted})
    except ValidationError as error:
        where = "; ".join(
            f"--{str(e['loc'][1]).replace('_', '-') if len(e['loc']) > 1 else 'options'}: "
            f"{e['msg'].removeprefix('Value error, ')}, found {e['input']!r}"
            for e in error.errors()
        )
        raise InputError(where) from error

    from scaling.bench import measure

    rows = measure(config)
    if as_json:
        print(json.dumps({"shape_id": config.shape_id(), "latency": rows}))
        return
    _show(rows)


def _show(rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    first = rows[0]
    title = f"{first['device_kind']}, {first['threads']} threads, {first['dtype']}"
    table = Table(*SHOWN.values(), title=title, title_justify="left")
    for row in rows:
        cells = (row[name] for name in SHOWN)
        table.add_row(*("?" if c is None else f"{c:.4g}" if isinstance(c, float) else str(c) for c in cells))
    Console(highlight=False, width=110).print(table)

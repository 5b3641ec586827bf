"""`scaling bench`: measured latency on this device, of one shape or of several."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Annotated, Any

import typer

SHOWN = {
    "n_experts": "E",
    "top_k": "k",
    "d_model": "width",
    "n_layers": "layers",
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


def bench(
    d_model: Annotated[str, typer.Option(help="Width of the residual stream, a comma between several.")] = "64",
    n_layers: Annotated[str, typer.Option(help="Blocks, a comma between several.")] = "2",
    n_experts: Annotated[str, typer.Option(help="E, experts per MoE layer, a comma between several.")] = "1",
    top_k: Annotated[str, typer.Option(help="k, experts per token, a comma between several.")] = "1",
    d_expert: Annotated[
        str | None, typer.Option(help="Hidden units of one expert; 2 d_model / k if not given.")
    ] = None,
    dtype: Annotated[str, typer.Option(help="float32 or bfloat16, or both with a comma between.")] = "float32",
    router: Annotated[str, typer.Option(help="How tokens choose experts.")] = "topk",
    batch: Annotated[str, typer.Option(help="Sequences at once, a comma between.")] = "1,8",
    context: Annotated[str, typer.Option(help="Tokens of prompt and cache, a comma between.")] = "128",
    repeats: Annotated[str, typer.Option(help="Timed calls of each.")] = "15",
    cpus: Annotated[str | None, typer.Option(help="CPU threads; all of them if not given.")] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE.parquet", help="File for the rows, which `scaling latency` reads.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout, messages on stderr.")] = False,
) -> None:
    """Measure prefill and decode with a KV cache: median and quartiles in milliseconds, compilation left out.

    Lists are crossed. Run it with the machine to itself. Weights are untrained, prompts are Python source text.
    """
    import os

    from scaling.cli.output import note
    from scaling.errors import InputError
    from scaling.training import malloc

    if cpus is not None and not (cpus.isdigit() and int(cpus) > 0):
        raise InputError(f"--cpus: expected a whole number from 1, found {cpus!r}")
    if out is not None and out.suffix != ".parquet":
        raise InputError(f"--out {out}: expected a name that ends in .parquet")
    if cpus is not None:
        os.environ["NPROC"] = cpus  # XLA reads it once, when it starts
    os.environ.setdefault("JAX_CPU_ENABLE_ASYNC_DISPATCH", "false")  # as in a sweep: scaling/training/malloc.py
    malloc.keep()
    axes = {"d_model": d_model, "n_layers": n_layers, "n_experts": n_experts, "top_k": top_k, "dtype": dtype}
    points = itertools.product(*(text.split(",") for text in axes.values()))
    wanted = {"batch": batch.split(","), "context": context.split(","), "repeats": repeats}
    shared = {"router": router, "d_expert": d_expert}
    configs = [_config({**dict(zip(axes, point, strict=True)), **shared}, wanted) for point in points]

    from scaling.training.inference_bench import measure

    rows = measure(*configs, told=note if len(configs) > 1 else lambda _: None)
    if out is not None:
        _write(out, rows)
    if as_json:
        print(json.dumps({"shape_id": configs[0].shape_id(), "latency": rows}))
    else:
        _show(rows)


def _config(model: dict[str, Any], wanted: dict[str, Any]) -> Any:
    """The checked configuration of one point. Raises InputError naming the option."""
    from pydantic import ValidationError

    from scaling.config.run import RunConfig
    from scaling.errors import InputError

    try:
        return RunConfig.model_validate({"model": model, "bench": wanted})
    except ValidationError as error:
        where = "; ".join(
            f"--{str(e['loc'][1]).replace('_', '-') if len(e['loc']) > 1 else 'options'}: " + _told(e)
            for e in error.errors()
        )
        raise InputError(where) from error


def _told(error: Any) -> str:
    """What is wrong, with what was found, once."""
    message = str(error["msg"]).removeprefix("Value error, ")
    return message if "found" in message else f"{message}, found {error['input']!r}"


def _write(out: Path, rows: list[dict[str, Any]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from scaling.files import write_atomically
    from scaling.schema import to_arrow

    buffer = pa.BufferOutputStream()
    pq.write_table(to_arrow("latency", rows), buffer)
    write_atomically(out, buffer.getvalue().to_pybytes())


def _show(rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    first = rows[0]
    shown = {  # of the shape only what was varied
        name: title
        for name, title in SHOWN.items()
        if name not in ("n_experts", "top_k", "d_model", "n_layers") or len({row[name] for row in rows}) > 1
    }
    title = (
        f"{first['device_kind']}, {first['threads']} threads, {', '.join(dict.fromkeys(row['dtype'] for row in rows))}"
    )
    table = Table(*shown.values(), title=title, title_justify="left")
    for row in rows:
        cells = (row[name] for name in shown)
        table.add_row(*("?" if c is None else f"{c:.4g}" if isinstance(c, float) else str(c) for c in cells))
    Console(highlight=False, width=130).print(table)

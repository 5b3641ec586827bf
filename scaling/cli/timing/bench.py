"""`scaling bench`: measured latency on this device, of one shape or of several."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scaling.cli.options import Json, Verbose, whole_number
from scaling.cli.output import deliver, note
from scaling.errors import InputError

if TYPE_CHECKING:
    from scaling.config.run import RunConfig


def bench(
    d_model: Annotated[str, typer.Option(help="Width of the residual stream, a comma between several.")] = "64",
    n_layers: Annotated[str, typer.Option(help="Blocks, a comma between several.")] = "2",
    n_experts: Annotated[str, typer.Option(help="E, experts per MoE layer, a comma between several.")] = "1",
    top_k: Annotated[str, typer.Option(help="k, experts per token, a comma between several.")] = "1",
    d_expert: Annotated[
        str | None, typer.Option(help="Hidden units of one expert; 2 d_model / k if not given.")
    ] = None,
    n_heads: Annotated[
        str | None, typer.Option(help="Attention heads, a comma between several; d_model / d_head if not given.")
    ] = None,
    d_head: Annotated[
        str | None,
        typer.Option(help="Width of a head, a comma between several; d_model / n_heads, or 16, if not given."),
    ] = None,
    n_kv_heads: Annotated[
        str | None,
        typer.Option(help="Groups of heads that share keys and values, a comma between several; n_heads if not given."),
    ] = None,
    dtype: Annotated[str, typer.Option(help="float32 or bfloat16, or both with a comma between.")] = "float32",
    router: Annotated[str, typer.Option(help="How tokens choose experts.")] = "topk",
    batch: Annotated[str, typer.Option(help="Sequences at once, a comma between.")] = "1,8",
    context: Annotated[str, typer.Option(help="Tokens of prompt and cache, a comma between.")] = "128",
    repeats: Annotated[str, typer.Option(help="Timed calls of each.")] = "15",
    cpus: Annotated[
        int | None, typer.Option(parser=whole_number, help="CPU threads; all of them if not given.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE.parquet", help="File for the rows, which `scaling latency` reads.")
    ] = None,
    verbose: Verbose = False,
    as_json: Json = False,
) -> None:
    """Measure prefill and decode with a KV cache: median and quartiles in milliseconds, compilation left out.

    Lists are crossed. Run it with the machine to itself. Weights are untrained, prompts are Python source text.
    """
    import os
    from dataclasses import replace

    from scaling.data.cache import programs_doubt
    from scaling.training import malloc
    from scaling.training.jax_start import require_jax

    if out is not None and out.suffix.lower() != ".parquet":
        raise InputError(f"--out {out}: expected a name that ends in .parquet")
    if cpus is not None:
        os.environ["NPROC"] = str(cpus)  # XLA reads it once, when it starts
    os.environ.setdefault("JAX_CPU_ENABLE_ASYNC_DISPATCH", "false")  # as in a sweep: scaling/training/malloc.py
    malloc.keep()
    require_jax()
    axes = {"d_model": d_model, "n_layers": n_layers, "n_experts": n_experts, "top_k": top_k, "dtype": dtype}
    heads = {"n_heads": n_heads, "d_head": d_head, "n_kv_heads": n_kv_heads}
    axes |= {name: text for name, text in heads.items() if text is not None}
    measured = {"batch": batch.split(","), "context": context.split(","), "repeats": repeats}
    configs = [
        _config({**dict(zip(axes, point, strict=True)), "router": router, "d_expert": d_expert}, measured)
        for point in itertools.product(*(text.split(",") for text in axes.values()))
    ]

    from scaling.cli.show.latency import bench_page
    from scaling.schema import to_arrow, write_parquet
    from scaling.training.inference_bench import measure

    watched = sys.stderr.isatty() and len(configs) > 1
    rows = measure(*configs, progress=note if watched else lambda _: None)
    if out is not None:
        write_parquet(out, to_arrow("latency", rows))
    document = {"shape_id": configs[0].shape_id(), "latency": rows}
    page = bench_page(rows)
    doubts = (doubt for doubt in [programs_doubt()] if doubt)
    deliver(document, replace(page, warnings=(*page.warnings, *doubts)), as_json=as_json, verbose=verbose)


def _config(model: dict[str, Any], measured: dict[str, Any]) -> RunConfig:
    """The checked configuration of one point. Raises InputError naming the option."""
    from pydantic import ValidationError

    from scaling.config.run import RunConfig

    try:
        return RunConfig.model_validate({"model": model, "bench": measured})
    except ValidationError as error:
        raise InputError("; ".join(map(_reason, error.errors()))) from error


def _reason(error: Any) -> str:
    """The field, what is wrong with it and the value, once."""
    field = f"`{error['loc'][1]}`" if len(error["loc"]) > 1 else "these options"
    message = str(error["msg"]).removeprefix("Value error, ")
    return f"{field}: {message}" + ("" if "found" in message else f", found {error['input']!r}")

"""Everything that waited for a GPU, in one command of under nine minutes.

    python -m benchmarks.gpu [--out DIR] [--tiny] [--again PART] [PART ...]

Writes DIR/DEVICE/: a Parquet table for each part as its cases end, latency.parquet in the columns of `scaling bench`,
summary.json, and README.md with the targets beside the figures. Each part has a process and a time limit of its own; a
part or a case that fails is a row with its error. The command can be given again: what was measured is not repeated,
what had no time is. `--tiny` tries the command itself on a CPU; its figures mean nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.gpu import record
from benchmarks.gpu.parts import PARTS, TOTAL_S, Part, environment
from benchmarks.gpu.summary import page, summarised
from benchmarks.peer import ROOT
from scaling.errors import InputError, WorkError
from scaling.files import write_atomically, write_json
from scaling.training.jax_start import last_words

DONE, PARTIAL, FAILED = "done", "no time for all", "failed"
_GRACE_S = 8.0  # after which a part that does not look at the clock is killed
_START_S = 90.0  # in which JAX has to find its devices
_LINES = 60


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [part.name for part in PARTS]
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(names)}; all by default")
    parser.add_argument("--out", metavar="DIR", type=Path, default=ROOT / "results" / "gpu", help="default results/gpu")
    parser.add_argument("--tiny", action="store_true", help="sizes of a test, on this computer's CPU")
    parser.add_argument("--again", action="append", default=[], metavar="PART", help="measure a part anew")
    parser.add_argument("--seconds", type=float, help=f"of everything; default {TOTAL_S:.0f}, an hour with --tiny")
    options = parser.parse_args(arguments)
    if unknown := sorted({*options.parts, *options.again} - {*names}):
        parser.error(f"no such part: {', '.join(unknown)}; there are {', '.join(names)}")
    seconds = options.seconds or (3600.0 if options.tiny else TOTAL_S)
    chosen = [part for part in PARTS if part.name in (options.parts or names)]
    try:
        summary = run(options.out, chosen, tiny=options.tiny, again=options.again, seconds=seconds)
    except (InputError, WorkError) as error:
        print(f"benchmarks.gpu: {error}", file=sys.stderr)
        return 2 if isinstance(error, InputError) else 1
    print(page(summary))
    wrong = summary["wrong"] or any(part["status"] == FAILED for part in summary["parts"].values())
    return 1 if wrong else 0


def run(
    out: Path, parts: Sequence[Part], *, tiny: bool = False, again: Sequence[str] = (), seconds: float = TOTAL_S
) -> dict[str, Any]:
    """Measure the parts that are owed and write the folder of the device; its summary.

    Raises InputError where JAX sees no GPU, WorkError where it does not start.
    """
    ends = time.monotonic() + seconds
    device = _device(tiny)
    folder = out / re.sub(r"[^a-z0-9]+", "-", device["kind"].lower()).strip("-")
    _say(f"{device['kind']}, JAX {device['versions']['jax']}, attention {device['attention']}, kernels "
         f"{', '.join(device['kernels'])}; writing {folder}")  # fmt: skip
    states = _states(folder)
    for part in parts:
        if part.name in again:
            (folder / f"{part.name}.parquet").unlink(missing_ok=True)
            states.pop(part.name, None)
        if states.get(part.name, {}).get("status") == DONE:
            _say(f"{part.name}: measured before")
            continue
        limit = ends - time.monotonic() - _GRACE_S
        limit = limit if tiny else min(part.seconds, limit)
        states[part.name] = _measured(part, folder, limit, tiny)
        _written(folder, device, states, tiny)
    return _written(folder, device, states, tiny)


def _device(tiny: bool) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.gpu.child", "device"]
    settings = os.environ | environment(gpu=not tiny)
    try:
        ended = subprocess.run(
            command, env=settings, cwd=ROOT, capture_output=True, text=True, timeout=_START_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise WorkError(f"JAX did not find its devices within {_START_S:.0f} s") from error
    cause = last_words(ended.stderr) or f"exit status {ended.returncode}"
    if ended.returncode and tiny:
        raise WorkError(f"JAX does not start: {cause}")
    found: dict[str, Any] = {} if ended.returncode else json.loads(ended.stdout.splitlines()[-1])
    if not tiny and found.get("platform", "cpu") == "cpu":  # JAX takes the CPU where its CUDA plugin is missing
        raise InputError(
            f"JAX sees no GPU ({cause if ended.returncode else 'only the CPU'}). Look at `nvidia-smi`, and install jax "
            "with its CUDA plugin (`pip install 'jax[cuda12]'`, or cuda13 by the driver); `--tiny` tries the command "
            "on a CPU"
        )
    return found


def _measured(part: Part, folder: Path, limit: float, tiny: bool) -> dict[str, Any]:
    """Run a part; how it ended."""
    started = time.monotonic()
    if limit < _GRACE_S:
        return {"status": PARTIAL, "error": "no time was left for it", "seconds": 0.0}
    _say(f"{part.name}: {part.title}; {limit:.0f} s at most")
    lines, error = deque[str](maxlen=_LINES), ""
    with subprocess.Popen(
        _command(part, folder, limit, tiny), env=os.environ | environment(gpu=not tiny), cwd=ROOT,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    ) as child:  # fmt: skip
        reader = threading.Thread(target=_echo, args=(child, lines), daemon=True)
        reader.start()
        try:
            code = child.wait(timeout=limit + _GRACE_S)
        except subprocess.TimeoutExpired:
            error = f"stopped after {limit + _GRACE_S:.0f} s"
        finally:
            child.kill()
            reader.join()
        if not error and code:
            error = last_words("\n".join(lines)) or f"exit status {code}"
    rows = record.read(folder / f"{part.name}.parquet")
    skipped = sum(row["status"] in (record.SKIPPED, record.RUNNING) for row in rows)
    status = FAILED if error and not rows else PARTIAL if error or skipped or not rows else DONE
    _say(f"{part.name}: {status}{f' ({error})' if error else ''}, {time.monotonic() - started:.0f} s")
    return {"status": status, "error": error, "seconds": time.monotonic() - started}


def _command(part: Part, folder: Path, limit: float, tiny: bool) -> list[str]:
    """Of the process of a part."""
    command = [sys.executable, "-m", "benchmarks.gpu.child", part.name, str(folder.resolve()), f"{limit:.1f}"]
    return [*command, *(["--tiny"] if tiny else [])]


def _echo(child: subprocess.Popen[str], lines: deque[str]) -> None:
    assert child.stderr is not None
    for line in child.stderr:
        lines.append(line.rstrip())
        print(line, end="", file=sys.stderr, flush=True)


def _states(folder: Path) -> dict[str, Any]:
    """How the parts ended before; none where nothing readable is there."""
    try:
        return dict(json.loads((folder / "summary.json").read_text())["parts"])
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _written(folder: Path, device: dict[str, Any], states: dict[str, Any], tiny: bool) -> dict[str, Any]:
    rows = {part.name: record.read(folder / f"{part.name}.parquet") for part in PARTS}
    summary = summarised(device, states, rows, tiny=tiny)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "summary.json", summary)
    write_atomically(folder / "README.md", page(summary).encode())
    return summary


def _say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)

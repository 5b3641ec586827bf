"""From text to tokens: byte-level BPE trained and applied by all cores.

`python -m benchmarks.tokenise --json` writes the Python files that are installed here into JSON lines, again and again
up to `--bytes` (1e9), and makes a corpus of them in a process and a cache of its own: wall seconds, CPU seconds of the
process and those it starts, over the cores, and the most memory of one process. The goal is 180 s for 1e9 bytes on two
cores. `--by-library` encodes a part by the `tokenizers` package alone, as before, for the ratio.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tokenizers

from scaling.config.data import DataConfig
from scaling.data import prepare, sources
from scaling.data.encoders import cores

GOAL_S = 180.0  # for 1e9 bytes on two cores
_PART = 20_000_000  # characters that the package encodes alone


def write_text(path: Path, size: int) -> int:
    """Write JSON lines of about `size` bytes of text; returns the bytes of text that differ."""
    written = distinct = 0
    with path.open("w") as file:
        for turn in itertools.count():
            for _, text in sources.documents(DataConfig(corpus="python-environment")):
                # Every copy begins with its number, so that no document is held out twice.
                document = text if turn == 0 else f"# {turn}\n{text}"
                file.write(json.dumps({"text": document}) + "\n")
                written += len(document.encode())
                distinct += len(text.encode()) if turn == 0 else 0
                if written >= size:
                    return distinct
    raise AssertionError("unreachable")


def made(path: Path, vocab: int) -> dict[str, Any]:
    """Make the corpus of a file in this process; what it cost."""
    clock = time.perf_counter()
    corpus = prepare(DataConfig(corpus="files", paths=(str(path),), tokenizer="bpe", bpe_vocab=vocab))
    wall = time.perf_counter() - clock
    own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return {
        "wall_s": wall,
        "cpu_s": own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime,
        "peak_bytes": 1024 * max(own.ru_maxrss, children.ru_maxrss),
        "tokens": corpus.train_tokens,
        "folder": str(corpus.folder),
    }


def by_library(path: Path, file: Path) -> float:
    """Bytes of text a CPU second that the package encodes alone."""
    model = tokenizers.Tokenizer.from_file(str(file))
    texts = list(_texts(path))
    clock = time.process_time()
    for start in range(0, len(texts), 64):
        model.encode_batch_fast(texts[start : start + 64], add_special_tokens=False)
    return sum(len(text.encode()) for text in texts) / (time.process_time() - clock)


def _texts(path: Path) -> Iterator[str]:
    left = _PART
    with path.open() as file:
        for line in file:
            text = json.loads(line)["text"]
            yield text
            left -= len(text)
            if left < 0:
                return


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--bytes", type=float, default=1e9)
    parser.add_argument("--vocab", type=int, default=32_767)
    parser.add_argument("--by-library", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--made", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.made:
        print(json.dumps(made(options.made, options.vocab)))
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "text.jsonl"
        distinct = write_text(path, int(options.bytes))
        command = [sys.executable, "-m", "benchmarks.tokenise", "--made", str(path), "--vocab", str(options.vocab)]
        load, environment = os.getloadavg()[0], {**os.environ, "SCALING_CACHE": str(Path(folder) / "cache")}
        ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        result = json.loads(ended.stdout)
        place = Path(result.pop("folder"))
        result |= {
            "bytes": int(options.bytes), "distinct_bytes": distinct, "vocab": options.vocab, "cores": cores(),
            "load_before": load, "cpu_s_over_two": result["cpu_s"] / 2,
            "bytes_per_cpu_s": options.bytes / result["cpu_s"],
            "goal_s": GOAL_S * options.bytes / 1e9,
        }  # fmt: skip
        if options.by_library:
            result["bytes_per_cpu_s_by_library"] = by_library(path, place / "tokenizer.json")
    if options.json:
        print(json.dumps(result))
        return
    for name, value in result.items():
        print(f"{name:28} {value:,.6g}" if isinstance(value, float) else f"{name:28} {value:,}")


if __name__ == "__main__":
    main()

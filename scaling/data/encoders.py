"""Texts to symbols on all cores, in order: processes of `scaling.data.encoder_process` that each hold the tokeniser.

Threads would wait for each other (Python works on one at a time), and processes that are forked from one with JAX or
Ray in it may hang, so the workers are programs of their own.
"""

from __future__ import annotations

import contextlib
import os
import queue
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

import scaling
from scaling.data.tokenizer import Symbols, Tokenizer, symbol_type
from scaling.errors import WorkError

WORTH_IT = 20_000_000  # bytes of text: below it, starting the processes takes longer than they save
_CHUNK = 1_000_000  # characters that a process gets at once


def encoded(texts: Iterable[str], tokenizer: Tokenizer, vocab_size: int, text_bytes: int) -> Iterator[Symbols]:
    """The symbols of each text, in order. `text_bytes`: size of all texts, by which processes are worth starting."""
    if tokenizer.file is None or text_bytes < WORTH_IT or cores() == 1:
        for chunk in _chunks(texts):
            yield from tokenizer.encode(chunk)
        return
    yield from _by_processes(texts, tokenizer.file, vocab_size, cores())


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _chunks(texts: Iterable[str]) -> Iterator[list[str]]:
    chunk: list[str] = []
    size = 0
    for text in texts:
        chunk.append(text)
        size += len(text)
        if size >= _CHUNK:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _by_processes(texts: Iterable[str], file: Path, vocab_size: int, count: int) -> Iterator[Symbols]:
    workers = [_Process(file, vocab_size) for _ in range(count)]
    idle: queue.SimpleQueue[_Process] = queue.SimpleQueue()
    for worker in workers:
        idle.put(worker)

    def encode(chunk: list[str]) -> list[Symbols]:
        worker = idle.get()
        try:
            return worker.encode(chunk)
        finally:
            idle.put(worker)

    waiting: deque[Future[list[Symbols]]] = deque()
    try:
        with ThreadPoolExecutor(count) as threads:
            for chunk in _chunks(texts):
                waiting.append(threads.submit(encode, chunk))
                if len(waiting) > 2 * count:
                    yield from waiting.popleft().result()
            while waiting:
                yield from waiting.popleft().result()
    finally:
        for worker in workers:
            worker.close()


class _Process:
    """One worker, and the pipe to it: a chunk as counts and bytes there, counts and symbols back."""

    def __init__(self, file: Path, vocab_size: int) -> None:
        self._dtype = symbol_type(vocab_size)
        root = str(Path(scaling.__file__).parents[1])
        path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `close`
        self._process = subprocess.Popen(
            [sys.executable, "-m", "scaling.data.encoder_process", str(file), str(vocab_size)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env={**os.environ, "PYTHONPATH": path, "RAYON_NUM_THREADS": "1"},
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._to, self._back = self._process.stdin, self._process.stdout

    def encode(self, texts: list[str]) -> list[Symbols]:
        parts = [text.encode("utf-8", errors="replace") for text in texts]
        try:
            send(self._to, np.array([len(part) for part in parts], np.uint64), b"".join(parts))
            lengths, raw = receive(self._back, np.dtype(self._dtype).itemsize)
        except (OSError, EOFError) as error:
            self._process.wait()
            self._errors.seek(0)
            said = self._errors.read().decode(errors="replace").strip().splitlines()[-1:]
            raise WorkError(f"a process that tokenises ended ({''.join(said) or error}); run again") from error
        return np.split(np.frombuffer(raw, self._dtype), np.cumsum(lengths)[:-1].astype(np.int64))

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._to, self._back, self._errors):
            with contextlib.suppress(OSError):  # what was still to be sent has nowhere to go
                stream.close()


def send(stream: IO[bytes], lengths: NDArray[Any], content: bytes) -> None:
    """Write one message: how many parts, their lengths, their content."""
    stream.write(np.array([len(lengths)], np.uint64).tobytes() + lengths.astype(np.uint64).tobytes() + content)
    stream.flush()


def receive(stream: IO[bytes], itemsize: int = 1) -> tuple[NDArray[np.uint64], bytes]:
    """Read one message: the lengths of its parts, in items, and its content. Raises EOFError at the end."""
    (count,) = np.frombuffer(_exactly(stream, 8), np.uint64)
    lengths = np.frombuffer(_exactly(stream, 8 * int(count)), np.uint64)
    return lengths, _exactly(stream, int(lengths.sum()) * itemsize)


def _exactly(stream: IO[bytes], size: int) -> bytes:
    content = stream.read(size)
    if len(content) < size:
        raise EOFError("its pipe closed")
    return content

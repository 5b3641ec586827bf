"""Sources of documents: Python code on this computer, the user's files, streamed datasets, text of known entropy."""

from __future__ import annotations

import bz2
import glob
import gzip
import importlib.metadata
import io
import itertools
import json
import lzma
import site
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path, PurePath
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from scaling.config.data import DataConfig
from scaling.data import hub, markov
from scaling.data.encoding import checked_text, python_source, text_of
from scaling.errors import InputError

Document = tuple[str, str]
"""Name and text."""

# Excluded from the standard library: test suites (which some distributions remove) and generated tables. Memorising the
# 122 near-duplicate files of encodings/ alone would hide the effect of the expert count.
_TESTS = {"test", "tests", "idle_test"}
_NOT_LIBRARY = {"site-packages", "dist-packages", "__pycache__", "lib-dynload"}
_GENERATED = {"encodings", "pydoc_data"}
_GENERATED_FILES = {"html/entities.py", "stringprep.py"}


def files_of(config: DataConfig) -> list[tuple[str, Path]]:
    """The local files of a corpus as (stable name, path), in name order.

    Empty for text that is generated or comes from the hub. Raises InputError if other corpora have no files.
    """
    assert config.corpus != "tokens", "its files are no text"
    if config.corpus == "markov" or (config.corpus == "huggingface" and not config.paths):
        return []
    if config.paths:
        files = [(path, Path(path)) for path in sorted({f for pattern in config.paths for f in _expand(pattern)})]
    elif config.packages:
        files = sorted({file for package in config.packages for file in _package_files(package)})
    else:
        files = _python_files(Path(sysconfig.get_path("stdlib")), "stdlib", library=True)
        if config.corpus == "python-environment":
            places = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), *site.getsitepackages()}
            for place in sorted(places):
                files += _python_files(Path(place), "site", library=False)
            files = sorted(dict(files).items())
    if not files:
        wanted = list(config.paths or config.packages) or "Python sources"
        raise InputError(f"data: no files for corpus={config.corpus} (searched for {wanted})")
    return files


def _expand(pattern: str) -> list[str]:
    matches = [m for m in glob.glob(str(Path(pattern).expanduser()), recursive=True) if Path(m).is_file()]
    if not matches:
        raise InputError(f"data.paths: {pattern!r} matches no file; give a path or a glob such as 'text/**/*.jsonl.gz'")
    return matches


def _python_files(root: Path, prefix: str, *, library: bool) -> list[tuple[str, Path]]:
    """The Python files below a folder by name; for the standard library, without generated and installed files."""
    files = []
    for path in root.rglob("*.py"):
        relative = path.relative_to(root).as_posix()
        folders = set(relative.split("/")[:-1])
        if folders & (_TESTS | {"__pycache__"}) or path.name.startswith("_sysconfigdata"):
            continue
        if library and (folders & (_NOT_LIBRARY | _GENERATED) or relative in _GENERATED_FILES):
            continue
        if library and any(folder.startswith("config-") for folder in folders):
            continue
        files.append((f"{prefix}/{relative}", path))
    return sorted(files)


def _package_files(package: str) -> list[tuple[str, Path]]:
    """The Python files that a distribution installed, by name, without tests. Raises InputError if there is none."""
    try:
        installed = importlib.metadata.distribution(package)
    except importlib.metadata.PackageNotFoundError as error:
        raise InputError(f"data.packages: {package!r} is not installed; `pip list` shows what is") from error
    files = [file for file in installed.files or () if file.suffix == ".py" and not _TESTS & {*PurePath(file).parts}]
    return [(f"site/{file.as_posix()}", Path(str(installed.locate_file(file)))) for file in files]


def documents(config: DataConfig) -> Iterator[Document]:
    """Stream the documents of a corpus in a fixed order.

    A document is a text file, a line of JSONL, or a row of Parquet or of a dataset. Raises InputError naming file and
    line if a record has no text, and naming the byte if it is not UTF-8. Of Python files that we found ourselves, those
    that are not in the encoding that they declare are left out.
    """
    if config.corpus == "markov":
        yield from markov.documents(config)
        return
    if config.corpus == "huggingface":
        spool = hub.spooled(config, [path for _, path in files_of(config)])
        yield from _jsonl(f"{config.dataset}/{config.split}", spool, "text")
        return
    for name, path in files_of(config):
        suffixes = [s.lower() for s in path.suffixes]
        try:
            if ".parquet" in suffixes:
                yield from _parquet(name, path, config.text_field)
            elif ".jsonl" in suffixes or ".ndjson" in suffixes:
                yield from _jsonl(name, path, config.text_field)
            else:
                with _open(path) as stream:
                    raw = stream.read()
                text = text_of(raw, str(path)) if config.paths else python_source(raw)
                if text is not None:
                    yield name, text
        except (OSError, EOFError, lzma.LZMAError, pa.ArrowException) as error:
            raise InputError(f"data: {path} cannot be read: {error}") from error


def _open(path: Path) -> IO[bytes]:
    openers: dict[str, Callable[[Path], Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open, ".zst": _zstd}
    return openers.get(path.suffix.lower(), lambda p: p.open("rb"))(path)


def _zstd(path: Path) -> IO[bytes]:
    return io.BufferedReader(pa.CompressedInputStream(pa.OSFile(str(path)), "zstd"))


def _jsonl(name: str, path: Path, field: str) -> Iterator[Document]:
    with _open(path) as stream:
        for number, line in enumerate(stream, start=1):
            if not line.strip():
                continue
            place = f"{path} line {number}"
            record = text_of(line, place)
            try:
                text = json.loads(record)[field]
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                raise InputError(f"data: {place}: expected a JSON object with {field!r} ({error})") from error
            yield f"{name}:{number}", _checked(text, field, place)


def _parquet(name: str, path: Path, field: str) -> Iterator[Document]:
    with pq.ParquetFile(path) as file:
        if field not in file.schema_arrow.names:
            raise InputError(f"data: {path} has no column {field!r}; it has {', '.join(file.schema_arrow.names)}")
        batches = file.iter_batches(batch_size=256, columns=[field])
        for number, cell in enumerate(itertools.chain.from_iterable(batch.column(0) for batch in batches), start=1):
            place = f"{path} row {number}"
            try:
                text = cell.as_py()
            except UnicodeDecodeError:
                text = text_of(cell.as_buffer().to_pybytes(), place)
            yield f"{name}:{number}", _checked(text, field, place)


def _checked(text: object, field: str, place: str) -> str:
    if not isinstance(text, str):
        raise InputError(f"data: {place}: {field!r} is {type(text).__name__}, expected text")
    return checked_text(text, place)

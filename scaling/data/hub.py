"""Datasets of the Hugging Face `datasets` library, streamed once into the cache.

The texts are saved in the order of the stream, without shuffling, to one compressed file, which every later pass and
every other tokeniser reads. Its name depends on dataset, subset, split, field and max_documents, and on the commit for
a dataset from the hub or on paths, sizes and times for local files, so an entry never goes stale.
"""

from __future__ import annotations

import itertools
import json
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from scaling.config.data import DataConfig
from scaling.data.cache import cache_folder, entry_name, writable
from scaling.errors import InputError
from scaling.formatting import listed

_FORMAT = 1  # increase when the format of the saved file changes
_NAMED_BY = ("dataset", "subset", "split", "revision", "max_documents", "text_field")


def spooled(config: DataConfig, files: list[Path]) -> Path:
    """The file of a dataset's texts as JSON lines `{"text": ...}`, zstd; streamed first if it is not in the cache.

    `files` are the local files, empty for a dataset from the hub. Several processes may call this at once. Raises
    InputError if the library is missing, or the dataset or its field cannot be read.
    """
    settings = {name: getattr(config, name) for name in _NAMED_BY}
    entry = entry_name(_FORMAT, settings, [(str(path), path) for path in files])
    path = cache_folder() / "streams" / f"{entry}.jsonl.zst"
    if not path.is_file():
        working = writable("streams") / f".making-{uuid.uuid4().hex}"
        try:
            with pa.CompressedOutputStream(pa.OSFile(str(working), "wb"), "zstd") as spool:
                for text in _texts(config, files):
                    spool.write(json.dumps({"text": text}).encode() + b"\n")
            os.replace(working, path)
        finally:
            working.unlink(missing_ok=True)
    return path


def _texts(config: DataConfig, files: list[Path]) -> Iterator[str]:
    field = config.text_field
    for number, row in enumerate(itertools.islice(_rows(config, files), config.max_documents), start=1):
        if field not in row:
            raise InputError(f"data: dataset={config.dataset} has no field {field!r}; it has {', '.join(row)}")
        if not isinstance(row[field], str):
            kind = type(row[field]).__name__
            raise InputError(f"data: dataset={config.dataset} row {number}: {field!r} is {kind}, expected text")
        yield row[field]


def _rows(config: DataConfig, files: list[Path]) -> Iterator[dict[str, Any]]:
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # read on import
    try:
        import datasets
    except ImportError as error:
        raise InputError("data.corpus=huggingface needs `datasets`: pip install 'moe-scaling[data]'") from error
    assert config.dataset is not None
    if config.dataset == "pandas":  # older versions of the library unpickle the files, which is to run them
        raise InputError("data.dataset: pandas reads pickled files, which could hold code; save them as Parquet")
    if not files and Path(config.dataset).exists():  # the library would prefer it to the hub
        raise InputError(
            f"data.dataset: {config.dataset!r} is a local path; for local files set paths, and dataset: json, ..."
        )
    local = {"data_files": {config.split: [str(path) for path in files]}} if files else {"revision": config.revision}
    try:
        yield from datasets.load_dataset(config.dataset, config.subset, split=config.split, streaming=True, **local)
    except Exception as error:  # the library and its readers raise errors of any type
        raise InputError(
            f"data: dataset={config.dataset} subset={config.subset} split={config.split} cannot be read from "
            f"{listed(files, empty=f'the hub at {config.revision}')} ({type(error).__name__}: {error})"
        ) from error

"""The text of a run and how it is tokenised, packed and split."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from scaling.config.fields import Count, Frozen, Whole
from scaling.config.token_files import token_files
from scaling.config.vocabulary import SUFFIXES, Vocabulary, vocabulary_of

BYTES, BYTE_PAIRS = "bytes", "bpe"


def _tokenizer(name: str) -> str:
    """A tokeniser of ours by name, or a file. Raises ValueError for anything else."""
    if name not in (BYTES, BYTE_PAIRS) and not name.endswith(SUFFIXES):
        raise ValueError(
            f"found {name!r}; allowed: bytes, bpe (trained on this text), or the path of a tokenizer.json of Hugging "
            "Face tokenizers or of a SentencePiece .model"
        )
    return name


def absolute_data_paths(name: str, value: Any, folder: Path) -> Any:
    """The value of a field of `data` with paths that start at this folder: workers run in other folders."""
    if name == "paths":
        return tuple(str(folder / Path(path).expanduser()) for path in value)
    if name == "tokenizer" and str(value).endswith(SUFFIXES):
        return str(folder / Path(value).expanduser())
    return value


class DataConfig(Frozen):
    """The corpus, its tokeniser, how blocks are packed, and how much is held out for evaluation.

    `files` reads `paths`. `huggingface` streams a dataset with the `datasets` library: one from the hub by name and
    commit, or local `paths` through a reader of the library (`dataset: json | parquet | csv | text`). `python-
    environment` reads all that is installed, which any installation changes, or only the named `packages`, whose
    versions then determine the text. `markov` draws text of known entropy (scaling/data/markov.py), where every
    symbol is one byte and one token. `tokens` reads tokens that somebody else made, through the one `tokens.json` in
    `paths` (scaling/config/token_files.py). `packing` defines a training block: `stream` cuts the concatenated
    documents, `documents` packs whole documents (scaling/data/packing.py).

    tokenizer: `bytes`; `bpe`, byte-level BPE of `bpe_vocab` symbols trained on the text, or on `bpe_sample` bytes of it
    where it is longer; or a file. Its content is part of the corpus hash, its path is not.
    separator: the symbol of a tokenizer file that stands before each document; None: one of our own, after its last.
    """

    corpus: Literal["python-stdlib", "python-environment", "files", "huggingface", "markov", "tokens"] = "python-stdlib"
    paths: tuple[str, ...] = ()
    packages: tuple[Annotated[str, Field(min_length=1)], ...] = ()  # distributions, as `pip list` names them
    text_field: str = "text"
    dataset: str | None = None
    subset: str | None = None
    split: str = "train"
    revision: str | None = None
    max_documents: Count | None = None
    markov_symbols: Annotated[Count, Field(ge=2, le=94)] = 32  # 94 printable ASCII characters: one byte each
    markov_order: Annotated[Count, Field(le=4)] = 2
    markov_topics: Count = 16
    markov_documents: Annotated[Count, Field(le=10**8)] = 16_384
    markov_length: Annotated[Count, Field(ge=2, le=10**6)] = 512  # symbols, mean
    markov_seed: Whole = 0
    tokenizer: Annotated[str, AfterValidator(_tokenizer)] = BYTES
    separator: Annotated[str, Field(min_length=1)] | None = None
    bpe_vocab: Annotated[Count, Field(ge=257, le=2**20)] = 4096
    bpe_sample: Annotated[Count, Field(ge=10**6)] = 100_000_000  # bytes
    packing: Literal["stream", "documents"] = "stream"
    heldout_docs: Annotated[Count, Field(ge=100, le=10**7)] = 128
    eval_windows: Annotated[Count, Field(le=10**7)] = 16

    @model_validator(mode="after")
    def _consistent(self) -> DataConfig:
        takes_paths = ("files", "huggingface", "tokens")
        if (self.corpus == "files" and not self.paths) or (self.paths and self.corpus not in takes_paths):
            raise ValueError(
                f"paths={list(self.paths)} and corpus={self.corpus}: corpus=files needs paths, corpus=huggingface "
                "accepts them, corpus=tokens takes one tokens.json, other corpora take none"
            )
        if self.separator and not self.tokenizer_file:
            raise ValueError(
                f"separator={self.separator!r} and tokenizer={self.tokenizer}: only a tokenizer file has named symbols"
            )
        if self.packages and self.corpus != "python-environment":
            raise ValueError(
                f"packages={list(self.packages)} and corpus={self.corpus}: packages needs corpus=python-environment"
            )
        if self.corpus == "huggingface":
            self._dataset_is_named()
        else:
            for name in ("dataset", "subset", "revision", "max_documents"):
                if value := getattr(self, name):
                    raise ValueError(f"{name}={value} and corpus={self.corpus}: {name} needs corpus=huggingface")
        if self.corpus == "markov":
            self._source_is_small()
        if self.corpus == "tokens":
            self._tokens_are_described()
        return self

    def _dataset_is_named(self) -> None:
        if self.dataset is None:
            raise ValueError(
                "corpus=huggingface needs dataset: a name on the hub, or json, parquet, csv or text with paths"
            )
        if self.paths and self.revision:
            raise ValueError(f"revision={self.revision} and paths={list(self.paths)}: local files have no revision")
        if not self.paths and not re.fullmatch("[0-9a-f]{40}", self.revision or ""):
            raise ValueError(
                f"dataset={self.dataset} and revision={self.revision}: a dataset from the hub needs a fixed commit, so "
                "that its text cannot change; give the 40 hex digits (on the hub: Files and versions, History)"
            )

    def _source_is_small(self) -> None:
        contexts, entries = self.markov_contexts, self.markov_topics * self.markov_contexts * self.markov_symbols
        # One linear system of `contexts` unknowns per topic, and tables of `entries` probabilities.
        if contexts > 4096 or entries > 1 << 22:
            raise ValueError(
                f"markov_symbols={self.markov_symbols}, markov_order={self.markov_order}, markov_topics="
                f"{self.markov_topics}: {contexts:,} contexts and {entries:,} probabilities; allowed: at most 4,096 "
                f"and {1 << 22:,}"
            )
        if self.tokenizer != "bytes":
            raise ValueError(
                f"tokenizer={self.tokenizer} and corpus=markov: its symbols are one-byte tokens; use tokenizer=bytes"
            )

    def _tokens_are_described(self) -> None:
        if len(self.paths) != 1 or not self.paths[0].endswith(".json"):
            raise ValueError(
                f"paths={list(self.paths)} and corpus=tokens: give the one tokens.json that says dtype, vocab_size, "
                "separator and files (docs/text.md)"
            )
        if self.tokenizer != BYTES:
            raise ValueError(
                f"tokenizer={self.tokenizer} and corpus=tokens: its text is tokenised already; leave it out"
            )

    @property
    def markov_contexts(self) -> int:
        """Number of contexts of `corpus: markov`, strings of markov_order symbols."""
        return self.markov_symbols**self.markov_order

    @property
    def tokenizer_file(self) -> str | None:
        """The path of a tokenizer file, None for a tokeniser of ours."""
        return None if self.tokenizer in (BYTES, BYTE_PAIRS) else self.tokenizer

    @property
    def vocabulary(self) -> Vocabulary:
        """Symbols, separator, and the content of what says so ("" for tokenisers of ours).

        Raises InputError if a tokenizer file or tokens.json cannot be read.
        """
        if self.tokenizer_file:
            return vocabulary_of(self.tokenizer_file, self.separator)
        if self.corpus == "tokens":
            made = token_files(self.paths[0])
            return Vocabulary(made.vocab_size, made.separator, "")
        symbols = self.markov_symbols if self.corpus == "markov" else 256 if self.tokenizer == BYTES else self.bpe_vocab
        return Vocabulary(symbols + 1, symbols, "")

    @property
    def vocab_size(self) -> int:
        """Number of symbols of the tokeniser, including the document separator."""
        return self.vocabulary.size

    @property
    def packed_separator(self) -> int | None:
        """The document separator if blocks hold whole documents, None where they are cut from the stream."""
        return self.vocabulary.separator if self.packing == "documents" else None

    def identity(self) -> dict[str, Any]:
        """The fields that shape a training, without those of other corpora and tokenisers."""
        parts = self.model_dump(mode="json")
        # The corpus hash identifies the text and what it was tokenised with, wherever they are stored.
        for name in ("paths", "packages", "bpe_sample"):
            del parts[name]
        if self.tokenizer_file:
            parts["tokenizer"] = "file"
        idle = [] if self.tokenizer == BYTE_PAIRS else ["bpe_vocab"]
        idle += [] if self.separator else ["separator"]
        idle += ["tokenizer"] if self.corpus == "tokens" else []
        idle += [] if self.corpus == "huggingface" else ["dataset", "subset", "split", "revision", "max_documents"]
        idle += [] if self.corpus == "markov" else [name for name in parts if name.startswith("markov_")]
        # Cells from before packing was a choice keep their run_id.
        idle += [] if self.packing == "documents" else ["packing"]
        return {name: value for name, value in parts.items() if name not in idle}

"""The text of a run and how it is tokenised, packed and split."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from scaling.config.fields import Count, Frozen, Whole


class DataConfig(Frozen):
    """The corpus, its tokeniser, how blocks are packed, and how much is held out for evaluation.

    `files` reads `paths`. `huggingface` streams a dataset with the `datasets` library: one from the hub by name and
    commit, or local `paths` through a reader of the library (`dataset: json | parquet | csv | text`). `python-
    environment` reads all that is installed, which any installation changes, or only the named `packages`, whose
    versions then determine the text. `markov` draws text of known entropy (scaling/data/markov.py), where every
    symbol is one byte and one token. `packing` defines a training block: `stream` cuts the concatenated documents,
    `documents` packs whole documents (scaling/data/packing.py).
    """

    corpus: Literal["python-stdlib", "python-environment", "files", "huggingface", "markov"] = "python-stdlib"
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
    tokenizer: Literal["bytes", "bpe"] = "bytes"
    bpe_vocab: Annotated[Count, Field(ge=257, le=65535)] = 4096
    packing: Literal["stream", "documents"] = "stream"
    heldout_docs: Annotated[Count, Field(ge=100, le=10**7)] = 128
    eval_windows: Annotated[Count, Field(le=10**7)] = 16

    @model_validator(mode="after")
    def _consistent(self) -> DataConfig:
        if (self.corpus == "files" and not self.paths) or (self.paths and self.corpus not in ("files", "huggingface")):
            raise ValueError(
                f"paths={list(self.paths)} and corpus={self.corpus}: corpus=files needs paths, corpus=huggingface "
                "accepts them, other corpora do not"
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

    @property
    def markov_contexts(self) -> int:
        """Number of contexts of `corpus: markov`, strings of markov_order symbols."""
        return self.markov_symbols**self.markov_order

    @property
    def vocab_size(self) -> int:
        """Number of symbols of the tokeniser, including the document separator."""
        if self.corpus == "markov":
            return self.markov_symbols + 1
        return 257 if self.tokenizer == "bytes" else self.bpe_vocab + 1

    def identity(self) -> dict[str, Any]:
        """The fields that shape a training, without those of other corpora and tokenisers."""
        parts = self.model_dump(mode="json")
        for name in ("paths", "packages"):  # the corpus hash identifies the text, wherever it is stored
            del parts[name]
        idle = [] if self.tokenizer == "bpe" else ["bpe_vocab"]
        idle += [] if self.corpus == "huggingface" else ["dataset", "subset", "split", "revision", "max_documents"]
        idle += [] if self.corpus == "markov" else [name for name in parts if name.startswith("markov_")]
        # Cells from before packing was a choice keep their run_id.
        idle += [] if self.packing == "documents" else ["packing"]
        return {name: value for name, value in parts.items() if name not in idle}

"""Which text a run trains on, and how it is cut."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from scaling.config.fields import Count, Frozen, Whole


class DataConfig(Frozen):
    """Which text, how it is cut into tokens and blocks, and which of it is kept for evaluation.

    `files` reads `paths`. `huggingface` streams a dataset with the `datasets` library: one of the hub by name and
    commit, or local `paths` through one of the library's readers (`dataset: json | parquet | csv | text`). `markov`
    draws text of known entropy (scaling/data/markov.py), of which every symbol is one byte and one token. `packing`
    says what a training block is: `stream`, a stretch of all documents one behind the other, or `documents`, whole
    documents packed together (scaling/data/packing.py).
    """

    corpus: Literal["python-stdlib", "python-environment", "files", "huggingface", "markov"] = "python-stdlib"
    paths: tuple[str, ...] = ()
    text_field: str = "text"
    dataset: str | None = None
    subset: str | None = None
    split: str = "train"
    revision: str | None = None
    max_documents: Count | None = None
    markov_symbols: Annotated[Count, Field(ge=2, le=94)] = 32  # 94 printable ASCII characters: one byte each
    markov_order: Annotated[Count, Field(le=4)] = 2
    markov_topics: Count = 16
    markov_documents: Count = 16_384
    markov_length: Annotated[Count, Field(ge=2)] = 512  # symbols, mean
    markov_seed: Whole = 0
    tokenizer: Literal["bytes", "bpe"] = "bytes"
    bpe_vocab: Annotated[Count, Field(ge=257, le=65535)] = 4096
    packing: Literal["stream", "documents"] = "stream"
    heldout_docs: Annotated[Count, Field(ge=100)] = 128
    eval_windows: Count = 16

    @model_validator(mode="after")
    def _consistent(self) -> DataConfig:
        if (self.corpus == "files" and not self.paths) or (self.paths and self.corpus not in ("files", "huggingface")):
            raise ValueError(
                f"paths={list(self.paths)} and corpus={self.corpus}: corpus=files needs paths, corpus=huggingface may "
                "have them, others take none"
            )
        if self.corpus == "huggingface":
            self._dataset_is_named()
        else:
            for name in ("dataset", "subset", "revision", "max_documents"):
                if value := getattr(self, name):
                    raise ValueError(f"{name}={value} and corpus={self.corpus}: corpus=huggingface only")
        if self.corpus == "markov":
            self._source_is_small()
        return self

    def _dataset_is_named(self) -> None:
        if self.dataset is None:
            raise ValueError(
                "corpus=huggingface needs dataset: a name on the hub, or json, parquet, csv, text with paths"
            )
        if self.paths and self.revision:
            raise ValueError(f"revision={self.revision} and paths={list(self.paths)}: local files have no revision")
        if not self.paths and not re.fullmatch("[0-9a-f]{40}", self.revision or ""):
            raise ValueError(
                f"dataset={self.dataset} and revision={self.revision}: a dataset of the hub is read at one commit, so "
                "that its text cannot change under a name; give its 40 hex digits (on the hub: Files and versions, "
                "History)"
            )

    def _source_is_small(self) -> None:
        contexts, entries = self.markov_contexts, self.markov_topics * self.markov_contexts * self.markov_symbols
        # One linear system of `contexts` unknowns per topic, and tables of `entries` probabilities.
        if contexts > 4096 or entries > 1 << 22:
            raise ValueError(
                f"markov_symbols={self.markov_symbols}, markov_order={self.markov_order}, markov_topics="
                f"{self.markov_topics}: {contexts:,} contexts and {entries:,} probabilities; at most 4,096 and "
                f"{1 << 22:,}"
            )
        if self.tokenizer != "bytes":
            raise ValueError(
                f"tokenizer={self.tokenizer} and corpus=markov: its symbols are the tokens, one byte each; use bytes"
            )

    @property
    def markov_contexts(self) -> int:
        """Contexts of `corpus: markov`: strings of markov_order symbols."""
        return self.markov_symbols**self.markov_order

    @property
    def vocab_size(self) -> int:
        """Symbols of the tokeniser and the document separator."""
        if self.corpus == "markov":
            return self.markov_symbols + 1
        return 257 if self.tokenizer == "bytes" else self.bpe_vocab + 1

    def identity(self) -> dict[str, Any]:
        """The fields that shape a training, as plain values: those of other corpora and tokenisers are left out."""
        parts = self.model_dump(mode="json")
        del parts["paths"]  # the corpus hash stands for what was read, wherever it lay
        idle = [] if self.tokenizer == "bpe" else ["bpe_vocab"]
        idle += [] if self.corpus == "huggingface" else ["dataset", "subset", "split", "revision", "max_documents"]
        idle += [] if self.corpus == "markov" else [name for name in parts if name.startswith("markov_")]
        # Cells from before there was a choice keep their name.
        idle += [] if self.packing == "documents" else ["packing"]
        return {name: value for name, value in parts.items() if name not in idle}

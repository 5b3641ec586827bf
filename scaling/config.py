"""What a run is: frozen, validated configurations and the content hash that names them."""

from __future__ import annotations

import hashlib
import json
import math
import re
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from scaling.architecture import ModelConfig as ModelConfig
from scaling.fields import Count, Frozen, Real, Whole
from scaling.schema import SCHEMA_VERSION


def peak_learning_rate(d_model: int, n_layers: int) -> float:
    """The default peak learning rate of AdamW, .005 (64 / d_model) (2 / n_layers)^.5, for every E and k.

    Inversely proportional to the width, as the maximal update parametrisation has it for Adam's hidden matrices (arXiv
    2203.03466, table 3), and to the root of the depth (arXiv 2310.02244, table 1). It depends on the shape alone and
    never on the token budget, so that cells which differ only in `tokens` share one trajectory up to their cooldowns
    (arXiv 2405.18392). Checked at widths 32, 64 and 128, two depths, E = 1, 8 and 32 and three budgets: results/tuning/
    has the runs and what the rule costs beside the best rate found, which is less than seeds differ. The optimum falls by
    a sixth from E = 1 to 8 there and no further at 32 (arXiv 2502.05172 has E^-0.25), so E is left out, and dense twins
    train alike. With another batch set `lr`, or sweep it as an axis.
    """
    return LR_AT_64 * (64 / d_model) * math.sqrt(2 / n_layers)


LR_AT_64 = 5e-3  # at two layers


class DataConfig(Frozen):
    """Which text, how it is cut into tokens and blocks, and which of it is kept for evaluation.

    `files` reads `paths`. `huggingface` streams a dataset with the `datasets` library: one of the hub by name and commit,
    or local `paths` through one of the library's readers (`dataset: json | parquet | csv | text`). `markov` draws text of
    known entropy (scaling/data/markov.py), of which every symbol is one byte and one token.
    `packing` says what a training block is: `stream`, a stretch of all documents one behind the other, or `documents`,
    whole documents packed together (scaling/data/packing.py).
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
            given = [name for name in ("dataset", "subset", "revision", "max_documents") if getattr(self, name)]
            if given:
                raise ValueError(
                    f"{given[0]}={getattr(self, given[0])} and corpus={self.corpus}: corpus=huggingface only"
                )
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
                f"dataset={self.dataset} and revision={self.revision}: a dataset of the hub is read at one commit, so that "
                "its text cannot change under a name; give its 40 hex digits (on the hub: Files and versions, History)"
            )

    def _source_is_small(self) -> None:
        contexts, entries = self.markov_contexts, self.markov_topics * self.markov_contexts * self.markov_symbols
        # One linear system of `contexts` unknowns per topic, and tables of `entries` probabilities.
        if contexts > 4096 or entries > 1 << 22:
            raise ValueError(
                f"markov_symbols={self.markov_symbols}, markov_order={self.markov_order}, markov_topics="
                f"{self.markov_topics}: {contexts:,} contexts and {entries:,} probabilities; at most 4,096 and {1 << 22:,}"
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
        idle += (
            [] if self.packing == "documents" else ["packing"]
        )  # cells from before there was a choice keep their name
        return {name: value for name, value in parts.items() if name not in idle}


class TrainConfig(Frozen):
    """AdamW with a warmup-stable-decay schedule; nothing here may depend on the token budget.

    accumulate: parts of a batch that go through the model one after another, for one step of the optimiser.
    remat: compute what lies between blocks again in the backward pass, for memory.
    """

    batch_tokens: Count = 512
    seq_len: Count = 128
    lr: Annotated[Real, Field(gt=0)] | None = None
    warmup_tokens: Whole = 32_768
    cooldown: Annotated[Real, Field(gt=0, le=1)] = 0.2
    weight_decay: Annotated[Real, Field(ge=0)] = 0.1
    beta1: Annotated[Real, Field(ge=0, lt=1)] = 0.9
    beta2: Annotated[Real, Field(ge=0, lt=1)] = 0.95
    grad_clip: Annotated[Real, Field(gt=0)] = 1.0
    accumulate: Count = 1
    remat: bool = False

    @model_validator(mode="after")
    def _consistent(self) -> TrainConfig:
        if self.batch_tokens % (self.seq_len * self.accumulate):
            raise ValueError(
                f"batch_tokens={self.batch_tokens} must be a multiple of seq_len={self.seq_len} times "
                f"accumulate={self.accumulate}"
            )
        return self

    @property
    def sequences(self) -> int:
        """Sequences of one optimiser step."""
        return self.batch_tokens // self.seq_len

    def devices(self, at_most: int) -> int:
        """Devices that a step is spread over: as many as divide the sequences of a part of the batch evenly."""
        return math.gcd(self.sequences // self.accumulate, at_most)


class BenchConfig(Frozen):
    """Where latency is measured: prefill and one decode step at every (batch, context)."""

    batch: tuple[Count, ...] = (1, 8)
    context: tuple[Count, ...] = (128,)
    repeats: Annotated[Count, Field(ge=5)] = 15


class Resources(Frozen):
    """What one cell occupies while it trains; latency always has the whole machine.

    Each CPU thread, or each whole GPU, is a device, over all of which the cell's sequences are spread.
    expert_parallel: experts are spread too, with `dispatch: grouped`. Each device then holds its own experts alone and
    gets their tokens from the others, instead of holding every expert and adding up gradients once a step: less memory,
    more waiting.   checkpoint_minutes: how much of a long trunk a kill may cost; 0 keeps no checkpoints.
    """

    cpus: Count = 1
    gpus: Annotated[Real, Field(ge=0)] = 0.0
    expert_parallel: bool = False
    checkpoint_minutes: Annotated[Real, Field(ge=0)] = 5.0


class RunConfig(Frozen):
    """One cell: everything that shapes its training, and where its latency is measured."""

    study: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")] = "study"
    task: Literal["lm"] = "lm"
    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    train: TrainConfig = TrainConfig()
    seed: Whole = 0
    tokens: Count = 1_000_000
    bench: BenchConfig = BenchConfig()
    resources: Resources = Resources()

    @model_validator(mode="before")
    @classmethod
    def _slots(cls, values: Any) -> Any:
        """Of soft MoE as many slots as tokens reach experts, top_k T / E for each, where the grid is silent."""
        model = values.get("model") if isinstance(values, dict) else None
        if not isinstance(model, dict) or model.get("router") != "soft" or model.get("slots") is not None:
            return values
        known = ModelConfig.model_validate(model)
        train = values.get("train", {})
        train = train if isinstance(train, TrainConfig) else TrainConfig.model_validate(train)
        return {**values, "model": {**model, "slots": max(1, math.ceil(known.top_k * train.seq_len / known.n_experts))}}

    @model_validator(mode="after")
    def _consistent(self) -> RunConfig:
        model, seq_len = self.model, self.train.seq_len
        if model.router in ("base", "expert-choice") and model.top_k * seq_len % model.n_experts:
            raise ValueError(
                f"router={model.router} gives each expert as many tokens of a sequence: n_experts={model.n_experts} must "
                f"divide top_k={model.top_k} times seq_len={seq_len}"
            )
        if self.routed_alike_steps > self.steps - self.cooldown_steps:
            room = (self.steps - self.cooldown_steps) * self.train.batch_tokens
            phases = [name for name in ("dense_tokens", "anneal_tokens") if name in model.identity()]
            raise ValueError(
                f"tokens={self.tokens} leave {room} before the cooldown, and router={model.router}, experts={model.experts} "
                f"takes {self.routed_alike_steps * self.train.batch_tokens} for its phases; lower {' and '.join(phases)}"
            )
        needed = math.ceil(self.train.warmup_tokens / self.train.batch_tokens) + self.cooldown_steps
        if self.steps < max(needed, 2):
            raise ValueError(
                f"tokens={self.tokens} are {self.steps} steps of batch_tokens={self.train.batch_tokens}: too few for "
                f"warmup_tokens={self.train.warmup_tokens} and a cooldown of {self.train.cooldown:g}"
            )
        return self

    @property
    def steps(self) -> int:
        """Optimiser steps: the token budget in whole batches, rounded to the nearest."""
        return max(1, round(self.tokens / self.train.batch_tokens))

    def expert_devices(self, devices: int) -> int:
        """Over how many of these devices the experts are spread: where they are at all, as many as divide them evenly."""
        spread = self.resources.expert_parallel and self.model.dispatch == "grouped"
        return math.gcd(self.model.n_experts, devices) if spread else 1

    @property
    def dense_steps(self) -> int:
        """Steps of the dense model that some methods begin with; 0 for the others."""
        return self.model.dense_steps(self.train.batch_tokens)

    @property
    def routed_alike_steps(self) -> int:
        """Steps after which a method routes, and trains, as it will to the end."""
        model = self.model
        annealed = model.n_experts > 1 and "anneal_tokens" in model.router_facts.options
        return self.dense_steps + (math.ceil(model.anneal_tokens / self.train.batch_tokens) if annealed else 0)

    @property
    def cooldown_steps(self) -> int:
        return max(1, round(self.train.cooldown * self.steps))

    @property
    def learning_rate(self) -> float:
        """The peak rate: what the grid says, or the rule of `peak_learning_rate`."""
        return self.train.lr or peak_learning_rate(self.model.d_model, self.model.n_layers)

    def identity(self, corpus_hash: str) -> dict[str, Any]:
        """What shapes the training, as plain values: two cells with equal identities are the same run.

        `study`, `bench` and `resources` are left out, and what of the model is not read (`ModelConfig.identity`).
        """
        parts = self.model_dump(mode="json", include={"task", "train", "seed"})
        parts |= {
            "model": self.model.identity(),
            "data": self.data.identity(),
            "steps": self.steps,
            "corpus_hash": corpus_hash,
            "schema_version": SCHEMA_VERSION,
        }
        parts["train"]["lr"] = self.learning_rate
        return parts

    def run_id(self, corpus_hash: str) -> str:
        """Content hash of the cell: 16 hex digits that name its parts on disk."""
        return _digest(self.identity(corpus_hash))

    def trunk_id(self, corpus_hash: str) -> str:
        """Content hash of the cell without its token budget: such cells share data order and initial weights."""
        return _digest({key: value for key, value in self.identity(corpus_hash).items() if key != "steps"})

    def configuration(self, corpus_hash: str) -> str:
        """Content hash of the cell without its seed and token budget: within it runs are replicates."""
        parts = self.identity(corpus_hash)
        return _digest({key: value for key, value in parts.items() if key not in ("steps", "seed")})

    def shape_id(self) -> str:
        """Content hash of what decides the speed of inference: cells of one shape are measured once."""
        model = self.model_dump(mode="json", include={"model", "bench"})
        return _digest({**model, "vocab_size": self.data.vocab_size})


def _digest(parts: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]

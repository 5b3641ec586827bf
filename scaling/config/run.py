"""The configuration of a run and the content hashes that identify it."""

from __future__ import annotations

import hashlib
import json
import math
from collections import defaultdict
from collections.abc import Iterable
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, model_validator

from scaling.config.bench import BenchConfig, Resources
from scaling.config.cell import Cell
from scaling.config.data import DataConfig
from scaling.config.fields import Count, Frozen, Whole
from scaling.config.model import ModelConfig
from scaling.config.training import TrainConfig, peak_learning_rate
from scaling.schema import SCHEMA_VERSION

AnyCell = TypeVar("AnyCell", bound=Cell)


class RunConfig(Frozen):
    """One cell: everything that shapes its training, and its latency benchmark."""

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
        """Unless the grid sets them, give soft MoE as many slots as tokens reach experts: top_k T / E per expert."""
        model = values.get("model") if isinstance(values, dict) else None
        if not isinstance(model, dict) or model.get("router") != "soft" or model.get("slots") is not None:
            return values
        routed, train = ModelConfig.model_validate(model), TrainConfig.model_validate(values.get("train", {}))
        slots = max(1, math.ceil(routed.top_k * train.seq_len / routed.n_experts))
        return {**values, "model": {**model, "slots": slots}}

    @model_validator(mode="after")
    def _consistent(self) -> RunConfig:
        model, seq_len = self.model, self.train.seq_len
        if model.router in ("base", "expert-choice") and model.top_k * seq_len % model.n_experts:
            raise ValueError(
                f"router={model.router} gives every expert equally many tokens of a sequence: "
                f"n_experts={model.n_experts} must divide top_k={model.top_k} times seq_len={seq_len}"
            )
        if model.phased and "masked_share" in model.router_facts.options and self.train.optimiser != "adamw":
            raise ValueError(
                f"router={model.router} copies an expert with its moments of Adam, which optimiser="
                f"{self.train.optimiser} has not; use adamw"
            )
        if model.parametrisation == "mup" and self.train.optimiser != "adamw":
            raise ValueError(
                f"parametrisation=mup with optimiser={self.train.optimiser}: its rates are derived for adamw"
            )
        if self.phase_steps > self.steps - self.cooldown_steps:
            room = (self.steps - self.cooldown_steps) * self.train.batch_tokens
            phases = [name for name in ("dense_tokens", "anneal_tokens") if name in model.identity()]
            raise ValueError(
                f"tokens={self.tokens} leaves {room} tokens before the cooldown, but the phases of "
                f"router={model.router}, experts={model.experts} take "
                f"{self.phase_steps * self.train.batch_tokens}; lower {' and '.join(phases)}"
            )
        needed = math.ceil(self.train.warmup_tokens / self.train.batch_tokens) + self.cooldown_steps
        if self.steps < max(needed, 2):
            raise ValueError(
                f"tokens={self.tokens} gives {self.steps} steps of batch_tokens={self.train.batch_tokens}: too few for "
                f"warmup_tokens={self.train.warmup_tokens} and cooldown={self.train.cooldown:g}"
            )
        return self

    @property
    def sections(self) -> tuple[Frozen, ...]:
        """What cells of one trunk have in common, beside study, task and seed."""
        return self.model, self.data, self.train, self.bench, self.resources

    @property
    def steps(self) -> int:
        """Optimiser steps: the token budget rounded to the nearest whole batch."""
        return max(1, round(self.tokens / self.train.batch_tokens))

    def expert_devices(self, devices: int) -> int:
        """Devices over which the experts are split: the most that divide them evenly, or 1 without a split."""
        spread = self.resources.expert_parallel and self.model.dispatch == "grouped"
        return math.gcd(self.model.n_experts, devices) if spread else 1

    @property
    def dense_steps(self) -> int:
        """Steps of the dense model that some methods begin with, else 0."""
        return self.model.dense_steps(self.train.batch_tokens)

    @property
    def phase_steps(self) -> int:
        """Steps after which routing and training no longer change phase."""
        model = self.model
        annealed = model.n_experts > 1 and "anneal_tokens" in model.router_facts.options
        return self.dense_steps + (math.ceil(model.anneal_tokens / self.train.batch_tokens) if annealed else 0)

    @property
    def cooldown_steps(self) -> int:
        return max(1, round(self.train.cooldown * self.steps))

    @property
    def learning_rate(self) -> float:
        """The peak rate: set by the grid, or by the rule `peak_learning_rate`."""
        return self.train.lr or peak_learning_rate(self.model.rate_width, self.model.n_layers)

    def identity(self, corpus_hash: str) -> dict[str, Any]:
        """Everything that shapes the training: two cells with equal identities are the same run.

        Excludes `study`, `bench`, `resources` and unused fields of the model (`ModelConfig.identity`).
        """
        return {
            "task": self.task,
            "model": self.model.identity(),
            "data": self.data.identity(),
            "train": self.train.identity() | {"lr": self.learning_rate},
            "seed": self.seed,
            "steps": self.steps,
            "corpus_hash": corpus_hash,
            "schema_version": SCHEMA_VERSION,
        }

    def run_id(self, corpus_hash: str) -> str:
        """Content hash of the cell: 16 hex digits, the name of its files."""
        return _digest(self.identity(corpus_hash))

    def trunk_id(self, corpus_hash: str) -> str:
        """Content hash of the cell without its token budget: such cells share data order and initialisation."""
        return _digest(self.identity(corpus_hash), without=("steps",))

    def configuration(self, corpus_hash: str) -> str:
        """Content hash of the cell without its seed and token budget: its runs are replicates."""
        return _digest(self.identity(corpus_hash), without=("steps", "seed"))

    def shape_id(self) -> str:
        """Content hash of what determines inference speed: cells of one shape are measured once."""
        unused = self.model.no_matter_of_speed
        model, bench = self.model.model_dump(mode="json", exclude=unused), self.bench.model_dump(mode="json")
        return _digest({"model": model, "bench": bench, "vocab_size": self.data.vocab_size})


def _digest(parts: dict[str, Any], without: tuple[str, ...] = ()) -> str:
    hashed = {name: value for name, value in parts.items() if name not in without}
    return hashlib.sha256(json.dumps(hashed, sort_keys=True).encode()).hexdigest()[:16]


def by_trunk(cells: Iterable[AnyCell]) -> list[tuple[AnyCell, ...]]:
    """Cells grouped by trunk: those that differ only in budget, in increasing order of it."""
    cells = list(cells)
    numbers: dict[Frozen, int] = {}
    of_object: dict[int, int] = {}  # the cells of a grid share their sections, which are then hashed once

    def number(section: Frozen) -> int:
        if id(section) not in of_object:
            of_object[id(section)] = numbers.setdefault(section, len(numbers))
        return of_object[id(section)]

    trunks: dict[tuple[Any, ...], list[AnyCell]] = defaultdict(list)
    for cell in cells:
        trunks[cell.study, cell.task, cell.seed, *map(number, cell.sections)].append(cell)
    return [tuple(sorted(trunk, key=lambda cell: cell.steps)) for trunk in trunks.values()]

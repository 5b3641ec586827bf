"""What a model is: a decoder-only Transformer whose MLPs are mixtures of experts, routed one way or another."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from scaling.config.fields import Count, Frozen, Real, Whole, whole
from scaling.config.registry import EXPERTS, ROUTERS, Experts, Router, matched_rank


def _registered(names: Mapping[str, Any]) -> AfterValidator:
    """One of the registered names. Raises ValueError with the nearest of them."""

    def check(name: str) -> str:
        if name not in names:
            close = difflib.get_close_matches(name.lower(), [*names], n=1, cutoff=0.6)
            hint = f"; did you mean `{close[0]}`" if close else ""
            raise ValueError(f"found {name!r}{hint}; allowed: {', '.join(names)}")
        return name

    return AfterValidator(check)


Share = Annotated[Real, Field(ge=0, le=1)]
Positive = Annotated[Real, Field(gt=0)]
NotNegative = Annotated[Real, Field(ge=0)]


def following() -> tuple[str, ...]:
    """Fields whose default follows others: the width of an expert, and what the authors of a router or a form use."""
    by_router = sorted({name for router in ROUTERS.values() for name in router.defaults})
    return ("d_expert", "dispatch", "rank", "slots", *by_router)


# What every model, and every routed one, has; of all other fields a cell's identity holds those that its router and
# experts read.
_DENSE = ("d_model", "n_layers", "d_head", "n_experts", "dtype")
_ROUTED = (*_DENSE, "d_expert", "top_k", "router", "dispatch", "experts")
# Left out of the identity at their default: cells from before there was a choice keep their name.
_AS_BEFORE = {"renormalise": True, "bias_rate": 0.0, "jitter": 0.0, "capacity_per": "kx"}


class ModelConfig(Frozen):
    """A decoder-only Transformer whose MLPs are mixtures of `n_experts` gated experts, `top_k` of them per token.

    `n_experts = 1` is the dense model with one gated MLP of width `top_k * d_expert` (and that of the shared experts),
    so a grid crosses dense and routed models of one active size. Granularity is the number of experts that the dense
    width is split into: at the default width, where d_expert = 2 d_model / top_k, it is `top_k`.

    Which router and which form of experts reads which of the fields below: `scaling/config/registry.py`.

    capacity_per: places of an expert grow with top_k (`kx`), or are those of a top-1 router (`1x`), arXiv 2105.15082.
    balance_coef, z_coef: weights of the balance penalty and of the z-loss.   bias_rate: of loss-free balancing, 0
    without (.001 in arXiv 2408.15664).   jitter: in training the gate's input is multiplied by uniform noise in 1 +-
    jitter. With `dispatch: capacity` an expert's places follow the tokens of a call, at inference too: decoding token
    by token then drops others than the whole sequence does; `grouped`, the default, drops none. leak_study: accepts
    that an output depends on later tokens, so that its loss is not that of a language model.
    """

    d_model: Count = 64
    n_layers: Count = 2
    d_head: Count = 16
    d_expert: Count = 128
    n_experts: Count = 1
    top_k: Count = 1
    router: Annotated[str, _registered(ROUTERS)] = "switch"
    dispatch: Literal["grouped", "capacity", "dense", "mixed", "soft"] = "grouped"
    capacity_factor: Positive = 1.25
    capacity_per: Literal["kx", "1x"] = "kx"
    experts: Annotated[str, _registered(EXPERTS)] = "mlp"
    dtype: Literal["float32", "bfloat16"] = "float32"
    balance_coef: NotNegative = 0.01
    z_coef: NotNegative = 0.001
    bias_rate: NotNegative = 0.0
    jitter: Annotated[Real, Field(ge=0, lt=1)] = 0.0
    leak_study: bool = False
    # routers
    renormalise: bool = True  # weights of the chosen sum to 1
    gate_transform: Literal["sigmoid", "tanh", "cos", "identity"] = "sigmoid"
    normalise_over: Literal["all", "selected"] = "all"
    route_scale: Positive = 1.0  # 2.5 in DeepSeek-V3
    n_groups: Count = 1  # of experts, of which a token may choose from `groups_kept`
    groups_kept: Count = 1
    anneal_tokens: Count = 131_072  # over which the temperature falls from tau_max to tau_min; top-1 from then on
    tau_max: Positive = 2.0
    tau_min: Positive = 0.3
    anneal: Literal["exponential", "linear"] = "exponential"
    gate_weight: Literal["softmax", "gumbel"] = "softmax"
    masked_share: Annotated[Real, Field(ge=0, lt=1)] = 0.1  # of the weights of each copy, so that copies differ
    entropy_coef: NotNegative = 0.01
    tsallis_q: Positive = 1.1
    entropy_threshold: Real = 0.9
    top_p: Share = 0.75
    nucleus: Literal["exclude", "include"] = "exclude"  # the expert whose mass crosses top_p
    gate_norm: Literal["layer", "batch"] = "layer"
    slots: Count = 1  # of an expert in a sequence
    normalise_slots: bool = True
    # experts
    n_shared: Count = 1
    rank: Count = 1
    ring_rank: Count = 4
    lora_rank: Count = 4
    dense_tokens: Whole = 65_536  # trained before there are several experts (dense-to-sparse), or on the base (lora)

    @model_validator(mode="before")
    @classmethod
    def _defaults(cls, values: Any) -> Any:
        """An active width of 2 d_model, whatever k: so k varies at fixed N_active too unless `d_expert` is given; and
        what follows from router and experts."""
        if not isinstance(values, dict):
            return values
        values = {name: value for name, value in values.items() if value is not None}
        router, experts = ROUTERS.get(values.get("router", "switch")), EXPERTS.get(values.get("experts", "mlp"))
        if router is None or experts is None:
            return values
        try:
            numbers = {name: whole(values.get(name, cls.model_fields[name].default)) for name in _NUMBERS}
        except ValueError:  # reported with its place when the field is validated
            return values
        if any(not isinstance(number, int) or number < 1 for number in numbers.values()):
            return values
        d_model, top_k, n_experts = numbers["d_model"], numbers["top_k"], numbers["n_experts"]
        active = top_k + (numbers["n_shared"] if values.get("experts") == "shared" else 0)
        width = values.setdefault("d_expert", max(1, 2 * d_model // active))
        values.setdefault("dispatch", "mixed" if experts.mixes else router.dispatches[0])
        for name, value in router.defaults.items():
            values.setdefault(name, value)
        if experts.all_active and isinstance(whole(width), int):
            rank = matched_rank(values["experts"], d_model, top_k * whole(width), n_experts, numbers["ring_rank"])
            values.setdefault("rank", rank)
        return values

    @model_validator(mode="after")
    def _consistent(self) -> ModelConfig:
        if self.d_model % self.d_head or self.d_head % 2:
            raise ValueError(f"d_model={self.d_model} must be a multiple of an even d_head={self.d_head}")
        if self.n_experts == 1:
            return self
        if self.top_k > self.n_experts:
            raise ValueError(f"top_k={self.top_k} experts per token cannot exceed n_experts={self.n_experts}")
        facts, kind = self.router_facts, self.experts_kind
        if facts.without_k and self.top_k != 1:
            raise ValueError(
                f"router={self.router} takes no top_k (arXiv {facts.source}), found top_k={self.top_k}; leave it out, "
                "or use router=topk"
            )
        if not facts.causal and not self.leak_study:
            raise ValueError(
                f"router={self.router} lets a token's output depend on later tokens (arXiv {facts.source}), so its "
                "loss is not that of a language model; to measure the leak say `leak_study: true`"
            )
        allowed = ("mixed",) if kind.mixes else facts.dispatches
        if self.dispatch not in allowed:
            raise ValueError(
                f"dispatch={self.dispatch} with router={self.router} and experts={self.experts}; allowed: "
                f"{', '.join(allowed)}"
            )
        if kind.mixes and self.router == "soft":
            raise ValueError(
                f"router=soft fills slots of experts, and experts={self.experts} has none; use mlp or shared"
            )
        if objection := facts.refuses(self):
            raise ValueError(objection)
        return self

    @property
    def n_heads(self) -> int:
        return self.d_model // self.d_head

    @property
    def router_facts(self) -> Router:
        """The registry's entry of the router."""
        return ROUTERS[self.router]

    @property
    def experts_kind(self) -> Experts:
        """The registry's entry of the form of experts."""
        return EXPERTS[self.experts]

    @property
    def dense_width(self) -> int:
        """Hidden units of the single MLP at E = 1: the active width of the routed models."""
        return (self.top_k + (self.n_shared if self.experts == "shared" else 0)) * self.d_expert

    @property
    def causal(self) -> bool:
        """Whether an output never depends on later tokens of its sequence."""
        if self.n_experts == 1:
            return True
        return self.router_facts.causal and not (self.router == "entmax" and self.gate_norm == "batch")

    @property
    def phased(self) -> bool:
        """Whether training begins with a dense model, for `dense_tokens`."""
        return self.n_experts > 1 and "dense_tokens" in (*self.router_facts.options, *self.experts_kind.options)

    def dense_steps(self, batch_tokens: int) -> int:
        """Steps of the dense model that a phased training begins with; 0 for the others."""
        return -(-self.dense_tokens // batch_tokens) if self.phased else 0

    def identity(self) -> dict[str, Any]:
        """The fields that shape a training, as plain values: those that this router and these experts do not read are
        left out. At E = 1 nothing is routed, so only the width of the MLP counts."""
        parts = self.model_dump(mode="json")
        if self.n_experts == 1:
            return {name: parts[name] for name in _DENSE} | {"d_mlp": self.dense_width}
        before = {name for name, value in _AS_BEFORE.items() if parts[name] == value}
        return {name: value for name, value in parts.items() if name in self.read - before}

    @property
    def read(self) -> set[str]:
        """The fields that this model depends on."""
        if self.n_experts == 1:
            return {*_DENSE, "top_k", "d_expert", "experts", "n_shared"}
        places = {"capacity_factor", "capacity_per"} if self.dispatch == "capacity" else set()
        return {*_ROUTED, *self.router_facts.options, *self.experts_kind.options, *places}


_NUMBERS = ("d_model", "top_k", "n_experts", "n_shared", "ring_rank")

"""The configuration of a model: a decoder-only Transformer with mixture-of-experts MLPs."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from scaling.bounds import MOST_EXPERTS
from scaling.config.fields import Count, Frozen, Real, Whole, whole
from scaling.config.registry import EXPERTS, ROUTERS, Experts, Router, matched_rank


def _registered(names: Mapping[str, Any]) -> AfterValidator:
    """Validator of a registered name. Raises ValueError with the closest one."""

    def check(name: str) -> str:
        if name not in names:
            close = difflib.get_close_matches(name.lower(), [*names], n=1, cutoff=0.6)
            hint = f"; did you mean `{close[0]}`" if close else ""
            raise ValueError(f"found {name!r}{hint}; allowed: {', '.join(names)}")
        return name

    return AfterValidator(check)


Width = Annotated[Count, Field(le=2**24)]
Inner = Annotated[Count, Field(le=2**28)]
Depth = Annotated[Count, Field(le=100_000)]
ExpertCount = Annotated[Count, Field(le=MOST_EXPERTS)]
Share = Annotated[Real, Field(ge=0, le=1)]
Positive = Annotated[Real, Field(gt=0)]
NotNegative = Annotated[Real, Field(ge=0)]


def following() -> tuple[str, ...]:
    """Fields whose default depends on others: heads, their width and groups, the expert width, and values that the
    authors of a method use."""
    by_router = sorted({name for router in ROUTERS.values() for name in router.defaults})
    return ("d_head", "n_heads", "n_kv_heads", "d_expert", "dispatch", "rank", "slots", *by_router)


# Fields of every model, and of every routed one. Of the others, a cell's identity has those that its router and experts
# use.
_DENSE = (
    "d_model", "n_layers", "n_heads", "d_head", "n_kv_heads", "n_experts", "dtype", "tie_embeddings", "parametrisation",
    "base_width",
)  # fmt: skip
_ROUTED = (*_DENSE, "d_expert", "top_k", "router", "dispatch", "experts")
# Left out of the identity at their default, so that cells from before these fields existed keep their run_id.
_AS_BEFORE = {
    "tie_embeddings": False,
    "parametrisation": "standard",
    "renormalise": True,
    "bias_rate": 0.0,
    "jitter": 0.0,
    "capacity_per": "kx",
}


class ModelConfig(Frozen):
    """A decoder-only Transformer whose MLPs are mixtures of `n_experts` gated experts, `top_k` of them per token.

    `n_experts = 1` is the dense model with one gated MLP of width `top_k * d_expert` (and that of the shared experts),
    so a grid crosses dense and routed models of one active size. Granularity is the number of experts that the dense
    width is split into: at the default width, where d_expert = 2 d_model / top_k, it is `top_k`.

    `scaling/config/registry.py` lists the fields that each router and form of experts uses.

    n_heads, d_head: heads and their width. Either follows from the other such that n_heads d_head = d_model, and heads
    are 16 wide if neither is given; where both are given, heads together may be narrower or wider than the model, and
    the product after them leads back to d_model.
    n_kv_heads: groups of heads, each with keys and values of its own: `n_heads` is multi-head attention, the default,
    fewer grouped-query attention (arXiv 2305.13245), with a cache that is smaller by n_heads / n_kv_heads.
    tie_embeddings: one matrix is embedding and head, of initial variance 1/d_model, with its rows times d_model^.5 as
    input (arXiv 1706.03762, section 3.4).
    parametrisation: `standard`, or the maximal update parametrisation `mup` from the width `base_width` on, at which
    both are the same (docs/models.md).
    capacity_per: the capacity grows with top_k (`kx`) or is that of a top-1 router (`1x`), arXiv 2105.15082.
    balance_coef, z_coef: weights of the balance penalty and the z-loss.
    bias_rate: update rate of loss-free balancing (.001 in arXiv 2408.15664); 0 turns it off.
    jitter: in training, the gate's input is multiplied by uniform noise in 1 +- jitter.
    leak_study: allow outputs to depend on later tokens; the loss is then not that of a language model.
    dispatch: with `capacity`, the capacity depends on the tokens of a call, at inference too, so decoding token by
    token drops other tokens than a pass over the whole sequence; `grouped`, the default, drops none.
    """

    d_model: Width = 64
    n_layers: Depth = 2
    d_head: Width = 16
    n_heads: Width = 4
    n_kv_heads: Width = 4
    d_expert: Inner = 128
    n_experts: ExpertCount = 1
    top_k: ExpertCount = 1
    router: Annotated[str, _registered(ROUTERS)] = "switch"
    dispatch: Literal["grouped", "capacity", "dense", "mixed", "soft"] = "grouped"
    capacity_factor: Positive = 1.25
    capacity_per: Literal["kx", "1x"] = "kx"
    experts: Annotated[str, _registered(EXPERTS)] = "mlp"
    dtype: Literal["float32", "bfloat16"] = "float32"
    tie_embeddings: bool = False
    parametrisation: Literal["standard", "mup"] = "standard"
    base_width: Width = 64
    balance_coef: NotNegative = 0.01
    z_coef: NotNegative = 0.001
    bias_rate: NotNegative = 0.0
    jitter: Annotated[Real, Field(ge=0, lt=1)] = 0.0
    leak_study: bool = False
    # routers
    renormalise: bool = True  # weights of the chosen experts sum to 1
    gate_transform: Literal["sigmoid", "tanh", "cos", "identity"] = "sigmoid"
    normalise_over: Literal["all", "selected"] = "all"
    route_scale: Positive = 1.0  # 2.5 in DeepSeek-V3
    n_groups: ExpertCount = 1  # groups of experts; a token chooses from `groups_kept` of them
    groups_kept: ExpertCount = 1
    anneal_tokens: Count = 131_072  # tokens over which the temperature falls from tau_max to tau_min; then top-1
    tau_max: Positive = 2.0
    tau_min: Positive = 0.3
    anneal: Literal["exponential", "linear"] = "exponential"
    gate_weight: Literal["softmax", "gumbel"] = "softmax"
    masked_share: Annotated[Real, Field(ge=0, lt=1)] = 0.1  # share of weights masked, so that copies differ
    entropy_coef: NotNegative = 0.01
    tsallis_q: Positive = 1.1
    entropy_threshold: Real = 0.9
    top_p: Share = 0.75
    nucleus: Literal["exclude", "include"] = "exclude"  # the expert whose mass crosses top_p
    gate_norm: Literal["layer", "batch"] = "layer"
    slots: ExpertCount = 1  # per expert and sequence
    normalise_slots: bool = True
    # experts
    n_shared: ExpertCount = 1
    rank: Inner = 1
    ring_rank: Inner = 4
    lora_rank: Inner = 4
    dense_tokens: Whole = 65_536  # trained on one expert (dense-to-sparse) or the base (lora) before there are several

    @model_validator(mode="before")
    @classmethod
    def _defaults(cls, values: Any) -> Any:
        """Fill in keys and values for every head, an active width of 2 d_model for every k, so that k varies at fixed
        N_active unless `d_expert` is given, and the defaults of router and experts."""
        if not isinstance(values, dict):
            return values
        values = {name: value for name, value in values.items() if value is not None}
        both_given = values.keys() >= {"d_head", "n_heads"}
        router, experts = ROUTERS.get(values.get("router", "switch")), EXPERTS.get(values.get("experts", "mlp"))
        if router is None or experts is None:
            return values
        try:
            values = cls._with_heads(values)
            numbers = {name: whole(values.get(name, cls.model_fields[name].default)) for name in _NUMBERS}
        except ValueError:  # validation of the field reports it
            return values
        if any(not isinstance(number, int) or number < 1 for number in numbers.values()):
            return values
        d_model, top_k, n_experts = numbers["d_model"], numbers["top_k"], numbers["n_experts"]
        if not both_given and numbers["n_heads"] * numbers["d_head"] != d_model:
            raise ValueError(
                f"d_model={d_model} must be n_heads times an even d_head; found n_heads={numbers['n_heads']}, "
                f"d_head={numbers['d_head']}; give both for heads that are together of another width"
            )
        active = top_k + (numbers["n_shared"] if values.get("experts") == "shared" else 0)
        width = values.setdefault("d_expert", max(1, 2 * d_model // active))
        values.setdefault("n_kv_heads", numbers["n_heads"])
        values.setdefault("dispatch", "mixed" if experts.mixes else router.dispatches[0])
        for name, value in router.defaults.items():
            values.setdefault(name, value)
        if experts.all_active and isinstance(whole(width), int):
            rank = matched_rank(values["experts"], d_model, top_k * whole(width), n_experts, numbers["ring_rank"])
            values.setdefault("rank", rank)
        return values

    @classmethod
    def _with_heads(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Number and width of heads, each from the other. Raises ValueError for what is no number."""
        d_model, d_head, n_heads = (
            whole(values.get(name, default))
            for name, default in (("d_model", cls.model_fields["d_model"].default), ("d_head", None), ("n_heads", None))
        )
        if not isinstance(d_model, int) or d_model < 1:
            return values
        if isinstance(n_heads, int) and n_heads > 0 and d_head is None:
            return values | {"d_head": max(1, d_model // n_heads)}
        d_head = cls.model_fields["d_head"].default if d_head is None else d_head
        if n_heads is None and isinstance(d_head, int) and d_head > 0:
            return values | {"n_heads": max(1, d_model // d_head)}
        return values

    @model_validator(mode="after")
    def _consistent(self) -> ModelConfig:
        if self.d_head % 2:
            raise ValueError(
                f"d_head must be even, because its elements are rotated in pairs; found d_model={self.d_model}, "
                f"n_heads={self.n_heads}, d_head={self.d_head}"
            )
        if self.parametrisation == "mup" and self.attention_width != self.d_model:
            raise ValueError(
                f"parametrisation=mup is derived for heads as wide together as the model: d_model={self.d_model}, "
                f"found n_heads={self.n_heads}, d_head={self.d_head}"
            )
        if self.n_heads % self.n_kv_heads:
            raise ValueError(f"n_kv_heads={self.n_kv_heads} must divide n_heads={self.n_heads}")
        if self.parametrisation == "mup" and self.n_experts > 1 and self.experts_kind.mixes:
            raise ValueError(
                f"parametrisation=mup with experts={self.experts}: its rates are derived for mlp and shared experts"
            )
        if self.n_experts == 1:
            return self
        if self.top_k > self.n_experts:
            raise ValueError(f"top_k={self.top_k} experts per token cannot exceed n_experts={self.n_experts}")
        facts, kind = self.router_facts, self.experts_kind
        if facts.without_k and self.top_k != 1:
            raise ValueError(
                f"router={self.router} takes no top_k (arXiv {facts.source}), found top_k={self.top_k}; remove it or "
                "use router=topk"
            )
        if not facts.causal and not self.leak_study:
            raise ValueError(
                f"router={self.router} lets a token's output depend on later tokens (arXiv {facts.source}), so its "
                "loss is not that of a language model; to measure the leak set `leak_study: true`"
            )
        allowed = ("mixed",) if kind.mixes else facts.dispatches
        if self.dispatch not in allowed:
            raise ValueError(
                f"dispatch={self.dispatch} with router={self.router} and experts={self.experts}; allowed: "
                f"{', '.join(allowed)}"
            )
        if kind.mixes and self.router == "soft":
            raise ValueError(
                f"router=soft fills slots of experts, but experts={self.experts} has none; use experts=mlp or shared"
            )
        if objection := facts.refuses(self):
            raise ValueError(objection)
        return self

    @property
    def width_ratio(self) -> float:
        """d_model / base_width in the maximal update parametrisation, 1 in the standard one."""
        return self.d_model / self.base_width if self.parametrisation == "mup" else 1.0

    @property
    def rate_width(self) -> int:
        """The width that the default learning rate is that of."""
        return self.base_width if self.parametrisation == "mup" else self.d_model

    @property
    def no_matter_of_speed(self) -> set[str]:
        """Fields that do not change how fast a model is, or that shapes from before they existed have not."""
        grouped = set() if self.multi_head else {"n_kv_heads"}
        grouped |= set() if self.attention_width == self.d_model else {"n_heads"}
        tied = {"tie_embeddings"} if self.tie_embeddings else set()
        return {"n_kv_heads", "tie_embeddings", "n_heads", "parametrisation", "base_width"} - grouped - tied

    @property
    def attention_width(self) -> int:
        """Width of all heads together: d_model, unless both their number and their width were given."""
        return self.n_heads * self.d_head

    @property
    def multi_head(self) -> bool:
        """Whether every head has keys and values of its own."""
        return self.n_kv_heads == self.n_heads

    @property
    def router_facts(self) -> Router:
        """The router's entry in the registry."""
        return ROUTERS[self.router]

    @property
    def experts_kind(self) -> Experts:
        """The entry in the registry of the form of experts."""
        return EXPERTS[self.experts]

    @property
    def dense_width(self) -> int:
        """Hidden units of the single MLP at E = 1, equal to the active width of the routed models."""
        return self.top_k * self.d_expert + self.shared_width

    @property
    def shared_width(self) -> int:
        """Hidden units of the shared experts together."""
        return self.n_shared * self.d_expert if self.experts == "shared" else 0

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
        """Steps of the dense model that a phased training begins with, else 0."""
        return -(-self.dense_tokens // batch_tokens) if self.phased else 0

    def identity(self) -> dict[str, Any]:
        """The fields that shape a training, without those that router and experts do not use. At E = 1 nothing is
        routed, so only the width of the MLP counts."""
        parts = self.model_dump(mode="json")
        as_before = {**_AS_BEFORE, "n_kv_heads": self.n_heads}
        before = {name for name, value in as_before.items() if parts[name] == value}
        if self.attention_width == self.d_model:
            before.add("n_heads")  # d_model / d_head
        if self.parametrisation == "standard":
            before.add("base_width")
        if self.n_experts == 1:
            return {name: parts[name] for name in _DENSE if name not in before} | {"d_mlp": self.dense_width}
        kept = self.read - before
        return {name: value for name, value in parts.items() if name in kept}

    @property
    def read(self) -> set[str]:
        """Names of the fields that this model depends on."""
        if self.n_experts == 1:
            return {*_DENSE, "n_heads", "top_k", "d_expert", "experts", "n_shared"}
        places = {"capacity_factor", "capacity_per"} if self.dispatch == "capacity" else set()
        return {*_ROUTED, "n_heads", *self.router_facts.options, *self.experts_kind.options, *places}


_NUMBERS = ("d_model", "n_heads", "d_head", "top_k", "n_experts", "n_shared", "ring_rank")

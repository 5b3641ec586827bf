"""The registry of methods: every router and form of experts with its source, options and counts.

Their equations are in `scaling/model/moe/`; this module does not need JAX. A new router is one file in
`scaling/model/moe/routers/` and one line in `ROUTERS`. Other distributions register theirs with entry points of the
groups `scaling.routers` and `scaling.experts`.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from scaling.config import chance_levels
from scaling.distribution import Registry


class LayerSettings(Protocol):
    """The fields of `scaling.config.model.ModelConfig` that the registry uses."""

    d_model: int
    d_expert: int
    n_experts: int
    top_k: int
    experts: str
    n_groups: int
    groups_kept: int
    anneal_tokens: int
    tau_max: float
    tau_min: float
    tsallis_q: float
    entropy_threshold: float
    top_p: float
    leak_study: bool
    normalise_slots: bool
    slots: int
    n_shared: int
    rank: int
    ring_rank: int
    lora_rank: int
    dense_tokens: int

    @property
    def normalise_over(self) -> str: ...
    @property
    def nucleus(self) -> str: ...
    @property
    def anneal(self) -> str: ...
    @property
    def gate_norm(self) -> str: ...


PENALTIES = ("balance_coef", "z_coef")
TOKEN_CHOICE = (*PENALTIES, "bias_rate", "jitter")
SPARSE = ("grouped", "capacity", "dense")  # dispatches of routers that choose exactly top_k experts
ANY_NUMBER = ("grouped", "dense")  # dispatches of routers that choose any number
LEAK = ("leak_study",)


@dataclass(frozen=True)
class Router:
    """A router: its class, its paper, and what configurations, costs and plans need to know of it.

    place: `module.Class` under scaling.model.moe.routers, or `module:Class` elsewhere.
    source: arXiv number of the paper.
    options: fields of the model that it uses; a cell's identity has no others.
    defaults: the authors' values, used in place of ours for fields that the grid does not set.
    causal: whether an output never depends on later tokens of its sequence.
    dispatches: the dispatches it supports, the default first.
    without_k: it chooses one expert or any number, so it takes no top_k.
    parameters: number of parameters in one layer.
    experts_per_token: expected number at inference.
    training_experts_per_token: expected mean over a training of the given number of tokens.
    varies: whether the router decides the number, so that a run's counts use the measured one.
    refuses: why a configuration does not suit it, or "".
    """

    place: str
    source: str
    options: tuple[str, ...] = TOKEN_CHOICE
    defaults: Mapping[str, Any] = field(default_factory=dict)
    causal: bool = True
    dispatches: tuple[str, ...] = SPARSE
    without_k: bool = False
    parameters: Callable[[LayerSettings], int] = lambda model: model.d_model * model.n_experts
    experts_per_token: Callable[[LayerSettings], float] = lambda model: model.top_k
    training_experts_per_token: Callable[[LayerSettings, int], float] | None = None
    varies: bool = False
    refuses: Callable[[LayerSettings], str] = lambda model: ""

    def load(self) -> Any:
        """The class; imports JAX."""
        return _resolved(self.place, "scaling.model.moe.routers")


@dataclass(frozen=True)
class Experts:
    """A form of experts: its function, its paper, and its parameters in one layer.

    place: `module.function` under scaling.model.moe, or `module:function` elsewhere.
    sizes: parameters (used by every token, of one expert); None for gated MLPs, which the architecture counts.
    mixes: the gate mixes weights instead of outputs (dispatch `mixed`).
    all_active: every expert enters every product, whatever the gate chooses.
    products: multiply-adds per token in products without weights.
    frozen_base: everything but routers and experts is frozen after `dense_tokens`.
    """

    place: str
    source: str
    sizes: Callable[[LayerSettings], tuple[int, int]] | None = None
    options: tuple[str, ...] = ()
    mixes: bool = False
    all_active: bool = False
    products: Callable[[LayerSettings], int] = lambda model: 0
    frozen_base: bool = False

    def load(self) -> Any:
        """The function; imports JAX."""
        return _resolved(self.place, "scaling.model.moe")


def _resolved(place: str, ours: str) -> Any:
    return pkgutil.resolve_name(place if ":" in place else f"{ours}.{place}")


# ------------------------------------------------------------------------------------------------------- routers


def _groups(model: LayerSettings) -> str:
    settings = f"n_experts={model.n_experts}, n_groups={model.n_groups}, groups_kept={model.groups_kept}"
    if model.n_experts % model.n_groups or model.groups_kept > model.n_groups:
        return f"{settings}: n_groups must divide n_experts, and groups_kept must be at most n_groups"
    if model.top_k * model.n_groups > model.groups_kept * model.n_experts:
        return f"{settings}: the kept groups have fewer than top_k={model.top_k} experts"
    if model.normalise_over == "selected" and model.top_k == 1:
        return "normalise_over=selected with top_k=1 makes the weight constant, so the router gets no gradient; use all"
    return ""


def _prototypes(model: LayerSettings) -> str:
    if model.n_experts % model.top_k:
        return f"router=prototype has top_k={model.top_k} groups, which must divide n_experts={model.n_experts}"
    return ""


def _own_experts(model: LayerSettings) -> str:
    if EXPERTS[model.experts].mixes:
        return f"router=dense-to-sparse copies one expert, but experts={model.experts} has no separate experts"
    if model.tau_min > model.tau_max:
        return f"tau_min={model.tau_min:g} must not exceed tau_max={model.tau_max:g}"
    return ""


def _norm(model: LayerSettings) -> str:
    if model.gate_norm == "batch" and not model.leak_study:
        return "gate_norm=batch mixes all tokens of a batch, including later ones; use layer or set leak_study: true"
    return ""


def _tsallis(model: LayerSettings) -> float:
    return chance_levels.entropy_or_top_p(
        model.n_experts, model.top_k, model.tsallis_q, model.entropy_threshold, model.top_p, model.nucleus == "include"
    )


def _annealed(model: LayerSettings, tokens: int) -> float:
    dense, anneal = min(model.dense_tokens, tokens), max(0, min(model.anneal_tokens, tokens - model.dense_tokens))
    active = chance_levels.dense_to_sparse(
        model.n_experts, model.tau_max, model.tau_min, model.anneal, anneal / model.anneal_tokens
    )
    return (dense + anneal * active + tokens - dense - anneal) / tokens


def _slots(model: LayerSettings) -> int:
    """Phi of soft MoE, and the scale of its normalised form."""
    return model.d_model * model.n_experts * model.slots + int(model.normalise_slots)


ROUTERS = Registry("scaling.routers", Router, {
    "switch": Router("token_choice.Switch", "2101.03961", without_k=True),
    "topk": Router("token_choice.TopK", "2401.04088", options=(*TOKEN_CHOICE, "renormalise")),
    "bounded": Router("token_choice.Bounded", "2310.14188", options=(*TOKEN_CHOICE, "renormalise", "gate_transform")),
    "prototype": Router("prototype.Prototype", "2105.15082", refuses=_prototypes),
    "sigmoid": Router(
        "sigmoid.Sigmoid", "2505.10860",
        options=(*TOKEN_CHOICE, "normalise_over", "route_scale", "n_groups", "groups_kept"), refuses=_groups,
    ),
    "hash": Router("fixed.Hash", "2106.04426", options=(), parameters=lambda model: 0),
    "random": Router("fixed.Random", "2106.04426", options=(), parameters=lambda model: 0),
    "dense-to-sparse": Router(
        "dense_to_sparse.DenseToSparse", "2112.14397", dispatches=ANY_NUMBER, without_k=True, varies=True,
        options=(
            *PENALTIES, "dense_tokens", "anneal_tokens", "tau_max", "tau_min", "anneal", "gate_weight", "masked_share"
        ),
        training_experts_per_token=_annealed, refuses=_own_experts,
    ),
    "tsallis": Router(
        "tsallis.Tsallis", "2504.00661", dispatches=ANY_NUMBER, varies=True, defaults={"balance_coef": 0.001},
        options=(*PENALTIES, "entropy_coef", "tsallis_q", "entropy_threshold", "top_p", "nucleus"),
        experts_per_token=_tsallis,
    ),
    "entmax": Router(
        "entmax.Entmax", "2402.12550", dispatches=ANY_NUMBER, without_k=True, varies=True,
        defaults={"balance_coef": 0.0, "z_coef": 0.0}, options=(*PENALTIES, "gate_norm", "leak_study"),
        experts_per_token=lambda model: model.n_experts, refuses=_norm,
    ),
    "expert-choice": Router(
        "expert_choice.ExpertChoice", "2202.09368", options=LEAK, causal=False, dispatches=ANY_NUMBER
    ),
    "base": Router("base_layers.Base", "2103.16716", options=LEAK, causal=False, without_k=True),
    "soft": Router(
        "soft.Soft", "2308.00951", options=(*LEAK, "slots", "normalise_slots"), causal=False, dispatches=("soft",),
        parameters=_slots,
    ),
})  # fmt: skip


# ------------------------------------------------------------------------------------------------------- experts


def _cp(model: LayerSettings) -> tuple[int, int]:
    d, hidden = model.d_model, model.top_k * model.d_expert
    return model.rank * (2 * d + 2 * hidden + 2), 2 * model.rank


def _ring(model: LayerSettings) -> tuple[int, int]:
    d, hidden, r = model.d_model, model.top_k * model.d_expert, model.ring_rank
    return r * model.rank * (2 * d + 2 * hidden + 2), 2 * r * r


def _lora(model: LayerSettings) -> tuple[int, int]:
    d, hidden = model.d_model, model.top_k * model.d_expert
    return 3 * d * hidden, 3 * model.lora_rank * (d + hidden)


EXPERTS = Registry("scaling.experts", Experts, {
    "mlp": Experts("experts.mlp", "2002.05202"),
    "shared": Experts("experts.shared", "2401.06066", options=("n_shared",)),
    "cp": Experts("factorised.cp", "2402.12550", _cp, options=("rank",), mixes=True, all_active=True),
    "ring": Experts(
        "factorised.ring", "2402.12550", _ring, options=("rank", "ring_rank"), mixes=True, all_active=True,
        products=lambda model: 2 * model.ring_rank**2 * model.rank,
    ),
    "lora": Experts("lora.lora", "2504.00661", _lora, ("lora_rank", "dense_tokens"), mixes=True, frozen_base=True),
})  # fmt: skip


def matched_rank(experts: str, d_model: int, hidden: int, n_experts: int, ring_rank: int) -> int:
    """The largest rank at which a factorised layer, gate included, has no more parameters than the dense gated MLP.

    arXiv 2402.12550 matches parameters in the same way, but to an MLP with one matrix into the hidden units instead of
    two.
    """
    budget = 3 * d_model * hidden - d_model * n_experts
    per_rank = 2 * (d_model + hidden + 1)
    if experts == "cp":
        return max(1, budget // (per_rank + 2 * n_experts))
    return max(1, (budget - 2 * ring_rank**2 * n_experts) // (ring_rank * per_rank))

"""The arms of a comparison: the penultimate layer of a Q-network, with its parameters and FLOPs.

Axes: T tokens of width D, E experts of F hidden units, P slots of an expert, A actions. A network is

    3 x 3 convolution (VALID, stride 1), layer norm, ReLU -> the layer of the arm -> linear head

and the convolution's output, 8 x 8 places of `d_conv` features, is what the layer reads: flattened, or as tokens.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal, get_args

from scaling.expert_rows import capacity_rows
from scaling.tasks.rl.games import SIDE, Game

ArmName = Literal[
    "dense", "dense-wide", "dense-matched", "tokens-flat", "tokens-sum", "tokens-mean", "soft", "soft-one-wide",
    "soft-shuffled", "soft-random", "soft-uniform", "top1", "top1-dropless",
]  # fmt: skip
Tokenisation = Literal["per-conv", "per-feat", "per-sample"]
ARMS: tuple[ArmName, ...] = get_args(ArmName)
WITHOUT_TOKENS = ("dense", "dense-wide", "dense-matched")
WITHOUT_EXPERTS = ("dense", "tokens-flat", "tokens-sum", "tokens-mean")
"""Arms whose layer is the same whatever the number of experts of the arms that they are compared with."""
KERNEL = 3
PLACES = (SIDE - KERNEL + 1) ** 2  # 8 x 8


@dataclass(frozen=True)
class Layer:
    """The penultimate layer.

    form: `dense` (flatten, linear, layer norm, ReLU), `tokens` (one expert on each token), `slots` (Soft MoE), `top1`.
    tokens, width: T and D; 1 and the flattened width where the layer does not tokenise.
    hidden: F.   slots: P, of `slots` and of `top1` with a capacity; 0 for dropless.
    pool: what the head reads of tokens: all of them flattened, their sum or their mean.
    phi: how slots are filled: by learned logits, by frozen random ones, or uniformly.
    shuffled: whether the entries of all tokens are permuted together first, which leaves no token whole.
    by_feature: whether a token is a feature map and not a place.
    """

    form: Literal["dense", "tokens", "slots", "top1"]
    tokens: int
    width: int
    n_experts: int
    hidden: int
    slots: int = 0
    pool: Literal["flatten", "sum", "mean"] = "flatten"
    phi: Literal["learned", "random", "uniform"] = "learned"
    shuffled: bool = False
    by_feature: bool = False

    @property
    def features(self) -> int:
        """The numbers that the head reads."""
        if self.form == "dense":
            return self.hidden
        return self.tokens * self.width if self.pool == "flatten" else self.width

    @property
    def rows(self) -> int:
        """Rows of one observation that an expert computes at most."""
        return self.slots or self.tokens


def layer_of(
    arm: str, n_experts: int, d_expert: int, d_conv: int, tokenisation: str, capacity_factor: float, actions: int
) -> Layer:
    """The layer of an arm. Arms without experts do not depend on `n_experts`; of the others

    * `dense-wide` has E times the hidden units of `dense`; `dense-matched` those with which its parameters, head and
      router included, come closest to the parameters of `soft`;
    * `soft-one-wide` is one expert with E times the hidden units, all tokens being its slots;
    * `soft`, `soft-shuffled`, `soft-random` and `soft-uniform` have P = ceil(T / E) slots (arXiv 2402.08609), and
      `top1` a capacity of ceil(factor T / E) tokens of one observation.
    """
    if arm in WITHOUT_TOKENS:
        flat = Layer("dense", 1, PLACES * d_conv, 1, d_expert * (n_experts if arm == "dense-wide" else 1))
        if arm != "dense-matched":
            return flat
        target = layer_of("soft", n_experts, d_expert, d_conv, tokenisation, capacity_factor, actions)
        own = flat.width + 3 + actions  # of a hidden unit: weights in, bias, layer norm, weights out
        wanted = layer_parameters(target) + router_parameters(target) + head_parameters(target, actions) - actions
        return replace(flat, hidden=max(1, round(wanted / own)))
    tokens, width = {
        "per-conv": (PLACES, d_conv),
        "per-feat": (d_conv, PLACES),
        "per-sample": (1, PLACES * d_conv),
    }[tokenisation]
    by_feature = tokenisation == "per-feat"
    one = Layer("tokens", tokens, width, 1, d_expert, by_feature=by_feature)
    soft = replace(one, form="slots", n_experts=n_experts, slots=math.ceil(tokens / n_experts))
    layers = {
        "tokens-flat": one,
        "tokens-sum": replace(one, pool="sum"),
        "tokens-mean": replace(one, pool="mean"),
        "soft-one-wide": replace(one, form="slots", hidden=d_expert * n_experts, slots=tokens),
        "soft": soft,
        "soft-shuffled": replace(soft, shuffled=True),
        "soft-random": replace(soft, phi="random"),
        "soft-uniform": replace(soft, phi="uniform"),
        "top1": replace(soft, form="top1", slots=capacity_rows(tokens, 1, n_experts, capacity_factor)),
        "top1-dropless": replace(soft, form="top1", slots=0),
    }
    return layers[arm]


def layer_parameters(layer: Layer, *, normalised: bool = True) -> int:
    """Weights and biases of the layer without its router: I F + F for dense, E (2 D F + F + D) for experts
    (arXiv 2402.08609), and 2 F more for each layer norm (`normalised`), which a PQN has and a DQN has not."""
    norm = 2 * layer.hidden if normalised else 0
    if layer.form == "dense":
        return layer.width * layer.hidden + layer.hidden + norm
    return layer.n_experts * (2 * layer.width * layer.hidden + layer.hidden + layer.width + norm)


def router_parameters(layer: Layer) -> int:
    """D E P of Soft MoE's Phi, learned or frozen; D E of a top-1 router, which has no bias; else 0."""
    if layer.form == "top1":
        return layer.width * layer.n_experts
    return layer.width * layer.n_experts * layer.slots if layer.form == "slots" and layer.phi != "uniform" else 0


def head_parameters(layer: Layer, actions: int) -> int:
    """H A + A for the H numbers that the head reads."""
    return layer.features * actions + actions


def encoder_parameters(channels: int, d_conv: int) -> int:
    """The convolution with its bias and its layer norm."""
    return KERNEL**2 * channels * d_conv + 3 * d_conv


def n_parameters(layer: Layer, game: Game, d_conv: int) -> int:
    """All parameters of a network, its router included."""
    parts = (layer_parameters(layer), router_parameters(layer), head_parameters(layer, game.actions))
    return encoder_parameters(game.channels, d_conv) + sum(parts)


def encoder_flops(channels: int, d_conv: int) -> int:
    """FLOPs of the convolution of one observation, a product counting two."""
    return 2 * PLACES * KERNEL**2 * channels * d_conv


def forward_flops(layer: Layer, game: Game, d_conv: int) -> int:
    """FLOPs of the matrix products of one observation's forward pass.

    Soft MoE pays 6 T D E P for logits, dispatch and combine; top-1 with a capacity 2 T D E for its logits and 4 T D E P
    for moving tokens by products with 0 and 1, and dropless top-1 only its logits. Elementwise work is not counted.
    """
    tokens, rows = layer.tokens * layer.width, layer.n_experts * layer.slots
    experts = 4 * layer.width * layer.hidden
    match layer.form:
        case "dense":
            inside = 2 * layer.width * layer.hidden
        case "tokens":
            inside = layer.tokens * experts
        case "slots":
            inside = (4 if layer.phi == "uniform" else 6) * tokens * rows + rows * experts
        case "top1":
            moved = (4 * tokens * rows + rows * experts) if layer.slots else layer.tokens * experts
            inside = 2 * tokens * layer.n_experts + moved
    return encoder_flops(game.channels, d_conv) + inside + 2 * layer.features * game.actions

"""Towers: the networks of an actor and of a critic, with the places of their experts, parameters and FLOPs.

Axes: I inputs, H hidden units, O outputs, E experts. Without experts a tower is

    linear I -> H, ReLU -> linear H -> H, ReLU -> linear H -> O

as in PureJaxRL (github.com/luchris429/purejaxrl), and actor and critic share nothing. The places of experts are those
of arXiv 2406.18420: the penultimate layer (`middle`), the last one (`final`), every layer (`all`), or one mixture of
whole towers (`big`).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

from scaling.tasks.rl.games import GAMES, SIDE

Place = Literal["none", "wide", "matched", "middle", "final", "all", "big"]
Router = Literal["soft", "top-k", "hard"]
DENSE = ("none", "wide", "matched")
CHANNELS = max(game.channels for game in GAMES.values())  # 10, for which every network has weights
ACTIONS = max(game.actions for game in GAMES.values())  # 6, of which a game allows its own
INPUTS = SIDE * SIDE * CHANNELS
LAYERS = 3
_ROUTED: dict[str, tuple[int, ...]] = {"middle": (1,), "final": (2,), "all": (0, 1, 2)}


@dataclass(frozen=True)
class Linear:
    """One linear layer. copies: weights of so many experts.   routed: whether their outputs are mixed right behind it,
    and not behind the last layer."""

    inputs: int
    outputs: int
    copies: int
    routed: bool


@dataclass(frozen=True)
class Tower:
    """A tower. place: of its experts, `none` for a dense one.   top_k: experts of an observation, for `top-k` alone."""

    place: Literal["none", "middle", "final", "all", "big"]
    router: Router
    n_experts: int
    top_k: int
    hidden: int
    outputs: int

    @property
    def layers(self) -> tuple[Linear, ...]:
        """Its linear layers in order."""
        widths = (INPUTS, *(LAYERS - 1) * (self.hidden,), self.outputs)
        routed = _ROUTED.get(self.place, ())
        return tuple(
            Linear(inputs, outputs, self._copies(number in routed), number in routed)
            for number, (inputs, outputs) in enumerate(itertools.pairwise(widths))
        )

    @property
    def routers(self) -> tuple[int, ...]:
        """The layers whose inputs a router reads; that of `big` reads the observation."""
        return (0,) if self.place == "big" else _ROUTED.get(self.place, ())

    @property
    def chosen(self) -> int:
        """Experts that an observation needs."""
        return {"soft": self.n_experts, "top-k": self.top_k, "hard": 1}[self.router]

    def _copies(self, is_routed: bool) -> int:
        return self.n_experts if is_routed or self.place == "big" else 1


def channels_of(games: Iterable[str]) -> int:
    """Channels of the observations of games that are played at once."""
    return max(GAMES[game].channels for game in games)


def tower_of(place: str, router: Router, n_experts: int, top_k: int, d_hidden: int, outputs: int) -> Tower:
    """The tower of a place. `wide` is dense with E times the hidden units; `matched` is dense with the units that bring
    its parameters closest to those of `big` with a learned router."""
    tower = Tower("none", "soft", 1, 1, d_hidden, outputs)
    if place == "wide":
        return replace(tower, hidden=n_experts * d_hidden)
    if place == "matched":
        wanted = parameters(Tower("big", "soft", n_experts, 1, d_hidden, outputs))
        widths = range(1, n_experts * (d_hidden + 1) + 2)  # E more than `wide` outweigh the router
        return min((replace(tower, hidden=width) for width in widths), key=lambda one: abs(parameters(one) - wanted))
    if place == "none":
        return tower
    return Tower(place, router, n_experts, top_k, d_hidden, outputs)  # type: ignore[arg-type]


def parameters(tower: Tower) -> int:
    """Weights and biases of all experts, and the I E weights of each learned router, which has no bias."""
    linear = sum(layer.copies * (layer.inputs + 1) * layer.outputs for layer in tower.layers)
    routers = sum(tower.layers[number].inputs * tower.n_experts for number in tower.routers)
    return linear + (0 if tower.router == "hard" else routers)


def forward_flops(tower: Tower, channels: int, *, needed: bool = False) -> int:
    """FLOPs of the matrix products of one observation's forward pass, a product counting two.

    channels: of the observation; weights of further channels are not multiplied. As computed, every expert reads every
    observation; `needed`: only the experts that it is routed to.
    """
    return sum(_layer_flops(tower, number, channels, needed) for number in range(LAYERS))


def input_flops(tower: Tower, channels: int) -> int:
    """The part of it that reads the observation, of which no gradient is taken."""
    return _layer_flops(tower, 0, channels, False)


def _layer_flops(tower: Tower, number: int, channels: int, needed: bool) -> int:
    """Of one layer and of the router that reads what it reads."""
    layer = tower.layers[number]
    inputs = layer.inputs if number else SIDE * SIDE * channels
    copies = min(layer.copies, tower.chosen) if needed else layer.copies
    routed = tower.n_experts if number in tower.routers and tower.router != "hard" else 0
    return 2 * inputs * (copies * layer.outputs + routed)

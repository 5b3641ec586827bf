"""One gradient step on texts of which some words are to be predicted, with the project's model, optimiser and routers.

Axes: B texts of T words, L layers, E experts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from scaling.config.model import ModelConfig
from scaling.config.training import TrainConfig
from scaling.model.moe import routing
from scaling.model.moe.routing import TrainingStep
from scaling.model.transformer import Transformer, apply, rebalanced
from scaling.tasks.world.vocabulary import WORDS
from scaling.training.optimiser import optimiser
from scaling.training.step import State, token_losses

REPORTED = ("loss", "utilisation")


@dataclass(frozen=True)
class Learning:
    """(state, texts [B, T], weights [B, T], rate) -> (state, [loss, utilisation of experts]).

    The loss is the mean over the words of a weight above 0 of the cross-entropy with which all words before them
    predict them; penalties of the router are added to what is descended and not to what is reported.
    """

    model: ModelConfig
    train: TrainConfig
    kernel: str

    @property
    def network(self) -> Transformer:
        """The model that learns."""
        return Transformer(self.model, len(WORDS), self.kernel)

    def __call__(
        self, state: State, text_BxT: jax.Array, weight_BxT: jax.Array, rate: jax.Array
    ) -> tuple[State, jax.Array]:
        fixed = {name: tree for name, tree in state.params.items() if name != "params"}
        weights = state.params["params"]
        step = TrainingStep(
            state.moments[0].count, jax.random.wrap_key_data(state.key), jnp.arange(len(text_BxT)),
            self.train.batch_tokens,
        )  # fmt: skip

        def objective(weights: Any) -> tuple[jax.Array, Any]:
            output = apply(self.network, {"params": weights, **fixed}, text_BxT[:, :-1], training=step)
            losses = token_losses(output.logits_BxTxV, text_BxT[:, 1:])
            loss = jnp.sum(losses * weight_BxT[:, 1:]) / jnp.sum(weight_BxT[:, 1:])
            if not output.routings:
                return loss, (jnp.stack([loss, jnp.float32(jnp.nan)]), None)
            assigned_LxE, metrics_L = routing.metrics_of_layers(output.routings)
            mean = {name: jnp.mean(jnp.stack([layer[name] for layer in metrics_L])) for name in routing.METRICS}
            penalty = self.model.balance_coef * mean["balance_loss"] + self.model.z_coef * mean["z_loss"]
            penalty = penalty + sum(layer.penalty for layer in output.routings) / len(output.routings)
            return loss + penalty, (jnp.stack([loss, mean["utilisation"]]), assigned_LxE)

        gradients, (reported, assigned_LxE) = jax.grad(objective, has_aux=True)(weights)
        norm = jnp.sqrt(sum(jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(gradients)))
        clip = jnp.minimum(1.0, self.train.grad_clip / norm)
        updates, moments = optimiser(self.train, self.model).update(
            jax.tree.map(lambda g: g * clip, gradients), state.moments, weights
        )
        weights = jax.tree.map(lambda p, u: p - rate * u, weights, updates)
        params = rebalanced(self.model, {**state.params, "params": weights}, assigned_LxE)
        return State(params, moments, state.key), reported


def rate_of(update: int, updates: int, peak: float) -> float:
    """The learning rate of update number `update` (from 0) of `updates`: linear warm-up over the first twentieth,
    then constant, then linear to near 0 over the last three tenths."""
    warm, cool = max(1, updates // 20), max(1, round(0.3 * updates))
    return peak * min(1.0, (update + 1) / warm, (updates - update) / (cool + 1))

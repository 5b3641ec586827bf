"""How far activations move in the first steps of a training: the coordinate check of arXiv 2203.03466, appendix D.1."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from scaling.config.model import ModelConfig
from scaling.config.training import TrainConfig
from scaling.model.transformer import Block, Transformer
from scaling.training.step import StepFunction, first_state

VOCAB, STEPS = 31, 4


def moved(model: ModelConfig, rate: float, seeds: int = 3) -> dict[str, float]:
    """Root mean square change of logits, of each block's output and of router logits after some steps, over seeds."""
    train = TrainConfig(batch_tokens=128, seq_len=16, warmup_tokens=0, weight_decay=0.0, lr=rate)
    first = jax.jit(lambda key: first_state(model, VOCAB, train, key))
    step = jax.jit(StepFunction(model, VOCAB, train))
    batch = jnp.asarray(np.random.default_rng(0).integers(0, VOCAB, (8, 17)), jnp.int32)
    network = Transformer(model, VOCAB)

    @jax.jit
    def activations(params):
        output, captured = network.apply(
            params, batch[:, :-1], capture_intermediates=lambda module, _: isinstance(module, Block),
            mutable=["intermediates"],
        )  # fmt: skip
        blocks = {name: found["__call__"][0][0] for name, found in captured["intermediates"].items()}
        routers = {f"router_{n}": routing.logits_TxE for n, routing in enumerate(output.routings)}
        return {"logits": output.logits_BxTxV, **blocks, **routers}

    changes: dict[str, list[float]] = {}
    for seed in range(seeds):
        state = first(jax.random.key(seed))
        before = activations(state.params)
        for _ in range(STEPS):
            state, _ = step(state, batch, np.float32(rate))
        after = activations(state.params)
        for name, value in before.items():
            changes.setdefault(name, []).append(float(jnp.sqrt(jnp.mean(jnp.square(after[name] - value)))))
    return {name: float(np.mean(values)) for name, values in changes.items()}

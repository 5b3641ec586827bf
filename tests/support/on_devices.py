"""Steps on several devices of one host against one. A process of its own: the number of devices is set at its start."""

import os
import sys

os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"

import jax
import numpy as np

from scaling.config.optimisers import OPTIMISERS
from scaling.config.run import RunConfig
from scaling.config.training import TrainConfig
from scaling.data.batches import EvalWindows
from scaling.model.sharding import placement_of
from scaling.training.evaluate import LossFunction, evaluate, losses_program
from scaling.training.program import Program
from scaling.training.step import StepFunction, metric_names

VOCAB, STEPS, RATE = 19, 4, 1e-3
SHAPE = {"d_model": 8, "d_head": 8, "n_layers": 1, "d_expert": 4}
ROUTED = {**SHAPE, "top_k": 2, "router": "topk"}
CASES = {
    "dense": (SHAPE, {2: (2, 1), 8: (8, 1)}),
    "experts": ({**ROUTED, "n_experts": 4}, {2: (1, 2), 4: (1, 4), 8: (2, 4)}),
    "experts on each": ({**ROUTED, "n_experts": 4}, {2: (2, 1)}),
    "do not divide": ({**ROUTED, "n_experts": 3}, {2: (2, 1)}),
    "capacity": ({**ROUTED, "n_experts": 4, "dispatch": "capacity", "capacity_factor": 0.75}, {4: (4, 1)}),
    # Noise follows the sequence, a bias the loads of all, a group is a sequence: nothing depends on the number of
    # devices.
    "random": ({**ROUTED, "n_experts": 4, "router": "random"}, {2: (1, 2)}),
    "bias": ({**ROUTED, "n_experts": 4, "bias_rate": 0.01, "balance_coef": 0}, {4: (1, 4)}),
    "annealed": (
        {
            **SHAPE,
            "n_experts": 4,
            "router": "dense-to-sparse",
            "dense_tokens": 64,
            "anneal_tokens": 500,
            "tau_min": 0.3,
        },
        {4: (1, 4)},
    ),
    "tsallis": ({**ROUTED, "n_experts": 4, "router": "tsallis", "balance_coef": 0.1}, {4: (1, 4)}),
    "factorised": ({**SHAPE, "n_experts": 4, "router": "entmax", "experts": "cp"}, {2: (2, 1)}),
    "soft": ({**ROUTED, "n_experts": 4, "router": "soft", "slots": 4, "leak_study": True}, {2: (2, 1)}),
    "expert choice": ({**ROUTED, "n_experts": 4, "router": "expert-choice", "leak_study": True}, {4: (1, 4)}),
    "muon": ({**ROUTED, "n_experts": 4}, {4: (1, 4)}),
    "adafactor": ({**ROUTED, "n_experts": 4}, {4: (1, 4)}),
    "reference": ({**ROUTED, "n_experts": 4, "dispatch": "dense"}, {4: (4, 1)}),
}


def run(config, devices):
    model, where = config.model, placement_of(config, len(devices))
    kernel = "loop" if model.dispatch == "grouped" and model.n_experts > 1 else ""
    function = StepFunction(model, VOCAB, config.train, separator=VOCAB - 1, kernel=kernel, placement=where)
    program = Program(function, devices)
    state, metrics = program.first([0]), []
    rng = np.random.default_rng(0)
    for _ in range(STEPS):
        batch = rng.integers(0, VOCAB - 1, (8, 9)).astype(np.int32)
        batch[:5, 6:] = VOCAB - 1  # unequal shares of padding on the devices
        state, reported = program.step(state, batch, np.float32(RATE))
        metrics.append(np.asarray(reported))
    windows = EvalWindows(
        rng.integers(0, VOCAB, (11, 9)).astype(np.int32), np.ones((11, 8), np.float32), np.ones((11, 8), np.int64),
        np.arange(11) // 2, tuple("abcdef"),
    )  # fmt: skip
    forward = losses_program(LossFunction(model, VOCAB, kernel, where), tuple(devices), (8, 9))
    held_out = evaluate(state.params, forward, windows, 8, np.arange(VOCAB) % 3, lambda k: {})
    return np.stack(metrics), jax.tree.map(np.asarray, state.params), held_out


def compare(name, count):
    model, counts = CASES[name]
    other = {"optimiser": name, "lr": RATE} if name in OPTIMISERS else {}
    train = TrainConfig(batch_tokens=64, seq_len=8, warmup_tokens=0, **other)
    config = RunConfig(model=model, train=train, resources={"expert_parallel": name != "experts on each"})
    one, weights, alone = run(config, jax.devices()[:1])
    where = placement_of(config, count)
    assert (where.data, where.expert) == counts[count], (name, count, where)
    many, spread, together = run(config, jax.devices()[:count])
    # Sums over devices are taken in another order: a few units in the last place of a float32, which four steps of Adam
    # carry on.
    np.testing.assert_allclose(many, one, rtol=1e-4, atol=1e-6, err_msg=f"{name} on {count}")
    for a, b in zip(jax.tree.leaves(spread), jax.tree.leaves(weights), strict=True):
        # Where a gradient is nearly zero rounding can turn its sign: then Adam's step differs by its size, elsewhere
        # not by a hundredth of it.
        assert np.mean(np.abs(a - b) > 0.01 * RATE) < 0.01, (name, count)
        assert np.max(np.abs(a - b)) <= 2 * STEPS * RATE, (name, count)
    assert abs(together.loss - alone.loss) < 1e-4 * alone.loss, (name, count)
    for key, value in alone.routing.items():
        assert abs(together.routing[key] - value) < 1e-4 * (1 + value), (name, count, key)
    if config.model.dispatch == "capacity":  # something is dropped
        assert np.all(one[:, metric_names(config.model).index("dropped_frac")] > 0)
    print(name, "on", count, "as", counts[count], "ok", flush=True)


if __name__ == "__main__":
    for case in sys.argv[1:]:
        name, count = case.split(":")
        compare(name, int(count))

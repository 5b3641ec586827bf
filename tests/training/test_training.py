"""The training loop: schedule, determinism, divergence, rows, and evaluation compared with direct sums."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from scaling import data
from scaling.clustered_mean import clustered_mean
from scaling.config.run import RunConfig
from scaling.config.training import TrainConfig
from scaling.data import tokenizer
from scaling.data.batches import EvalWindows, TrainBatches, eval_windows
from scaling.model.transformer import Transformer
from scaling.schema import CHANCES, to_arrow
from scaling.training import language_model
from scaling.training.evaluate import HeldOutRouting, LossFunction, evaluate, losses_program
from scaling.training.program import program
from scaling.training.schedule import learning_rate
from scaling.training.step import StepFunction, initial_params, state_of

TIMES = {"started_at", "wall_s", "compile_s", "train_s", "tokens_per_s"}


def trained(config):
    """The result of a cell trained alone."""
    (result,) = language_model.train_cells([config])
    return result


def test_the_schedule_warms_up_stays_constant_and_cools_down():
    config = RunConfig(train=TrainConfig(batch_tokens=100, seq_len=10, warmup_tokens=1000, lr=1.0), tokens=10_000)
    rates = [learning_rate(config, step) for step in range(config.steps)]
    assert (config.steps, config.cooldown_steps) == (100, 20)
    np.testing.assert_allclose(rates[:10], np.arange(1, 11) / 10)
    assert rates[9:80] == [1.0] * 71
    # 1 - sqrt((n - (N - N_d)) / N_d), taken at the end of each step so that the last one still moves.
    np.testing.assert_allclose(rates[80:], 1 - np.sqrt(np.arange(1, 21) / 21))
    assert 0 < rates[-1] < 0.03


def test_the_budget_affects_nothing_before_the_cooldown(micro):
    """Cells of one trunk share every step up to the first one's cooldown: rate, data and initial weights."""
    short, long = micro(tokens=8192), micro(tokens=32768)
    stable = short.steps - short.cooldown_steps
    assert [learning_rate(short, s) for s in range(stable)] == [learning_rate(long, s) for s in range(stable)]
    assert short.trunk_id("h") == long.trunk_id("h")
    assert short.run_id("h") != long.run_id("h")


def test_the_same_cell_gives_the_same_row_except_for_times(micro):
    one, two = trained(micro(n_experts=4)), trained(micro(n_experts=4))
    assert {k: v for k, v in one.run.items() if k not in TIMES} == {k: v for k, v in two.run.items() if k not in TIMES}
    assert one.evals == two.evals
    assert one.curves == two.curves
    other = trained(micro(n_experts=4, seed=1))
    assert other.run["loss_val"] != one.run["loss_val"]


def test_a_row_is_complete_and_fits_the_schema(micro):
    result = trained(micro(n_experts=4))
    table = to_arrow("runs", [result.run | {"executor": "inline"}])
    causal, unknown = "leak", ["loss_floor", "entropy_rate"]  # of text that nobody drew from a known source
    short, dropless = "saturation_5", "capacity_factor"  # 5 % of 32 steps is before the first probe
    expected = [causal, *unknown, short, dropless]
    assert [name for name in table.schema.names if table[name].null_count] == expected
    dense = trained(micro()).run | {"executor": "inline"}
    empty = {n for n in table.schema.names if to_arrow("runs", [dense])[n].null_count}
    # A dense model routes nothing, and drops nothing.
    routed = {name for name in result.run if name not in dense} | {*CHANCES}
    assert {"load_cv", "max_load", "utilisation", "distinct_8", "specialisation", "saturation_50"} < routed
    assert empty == {causal, *unknown, short, dropless, "kernel"} | routed
    to_arrow("evals", result.evals)
    curve = to_arrow("curves", result.curves)
    assert curve["tokens"].to_pylist()[-1] == result.run["tokens"] == result.run["steps"] * 256
    assert result.run["loss_val"] < np.log(257) - 1  # it learned something
    assert 1.0 <= result.run["max_load"] <= 4.0


def test_the_row_agrees_with_its_documents(micro):
    result = trained(micro(n_experts=4))
    tokens = np.array([row["n_tokens"] for row in result.evals])
    losses = np.array([row["loss"] for row in result.evals])
    assert len(losses) == result.run["heldout_docs"] == 100
    assert result.run["loss_val"] == pytest.approx(np.average(losses, weights=tokens), rel=1e-12)
    assert result.run["bits_per_byte"] == pytest.approx(
        result.run["loss_val"] / math.log(2), rel=1e-12
    )  # one byte a token
    # The clustered error against a bootstrap over documents, an independent method; 4,000 draws are good to 1.1 % (1
    # sd), the linearisation to O(1/n).
    rng = np.random.default_rng(0)
    picks = rng.integers(0, 100, (4000, 100))
    draws = (tokens * losses)[picks].sum(axis=1) / tokens[picks].sum(axis=1)
    assert result.run["loss_val_se"] == pytest.approx(draws.std(), rel=0.06)


def test_the_clustered_error_of_equal_weights_matches_the_textbook():
    values = np.array([1.0, 2.0, 4.0, 7.0])
    assert clustered_mean(values, np.full(4, 3.0))[1] == pytest.approx(values.std(ddof=1) / 2)
    assert math.isnan(clustered_mean(values[:1], np.ones(1))[1])


def forward_of(config, corpus, windows, batch):
    shape = (batch, windows.tokens.shape[1])
    kernel = "loop" if config.model.n_experts > 1 else ""
    return losses_program(LossFunction(config.model, corpus.vocab_size, kernel), (jax.devices()[0],), shape)


def test_evaluation_equals_direct_sums_for_any_batch(micro):
    config = micro()
    corpus = data.prepare(config.data)
    windows = eval_windows(corpus.heldout()[:7], 32, 2)
    params = initial_params(config.model, corpus.vocab_size, 0)
    found = [
        evaluate(params, forward_of(config, corpus, windows, batch), windows, batch, np.zeros(257, int), lambda k: {})
        for batch in (3, 5)
    ]
    assert found[0].loss == pytest.approx(found[1].loss, rel=1e-6)
    logits = (
        Transformer(config.model, corpus.vocab_size).apply(params, jnp.asarray(windows.tokens[:, :-1])).logits_BxTxV
    )
    log_probability = np.asarray(jax.nn.log_softmax(logits))
    picked = np.take_along_axis(log_probability, windows.tokens[:, 1:, None].astype(int), axis=-1)[..., 0]
    expected = -(picked * windows.weight).sum() / windows.weight.sum()
    assert found[0].loss == pytest.approx(expected, rel=1e-5)


def test_a_run_with_a_nan_loss_ends_as_diverged_without_a_loss(micro):
    result = trained(micro(lr=1e8, grad_clip=1e9))
    assert result.run["status"] == "diverged"
    assert "step" in result.run["error"]
    assert "loss_val" not in result.run
    assert result.evals == []
    assert not math.isfinite(result.curves[-1]["loss"])  # the way there is kept
    assert result.run["n_active"] > 0


def test_the_step_is_adamw(micro):
    """Two steps against optax.adamw with the same clipping, an independent assembly of the same rule."""
    config = micro()
    train, vocab = config.train, 257
    params = initial_params(config.model, vocab, 0)
    tokens = np.random.default_rng(0).integers(0, 256, 4000).astype(np.uint16)
    batches = TrainBatches(tokens, train.seq_len, 8, 0)
    network = Transformer(config.model, vocab)
    judge = optax.chain(
        optax.clip_by_global_norm(train.grad_clip),
        optax.adamw(
            1e-3, b1=train.beta1, b2=train.beta2, eps=1e-15, weight_decay=train.weight_decay,
            mask=lambda tree: jax.tree.map(lambda p: p.ndim > 1, tree),
        ),
    )  # fmt: skip

    @jax.jit
    def judged(params, state, batch):
        def loss(p):
            losses = optax.softmax_cross_entropy_with_integer_labels(
                network.apply(p, batch[:, :-1]).logits_BxTxV, batch[:, 1:]
            )
            return jnp.mean(losses)

        updates, state = judge.update(jax.grad(loss)(params), state, params)
        return optax.apply_updates(params, updates), state

    step = jax.jit(StepFunction(config.model, vocab, train))
    ours, theirs = state_of(params, config.model, train, jax.random.key(0)), (params, judge.init(params))
    for index in range(2):
        batch = jnp.asarray(batches(index))
        ours, _ = step(ours, batch, np.float32(1e-3))
        theirs = judged(*theirs, batch)
    moved = jax.tree.map(lambda a, b: float(jnp.max(jnp.abs(a - b))), ours.params, params)
    assert max(jax.tree.leaves(moved)) > 1e-3  # two steps of size 1e-3 did happen
    for one, other in zip(jax.tree.leaves(ours.params), jax.tree.leaves(theirs[0]), strict=True):
        # Adam divides by sqrt(v): where a gradient is nearly zero, rounding can turn its sign, at most one step's size.
        assert np.mean(np.abs(one - other) > 1e-6) < 0.002


def test_cells_of_one_shape_share_a_program(micro):
    program.cache_clear()
    trained(micro(tokens=4096))
    trained(micro(tokens=8192, seed=1, lr=1e-3))
    assert program.cache_info().misses == 1


def test_only_equal_runs_have_equal_run_ids(micro):
    base = micro(n_experts=4)
    assert micro(n_experts=4, study="other").run_id("h") == base.run_id("h")
    changed = [
        micro(n_experts=4, seed=1),
        micro(n_experts=4, lr=0.1),
        micro(n_experts=8),
        micro(n_experts=4, seq_len=16),
    ]
    assert len({one.run_id("h") for one in [base, *changed]}) == 5
    assert base.run_id("another text") != base.run_id("h")
    # Replicates share a configuration; whatever else differs, also a field without a column of its own, parts them.
    assert (
        changed[0].configuration("h") == base.configuration("h") == micro(n_experts=4, tokens=16384).configuration("h")
    )
    assert micro(n_experts=4, weight_decay=0.0).configuration("h") != base.configuration("h")
    # At E = 1 nothing is routed: the router's name and how the width is divided do not make another run.
    dense = [micro(n_experts=1, d_expert=32), micro(n_experts=1, d_expert=16, top_k=2, router="topk")]
    assert dense[0].run_id("h") == dense[1].run_id("h")
    with pytest.raises(dataclasses.FrozenInstanceError):
        data.prepare(base.data).hash = "x"  # type: ignore[misc]


def test_padding_does_not_affect_router_metrics(micro):
    """Padding half of the windows further changes no router metric."""
    config = micro(n_experts=4, top_k=2, router="topk")
    corpus = data.prepare(config.data)
    whole = eval_windows(corpus.heldout(), 32, 2)
    full = np.flatnonzero(np.all(whole.weight > 0, axis=1))[:6]
    names = tuple("abcdef")
    padded = EvalWindows(whole.tokens[full].copy(), whole.weight[full].copy(), whole.n_bytes[full], np.arange(6), names)
    for tokens in (0, 7):
        padded.tokens[:, 20:] = tokens
        padded.weight[:, 19:] = 0
        forward = forward_of(config, corpus, padded, 3)
        params = initial_params(config.model, corpus.vocab_size, 0)
        found = evaluate(params, forward, padded, 3, tokenizer.classes(config.data, corpus.folder), lambda k: {})
        watched = HeldOutRouting(forward, padded, 3, np.zeros(257, int)).choices(params)
        if tokens == 0:
            first, seen = found, watched
    assert watched.shape[1] == 3 * 19
    np.testing.assert_array_equal(watched, seen)
    penalties = {"balance_loss", "z_loss"}  # of training, where nothing is padded so
    assert {n: v for n, v in found.routing.items() if n not in penalties} == pytest.approx(
        {n: v for n, v in first.routing.items() if n not in penalties}, rel=1e-6
    )

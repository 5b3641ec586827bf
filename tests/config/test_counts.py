"""Counts compared with the initialised tree, closed forms, and XLA's cost analysis."""

import jax
import jax.numpy as jnp
import pytest

from scaling.config.counts import (
    bytes_read,
    forward_flops_by_group,
    kv_bytes_per_token,
    parameters,
    prefill_flops_by_group,
    prefill_flops_per_token,
    train_flops,
    weight_bytes,
)
from scaling.config.model import ModelConfig
from scaling.config.run import RunConfig
from scaling.config.run_row import cost_columns
from scaling.model.transformer import Transformer

VOCAB = 257
SHAPES = [
    ModelConfig(d_model=32, n_experts=e, top_k=k, router="topk", d_expert=24, n_layers=layers)
    for e, k in ((1, 1), (1, 2), (4, 1), (8, 2), (5, 5))
    for layers in (1, 3)
] + [
    ModelConfig(d_model=32, n_experts=4, top_k=2, router="topk", tie_embeddings=True, n_heads=4),
    ModelConfig(d_model=32, n_experts=1, tie_embeddings=True, n_heads=1),
    ModelConfig(d_model=32, n_experts=4, top_k=2, router="topk", n_heads=6, d_head=16, n_kv_heads=2),
    ModelConfig(d_model=32, n_experts=1, n_heads=3, d_head=4),
]


def tree_size(model):
    tokens = jnp.zeros((1, 4), jnp.int32)
    tree = jax.eval_shape(lambda: Transformer(model, VOCAB).init(jax.random.key(0), tokens))
    return {jax.tree_util.keystr(path): leaf.size for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


@pytest.mark.parametrize("model", SHAPES, ids=lambda m: f"E{m.n_experts}k{m.top_k}L{m.n_layers}H{m.n_heads}")
def test_groups_agree_with_the_initialised_tree(model):
    sizes = tree_size(model)

    def group(*words):
        return sum(size for path, size in sizes.items() if any(word in path for word in words))

    counts = parameters(model, VOCAB)
    assert counts.embedding == group("embedding")
    assert counts.head == group("head")
    assert counts.norms == group("norm")
    assert counts.router == group("router")
    assert counts.attention == group("attention']")
    assert counts.allocated == sum(sizes.values())


def test_a_tied_matrix_is_counted_once_and_multiplied_as_a_head():
    own, tied = (ModelConfig(n_experts=8, tie_embeddings=tie) for tie in (False, True))
    matrix, (apart, together) = 64 * VOCAB, [parameters(model, VOCAB) for model in (own, tied)]
    assert apart.n_active - together.n_active == apart.n_total - together.n_total == matrix
    assert apart.n_active_nonembed == together.n_active_nonembed
    assert prefill_flops_per_token(own, VOCAB, 64) == prefill_flops_per_token(tied, VOCAB, 64)
    assert train_flops(RunConfig(model=own)) == train_flops(RunConfig(model=tied))
    assert weight_bytes(own, VOCAB) - weight_bytes(tied, VOCAB) == 4 * matrix
    read = [bytes_read(model, VOCAB, batch=2, new_tokens=1, context=16) for model in (own, tied)]
    assert read[0] - read[1] == 4 * 2 * 64  # the rows of two tokens, which are rows of the head


def test_heads_follow_from_their_number_or_their_width():
    by_number, by_width = ModelConfig(d_model=96, n_heads=3), ModelConfig(d_model=96, d_head=32)
    assert by_number == by_width
    assert (by_number.d_head, by_width.n_heads, by_width.n_kv_heads) == (32, 3, 3)
    assert ModelConfig(d_model=96).n_heads == 6
    assert by_number.identity() == by_width.identity()
    assert {"n_heads", "tie_embeddings", "parametrisation", "base_width"}.isdisjoint(by_number.identity())
    assert {"n_heads", "tie_embeddings", "parametrisation", "base_width"} <= by_number.no_matter_of_speed
    for wrong in ({"n_heads": 5}, {"n_heads": 4, "d_head": 15}, {"d_head": 20}, {"n_heads": 96}):
        with pytest.raises(ValueError, match="n_heads"):
            ModelConfig(d_model=96, **wrong)


@pytest.mark.parametrize(("heads", "groups", "of_head"), [(6, 2, 16), (2, 2, 4)])
def test_heads_wider_or_narrower_than_the_model_by_closed_forms(heads, groups, of_head):
    """Query d x HK, keys and values d x GK, and HK x d back; 4 HK FLOPs a pair of tokens; 2 GK cached values."""
    d, layers, attended = 32, 3, 50
    sizes = {"d_model": d, "n_layers": layers, "n_experts": 4}
    model = ModelConfig(**sizes, n_heads=heads, d_head=of_head, n_kv_heads=groups)
    weights = layers * (2 * d * heads * of_head + 2 * d * groups * of_head)
    assert model.attention_width == heads * of_head != d
    assert parameters(model, VOCAB).attention == weights
    flops = forward_flops_by_group(model, VOCAB, attended)
    assert flops["projections"] == 2 * weights
    assert flops["attention"] == 4 * layers * heads * of_head * attended
    assert kv_bytes_per_token(model) == 2 * layers * groups * of_head * 4
    row = cost_columns(RunConfig(model=model))
    assert row["n_active_nonembed"] == parameters(model, VOCAB).n_active_nonembed
    # The number of heads is part of its name, and of that of its speed; it is not where it follows from the width.
    plain = ModelConfig(**sizes, d_head=of_head)
    assert (model.identity()["n_heads"], "n_heads" in plain.identity()) == (heads, False)
    assert "n_heads" not in model.no_matter_of_speed
    assert len({RunConfig(model=m).shape_id() for m in (model, plain)}) == 2
    with pytest.raises(ValueError, match="mup"):
        ModelConfig(**sizes, n_heads=heads, d_head=of_head, parametrisation="mup")


def test_active_size_is_the_same_for_every_expert_count():
    sizes = {e: parameters(ModelConfig(n_experts=e, top_k=2, router="topk"), VOCAB) for e in (1, 2, 8, 64)}
    assert len({s.n_active for s in sizes.values()}) == 1
    assert sizes[1].n_total == sizes[1].n_active == sizes[2].n_total  # two experts, both used
    one_expert = sizes[8].expert_per_layer
    assert sizes[64].n_total - sizes[8].n_total == 56 * one_expert
    # Clark's and Yun's N has one expert per layer; the dense row is its own backbone.
    assert sizes[8].n_dense_nonembed == sizes[8].n_active_nonembed - one_expert
    assert sizes[1].n_dense_nonembed == sizes[1].n_active_nonembed


def test_forward_flops_against_xla_on_the_dense_model():
    """XLA counts the operations it runs. Its count differs in two terms: the full S x S attention square, where we
    count the causal half, and elementwise operations (norms, softmax, rotations), a few per cent here."""
    model, batch, seq = ModelConfig(d_model=64, n_layers=2), 4, 64
    tokens = jnp.zeros((batch, seq), jnp.int32)
    network = Transformer(model, VOCAB)
    params = jax.eval_shape(lambda: network.init(jax.random.key(0), tokens))
    program = jax.jit(lambda p, t: network.apply(p, t).logits_BxTxV).lower(params, tokens)
    xla = program.cost_analysis()["flops"]
    square = batch * seq * sum(forward_flops_by_group(model, VOCAB, attended=seq).values())
    causal = batch * seq * prefill_flops_per_token(model, VOCAB, seq)
    attention = 4.0 * model.n_layers * model.d_model * batch * seq * (seq - (seq + 1) / 2)
    assert square - causal == pytest.approx(attention, rel=1e-12)
    # Elementwise operations per token and layer: about 15 on each of 9 d features and 8 on each of H S scores.
    elementwise = batch * seq * model.n_layers * (15 * 9 * model.d_model + 8 * model.n_heads * seq)
    assert square <= xla <= square + elementwise


def test_matrix_products_agree_with_xla_exactly():
    def products(x, w):
        return x @ w

    x, w = jnp.zeros((7, 64)), jnp.zeros((64, VOCAB))
    model = ModelConfig(d_model=64)
    xla = jax.jit(products).lower(x, w).cost_analysis()["flops"]
    assert 7 * forward_flops_by_group(model, VOCAB, 1)["head"] == xla


def test_training_costs_three_forward_passes_including_routers():
    dense, routed = (RunConfig(model=ModelConfig(n_experts=e)) for e in (1, 8))
    tokens = dense.steps * dense.train.batch_tokens
    per_token = prefill_flops_per_token(dense.model, VOCAB, dense.train.seq_len)
    assert train_flops(dense) == 3 * per_token * tokens
    router = 6 * 8 * dense.model.d_model * dense.model.n_layers * tokens
    assert train_flops(routed) - train_flops(dense) == pytest.approx(router, rel=1e-12)


def test_memory_counts_every_expert_and_reading_only_activated_ones():
    """Two opposite mistakes of public calculators: memory from active parameters, decode reads from total ones."""
    small, large = (ModelConfig(n_experts=e) for e in (8, 64))
    one = parameters(small, VOCAB).expert_per_layer
    assert weight_bytes(large, VOCAB) - weight_bytes(small, VOCAB) == 4 * 56 * (one + small.d_model * small.n_layers)
    read = {m.n_experts: bytes_read(m, VOCAB, batch=1, new_tokens=1, context=16) for m in (small, large)}
    assert read[64] - read[8] == pytest.approx(4 * 56 * small.d_model * small.n_layers)  # the larger router alone


def test_reading_grows_with_batch_context_and_experts():
    def read(**change):
        return bytes_read(
            ModelConfig(n_experts=change.pop("e", 8)), VOCAB, **({"batch": 4, "new_tokens": 1, "context": 64} | change)
        )

    assert read(batch=1) < read() < read(batch=8)
    assert read(context=32) < read() < read(context=128)
    assert read(e=4) < read() < read(e=32)


def test_capacity_1x_costs_what_a_top_1_router_costs():
    """Capacity `1x` is that of a top-1 router for any k, `kx` scales it by k; neither exceeds k experts per token."""

    def active(**changes):
        model = ModelConfig(n_experts=16, router="prototype", d_expert=24, dispatch="capacity", **changes)
        return parameters(model, VOCAB).experts_active

    one = active(top_k=1, capacity_factor=1.0)
    assert active(top_k=4, capacity_factor=1.0, capacity_per="1x") == one
    assert active(top_k=4, capacity_factor=1.25, capacity_per="1x") == 1.25 * one
    assert active(top_k=4, capacity_factor=1.25, capacity_per="kx") == 4 * one


def test_a_frozen_base_saves_only_the_gradients_of_its_weights():
    """The base's weights cost 2 forward passes; attention multiplies activations and still costs 3."""
    model = ModelConfig(n_experts=8, router="tsallis", top_k=2, experts="lora", dense_tokens=100_000)
    config = RunConfig(model=model, tokens=1_000_000)
    groups = prefill_flops_by_group(model, VOCAB, config.train.seq_len)
    tokens, first = config.steps * config.train.batch_tokens, config.dense_steps * config.train.batch_tokens
    weights = groups["head"] + groups["projections"] + groups["shared"]
    moving = groups["attention"] + groups["experts"] + groups["router"]
    expected = 3 * (weights + groups["attention"]) * first + (2 * weights + 3 * moving) * (tokens - first)
    assert train_flops(config) == pytest.approx(expected, rel=1e-12)


def test_soft_slots_are_the_active_experts():
    """E p slots for T tokens are E p / T experts per token, in FLOPs and in the row."""

    def row(slots):
        model = {"n_experts": 8, "router": "soft", "leak_study": True, "slots": slots}
        return cost_columns(RunConfig(model=model))

    dense = cost_columns(RunConfig())
    assert row(16)["n_active"] == dense["n_active"]  # 8 x 16 slots for 128 tokens
    one = 3 * 64 * 128 * 2
    assert row(16)["n_active"] - row(4)["n_active"] == 0.75 * one

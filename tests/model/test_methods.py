"""The registry of methods: everything in it loads, is cited and is counted, and wrong combinations say what is
wrong."""

import jax
import jax.numpy as jnp
import pytest
from pydantic import ValidationError
from routing_cases import PAIRS, VOCAB, model, refused

from scaling.config import chance_levels
from scaling.config import counts as cost
from scaling.config.model import ModelConfig
from scaling.config.registry import EXPERTS, ROUTERS
from scaling.config.run import RunConfig
from scaling.model.transformer import Transformer


def tree(config):
    """Sizes of the weights of an initialised network, by path."""
    shapes = jax.eval_shape(Transformer(config, VOCAB).init, jax.random.key(0), jnp.zeros((1, 8), jnp.int32))
    return {
        jax.tree_util.keystr(path): leaf.size for path, leaf in jax.tree_util.tree_leaves_with_path(shapes["params"])
    }


@pytest.mark.parametrize(("router", "experts"), PAIRS)
def test_counts_match_the_initialised_tree(router, experts):
    config = model(router, experts, n_layers=2, n_shared=2)
    sizes, counts = tree(config), cost.parameters(config, VOCAB)
    described = cost.architecture_of(config, VOCAB)
    assert described.n_total == sum(sizes.values())
    assert described.n_active() - described.parameters()["router"] == pytest.approx(counts.n_active, abs=1)
    assert counts.allocated == sum(sizes.values())
    assert counts.router == sum(size for path, size in sizes.items() if "router" in path)
    if experts in ("mlp", "shared"):
        assert counts.experts == sum(size for path, size in sizes.items() if "experts" in path)
        assert counts.shared == sum(size for path, size in sizes.items() if "shared" in path)
    if experts == "lora":
        assert counts.experts == sum(size for path, size in sizes.items() if "adapters" in path)
        assert counts.shared == sum(size for path, size in sizes.items() if "base" in path)
    if experts in ("cp", "ring"):
        own = sum(size for path, size in sizes.items() if "factors" in path and "expert" in path)
        assert counts.experts == own
        assert counts.shared == sum(size for path, size in sizes.items() if "factors" in path) - own


@pytest.mark.parametrize("changes", [{"slots": 5}, {"slots": 5, "normalise_slots": False}], ids=["scaled", "plain"])
def test_counts_of_soft_moe_follow_its_options(changes):
    config = model("soft", **changes)
    assert cost.parameters(config, VOCAB).allocated == sum(tree(config).values())


@pytest.mark.parametrize("kind", [*ROUTERS.items(), *EXPERTS.items()], ids=lambda kind: kind[0])
def test_every_method_loads_and_names_its_paper(kind):
    """In the docstring of the class or function, or where the formula is that it shares with others."""
    _, facts = kind
    found = facts.load()
    if (facts.place, facts.source) == ("fixed.Random", "2106.04426"):
        return  # a control of hash layers, named beside them
    text = found.__doc__ or ""
    if facts.place == "factorised.ring":
        text += EXPERTS["cp"].load().__globals__["ring_map"].__doc__
    if facts.place == "factorised.cp":
        text += found.__globals__["cp_map"].__doc__
    assert facts.source in text


def test_every_option_is_a_field_and_every_default_one_of_the_options():
    for facts in (*ROUTERS.values(), *EXPERTS.values()):
        assert set(facts.options) <= set(ModelConfig.model_fields)
    for facts in ROUTERS.values():
        assert set(facts.defaults) <= set(facts.options)


def test_only_fields_that_a_router_uses_are_part_of_a_cells_identity():
    """And what it reads is: changed, the cell is another one."""
    one = model("tsallis").identity()
    assert model("tsallis", tau_max=3.0, gate_norm="batch", slots=9).identity() == one
    assert model("tsallis", top_p=0.5).identity() != one
    assert model("entmax", gate_norm="batch", leak_study=True).identity() != model("entmax", leak_study=True).identity()


def test_defaults_of_the_authors_apply_unless_a_field_is_set():
    assert ModelConfig(n_experts=4, router="tsallis").balance_coef == 0.001
    assert ModelConfig(n_experts=4, router="tsallis", balance_coef=0.5).balance_coef == 0.5
    assert ModelConfig(n_experts=4, router="entmax").z_coef == 0.0
    assert ModelConfig(n_experts=4, router="topk").balance_coef == 0.01
    assert ModelConfig(n_experts=4, router="topk", experts="lora").dispatch == "mixed"


# ---------------------------------------------------------------------------------------------- refusals

WRONG = {
    "a typo": ({"router": "swich"}, ["'swich'", "did you mean `switch`", "allowed: switch, topk"]),
    "a typo in experts": ({"experts": "loar"}, ["'loar'", "did you mean `lora`"]),
    "expert choice in a language model": (
        {"router": "expert-choice"}, ["later tokens", "2202.09368", "leak_study: true"],
    ),
    "soft in a language model": ({"router": "soft"}, ["later tokens", "2308.00951"]),
    "base in a language model": ({"router": "base"}, ["later tokens", "2103.16716"]),
    "two experts of switch": (
        {"router": "switch", "top_k": 2}, ["router=switch takes no top_k", "top_k=2", "router=topk"],
    ),
    "two of dense-to-sparse": ({"router": "dense-to-sparse", "top_k": 2}, ["takes no top_k", "2112.14397"]),
    "two of entmax": ({"router": "entmax", "top_k": 2}, ["takes no top_k"]),
    "more than there are": ({"router": "topk", "top_k": 9}, ["top_k=9", "n_experts=8"]),
    "prototypes that do not divide": ({"router": "prototype", "top_k": 3}, ["top_k=3", "divide n_experts=8"]),
    "groups that do not divide": ({"router": "sigmoid", "n_groups": 3}, ["n_groups=3", "divide n_experts"]),
    "more groups kept than there are": ({"router": "sigmoid", "groups_kept": 2}, ["groups_kept=2", "at most n_groups"]),
    "too few in the groups kept": (
        {"router": "sigmoid", "top_k": 3, "n_groups": 4}, ["fewer than top_k=3", "n_groups=4, groups_kept=1"],
    ),
    "a weight that is constant": (
        {"router": "sigmoid", "normalise_over": "selected"},
        ["normalise_over=selected with top_k=1", "no gradient", "use all"],
    ),
    "slots of no experts": (
        {"router": "soft", "experts": "cp", "leak_study": True},
        ["router=soft fills slots", "experts=cp", "mlp or shared"],
    ),
    "copies of no experts": ({"router": "dense-to-sparse", "experts": "cp"}, ["router=dense-to-sparse", "experts=cp"]),
    "an anneal that heats": ({"router": "dense-to-sparse", "tau_min": 3}, ["tau_min=3", "tau_max=2"]),
    "a norm over the batch": (
        {"router": "entmax", "gate_norm": "batch"}, ["gate_norm=batch", "later ones", "leak_study"],
    ),
    "a capacity for any number": (
        {"router": "tsallis", "dispatch": "capacity"},
        ["dispatch=capacity", "router=tsallis", "allowed: grouped, dense"],
    ),
    "mixed outputs": ({"router": "topk", "dispatch": "mixed"}, ["dispatch=mixed", "experts=mlp", "allowed: grouped"]),
    "sent to factors": ({"router": "topk", "experts": "cp", "dispatch": "grouped"}, ["experts=cp", "allowed: mixed"]),
    "no jitter of all": ({"router": "topk", "jitter": 1.0}, ["jitter"]),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_invalid_combinations_are_refused_with_a_reason(name):
    changes, words = WRONG[name]
    with pytest.raises(ValidationError) as refusal:
        ModelConfig(**{"n_experts": 8} | changes)
    for word in words:
        assert word in str(refusal.value)


@pytest.mark.parametrize("router", ROUTERS)
@pytest.mark.parametrize("experts", EXPERTS)
def test_all_other_combinations_are_valid(router, experts):
    if refused(router, experts):
        with pytest.raises(ValidationError):
            model(router, experts)
    else:
        assert model(router, experts).router == router


def test_dense_models_accept_every_router():
    """A grid crosses routers with E = 1, where nothing is routed."""
    one = {ModelConfig(router=router, top_k=2, d_expert=16).identity()["d_mlp"] for router in ROUTERS}
    assert one == {32}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"router": "base", "leak_study": True, "n_experts": 3},
            ["n_experts=3", "must divide top_k=1 times seq_len=32"],
        ),
        (
            {"router": "dense-to-sparse", "n_experts": 4},
            ["47872 tokens before the cooldown", "router=dense-to-sparse", "196608", "lower dense_tokens and anneal"],
        ),
        (
            {"router": "topk", "n_experts": 4, "experts": "lora"},
            ["router=topk, experts=lora take 65536", "lower dense_tokens"],
        ),
    ],
)
def test_cells_too_short_or_uneven_for_a_method_are_refused(changes, words):
    with pytest.raises(ValidationError) as refusal:
        RunConfig(model=changes, train={"seq_len": 32, "batch_tokens": 256, "warmup_tokens": 0}, tokens=60_000)
    for word in words:
        assert word in str(refusal.value)


# --------------------------------------------------------------------------------------------- expectations


def test_expected_experts_of_dense_to_sparse_by_phase():
    """One in the dense phase, the mean of the anneal, one after it."""
    config = model("dense-to-sparse", n_experts=8, dense_tokens=1000, anneal_tokens=2000, tau_min=0.3)
    expected = config.router_facts.training_experts_per_token
    mean = chance_levels.dense_to_sparse(8, 2.0, 0.3, "exponential")
    assert 4.11 < mean < 8  # between the active experts at both ends, table 2.12 of the reference
    assert expected(config, 500) == 1
    assert expected(config, 3000) == pytest.approx((1000 + 2000 * mean) / 3000)
    assert expected(config, 10_000) == pytest.approx((8000 + 2000 * mean) / 10_000)
    assert config.router_facts.experts_per_token(config) == 1  # at inference


def test_factorised_experts_are_all_active_and_adapters_as_chosen():
    cp, lora = (cost.parameters(model("topk", form), VOCAB) for form in ("cp", "lora"))
    assert cp.experts_active == cp.experts
    assert lora.experts_active == 2 * lora.expert_per_layer == lora.experts / 2

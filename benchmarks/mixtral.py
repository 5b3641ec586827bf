"""Hugging Face Mixtral at the shapes of our Transformer: the peer that a training step is timed against.

A step is forward, backward, clipping by global norm and fused AdamW, in float32, load-balancing loss included. Mixtral
has no router z-loss and ours does, which costs us a little. `python -m benchmarks.mixtral --threads 2` answers the
requests of `benchmarks.peer` and then prints nothing else; it needs torch and transformers, and no JAX.

Our architecture is Mixtral's with as many key-value heads as heads, so weights carry over one to one: the two have
equal losses on equal tokens (tests/benchmarks/test_mixtral.py).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from transformers import MistralConfig, MistralForCausalLM, MixtralConfig, MixtralForCausalLM, PreTrainedModel
from transformers.utils import logging

from benchmarks.peer import Settings, Shape, load_inputs, random_tokens, serve, timed


def build(shape: Shape, settings: Settings) -> PreTrainedModel:
    """Mixtral at a shape, in training mode, with its own initial weights; for one expert Mistral, its dense form."""
    sizes: dict[str, Any] = {
        "vocab_size": shape.vocab_size,
        "hidden_size": shape.d_model,
        "intermediate_size": shape.d_expert,
        "num_hidden_layers": shape.n_layers,
        "num_attention_heads": shape.d_model // shape.d_head,
        "num_key_value_heads": shape.d_model // shape.d_head,
        "head_dim": shape.d_head,
        "max_position_embeddings": shape.seq_len,
        "rms_norm_eps": 1e-6,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0},
        "use_cache": False,
        "bos_token_id": None,
        "eos_token_id": None,
        "attn_implementation": settings.attention,
    }
    if shape.n_experts == 1:
        return MistralForCausalLM(MistralConfig(**sizes, sliding_window=None)).float().train()
    config = MixtralConfig(
        **sizes,
        num_local_experts=shape.n_experts,
        num_experts_per_tok=shape.top_k,
        router_aux_loss_coef=settings.balance_coef / shape.top_k,
        output_router_logits=True,
        experts_implementation=settings.experts,
    )
    model = MixtralForCausalLM(config).float().train()
    used = (model.config._attn_implementation, model.config._experts_implementation)
    if used != (settings.attention, settings.experts):
        raise ValueError(f"asked for {settings.attention} and {settings.experts}, the library took {used}")
    return model


def load_weights(model: MixtralForCausalLM, weights: dict[str, np.ndarray]) -> None:
    """Take the weights of our Transformer, named as in `peer.load_inputs`, out of the dictionary.

    Ours multiply from the right, [in, out], the peer's from the left, [out, in]: every matrix is transposed. Its gate
    and up projections are one matrix, the gate's rows first. Raises KeyError or RuntimeError when a weight is missing,
    left over or of another shape.
    """
    state = {
        "model.embed_tokens.weight": weights.pop("embedding/embedding"),
        "model.norm.weight": weights.pop("norm/scale"),
        "lm_head.weight": weights.pop("head").T,
    }
    for layer in range(model.config.num_hidden_layers):
        ours, theirs = f"block_{layer}/", f"model.layers.{layer}."
        gate, up, down = (weights.pop(f"{ours}moe/experts/{name}").swapaxes(1, 2) for name in ("gate", "up", "down"))
        state |= {
            theirs + "self_attn.q_proj.weight": weights.pop(ours + "attention/query").T,
            theirs + "self_attn.k_proj.weight": weights.pop(ours + "attention/key").T,
            theirs + "self_attn.v_proj.weight": weights.pop(ours + "attention/value").T,
            theirs + "self_attn.o_proj.weight": weights.pop(ours + "attention/out").T,
            theirs + "mlp.gate.weight": weights.pop(ours + "moe/router/weight").T,
            theirs + "mlp.experts.gate_up_proj": np.concatenate([gate, up], axis=1),
            theirs + "mlp.experts.down_proj": down,
            theirs + "input_layernorm.weight": weights.pop(ours + "attention_norm/scale"),
            theirs + "post_attention_layernorm.weight": weights.pop(ours + "moe_norm/scale"),
        }
    if weights:
        raise RuntimeError(f"weights that Mixtral has no place for: {', '.join(weights)}")
    model.load_state_dict({name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in state.items()})


def stepper(model: PreTrainedModel, settings: Settings) -> Callable[[torch.Tensor, float], torch.Tensor]:
    """A function (tokens [B, T + 1], rate) that takes one step and returns the cross-entropy before its update."""
    # Decay of matrices and not of norms, as ours.
    groups: list[dict[str, Any]] = [
        {"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in model.parameters() if p.ndim == 1], "weight_decay": 0.0},
    ]
    betas = (settings.beta1, settings.beta2)
    optimiser = torch.optim.AdamW(groups, lr=settings.rate, betas=betas, eps=settings.eps, fused=True)
    forward = torch.compile(model) if settings.compiled else model

    def step(tokens: torch.Tensor, rate: float) -> torch.Tensor:
        for group in optimiser.param_groups:
            group["lr"] = rate
        inputs, targets = tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()
        output = forward(input_ids=inputs, labels=targets, shift_labels=targets)
        output.loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), settings.grad_clip)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        loss = output.loss.detach()
        return loss - model.router_aux_loss_coef * output.aux_loss.detach() if "aux_loss" in output else loss

    return step


def trainer(shape: Shape, settings: Settings, inputs: str | None) -> Callable[[], tuple[float, float]]:
    """A function that takes one step and returns its seconds and the cross-entropy before its update."""
    torch.manual_seed(0)
    model = build(shape, settings)
    if inputs is None:
        tokens = random_tokens(shape, 8, np.random.default_rng(0))
    else:
        weights, tokens = load_inputs(inputs)
        load_weights(model, weights)
    batches = [torch.from_numpy(batch).long() for batch in tokens]
    train, taken = stepper(model, settings), 0

    def step() -> tuple[float, float]:
        nonlocal taken
        batch = batches[taken % len(batches)]
        taken += 1
        started = time.perf_counter()
        loss = train(batch, settings.rate)
        return time.perf_counter() - started, loss.item()

    return step


def answers() -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Takes the steps that a request asks for, with the trainer that an equal request before it made."""
    trainers: dict[tuple[Shape, Settings, str | None], Callable[[], tuple[float, float]]] = {}

    def answer(request: dict[str, Any]) -> dict[str, Any]:
        which = (Shape(**request["shape"]), Settings(**request["settings"]), request["inputs"])
        if request.get("fresh") or which not in trainers:
            trainers[which] = trainer(*which)
        return timed(trainers[which], request["steps"])

    return answer


def main() -> None:
    parser = argparse.ArgumentParser(description="Answer requests for Mixtral's step times, one line of JSON each.")
    parser.add_argument("--threads", type=int, required=True, help="threads of PyTorch")
    torch.set_num_threads(parser.parse_args().threads)
    logging.set_verbosity_error()
    serve(answers())


if __name__ == "__main__":
    main()

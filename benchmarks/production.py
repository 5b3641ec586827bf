"""DeepSeek's own account of its service, and what the shipped speed says of it.

Nodes of 8 H800; prompts over 4 nodes and decode over 18, attention data-parallel and experts split (32 and 144
devices); 608e9 prompt tokens and 168e9 output tokens a day, 56.3 % of the prompt tokens from the cache, 4,989 cached
tokens of an output token on average, 20 to 22 tokens/s a user; a node reads 73,700 prompt tokens/s (those from the
cache in) or writes 14,800 (deepseek-ai/open-infra-index, day 6, February 2025). These are means over a day.

RTP-LLM's report of its reproduction on the same layouts has prompts at full load: two of 4,096 tokens a device, none of
them cached, take 1.5 s, which are 42,664 tokens/s a node.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from scaling.serving.devices import device
from scaling.serving.engine import iteration_terms, prompt_terms
from scaling.serving.engine_speed import TERMS
from scaling.serving.precision import served_in
from scaling.serving.public_models import public_model
from scaling.serving.published_speeds import published_speed
from scaling.serving.service import Layout, ModelSizes, Service

NODE = 8
READ_A_NODE, WRITTEN_A_NODE, A_USER = 73_700.0, 14_800.0, 21.0
CACHED, HITS, PROMPT_TO_OUTPUT = 4989.0, 0.563, 608 / 168
# p + n/2 = 4,989 with p/n = 608/168.
GENERATED = CACHED / (PROMPT_TO_OUTPUT + 0.5)
PREFILL, DECODE = Layout(32, by_expert=True), Layout(144, by_expert=True)
FULL_LOAD, FULL_PROMPT, FULL_A_DEVICE = 8 * 5333.0, 4096, 2  # RTP-LLM's report, tokens/s a node
TOKENS_AT_ONCE = 8192  # fresh prompt tokens a device: an assumption, which hardly matters beyond 2,048


def deepseek_production() -> dict[str, Any]:
    """Predicted and measured tokens/s of a node; decode at the sequences that measured throughput and speed imply.

    `hidden`: the same if messages of one micro-batch hid wholly behind the work of another, which the account says they
    do; engines that the speed was fitted to hide nothing.
    """
    on, speed = device("h800"), published_speed("published:sglang-h100")
    sizes = ModelSizes.of_architecture(public_model("deepseek-v3"))
    service = served_in(
        Service(prompt=round(GENERATED * PROMPT_TO_OUTPUT), generated=round(GENERATED), apart=True), on, weights="fp8"
    )
    sequences = WRITTEN_A_NODE / A_USER  # of a node
    nodes = float(DECODE.n_devices) / NODE
    decode = iteration_terms(sizes, on, sequences * nodes, service, DECODE, mixed=False)
    reading = replace(service, prefix_hit=HITS)
    prompts = TOKENS_AT_ONCE * float(PREFILL.n_devices) / (reading.prompt * (1 - HITS))
    prefill = prompt_terms(sizes, on, reading, PREFILL, prompts=prompts)
    read = prompts * reading.prompt / (float(PREFILL.n_devices) / NODE)
    loaded = FULL_A_DEVICE * float(PREFILL.n_devices)
    full = prompt_terms(sizes, on, replace(service, prompt=FULL_PROMPT), PREFILL, prompts=loaded)
    parts = {
        "prefill": (prefill, read, READ_A_NODE),
        "decode": (decode, sequences, WRITTEN_A_NODE),
        "prefill_at_full_load": (full, loaded * FULL_PROMPT * NODE / float(PREFILL.n_devices), FULL_LOAD),
    }
    answer: dict[str, Any] = {}
    for part, (terms, tokens, measured) in parts.items():
        seconds = np.asarray(speed.coefficients) * terms
        messages = seconds[TERMS.index("communication")]
        predicted = float(tokens / seconds.sum())
        hidden = float(tokens / max(messages, seconds.sum() - messages))
        answer[part] = {
            "measured": measured,
            "predicted": predicted,
            "ratio": predicted / measured,
            "hidden": hidden,
            "communication_share": float(messages / seconds.sum()),
        }
    return answer

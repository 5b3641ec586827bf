"""Peak memory of a training step, counted from its arrays."""

from __future__ import annotations

from dataclasses import astuple, dataclass, replace

from scaling.config.counts import Parameters, parameters, places_per_token
from scaling.config.model import ModelConfig
from scaling.config.optimisers import FACTORED_FROM
from scaling.config.run import RunConfig
from scaling.expert_rows import block_count, block_rows, capacity_rows


def training_memory_bytes(config: RunConfig) -> float:
    """Peak bytes of a training step on one device: weights, what the optimiser keeps, and the activations at the peak.

    Counts the arrays that XLA keeps at once on a CPU, with nothing fitted; a test checks it within a fifth. The peak
    is one of: the loss, with all saved activations, the logits and their exponentials; the last layer in the backward
    pass, where another square of scores or the gradients of the experts' rows replace the logits; the end, with all
    gradients. With `remat` one layer is kept plus the inputs of all. On a CPU it saves nothing, because XLA merges the
    recomputation with the first computation.

    Not counted: integers of the dispatch, the program, the corpus, and memory of Python, JAX and the allocator (a few
    hundred MB per process). bfloat16 counts as float32, as XLA computes it on a CPU; a GPU needs less.
    """
    model, train, vocab = config.model, config.train, config.data.vocab_size
    gpus = config.resources.gpus
    devices = train.devices(max(1, int(gpus)) if gpus else config.resources.cpus)
    tokens = train.batch_tokens // train.accumulate // devices
    d, layers, of_keys = model.d_model, model.n_layers, model.n_kv_heads * model.d_head
    of_heads = model.attention_width
    scores = model.n_heads * train.seq_len
    spread = config.expert_devices(devices)
    kept = _kept(model, tokens, tokens // train.seq_len, spread)
    # Per token and layer: scale, statistics and result of two norms, all at full size; queries; the output of
    # attention, twice; the stream after attention and after the experts; keys and values.
    layer = tokens * (8 * d + 3 * of_heads + 2 * of_keys + scores) + kept.experts
    once = tokens * 4 * d + kept.shared  # the embedding and the last norm
    loss = 2 * tokens * vocab
    attention = tokens * (scores + 2 * of_heads + 4 * of_keys) - kept.experts
    recomputed = train.remat and bool(gpus)
    kept_all = layers * tokens * d if recomputed else layers * layer
    again = layer if recomputed else 0
    counts = parameters(model, vocab)
    own = replace(counts, experts=counts.experts // spread)  # a device's
    held, beside = own.allocated, values_of_optimiser(train.optimiser, own, model)
    widest = once + kept_all + max(loss, again + max(attention, kept.backward))
    sums = held if train.accumulate > 1 else 0  # accumulated gradients
    return 4.0 * (held + beside + sums + max(widest + kept.gradients, held))


def values_of_optimiser(name: str, counts: Parameters, model: ModelConfig) -> float:
    """Values that an optimiser keeps beside the weights of these groups, without counters."""
    match name:
        case "muon":
            return _muon(counts, model)
        case "adafactor":
            return _adafactor(counts, model)
        case _:
            return {"adamw": 2.0, "lion": 1.0}[name] * counts.allocated


def _muon(counts: Parameters, model: ModelConfig) -> float:
    """One momentum of the matrices in blocks; Adam's two moments of all others."""
    alone = counts.attention
    if model.n_experts == 1 or model.experts_kind.sizes is None:
        alone += counts.shared + counts.experts
    return 2.0 * counts.allocated - alone


def _adafactor(counts: Parameters, model: ModelConfig) -> float:
    """A value a row and a column of matrices of at least FACTORED_FROM rows and columns, one a weight of others."""
    if model.n_experts > 1 and model.experts_kind.sizes is not None:
        return float(counts.allocated)  # factors and adapters are narrow

    def factored(n: float, rows: float, columns: float) -> float:
        """Of weights that make matrices of this shape."""
        each = rows + columns if min(rows, columns) >= FACTORED_FROM else rows * columns
        return n / (rows * columns) * each

    d, heads, keys = model.d_model, model.attention_width, model.n_kv_heads * model.d_head
    hidden = model.dense_width if model.n_experts == 1 else model.d_expert
    attention = 2 * factored(d * heads, d, heads) + 2 * factored(d * keys, d, keys)
    tables = 1 if model.tie_embeddings else 2
    kept = model.n_layers * attention + tables * factored(counts.embedding, counts.embedding / d, d)
    kept += factored(counts.experts, d, hidden) + factored(counts.router, d, model.n_experts) + counts.norms
    if counts.shared:
        kept += factored(counts.shared, d, model.shared_width)
    return kept


@dataclass(frozen=True)
class _Kept:
    """Values kept for the experts: per layer for the backward pass, shared by all layers, within the backward pass of a
    layer, and gradients allocated from the start."""

    experts: float = 0
    shared: float = 0
    backward: float = 0
    gradients: float = 0

    def __add__(self, other: _Kept) -> _Kept:
        return _Kept(*map(sum, zip(astuple(self), astuple(other), strict=True)))


def _kept(model: ModelConfig, tokens: int, sequences: int, spread: int) -> _Kept:
    d, hidden, top_k = model.d_model, model.d_expert, model.top_k
    if model.n_experts == 1:
        return _mlp(tokens, model.dense_width)
    if model.dispatch == "mixed":
        return _mixed(model, tokens)
    columns = top_k if "capacity" in model.router_facts.dispatches else model.n_experts  # any number of experts
    beside = _mlp(tokens, model.n_shared * hidden) if model.experts == "shared" else _Kept()
    if model.dispatch == "dense":
        rows = tokens * model.n_experts
        return beside + _Kept(rows * (4 * hidden + d), backward=rows * (2 * hidden + d))
    if model.dispatch in ("capacity", "soft"):
        room = capacity_rows(tokens, places_per_token(model), model.n_experts, model.capacity_factor)
        rows = model.n_experts * (model.slots * sequences if model.dispatch == "soft" else room)
        copies = tokens * top_k * d
        return beside + _Kept(rows * (4 * hidden + d) + copies, backward=rows * (2 * hidden + d) + copies)
    experts, together = model.n_experts // spread, tokens * spread
    rows = int(block_rows(together, top_k, model.n_experts))
    rows *= block_count(together * columns, experts, rows)
    gradients = 3 * d * hidden * experts * model.n_layers
    gathered = together * columns * d
    return beside + _Kept(rows * (d + 2 * hidden) + gathered, 2 * rows * d, rows * d + 2 * gathered, gradients)


def _mlp(tokens: int, width: int) -> _Kept:
    """Both branches, the sigmoid of one, and their product."""
    return _Kept(tokens * 4 * width, backward=tokens * 2 * width)


def _mixed(model: ModelConfig, tokens: int) -> _Kept:
    """Outputs of the gate and of the factors or adapters, and the hidden units, for two or three maps."""
    width = model.top_k * model.d_expert
    if model.experts == "lora":
        adapters = 2 * 3 * model.lora_rank * model.n_experts
        return _Kept(tokens * (4 * width + adapters), backward=tokens * (2 * width + adapters))
    factors = 2 * model.rank * (model.ring_rank if model.experts == "ring" else 1)
    return _Kept(tokens * (3 * factors + 3 * width), backward=tokens * (2 * factors + width))

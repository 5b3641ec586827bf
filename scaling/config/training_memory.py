"""Peak memory of a training step, from the arrays that it holds."""

from __future__ import annotations

from dataclasses import astuple, dataclass

from scaling.architecture import block_count, block_rows, capacity_rows
from scaling.config.counts import parameters, places_per_token
from scaling.config.model import ModelConfig
from scaling.config.run import RunConfig


def training_memory_bytes(config: RunConfig) -> float:
    """Peak bytes of a training step on one device of a cell: weights, Adam's two moments, and the step's widest point.

    A count of the arrays that XLA keeps at once on a CPU, nothing fitted; a test holds it to a fifth. The
    widest point is one of: the loss, when all that the backward pass needs is kept and logits and their exponentials
    are there; the last layer in the backward pass, when these are gone, but one more square of scores or the gradients
    of the experts' rows are there; the end, when all gradients are. With `remat` one layer is kept, and the inputs of
    all; but on a CPU it saves nothing, for XLA there merges what is computed twice with what was computed once.

    Not counted: integers of the dispatch, the program, the corpus, and what Python, JAX and the allocator hold besides
    (a few hundred MB a process). bfloat16 is counted as float32: on a CPU XLA computes it so, on a GPU it needs less.
    """
    model, train, vocab = config.model, config.train, config.data.vocab_size
    gpus = config.resources.gpus
    devices = train.devices(max(1, int(gpus)) if gpus else config.resources.cpus)
    tokens = train.batch_tokens // train.accumulate // devices
    d, layers = model.d_model, model.n_layers
    scores = model.n_heads * train.seq_len
    spread = config.expert_devices(devices)  # devices that the experts are spread over
    kept = _kept(model, tokens, tokens // train.seq_len, spread)
    # Per token and layer: of each of two norms the scale, the statistics and the result, all at full size; queries,
    # keys, values; what attention mixed, twice; the stream behind attention and behind the experts.
    layer = tokens * (13 * d + scores) + kept.experts
    once = tokens * 4 * d + kept.shared  # the embedding, and the last norm
    loss = 2 * tokens * vocab
    attention = tokens * (scores + 6 * d) - kept.experts
    recomputed = train.remat and bool(gpus)
    kept_all = layers * tokens * d if recomputed else layers * layer
    again = layer if recomputed else 0
    counts = parameters(model, vocab)
    held = counts.allocated - counts.experts * (1 - 1 / spread)
    widest = once + kept_all + max(loss, again + max(attention, kept.backward))
    sums = held if train.accumulate > 1 else 0  # of the gradients of the parts so far
    return 4.0 * (3 * held + sums + max(widest + kept.gradients, held))


@dataclass(frozen=True)
class _Kept:
    """Values that a layer's experts need: kept for the backward pass, by all layers together, in the backward pass,
    and for gradients that are there from the start."""

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
    """Both branches, the logistic function of one, and their product."""
    return _Kept(tokens * 4 * width, backward=tokens * 2 * width)


def _mixed(model: ModelConfig, tokens: int) -> _Kept:
    """What the gate and the factors or adapters give, and the hidden units, for two or three maps."""
    width = model.top_k * model.d_expert
    if model.experts == "lora":
        adapters = 2 * 3 * model.lora_rank * model.n_experts
        return _Kept(tokens * (4 * width + adapters), backward=tokens * (2 * width + adapters))
    factors = 2 * model.rank * (model.ring_rank if model.experts == "ring" else 1)
    return _Kept(tokens * (3 * factors + 3 * width), backward=tokens * (2 * factors + width))

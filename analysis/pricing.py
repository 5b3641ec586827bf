"""Prices: lifetime cost and memory of a model, in FLOPs and bytes or, on a named device, in USD."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from analysis.dual import Array
from analysis.families import Sizes
from scaling import hardware, serving
from scaling.errors import InputError

CACHED_TOKENS, BYTES_PER_VALUE = 16_384, 2


@dataclass(frozen=True)
class Pricing:
    """How training, serving and memory are paid for.

    Without a device, cost is FLOPs: 6 N_active D to train and 2 N_active T to serve T tokens. With one it is USD:
    those training FLOPs at `mfu` of the device's peak, and `scaling.serving.serving_cost` a generated token. `memory`
    is what there is for bf16 weights of all experts and 16,384 cached tokens, in bytes; None: not considered.
    """

    serve_tokens: float
    memory: float | None = None
    device: str | None = None
    usd_per_hour: float | None = None
    mfu: float = 0.4

    @property
    def unit(self) -> str:
        return "FLOP" if self.device is None else "USD"

    @cached_property
    def rented(self) -> hardware.Device:
        """The device, at the price asked for where one is. Raises InputError for an unknown name."""
        if self.device is None:
            raise InputError("a price needs a device")
        found = hardware.device(self.device)
        return (
            found
            if self.usd_per_hour is None
            else replace(found, usd_per_hour=self.usd_per_hour, price_source="as given")
        )

    def train(self, sizes: Sizes, tokens: Array) -> Array:
        """Cost of training models on `tokens` each."""
        flops = 6.0 * sizes.n_active * tokens
        return flops if self.device is None else np.asarray(serving.training_usd(flops, self.rented, self.mfu))

    def serve(self, sizes: Sizes) -> Array:
        """Cost of serving `serve_tokens`; infinite where the device cannot hold the model."""
        if self.device is None:
            return 2.0 * sizes.n_active * self.serve_tokens
        if self.serve_tokens == 0:
            return 0.0 * sizes.n_active
        shape = _structure(sizes)
        return np.asarray(serving.serving_cost(shape, self.rented).usd_per_token) * self.serve_tokens

    def total(self, sizes: Sizes, tokens: Array) -> Array:
        """Lifetime cost."""
        return self.train(sizes, tokens) + self.serve(sizes)

    def fits(self, sizes: Sizes) -> npt.NDArray[np.bool_]:
        """Which models fit in `memory`; all do where it is not considered."""
        if self.memory is None:
            return np.ones(np.shape(sizes.n_active), dtype=bool)
        needed = memory_bytes(sizes)
        if needed is None:
            raise InputError(
                f"--memory-gb needs the total size of models with E = {sizes.n_experts}, which this fit does not know; "
                "fit a table with the columns n_active and n_total"
            )
        return needed <= self.memory


def memory_bytes(sizes: Sizes) -> Array | None:
    """Bytes of bf16 weights of all experts and of 16,384 cached tokens; None where N_total is unknown.

    2 (N_total + 16384 x 2 n_layers d_model): the rule of Ludziejewski et al. 2025, arXiv 2502.05172, with the cache
    left out where widths are unknown.
    """
    if sizes.n_total is None:
        return None
    cache = sizes.kv_elements_per_token
    return BYTES_PER_VALUE * (sizes.n_total + (0.0 if cache is None else CACHED_TOKENS * cache))


def _structure(sizes: Sizes) -> serving.ModelSizes:
    cache = sizes.kv_elements_per_token
    if sizes.n_total is None or cache is None or sizes.n_layers is None or sizes.d_model is None or sizes.top_k is None:
        raise InputError(
            "pricing on a device needs widths and depths, which this fit does not know; "
            "fit a table with the columns n_active, n_total, d_model, n_layers and top_k, or leave --device out"
        )
    return serving.ModelSizes(
        n_active=sizes.n_active,
        n_total=np.maximum(sizes.n_total, sizes.n_active),
        kv_elements_per_token=cache,
        n_layers=sizes.n_layers,
        d_model=sizes.d_model,
        n_experts=sizes.n_experts,
        top_k=sizes.top_k,
    )

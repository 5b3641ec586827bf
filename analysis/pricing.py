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
SERVICE = serving.Service()  # its defaults, each a stated assumption
MFU = 0.4  # an assumption: the share of a device's peak that training reaches, where nothing else is asked


@dataclass(frozen=True)
class Pricing:
    """How training, serving and memory are paid for.

    Without a device, cost is FLOPs: 6 N_active D to train and 2 N_active T to serve T tokens. With one it is USD:
    those training FLOPs at `mfu` of the device's peak, and `scaling.serving.serving_cost` a generated token. `memory`
    is what there is for bf16 weights of all experts and 16,384 cached tokens, in bytes; None: no such limit. On a
    device, models that the most devices of `scaling.serving` cannot hold are not allowed either, served or not.
    """

    serve_tokens: float
    memory: float | None = None
    device: str | None = None
    usd_per_hour: float | None = None
    mfu: float = MFU

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
        return np.asarray(serving.serving_cost(shape, self.rented, SERVICE).usd_per_token) * self.serve_tokens

    def total(self, sizes: Sizes, tokens: Array) -> Array:
        """Lifetime cost."""
        return self.train(sizes, tokens) + self.serve(sizes)

    def fits(self, sizes: Sizes) -> npt.NDArray[np.bool_]:
        """Which models fit in `memory` and on the devices; without either all do."""
        held = self._held(sizes)
        if self.memory is None:
            return held
        needed = memory_bytes(sizes)
        if needed is None:
            raise InputError(
                f"--memory-gb needs the total size of models with E = {sizes.n_experts}, which this fit does not know; "
                "fit a table with the columns n_active and n_total"
            )
        return held & (needed <= self.memory)

    @property
    def most_memory(self) -> float:
        """Bytes of the most devices that one model may be spread over."""
        return SERVICE.max_devices * self.rented.memory

    def _held(self, sizes: Sizes) -> npt.NDArray[np.bool_]:
        """Which models the most devices hold: weights and one sequence's cache, or what of these is known."""
        if self.device is None or sizes.n_total is None:
            return np.ones(np.shape(sizes.n_active), dtype=bool)
        weights = SERVICE.bytes_per_weight * (np.maximum(sizes.n_total, sizes.n_active) + _routers(sizes))
        cache = sizes.kv_elements_per_token
        sequence = 0.0 if cache is None else SERVICE.bytes_per_kv * SERVICE.mean_context * cache
        return weights + sequence <= self.most_memory

    def explained(self, sizes: Sizes) -> list[str]:
        """What was computed for one model: how training and serving were paid for, which limits of memory were kept."""
        return [*self._costed(sizes), *(self._limits(sizes) or ["memory was not considered"])]

    def _costed(self, sizes: Sizes) -> list[str]:
        served = self.serve_tokens
        if self.device is None:
            serve = f"2 N_active T to serve T = {served:.4g} tokens" if served else "nothing is served"
            return [f"cost in FLOPs: 6 N_active D to train, {serve}"]
        rent = self.rented
        told = [
            f"{rent.title} at {rent.usd_per_hour:g} USD an hour ({rent.price_source})",
            f"training at {self.mfu:.0%} of {rent.peak_flops:.4g} FLOP/s ({rent.source}); 6 N_active D FLOPs",
        ]
        if not served:
            return [*told, "nothing is served"]
        told.append(f"serving {served:.4g} generated tokens as scaling.serving has it, with its defaults")
        if sizes.n_experts > 1 and sizes.n_router is None:
            told.append("routers are left out of serving and memory: the fit does not know their size")
        return told

    def _limits(self, sizes: Sizes) -> list[str]:
        told, cached = [], sizes.kv_elements_per_token is not None
        if self.memory is not None:
            cache = f" and {CACHED_TOKENS:,} cached tokens" if cached else ""
            told.append(f"bf16 weights of all experts{cache} in {self.memory / 1e9:g} GB (1e9 bytes)")
        if self.device is not None and sizes.n_total is not None:
            cache = " and the cache of one request" if cached else ""
            told.append(
                f"bf16 weights of all experts{cache} in {self.most_memory / 1e9:.4g} GB, the memory of "
                f"{SERVICE.max_devices} devices; what training holds beside them was not considered"
            )
        return told


def _routers(sizes: Sizes) -> Array | float:
    """Parameters of the routers, which N_total leaves out; 0 where the family does not know them."""
    return 0.0 if sizes.n_router is None else sizes.n_router


def memory_bytes(sizes: Sizes) -> Array | None:
    """Bytes of bf16 weights of all experts and of 16,384 cached tokens; None where N_total is unknown.

    2 (N_total + n_router + 16384 x 2 n_layers d_model): the rule of Ludziejewski et al. 2025, arXiv 2502.05172, with
    the routers, which N_total leaves out here, where they are known, and the cache left out where widths are not.
    """
    if sizes.n_total is None:
        return None
    cache = sizes.kv_elements_per_token
    return BYTES_PER_VALUE * (sizes.n_total + _routers(sizes) + (0.0 if cache is None else CACHED_TOKENS * cache))


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
        n_router=_routers(sizes),
    )

"""Prices: lifetime cost and memory of a model, in FLOPs and bytes or, on a device, in USD within latency and load."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from analysis.latency.speeds import Speeds
from analysis.laws.model_family import Sizes
from scaling.arrays import Array, Booleans
from scaling.errors import InputError
from scaling.formatting import listed
from scaling.serving.at_speeds import prices_and_steps
from scaling.serving.device import Device
from scaling.serving.families import FAMILIES, ArchitectureFamily
from scaling.serving.published_training import MFU, assumed_training_speed
from scaling.serving.replicas import Offer, cheapest, fewest_devices, least_price, without_price
from scaling.serving.service import SERVICE, ModelSizes, Service
from scaling.serving.training_speed import MfuByExperts, TrainingSpeed

CACHED_TOKENS, BYTES_PER_VALUE = 16_384, 2
SECONDS_AN_HOUR = 3600.0
ASSUMED_TRAINING = assumed_training_speed()
_TABULATED = 4_096  # sizes at which a price is tabulated: over ten decades .6 % apart
_TABULATED_PER_DRAW = 1_024  # and for each draw of the speed: 2.3 % apart
_TABULATED_NEAR, NEAR = 192, 30.0  # sizes near one, up to so many times as large or small: 3.6 % apart
_PRICED_COUNTS = ("n_active", "n_total", "kv_elements_per_token", "n_layers", "d_model", "top_k")
"""What a device needs to know of a model to price it (`structure`)."""
_A_FAMILY = f"`family` ({', '.join(FAMILIES)}) or `like`"


@dataclass(frozen=True)
class Pricing:
    """How training, serving and memory are paid for.

    `serve_tokens` are output tokens, T; prompt tokens P follow from the lengths of a request. Without a device, cost is
    FLOPs: 6 N_active D to train and 2 N_active (T + P) to serve. With one it is USD: the device-seconds of a training
    token by `training_speed`, and `scaling.serving.replicas.cheapest` an output token: at the utilisation of `service`,
    or with `demand` (output tokens per second) of whole replicas, idle ones in it. `family` gives the architecture that
    is priced; None: that of the fit's own models, with plain multi-head attention. `memory` is what there is for bf16
    weights of all experts and 16,384 cached tokens, in bytes; `most_per_token` the most that a served token may cost,
    in USD or FLOPs; None: no such limit. On a device, models that cannot be held or served within the limits on latency
    of `service` are not allowed either, served or not.
    """

    serve_tokens: float = 0.0
    memory: float | None = None
    device: Device | None = None
    training_speed: TrainingSpeed = ASSUMED_TRAINING
    service: Service = SERVICE
    demand: float | None = None
    most_per_token: float | None = None
    family: ArchitectureFamily | None = None

    @property
    def unit(self) -> str:
        return "FLOP" if self.device is None else "USD"

    @property
    def rented(self) -> Device:
        """The device. Raises InputError where there is none."""
        if self.device is None:
            raise InputError("a price needs a device")
        return self.device

    def train(self, sizes: Sizes, tokens: Array) -> Array:
        """Cost of training models on `tokens` each."""
        return self.train_per_token(sizes) * tokens

    def train_per_token(self, sizes: Sizes, drawn: Array | None = None) -> Array:
        """Cost of one training token: 6 N_active FLOPs, or USD of its device-seconds; (rows, models) where `drawn` has
        rows of `training_speed.draws`."""
        if self.device is None:
            return 6.0 * sizes.n_computed
        return self.train_seconds(sizes, drawn) * (self.device.usd_per_hour / SECONDS_AN_HOUR)

    def train_seconds(self, sizes: Sizes, drawn: Array | None = None) -> Array:
        """Device-seconds of one training token. Raises InputError without a device, or without widths where the speed
        needs them."""
        speed, on = self.training_speed, self.rented
        if isinstance(speed, MfuByExperts):
            return speed.seconds(replace(sizes, n_active=sizes.n_computed), on, drawn)
        return speed.seconds(self.structure(sizes), on, drawn)

    def train_mfu(self, sizes: Sizes) -> Array:
        """The share of the device's peak that training reaches; a share of the peak counts routing, too."""
        speed, on = self.training_speed, self.rented
        if isinstance(speed, MfuByExperts):
            return speed.mfu_of(replace(sizes, n_active=sizes.n_computed), on)
        return speed.mfu_of(self.structure(sizes), on)

    def flops_about(self, cost: float) -> float:
        """About the training FLOPs that so much buys, to search near: exact without a device."""
        if self.device is None:
            return cost
        return cost / self.device.usd_per_hour * SECONDS_AN_HOUR * MFU * self.device.peak_flops

    def per_token(self, sizes: Sizes) -> Array:
        """Cost of one output token, its prompt in it; infinite where the device cannot serve the model."""
        if self.device is None:
            return 2.0 * sizes.n_computed * (1.0 + self.service.prompt_per_output)
        return np.asarray(least_price(self.structure(sizes), self.device, self.service, self.demand))

    def structure(self, sizes: Sizes) -> ModelSizes:
        """The counts that models are priced by. Raises InputError where neither fit nor family knows them."""
        return structure(sizes) if self.family is None else self.family.sizes(sizes.n_active, sizes.n_experts)

    def n_total(self, sizes: Sizes) -> Array | None:
        """Parameters held, routers out; None where unknown."""
        return sizes.n_total if self.family is None else np.asarray(self.structure(sizes).n_total)

    def top_k(self, sizes: Sizes) -> int | None:
        """k of the models that are priced; None where unknown."""
        return sizes.top_k if self.family is None else min(self.family.k, sizes.n_experts)

    def memory_bytes(self, sizes: Sizes) -> Array | None:
        """Bytes of bf16 weights of all experts and of 16,384 cached tokens; None where N_total is unknown."""
        return memory_bytes(sizes) if self.family is None else _memory_of(self.structure(sizes))

    def knows_the_cache(self, sizes: Sizes) -> bool:
        """Whether the size of the cache is known."""
        return self.family is not None or sizes.kv_elements_per_token is not None

    def offer(self, sizes: Sizes) -> Offer:
        """How models are served: replica, devices, latency and price. Raises InputError without a device or widths."""
        return cheapest(self.structure(sizes), self.rented, self.service, self.demand)

    def serve(self, sizes: Sizes) -> Array:
        """Cost of serving `serve_tokens`; infinite where the device cannot."""
        return self.per_token(sizes) * self.serve_tokens if self.serve_tokens else 0.0 * sizes.n_active

    def fits(self, sizes: Sizes) -> Booleans:
        """Which models keep all limits; without any all do. Raises InputError where memory needs an unknown N_total."""
        allowed = self._servable(sizes)
        if self.most_per_token is not None:
            allowed = allowed & (self.per_token(sizes) <= self.most_per_token)
        if self.memory is None:
            return allowed
        needed = self.memory_bytes(sizes)
        if needed is None:
            raise InputError(
                f"`memory_gb` needs the total size of models with E = {sizes.n_experts}, which this fit does not know; "
                f"fit a table with the columns n_active and n_total, or name one of its likes with {_A_FAMILY}"
            )
        return allowed & (needed <= self.memory)

    @property
    def limits(self) -> Pricing:
        """What `fits` depends on: pricings with equal limits allow the same models."""
        limited = replace(self, serve_tokens=0.0, training_speed=ASSUMED_TRAINING)
        if self.device is None or self.most_per_token is not None or self.service.max_fleet is not None:
            return limited
        device, service = without_price(self.device, self.service)
        return replace(limited, device=device, service=service, demand=None)

    @property
    def served(self) -> Pricing:
        """What the price of a served token depends on: pricings that are equal in it share their tables of prices."""
        return replace(self, serve_tokens=0.0, training_speed=ASSUMED_TRAINING, memory=None)

    @property
    def most_memory(self) -> float:
        """Bytes of the most devices that one replica may be spread over."""
        return self.service.max_devices * self.rented.memory

    def _servable(self, sizes: Sizes) -> Booleans:
        """Which models the device can serve within the limits; of models without widths, those whose weights fit."""
        if self.device is None or self.n_total(sizes) is None:
            return np.ones(np.shape(sizes.n_active), dtype=bool)
        limits_latency = self.service.ttft_s is not None or self.service.tpot_s is not None
        if limits_latency or self.family is not None or not unknown_columns(sizes):
            if self.service.max_fleet is None:
                return np.isfinite(fewest_devices(self.structure(sizes), self.device, self.service))
            return np.isfinite(self.per_token(sizes))
        weights = self.service.bytes_per_weight * (
            np.maximum(sizes.column("n_total"), sizes.n_active) + _routers(sizes)
        )
        return weights <= self.most_memory

    def tabulated(
        self,
        sizes_of: Callable[[Array], Sizes],
        largest: float,
        speeds: Speeds | None = None,
        near: float | None = None,
    ) -> PriceTable:
        """The price of a served token against N_active from 1 to `largest`, for searches over many draws.

        With `speeds` one price curve for each of its rows, the cheapest replica within the limits chosen anew in each.
        With `near` only sizes within a factor `NEAR` of it, for searches that stay there.
        """
        if near is None:
            log_n = np.linspace(0.0, np.log(largest), _TABULATED if speeds is None else _TABULATED_PER_DRAW)
        else:
            ends = np.log([near / NEAR, near * NEAR])
            log_n = np.minimum(np.linspace(ends[0], ends[1], _TABULATED_NEAR), np.log(largest))
            log_n = np.linspace(log_n[0], log_n[-1], _TABULATED_NEAR)
        sizes = sizes_of(np.exp(log_n))
        if speeds is None or self.device is None:
            prices = self.per_token(sizes)[None, :]
        else:
            prices = self.at_speeds(sizes, speeds)[0]
        if self.most_per_token is not None:
            prices = np.where(prices <= self.most_per_token, prices, np.inf)
        return PriceTable(log_n, prices)

    def at_speeds(self, sizes: Sizes, speeds: Speeds) -> tuple[Array, Array]:
        """USD and seconds per output token (draws, models) at every draw of the device's speed, with the scatter of
        models of this E."""
        services = speeds.services(self.service, sizes.n_experts)
        return prices_and_steps(self.structure(sizes), self.rented, services, self.demand)


@dataclass(frozen=True)
class PriceTable:
    """The cost of a served token of one E, tabulated over ln N_active and linear between; infinite beyond the table.

    One curve, or one a draw of the device's speed: row s of a search meets curve s modulo their number.
    """

    log_n: Array
    prices: Array

    def per_token(self, n_active: Array) -> Array:
        """Cost of a served token of models (rows, sizes)."""
        place = (np.log(n_active) - self.log_n[0]) / (self.log_n[1] - self.log_n[0])
        below = np.clip(np.floor(place), 0, len(self.log_n) - 2).astype(int)
        part = place - below
        row = np.arange(len(n_active))[:, None] % len(self.prices)
        low, high = self.prices[row, below], self.prices[row, below + 1]
        with np.errstate(invalid="ignore"):
            between = np.where(part > 0, low + part * (high - low), low)
        inside = (place >= 0) & (part <= 1 + 1e-9) & np.isfinite(between)
        return np.where(inside, between, np.inf)


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


def _memory_of(sizes: ModelSizes) -> Array:
    """The same of a known architecture: 2 (N_total + n_router + elements that 16,384 tokens cache)."""
    cached = sum(group.cached(CACHED_TOKENS) for group in sizes.layers_of_attention)
    return np.asarray(BYTES_PER_VALUE * (sizes.n_total + sizes.n_router + cached), dtype=float)


def unknown_columns(sizes: Sizes) -> list[str]:
    """The columns of a table that pricing on a device needs, and the family of these models does not know."""
    return [name for name in _PRICED_COUNTS if name != "kv_elements_per_token" and getattr(sizes, name) is None]


def structure(sizes: Sizes) -> ModelSizes:
    """The counts that serving is priced by. Raises InputError where the family does not know them."""
    unknown = unknown_columns(sizes)
    if unknown:
        raise InputError(
            f"pricing on a device needs {listed(unknown)} of models with E = {sizes.n_experts}, which this fit does "
            f"not know: name what its models are like with {_A_FAMILY}, fit a table that has them in every run, one "
            "top_k for each E, or count FLOPs without `device`"
        )
    counts = {name: getattr(sizes, name) for name in _PRICED_COUNTS}
    counts["n_total"] = np.maximum(counts["n_total"], sizes.n_active)
    return ModelSizes(**counts, n_experts=sizes.n_experts, n_router=_routers(sizes))

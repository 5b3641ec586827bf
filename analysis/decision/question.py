"""The question a recommendation answers: what is minimised, under which limits, and what is paid for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

from analysis.decision.allocation import Allocation
from analysis.decision.lifetime_cost import Pricing
from analysis.training_speed.speeds import training_speed
from scaling.bounds import (
    LEAST_SHARE,
    MOST_EXPERTS,
    MOST_FLOPS,
    MOST_LOSS,
    MOST_PARAMETERS,
    MOST_TOKENS,
    MOST_USD,
    outside,
)
from scaling.errors import InputError
from scaling.formatting import si
from scaling.serving import devices
from scaling.serving.device import Device
from scaling.serving.families import ArchitectureFamily
from scaling.serving.replicas import demand_of
from scaling.serving.service import SERVICE, Service
from scaling.serving.training_speed import TrainingSpeed
from scaling.summary import Settings

Goal = Literal["lifetime", "serving", "loss"]
_MONTHS = 12.0
_BUDGETS = ("train_flops", "train_usd", "target_loss", "lifetime_cost")
_REFERENCES = ("reference_loss", "reference_model", "reference_fit")
_MONEY = ("usd_per_hour", "mfu", "training_speed", "train_usd", "usd_per_million")
# The most that each may be.
_POSITIVE = {
    "train_flops": MOST_FLOPS,
    "train_usd": MOST_USD,
    "target_loss": MOST_LOSS,
    "reference_loss": MOST_LOSS,
    "lifetime_cost": MOST_FLOPS,
    "memory_gb": 1e12,
    "usd_per_hour": 1e9,
    "data_tokens": MOST_TOKENS,
    "requests_per_month": MOST_TOKENS,
    "months": 1e6,
    "usd_per_million": MOST_USD,
}


@dataclass(frozen=True, repr=False)
class Question(Settings):
    """What is asked: one of `train_flops`, `train_usd`, `target_loss` and `lifetime_cost`, and what is paid for.

    `lifetime_cost` pays for training and serving together, in FLOPs or, with a device, in USD. `serve_tokens` are
    output tokens over the model's life; `requests_per_month` for `months` (of `service.generated` tokens each) instead
    give the load as well, and a device is then rented in whole replicas. `minimise` is "lifetime", "serving" or "loss";
    None: by what was given (`goal`). `n_experts` are the expert counts compared (default: those studied).

    Limits: `memory_gb` (GB = 1e9 bytes) on weights and cached tokens; `data_tokens` on D; `usd_per_million` on the
    price of a million generated tokens; those of `service` on devices, batch and latency.

    `device` is priced at `usd_per_hour`, by default at its rent in the device table, or is `rented` itself where that
    is given. `family` are the models that are priced, where they are not the fit's own.
    `training_speed` says what training takes; None: 40 % of the peak at E = 1, falling with E as published (`assumed`).
    `mfu` is the share at E = 1 instead of that speed's own.

    Where a cost is minimised within a training budget, a loss is kept. It is that of the best model with E =
    `reference_experts` at the budget; or of the model that `reference_fit` makes of the budget at that E
    (`analysis.decision.allocation`), or of `reference_model`, its N_active and tokens, both by the law asked and in
    every draw of it; or it is `reference_loss` itself, in nats per token. `target_loss` is the last without a budget.

    `top_k`, `granularity` and `n_shared` are the shapes of experts that are compared: experts of a token, their width
    as the law counts it, and shared ones (`analysis.decision.shapes`; none: those that the law was fitted to). Where
    each has one value, models are of that shape. `settings` are other columns of the law, equal for all models.
    """

    train_flops: float | None = None
    target_loss: float | None = None
    serve_tokens: float = 0.0
    n_experts: tuple[int, ...] = ()
    memory_gb: float | None = None
    device: str | None = None
    usd_per_hour: float | None = None
    mfu: float | None = None
    reference_experts: int = 1
    settings: Mapping[str, float] = field(default_factory=dict)
    train_usd: float | None = None
    lifetime_cost: float | None = None
    minimise: Goal | None = None
    data_tokens: float | None = None
    requests_per_month: float | None = None
    months: float = _MONTHS
    usd_per_million: float | None = None
    reference_loss: float | None = None
    reference_model: tuple[float, float] | None = None
    reference_fit: Allocation | None = None
    service: Service = SERVICE
    rented: Device | None = None
    family: ArchitectureFamily | None = None
    top_k: tuple[int, ...] = ()
    granularity: tuple[float, ...] = ()
    n_shared: tuple[int, ...] = ()
    training_speed: TrainingSpeed | None = None

    def __post_init__(self) -> None:
        self._check_numbers()
        self._check_combination()
        device = self.pricing.device  # an unknown one is named now
        for name in ("train_usd", "lifetime_cost"):
            if device is not None and not device.usd_per_hour and getattr(self, name) is not None:
                raise InputError(f"`{name}` has no end on {device.title}, which costs nothing: give `usd_per_hour`")

    def _check_numbers(self) -> None:
        given = [f"`{name}`" for name in _BUDGETS if getattr(self, name) is not None]
        if len(given) != 1:
            received = f"; {' and '.join(given)} were given" if given else ""
            raise InputError(f"give one of {', '.join(f'`{name}`' for name in _BUDGETS)}{received}")
        for name, most in _POSITIVE.items():
            value = getattr(self, name)
            if value is not None and (wrong := outside(value, most)):
                raise InputError(f"`{name}` {wrong}")
        for what, value, most in zip(
            ("N_active", "tokens"), self.reference_model or (), (MOST_PARAMETERS, MOST_TOKENS), strict=False
        ):
            if wrong := outside(value, most):
                raise InputError(f"`reference_model` is N_active and tokens of a model: its {what} {wrong}")
        if self.mfu is not None and not LEAST_SHARE <= self.mfu <= 1:
            raise InputError(f"`mfu` must be above 0 (at least {LEAST_SHARE:g}) and at most 1, found {self.mfu:g}")
        if self.serve_tokens != 0 and (wrong := outside(self.serve_tokens, MOST_TOKENS)):
            raise InputError(f"`serve_tokens` {wrong}, or 0")
        for name, counts in (("n_experts", self.n_experts), ("reference_experts", (self.reference_experts,))):
            for count in counts:
                if not 1 <= count <= MOST_EXPERTS:
                    raise InputError(f"`{name}` are whole numbers from 1 to {MOST_EXPERTS:,}, found {count}")
        for name, least in (("top_k", 1), ("granularity", 1), ("n_shared", 0)):
            for each in getattr(self, name):
                if not least <= each <= MOST_EXPERTS:
                    raise InputError(f"`{name}` are numbers from {least} to {MOST_EXPERTS:,}, found {each:g}")
        for name, value in self.settings.items():
            if not abs(value) <= MOST_FLOPS:
                raise InputError(f"`set` {name}={value}: must be a number up to {MOST_FLOPS:g}")

    def _check_combination(self) -> None:
        for name in _MONEY:
            if self.device is None and getattr(self, name) is not None:
                raise InputError(f"`{name}` needs `device`: without one, cost is in FLOPs")
        if self.device is None and (self.service.ttft_s is not None or self.service.tpot_s is not None):
            raise InputError("`ttft_ms` and `tpot_ms` need `device`: without one there are no seconds")
        if self.goal == "serving" and self.target_loss is not None and self.data_tokens is None:
            raise InputError(
                "`minimise` serving at a `target_loss` has no end: ever smaller models on ever more tokens serve ever "
                "cheaper; bound the training with `train_flops`, or the data with `data_tokens`"
            )
        if self.requests_per_month is None:
            if self.months != _MONTHS:
                raise InputError("`months` needs `requests_per_month`")
            if self.service.max_fleet is not None:
                raise InputError("`max_fleet` needs `requests_per_month`: without a load there is no fleet to count")
        elif self.serve_tokens:
            raise InputError("give either `serve_tokens` or `requests_per_month`")
        if self.goal == "loss" and self.target_loss is not None:
            raise InputError("`minimise` loss needs a budget, not `target_loss`")
        if self.goal != "loss" and self.lifetime_cost is not None:
            raise InputError(f"`lifetime_cost` is what is spent: only the loss can be minimised, not {self.goal}")
        references = [f"`{name}`" for name in _REFERENCES if getattr(self, name) is not None]
        if len(references) > 1:
            raise InputError(f"give one of {', '.join(references)}: each says which loss is kept")
        if references and not self.keeps_a_loss:
            raise InputError(
                f"{references[0]} is the loss to keep where a cost is minimised within a training budget: give "
                "`train_flops` or `train_usd`, and `serve_tokens` or `minimise` lifetime; without a budget a loss is "
                "reached by `target_loss`"
            )
        if self.goal == "serving" and not self.served:
            raise InputError("`minimise` serving needs `serve_tokens` or `requests_per_month`")

    @property
    def served(self) -> float:
        """Output tokens served over the model's life, whose price holds the prompts before them."""
        if self.requests_per_month is None:
            return self.serve_tokens
        return self.requests_per_month * self.months * self.service.generated

    @property
    def goal(self) -> Goal:
        """What is minimised; None: the loss at a lifetime cost or where nothing is served, else the lifetime cost."""
        if self.minimise is not None:
            return self.minimise
        if self.lifetime_cost is not None:
            return "loss"
        return "lifetime" if self.target_loss is not None or self.served else "loss"

    @property
    def keeps_a_loss(self) -> bool:
        """Whether a cost is minimised within a training budget, at no worse a loss than the reference's."""
        return self.goal != "loss" and self.target_loss is None

    @property
    def loss_asked(self) -> float | None:
        """The loss that was given outright, to reach or to keep."""
        return self.reference_loss if self.target_loss is None else self.target_loss

    @property
    def reference_kind(self) -> str:
        """What the reference is, but for its size."""
        return "dense model" if self.reference_experts == 1 else f"model with E = {self.reference_experts}"

    @property
    def reference(self) -> str:
        """Whose loss is kept, in words that follow "that of"."""
        kind = self.reference_kind
        if self.reference_fit is not None:
            return f"the {kind} of the budget as {self.reference_fit.name} divides it"
        if self.reference_model is not None:
            size, tokens = self.reference_model
            return f"the {kind} of {si(size)} active parameters on {si(tokens)} tokens"
        return f"the best {kind} at the budget"

    @property
    def mode(self) -> str:
        """What is minimised, in words."""
        if self.goal == "loss":
            budget = "lifetime cost" if self.lifetime_cost is not None else "training budget"
            return f"least loss at the {budget}"
        cost = f"least {'cost of serving' if self.goal == 'serving' else 'lifetime cost'}"
        if self.target_loss is not None:
            return f"{cost} at the target loss"
        bar = f"{self.reference_loss:g}" if self.reference_loss is not None else f"that of {self.reference}"
        return f"{cost} among the models trained within the budget whose loss is no worse than {bar}"

    @cached_property
    def pricing(self) -> Pricing:
        """How it is paid for."""
        rented = self.rented
        if rented is None and self.device is not None:
            rented = devices.device(self.device)
        if rented is not None and self.usd_per_hour is not None:
            rented = replace(
                rented, usd_per_hour=self.usd_per_hour, price_source="as given", price_date="when this was asked"
            )
        load = None if self.requests_per_month is None else demand_of(self.requests_per_month, self.service)
        return Pricing(
            serve_tokens=self.served,
            memory=None if self.memory_gb is None else self.memory_gb * 1e9,
            device=rented,
            training_speed=training_speed(self.training_speed, self.mfu),
            service=self.service,
            demand=load if rented is not None else None,
            most_per_token=None if self.usd_per_million is None else self.usd_per_million / 1e6,
            family=self._built,
        )

    @property
    def _built(self) -> ArchitectureFamily | None:
        """The models that are priced, in the shape that is asked about where there is one alone."""
        shapes = {name: getattr(self, name) for name in ("top_k", "granularity", "n_shared")}
        one = {name: values[0] for name, values in shapes.items() if len(values) == 1}
        return self.family if self.family is None else replace(self.family, **one)

    @property
    def budget(self) -> float | None:
        """What training may cost at most, in `budget_unit`; None where a loss or a lifetime cost is given."""
        return self.train_flops if self.train_usd is None else self.train_usd

    @property
    def budget_unit(self) -> str:
        """FLOP or, of `train_usd`, USD, which buy other FLOPs at every E."""
        return "FLOP" if self.train_usd is None else "USD"

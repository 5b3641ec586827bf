"""Prices of two matched models: the device time of their training, and the money of training and serving them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from analysis.decision.lifetime_cost import Pricing
from analysis.decision.optima import SizeOptimiser
from analysis.decision.question import Question
from analysis.decision.size_search import Optimum
from analysis.decision.training_price import training_price
from analysis.latency.speeds import Speeds
from analysis.worth.equal_loss import Comparison, EqualLoss
from scaling.arrays import Array
from scaling.errors import InputError
from scaling.serving import devices

ANY_DEVICE = "h100"  # a share of the peak gives the same ratio of times on every device


@dataclass(frozen=True)
class Prices:
    """What a question says of time and money. `speeds` are draws of the device's speed in serving.

    Time is that of `question.training_speed`; it is counted on the device of the question or, where there is none and
    the speed is a share of the peak, on any: their ratio is the same. Raises InputError where it is not, and where
    tokens are served without a device.
    """

    question: Question
    speeds: Speeds | None = None

    def __post_init__(self) -> None:
        if self.question.device is None and self.question.served:
            raise InputError("`serve_tokens` needs `device`: what an E is worth in money takes its price")

    @property
    def timed(self) -> Pricing:
        """Training alone at a dollar an hour, so that its price is time."""
        pricing = self.question.pricing
        on = devices.device(ANY_DEVICE) if pricing.device is None else pricing.device
        return replace(pricing, serve_tokens=0.0, device=replace(on, usd_per_hour=1.0), demand=None)

    def log_time_ratio(self, compared: Comparison, matched: EqualLoss, *, drawn: bool = False) -> Array:
        """ln of the device time that training the baseline takes over that of the model, in every row; with `drawn`
        rows meet draws of the training speed."""
        times = [
            _log_training_cost(compared, self.timed, e, optimum, drawn=drawn)
            for e, optimum in ((compared.baseline_experts, matched.baseline), (matched.n_experts, matched.model))
        ]
        return times[0] - times[1]

    def log_cost_ratio(self, compared: Comparison, matched: EqualLoss, *, drawn: bool = False) -> Array:
        """ln of what the baseline costs over what the model costs, in every row.

        Training alone: the ratio of times, whatever the device's rent. NaN where the device cannot serve one of the
        models, infinite where the baseline never reaches the loss.
        """
        if not self.question.served:
            return self.log_time_ratio(compared, matched, drawn=drawn)
        # A question of least loss, whose optimiser prices a model anew: where a cost is minimised it knows it already.
        optimiser, exact = SizeOptimiser(compared.fit, replace(self.question, minimise="loss")), not drawn
        speeds = self.speeds if drawn else None
        of_model, of_baseline = (
            optimiser.lifetime(e, optimum, speeds, exact=exact, drawn=drawn)
            for e, optimum in ((matched.n_experts, matched.model), (compared.baseline_experts, matched.baseline))
        )
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.log(of_baseline) - np.log(of_model)
        served = np.where(np.isfinite(ratio), ratio, np.nan)
        return np.where(np.isfinite(matched.baseline.value), served, np.inf)


def _log_training_cost(
    compared: Comparison, pricing: Pricing, n_experts: int, optimum: Optimum, *, drawn: bool
) -> Array:
    """ln of what training costs in every row; infinite where the tokens are."""
    price = training_price(pricing, compared.space(n_experts), len(optimum.tokens), drawn=drawn)
    per_token = price(compared.sizes(n_experts, optimum.n_active[:, None]))
    return np.asarray(np.log(per_token[:, 0]) + np.log(optimum.tokens))

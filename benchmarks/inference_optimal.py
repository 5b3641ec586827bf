"""The two claims of arXiv 2404.02852 from our own laws and serving model: the tables of docs/inference-optimal.md.

    python -m benchmarks.inference_optimal [--json]

Claim 1: of compute-optimal models of equal loss, 4 or 8 experts are cheapest to serve, and take 2.5 to 3.5 times the
training compute of those with 16 or 32. Claim 2: at a training budget, 16 or 32 experts at 70 to 85 % smaller than
their compute-optimal size, on more data, are as good and as cheap.

Laws: joint-moe-2025 in N and E, and sparsity-2025 in total size and k/E; the paper's own constants are unpublished.
Models: the paper's (experts in every second layer, top-2, gated MLPs two thirds of the parameters, multi-head
attention) on A100s of 40 GB, where N is the dense backbone and training costs 6 N D, as in the paper; and the DeepSeek
lineage on H100s, where N is N_active. Prices are of a replica that is always busy, at the largest batch that memory
allows, over the number of devices that is cheapest.
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np

from analysis.fitting.published import published
from analysis.latency.speeds import with_speed
from scaling.arrays import Array
from scaling.columns import EXPERTS, TOKENS
from scaling.serving.devices import device
from scaling.serving.families import architecture_family
from scaling.serving.replicas import least_price
from scaling.serving.service import ModelSizes, Service

COUNTS = (1, 4, 8, 16, 32)
BUDGETS = (2.12e21, 8.18e21, 2e22, 1e23)  # the first two are the ends of the paper's
SHRINKS = (0.30, 0.15)  # of the compute-optimal size: 70 % and 85 % smaller
SERVED = Service(prompt=160, generated=340, utilisation=1.0)
"""Short chats; the paper's lengths, from ShareGPT, are unpublished."""
_SIZES = np.geomspace(1e7, 1e13, 3001)
_ROUTED_SHARE = 1.0 / 3.0  # of the backbone's parameters: MLPs are two thirds, every second has experts
_TOP_K = 2.0
_DEEPSEEK_K = 8


def backbone(n_dense: Array, n_experts: int) -> ModelSizes:
    """The paper's models: N_total = (1 + (E - 1)/3) N, N_active = 4/3 N with top-2; width 128 times the depth, as
    Llama's, so that 12 d^2 layers = N."""
    width = (128.0 / 12.0 * n_dense) ** (1.0 / 3.0)
    layers = width / 128.0
    routed = n_experts > 1
    return ModelSizes(
        n_active=n_dense * (1.0 + (_TOP_K - 1.0) * _ROUTED_SHARE) if routed else n_dense,
        n_total=n_dense * (1.0 + (n_experts - 1) * _ROUTED_SHARE),
        kv_elements_per_token=2.0 * layers * width,
        n_layers=layers,
        d_model=width,
        n_experts=n_experts,
        top_k=_TOP_K if routed else 1.0,
        routed_share=0.5 if routed else 1.0,
    )


def deepseek(n_active: Array, n_experts: int) -> ModelSizes:
    """The lineage at that N_active; E times its 8 routed experts of a token, so that total sizes grow as with E."""
    routed = _DEEPSEEK_K * n_experts if n_experts > 1 else 1
    return architecture_family("deepseek").sizes(n_active, routed)


Loss = Callable[[Array, Array, int, ModelSizes], Array]


def joint(size: Array, tokens: Array, n_experts: int, sizes: ModelSizes) -> Array:
    columns = {"n_active": size, TOKENS: tokens, EXPERTS: np.full(len(size), float(n_experts))}
    return published("joint-moe-2025").loss(columns)


def sparsity(size: Array, tokens: Array, n_experts: int, sizes: ModelSizes) -> Array:
    whole = np.ones(len(size))
    columns = {"n_total": np.asarray(sizes.n_total) * whole, TOKENS: tokens, EXPERTS: sizes.n_experts * whole}
    return published("sparsity-2025").loss(columns | {"top_k": sizes.top_k * whole})


@dataclass(frozen=True)
class Setting:
    """A law, an architecture and a device."""

    law: str
    models: str
    device: str

    max_devices: int = 8

    @property
    def loss(self) -> Loss:
        return {"joint-moe-2025": joint, "sparsity-2025": sparsity}[self.law]

    @functools.cache  # noqa: B019  a handful of settings
    def of_all_sizes(self, n_experts: int) -> ModelSizes:
        return self.sizes(_SIZES, n_experts)

    def sizes(self, size: Array, n_experts: int) -> ModelSizes:
        return (backbone if self.models == "paper" else deepseek)(size, n_experts)

    def price(self, size: float, n_experts: int, *, multiplies_all: bool = False) -> float:
        """USD a million generated tokens; by an engine that multiplies each token with every expert, where asked."""
        service, _ = with_speed(replace(SERVED, max_devices=self.max_devices), self.device)
        sizes = self.sizes(np.array([size]), n_experts)
        if multiplies_all:
            sizes = replace(sizes, n_active=sizes.n_total, n_experts=1, top_k=1.0, routed_share=1.0)
        found = least_price(sizes, device(self.device), service)
        return float(1e6 * np.ravel(found)[0])


SETTINGS = (
    Setting("joint-moe-2025", "paper", "a100-40gb"),
    Setting("joint-moe-2025", "paper", "a100-40gb", 64),
    Setting("sparsity-2025", "paper", "a100-40gb"),
    Setting("joint-moe-2025", "deepseek", "h100"),
)


@dataclass(frozen=True)
class Curve:
    """The models of one E at a training budget, by size."""

    loss: Array
    best: int

    @classmethod
    def of(cls, setting: Setting, train_flops: float, n_experts: int) -> Curve:
        loss = setting.loss(_SIZES, train_flops / (6.0 * _SIZES), n_experts, setting.of_all_sizes(n_experts))
        return cls(loss, int(np.argmin(loss)))

    def smallest(self, target: float) -> float | None:
        """The smallest size that reaches a loss on this budget; None where none does."""
        reach = np.flatnonzero(self.loss <= target)
        return float(_SIZES[reach[0]]) if len(reach) else None


@dataclass(frozen=True)
class EqualQuality:
    """The compute-optimal model of one E whose loss is that of E = 4 at the budget.

    `train_ratio` is its training compute over the least of E = 16 and 32.
    """

    n_experts: int
    n: float
    tokens: float
    train_ratio: float
    usd_per_million: float
    usd_multiplying_all: float


@dataclass(frozen=True)
class Smaller:
    """A model of one E on the budget: the smallest that is as good as the compute-optimal one of E = 4.

    `share` is of its own compute-optimal size, `share_of_four` of that of E = 4, `tokens_ratio` of its own tokens,
    `price_ratio` of the price of E = 4. `shrunk_loss` is the loss less that of E = 4, at shares of its own size.
    """

    n_experts: int
    share: float | None
    share_of_four: float | None
    tokens_ratio: float | None
    price_ratio: float | None
    shrunk_loss: Mapping[str, float]


def equal_quality(setting: Setting, budget: float) -> list[EqualQuality]:
    """Of each E the compute-optimal model of the loss that E = 4 has at the budget; training relative to the least of
    E = 16 and 32."""
    target = float(Curve.of(setting, budget, 4).loss.min())
    found = []
    for n_experts in COUNTS:
        low, high = np.log(budget) - 12.0, np.log(budget) + 12.0
        for _ in range(30):
            middle = 0.5 * (low + high)
            reached = Curve.of(setting, float(np.exp(middle)), n_experts).loss.min() <= target
            low, high = (low, middle) if reached else (middle, high)
        if high > np.log(budget) + 11.9:
            continue  # this E does not reach it at any budget near
        flops = float(np.exp(high))
        size = float(_SIZES[Curve.of(setting, flops, n_experts).best])
        prices = (setting.price(size, n_experts, multiplies_all=each) for each in (False, True))
        found.append(EqualQuality(n_experts, size, flops / (6.0 * size), flops, *prices))
    least = min(row.train_ratio for row in found if row.n_experts >= 16)
    return [replace(row, train_ratio=row.train_ratio / least) for row in found]


def smaller(setting: Setting, budget: float) -> list[Smaller]:
    """Of each E above 4 the smallest model as good as the compute-optimal one of E = 4, and what shrinking costs."""
    four = Curve.of(setting, budget, 4)
    base, target, found = float(_SIZES[four.best]), float(four.loss.min()), []
    price = setting.price(base, 4)
    for n_experts in COUNTS[2:]:
        curve = Curve.of(setting, budget, n_experts)
        best = float(_SIZES[curve.best])
        size = curve.smallest(target)
        shrunk = {f"{s:.2f}": float(np.interp(np.log(s * best), np.log(_SIZES), curve.loss) - target) for s in SHRINKS}
        if size is None:
            found.append(Smaller(n_experts, None, None, None, None, shrunk))
            continue
        found.append(
            Smaller(n_experts, size / best, size / base, best / size, setting.price(size, n_experts) / price, shrunk)
        )
    return found


Measured = dict[str, tuple[list[EqualQuality], list[Smaller]]]


def measured(settings: Sequence[Setting] = SETTINGS, budgets: Sequence[float] = BUDGETS) -> Measured:
    """Both tables of every setting and budget, by name."""
    return {
        f"{each.law}, {each.models}, {each.max_devices} {each.device}, {budget:.3g}": (
            equal_quality(each, budget),
            smaller(each, budget),
        )
        for each in settings
        for budget in budgets
    }


def rows_of_equal_quality(found: Measured) -> list[str]:
    """Rows of the first table: training compute and prices of every E, and which is cheapest."""
    rows = []
    for name, (rows_of_setting, _) in found.items():
        by = {row.n_experts: row for row in rows_of_setting}
        cells = [
            f"{r.train_ratio:.1f}x, {_usd(r.usd_per_million)} ({_usd(r.usd_multiplying_all)})"
            if (r := by.get(e))
            else ""
            for e in COUNTS
        ]
        cheapest, plain = (
            min(by.values(), key=lambda row: getattr(row, price)).n_experts
            for price in ("usd_per_million", "usd_multiplying_all")
        )
        rows.append(f"| {name} | {' | '.join(cells)} | {cheapest} ({plain}) |")
    return rows


def rows_of_smaller(found: Measured) -> list[str]:
    """Rows of the second table: a row each E above 4."""
    return [
        "| " + " | ".join((name, str(row.n_experts), *_cells(row))) + " |"
        for name, (_, rows) in found.items()
        for row in rows
    ]


def _cells(row: Smaller) -> list[str]:
    shares = [_percent(row.share), _times(row.tokens_ratio), _percent(row.price_ratio)]
    return [*shares, *(f"{loss:+.3f}" for loss in row.shrunk_loss.values())]


def _usd(value: float) -> str:
    return f"{value:.3g}" if np.isfinite(value) else "does not fit"


def _percent(value: float | None) -> str:
    return "never" if value is None else f"{value:.0%}"


def _times(value: float | None) -> str:
    return "" if value is None else f"x {value:.1f}"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.inference_optimal", description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")
    asked, found = parser.parse_args(arguments), measured()
    if asked.json:
        named = {
            name: {"equal_quality": [asdict(row) for row in equal], "smaller": [asdict(row) for row in less]}
            for name, (equal, less) in found.items()
        }
        print(json.dumps(named).replace("Infinity", "null"))
    else:
        print("\n".join([*rows_of_equal_quality(found), "", *rows_of_smaller(found)]))
    return 0


if __name__ == "__main__":
    sys.exit(main())

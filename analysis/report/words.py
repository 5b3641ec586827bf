"""Numbers as a reader wants them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from analysis.figures import powers, si


def loss(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def flops(value: float | None) -> str:
    """FLOPs in powers of ten, as budgets are quoted."""
    return "–" if value is None else powers(value)


def number(value: float, form: str = ".4g") -> str:
    """A plain number with a true minus sign; very large and very small ones in powers of ten."""
    plain = format(value, form) if value == 0 or 1e-4 <= abs(value) < 1e5 else powers(value)
    return plain.replace("-", "−")


def plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def between(interval: Sequence[float] | None, write: Any = si) -> str:
    """`low – high`, or a dash where there is no interval."""
    return "–" if interval is None else f"{write(interval[0])} – {write(interval[1])}"


def percent(share: float | None) -> str:
    """A share in percent; never `100 %` or `0 %` for what is only close to it."""
    if share is None:
        return "–"
    if 0 < share < 0.005:
        return "< 1%"
    return "> 99%" if 0.995 <= share < 1 else f"{100 * share:.0f}%"


def experts(count: int) -> str:
    return "the dense model" if count == 1 else f"E = {count}"


def sentence(text: str) -> str:
    """The text with a capital letter and a full stop."""
    text = text.strip()
    return (text[0].upper() + text[1:] + ("" if text[-1] in ".!?" else ".")) if text else ""


def question(asked: Mapping[str, Any]) -> str:
    """The question in words, by what was given."""
    budget, served = asked["train_flops"], asked["serve_tokens"]
    life = f"over its life, {si(served)} tokens served" if served else "to train"
    if asked["target_loss"] is not None:
        told = f"Which model reaches a loss of {loss(asked['target_loss'])} nats per token at the least cost {life}"
    elif served:
        reference = asked["reference_experts"]
        best = "dense model" if reference == 1 else f"model with E = {reference}"
        told = (
            f"Of all models trained within {flops(budget)} FLOP whose loss is no worse than that of the best {best} "
            f"of this "
            f"budget, which costs least {life}"
        )
    else:
        told = f"Which model reaches the least loss with a training budget of {flops(budget)} FLOP"
    limits = [f"on {asked['device']}"] if asked["device"] else []
    limits += [f"within {asked['memory_gb']:g} GB of memory"] if asked["memory_gb"] else []
    return f"{', '.join([told, *limits])}?"

"""What a question asks of a device's speed that was not measured: refused for experts, said for the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from scaling.errors import InputError
from scaling.formatting import listed, si
from scaling.serving.measured_range import MeasuredRange

FAR = 2.0
"""Times beyond the least or largest that was measured from which a value counts as far outside."""
_REMEASURE = "measure the missing ones with `scaling bench` (comma lists) and fit anew with `scaling latency`"


def require_experts(measured: MeasuredRange | None, experts: Sequence[int]) -> None:
    """Raises InputError where routed models are to be priced by a latency law of dense models alone."""
    if measured is None or not measured.experts_cost or not measured.n_experts or max(measured.n_experts) > 1:
        return
    routed = [e for e in experts if e > 1]
    if routed:
        raise InputError(
            f"{measured.what} was measured at E = 1 alone, so it has no cost of an activated expert, and E = "
            f"{listed(routed)} cannot be priced by it: measure routed shapes too (`scaling bench` with `n_experts` "
            "1,8,32, then `scaling latency`), compare E = 1 alone with `n_experts`, or leave `latency` out for the "
            "assumed efficiency"
        )


def unseen_experts(measured: MeasuredRange | None, n_experts: int) -> list[str]:
    """That a price is no answer: its E lies more than twice beyond the least or largest E that was measured."""
    if measured is None or not measured.experts_cost or not measured.n_experts:
        return []
    least, most = min(measured.n_experts), max(measured.n_experts)
    if least / FAR <= n_experts <= most * FAR:
        return []
    return [
        f"{measured.what} was measured at E = {listed(measured.n_experts)}: nothing is known of the speed at E = "
        f"{n_experts}; {_REMEASURE}"
    ]


def not_covered(
    measured: MeasuredRange | None,
    experts: Sequence[int],
    top_k: float,
    served: Mapping[str, float],
    dtype: str,
    prompts: Sequence[float] = (),
) -> list[str]:
    """What of a priced model lies outside the measurement, with the range that was measured.

    `experts` are those compared; `top_k` of the one chosen, 0 for a dense one; `served` its batch, context, d_model and
    n_layers where they are known; `dtype` that of the device's peak; `prompts` how many are read at once.
    """
    if measured is None:
        return []
    doubts = [f"{measured.what}: {doubt}" for doubt in measured.doubts]
    if not measured.n_experts:
        unknown = [field for field in ("n_experts", "top_k", "batch", "context") if not getattr(measured, field)]
        return [
            *doubts,
            f"{measured.what} does not say at which {', '.join(unknown)} it was measured: whether it covers this "
            "question is unknown; write it anew with `scaling latency`",
        ]
    outside = []
    beyond = [e for e in experts if not min(measured.n_experts) <= e <= max(measured.n_experts)]
    if beyond:
        outside.append(f"E = {listed(measured.n_experts)} (not {listed(beyond)})")
    if measured.top_k and top_k and not min(measured.top_k) <= top_k <= max(measured.top_k):
        outside.append(f"k = {listed(measured.top_k)} (not {listed([top_k])})")
    for field, value in served.items():
        outside += _beyond(field, getattr(measured, field), [value])
    outside += _beyond("prompts at once", measured.prompt_batch, prompts)
    if len(measured.phases) == 1:
        outside.append(f"{measured.phases[0]} alone")
    if measured.dtype and measured.dtype != dtype:
        outside.append(f"{measured.dtype} (not {dtype}, that of the device's peak)")
    if outside:
        remedy = _REMEASURE if measured.experts_cost else "add measurements of such models"
        doubts.append(f"{measured.what} was measured at {', '.join(outside)}: beyond it is extrapolated; {remedy}")
    return doubts


def _beyond(what: str, ends: Sequence[float], values: Sequence[float]) -> list[str]:
    """The range, and the values that lie more than twice beyond it; nothing where the range is not known."""
    far = [value for value in values if ends and not ends[0] / FAR <= value <= ends[1] * FAR]
    measured = " to ".join(si(end) for end in dict.fromkeys(ends))
    return [f"{what} {measured} (not {listed([si(value) for value in far])})"] if far else []

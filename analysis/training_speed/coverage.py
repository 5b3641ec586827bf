"""What a question asks of a training speed that was not measured: refused for experts, said for the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from scaling.errors import InputError
from scaling.formatting import listed, si
from scaling.serving.training_speed import TrainingLaw, TrainingSpeed

_FAR = 2.0
"""Times beyond the least or largest that was measured from which a value counts as far outside."""
_OF_EXPERTS = "expert products"
_REMEDY = "add rows of such models and fit anew with `scaling training-speed`"


def require_priced(speed: TrainingSpeed, experts: Sequence[int]) -> None:
    """Raises InputError where routed models are to be priced by a training-speed law of dense models alone."""
    routed = [e for e in experts if e > 1]
    if isinstance(speed, TrainingLaw) and routed and _OF_EXPERTS in speed.absent:
        raise InputError(
            f"the training-speed law {speed.name} is of dense models alone, so E = {listed(routed)} cannot be priced "
            f"by it: {_REMEDY}, compare E = 1 alone with `n_experts`, or leave `training_speed` out for the assumed one"
        )


def not_covered(speed: TrainingSpeed, experts: Sequence[int], trained: Mapping[str, float]) -> list[str]:
    """What of the models priced lies outside the measurement of a training speed, with the range that was measured.

    `experts` are those compared; `trained` the d_model and n_layers of the one chosen, where they are known. A speed
    that nobody measured covers nothing and is said elsewhere.
    """
    law = isinstance(speed, TrainingLaw)
    measured = speed.domain.n_experts if isinstance(speed, TrainingLaw) else speed.measured_at
    outside = []
    if measured:
        beyond = [e for e in experts if not min(measured) / _FAR <= e <= max(measured) * _FAR]
        if beyond:
            outside.append(f"E = {listed(measured)} (not {listed(beyond)})")
    for field, value in trained.items():
        ends = getattr(speed.domain, field) if isinstance(speed, TrainingLaw) else ()
        if ends and not ends[0] / _FAR <= value <= ends[-1] * _FAR:
            outside.append(f"{field} {' to '.join(si(end) for end in dict.fromkeys(ends))} (not {si(value)})")
    if not outside:
        return []
    what = "the training-speed law" if law else f"the training speed {speed.name}"
    return [f"{what} was measured at {', '.join(outside)}: beyond it is extrapolated; {_REMEDY}"]

"""What the parts of a fit from a file must be together: names, counts, lengths and ranges. Messages name the field."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise

from analysis.fitting.fit import Fit
from analysis.fitting.noise import NoiseTrend
from analysis.fitting.prior import Prior
from analysis.laws import Law, Parameter
from analysis.laws.model_family import COUNTS, Family, PolynomialFamily
from scaling.bounds import MOST_PARAMETERS, outside
from scaling.errors import InputError

_BEYOND = 10.0  # times the largest magnitude allowed in a fit: a published fit may lie outside the bounds
_BEYOND_LOG = 1e6
_SAME = 1e-9  # relative
_MOST_DEGREE, _MOST_RESIDUAL, _MOST_SKEW = 12, 20.0, 20.0
_MOST_NOISE_SLOPE = 20.0
_COUNTS = ("n_runs", "n_trunks", "n_starts", "n_starts_at_minimum", "draws_failed")
_NOT_NEGATIVE = ("objective", "rmse_log", "condition", "noise", "router_skew")
_POSITIVE = ("delta", "corpus_tokens")


def require_sound(fit: Fit, law: Law, origin: str) -> None:
    """Raises InputError naming `origin` and the first field that contradicts the law or another field."""
    for wrong in _contradictions(fit, law):
        raise InputError(f"{origin}: {wrong}")


def _contradictions(fit: Fit, law: Law) -> Iterator[str]:
    for name in (field for field in ("params", "intervals", "pinned", "draws", "jackknife") if getattr(fit, field)):
        yield from _names(f"{name}.", getattr(fit, name), law)
    yield from _names("at_bounds: ", dict.fromkeys(fit.at_bounds), law)
    missing = [name for name in law.names if name not in fit.params]
    if fit.params and missing:
        yield f"params: law {law.name} needs the parameter {', '.join(missing)} too"
    for name, value in fit.params.items():
        yield from _value(f"params.{name}", value, law.parameter(name))
    for name, pin in fit.pinned.items():
        if fit.params and abs(pin.value - fit.params[name]) > _SAME * abs(pin.value):
            yield f"pinned.{name}.value: is {pin.value:g}, and params.{name} is {fit.params[name]:g}"
    for index, residual in enumerate(fit.residuals):
        if abs(residual) > _MOST_RESIDUAL:
            yield f"residuals[{index}]: residuals of ln loss are small numbers, found {residual:g}"
    yield from _counts(fit)
    for place, (low, high) in _ranges(fit):
        if low > high:
            yield f"{place}: reversed, from {low:g} to {high:g}"
    yield from _samples("draws", fit.draws, fit, law)
    yield from _samples("jackknife", fit.jackknife, fit, law)
    left_out = len(next(iter(fit.jackknife.values()), ()))
    if fit.jackknife and len(fit.strata) != left_out:
        yield f"strata: {len(fit.strata)} of them, and jackknife has {left_out} values"
    if fit.residuals and fit.n_runs and len(fit.residuals) != fit.n_runs:
        yield f"residuals: {len(fit.residuals)} of them, and n_runs is {fit.n_runs}"
    if fit.noise_trend is not None:
        yield from _noise_trend(fit.noise_trend, fit, law)
    if fit.prior is not None:
        yield from _prior(fit.prior)
    if fit.family is not None:
        yield from _family(fit.family)


def _prior(prior: Prior) -> Iterator[str]:
    if not 0 < prior.noise <= _MOST_RESIDUAL:
        yield f"prior.noise: must be above 0 and at most {_MOST_RESIDUAL:g}, found {prior.noise:g}"
    for name, (mean, deviation) in prior.exponents.items():
        if deviation < 0 or abs(mean) > _MOST_RESIDUAL:
            yield f"prior.exponents.{name}: a mean of ln and its deviation, found {mean:g} and {deviation:g}"
    for name, shrunk in prior.shrunk.items():
        if not 0 <= shrunk.data_weight <= 1:
            yield f"prior.shrunk.{name}.data_weight: must lie within 0 to 1, found {shrunk.data_weight:g}"
        if shrunk.deviation < 0:
            yield f"prior.shrunk.{name}.deviation: must be at least 0, found {shrunk.deviation:g}"


def _noise_trend(trend: NoiseTrend, fit: Fit, law: Law) -> Iterator[str]:
    for index, name in enumerate(trend.columns):
        if name not in law.columns:
            yield f"noise_trend.columns[{index}]: law {law.name} reads {', '.join(law.columns)}, found {name}"
    if abs(trend.slope) > _MOST_NOISE_SLOPE:
        yield f"noise_trend.slope: must be a small number, found {trend.slope:g}"
    if trend.centre <= 0:
        yield f"noise_trend.centre: must be above 0, found {trend.centre:g}"
    if not 0 < trend.least <= trend.most:
        yield f"noise_trend.most: must be at least the least, above 0; found {trend.least:g} to {trend.most:g}"
    if len(trend.standardised) != len(fit.residuals):
        yield f"noise_trend.standardised: {len(trend.standardised)} of them, and {len(fit.residuals)} residuals"


def _names(prefix: str, found: Mapping[str, object], law: Law) -> Iterator[str]:
    for name in found:
        if name not in law.names:
            yield f"{prefix}{name}: law {law.name} has no such parameter; it has {', '.join(law.names)}"


def _value(place: str, value: float, parameter: Parameter) -> Iterator[str]:
    """A parameter of the wrong sign is another paper's convention; one far outside what can be fitted is a mistake."""
    low, high = parameter.bounds
    if parameter.scale == "log":
        low, high = low / _BEYOND_LOG, high * _BEYOND_LOG
    else:
        reach = _BEYOND * max(abs(low), abs(high))
        low, high = (0.0 if low >= 0 else -reach), (0.0 if high <= 0 else reach)
    if not low <= value <= high:
        yield f"{place}: must lie within {low:g} to {high:g}, found {value:g}"


def _ranges(fit: Fit) -> Iterator[tuple[str, tuple[float, float]]]:
    for field in ("intervals", "domain"):
        for name, ends in getattr(fit, field).items():
            yield f"{field}.{name}", ends
    for experts, runs in fit.studied.items():
        yield f"studied.{experts}.tokens_per_param", runs.tokens_per_param
        if runs.train_flops is not None:
            yield f"studied.{experts}.train_flops", runs.train_flops


def _samples(field: str, samples: Mapping[str, tuple[float, ...]], fit: Fit, law: Law) -> Iterator[str]:
    """Draws or jackknife values: one list of one length for every parameter that was estimated."""
    if not samples:
        return
    if not fit.params:
        yield f"{field}: there are some, and params is empty"
    for name in samples:
        if name in fit.pinned:
            yield f"{field}.{name}: {name} is pinned, so nothing varies it"
    free = [name for name in law.names if name not in fit.pinned]
    if missing := [name for name in free if name not in samples]:
        yield f"{field}: lacks {', '.join(missing)}; every parameter that is not pinned has values"
    length = len(samples[free[0]]) if free else 0
    for name, values in samples.items():
        if len(values) != length or not values:
            yield f"{field}.{name}: {len(values)} values, and {field}.{free[0]} has {length}"
        for index, value in enumerate(values):
            yield from _value(f"{field}.{name}[{index}]", value, law.parameter(name))


def _counts(fit: Fit) -> Iterator[str]:
    for name in (*_COUNTS, *_NOT_NEGATIVE):
        if (value := getattr(fit, name)) is not None and value < 0:
            yield f"{name}: must be at least 0, found {value:g}"
    for name, most in (("noise", _MOST_RESIDUAL), ("router_skew", _MOST_SKEW)):
        if (value := getattr(fit, name)) is not None and value > most:
            yield f"{name}: must be at most {most:g}, found {value:g}"
    for name in _POSITIVE:
        if (value := getattr(fit, name)) is not None and value <= 0:
            yield f"{name}: must be above 0, found {value:g}"
    for index, experts in enumerate(fit.experts):
        if experts < 1:
            yield f"experts[{index}]: must be at least 1, found {experts}"
    for name, (low, _) in fit.domain.items():
        if low <= 0:
            yield f"domain.{name}[0]: must be above 0, found {low:g}"
    for count, runs in fit.studied.items():
        if count < 1:
            yield f"studied.{count}: an expert count is at least 1"
        for name, ends in (("tokens_per_param", runs.tokens_per_param), ("train_flops", runs.train_flops)):
            if ends is not None and ends[0] <= 0:
                yield f"studied.{count}.{name}[0]: must be above 0, found {ends[0]:g}"
    for index, (reason, count) in enumerate(fit.dropped):
        if count < 0:
            yield f"dropped[{index}][1]: must be at least 0, found {count} ({reason})"


def _family(family: Family) -> Iterator[str]:
    if family.top_k is not None and family.top_k < 1:
        yield f"family.top_k: must be at least 1, found {family.top_k}"
    if isinstance(family, PolynomialFamily):
        yield from _polynomials(family)
        return
    for experts, columns in family.rows.items():
        place = f"family.rows.{experts}"
        if experts < 1:
            yield f"{place}: an expert count is at least 1"
        sizes = columns.get("n_active", ())
        if not sizes or any(low >= high for low, high in pairwise(sizes)):
            yield f"{place}.n_active: must be there, and ascend"
        for name, values in columns.items():
            if len(values) != len(sizes):
                yield f"{place}.{name}: {len(values)} values, and n_active has {len(sizes)}"
            for index, value in enumerate(values):
                if wrong := outside(value, MOST_PARAMETERS):
                    yield f"{place}.{name}[{index}]: {wrong}"


def _polynomials(family: PolynomialFamily) -> Iterator[str]:
    polynomials = {"expert": family.expert, "n_layers": family.n_layers, "d_model": family.d_model}
    polynomials |= {"router": family.router, "cache": family.cache}
    for kind, counts in (("dense", family.dense), ("routed", family.routed)):
        if "n_active" not in counts and (counts or kind == "dense"):
            yield f"family.{kind}.n_active: missing"
        for name, polynomial in counts.items():
            if name not in COUNTS:
                yield f"family.{kind}.{name}: no such count; there are {', '.join(COUNTS)}"
            if not any(power and factor for power, factor in polynomial):
                yield f"family.{kind}.{name}: must grow with the size"
            polynomials[f"{kind}.{name}"] = polynomial
    if family.routed and not family.expert:
        yield "family.expert: missing, and there are routed models"
    for name, polynomial in polynomials.items():
        for index, (power, factor) in enumerate(polynomial):
            if not 0 <= power <= _MOST_DEGREE:
                yield f"family.{name}[{index}][0]: a degree is 0 to {_MOST_DEGREE}, found {power}"
            if not 0 <= factor <= 1e30:
                yield f"family.{name}[{index}][1]: must be at least 0 and no more than 1e30, found {factor:g}"

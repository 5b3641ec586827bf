"""Assumptions: what was computed for one model, and which limits were kept."""

from __future__ import annotations

from analysis.decision.lifetime_cost import CACHED_TOKENS, Pricing
from analysis.laws.model_family import Sizes
from scaling.serving import replicas


def explained(pricing: Pricing, sizes: Sizes) -> list[str]:
    """What was computed for one model: how training and serving were paid for, which limits were kept."""
    return [*_costed(pricing, sizes), *(_limits(pricing, sizes) or ["memory was not considered"])]


def _costed(pricing: Pricing, sizes: Sizes) -> list[str]:
    served, rent, service = pricing.serve_tokens, pricing.device, pricing.service
    if rent is None:
        serve = f"2 N_active T to serve T = {served:.4g} tokens" if served else "nothing is served"
        return [f"cost in FLOPs: 6 N_active D to train, {serve}"]
    told = [
        f"{rent.title} at {rent.usd_per_hour:g} USD an hour ({rent.price_source}; {rent.price_date})",
        f"training at {pricing.mfu:.0%} of {rent.peak_flops:.4g} FLOP/s ({rent.source}); 6 N_active D FLOPs",
    ]
    if not served:
        return [*told, "nothing is served"]
    reached = service.efficiency
    load = (
        f"replicas busy {service.utilisation:.0%} of the time"
        if pricing.demand is None
        else f"whole replicas for {pricing.demand:.4g} generated tokens per second, at most {service.utilisation:.0%} busy"
    )
    told.append(
        f"serving {served:.4g} generated tokens, {service.generated} a request after a prompt of {service.prompt}; "
        f"{load}; at most {service.max_batch} sequences a replica and {service.max_devices} devices"
        + ("" if service.max_fleet is None else f", {service.max_fleet} in all")
    )
    costs = {
        "a step": reached.overhead_s,
        "layers": reached.layer_s,
        "layers of a prompt": reached.prompt_s,
        "experts touched": reached.expert_s,
        "elements written": reached.activation_s,
        "weights read again": reached.reread if service.loops else 0.0,
    }
    beside = ", ".join(name for name, cost in costs.items() if cost)
    told.append(
        f"a step takes bytes / {reached.bandwidth_share:.0%} of {rent.bandwidth:.4g} bytes/s + FLOPs / "
        f"{reached.flops_share:.0%} of the peak + communication"
        + (f" + what {beside} cost" if beside else "")
        + f" ({reached.source}); experts touched by "
        + ("an even router" if not service.skew else f"a router of skew {service.skew:.2g}")
    )
    if sizes.n_experts > 1 and sizes.n_router is None:
        told.append("routers are left out of serving and memory: the fit does not know their size")
    return told


def _limits(pricing: Pricing, sizes: Sizes) -> list[str]:
    told, cached, service = [], sizes.kv_elements_per_token is not None, pricing.service
    if pricing.memory is not None:
        cache = f" and {CACHED_TOKENS:,} cached tokens" if cached else ""
        told.append(f"bf16 weights of all experts{cache} in {pricing.memory / 1e9:g} GB (1e9 bytes)")
    if pricing.device is not None and sizes.n_total is not None:
        cache = " and the cache of one request" if cached else ""
        told.append(
            f"weights of all experts at {8 * service.bytes_per_weight:g} bits{cache} in "
            f"{pricing.most_memory / 1e9:.4g} GB, the memory of {service.max_devices} devices; what training holds "
            "beside them was not considered"
        )
    limits = {"ttft": service.ttft_s, "tpot": service.tpot_s}
    if pricing.device is not None and any(limits.values()):
        kept = " and ".join(f"{name} at most {1e3 * value:g} ms" for name, value in limits.items() if value)
        told.append(
            f"{kept}, without queueing: {'; '.join(f'{name} is the {replicas.METRICS[name]}' for name in limits)}"
        )
    if pricing.most_per_token is not None:
        told.append(f"a served token costs at most {pricing.most_per_token:.4g} {pricing.unit}")
    return told

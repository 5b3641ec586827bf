"""Assumptions: what was computed for one model, and which limits were kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from analysis.decision.lifetime_cost import CACHED_TOKENS, Pricing
from analysis.decision.optima import MOST_REGRET, SizeOptimiser
from analysis.decision.recommendation import Choice
from analysis.decision.serve import speed_in_words
from analysis.laws.model_family import Sizes
from scaling.formatting import si
from scaling.serving.device import Device
from scaling.serving.replicas import METRICS
from scaling.serving.service import Service
from scaling.serving.training_speed import MfuByExperts


def assumptions_of(optimiser: SizeOptimiser, choices: Sequence[Choice]) -> list[str]:
    """What was computed for the model chosen, the first of `choices`: costs, limits that were kept, and what regret and
    noise mean."""
    fit, pricing, chosen = optimiser.fit, optimiser.pricing, choices[0]
    sizes = optimiser.sizes(chosen.n_experts, chosen.n_active)
    lines = _cost_assumptions(pricing, sizes, choices)
    lines += _limits(pricing, sizes) or ["memory was not considered"]
    if pricing.family is not None:
        lines.append(
            f"priced are models built as {pricing.family.name}, whatever the law was fitted to: {pricing.family.source}"
        )
    if fit.family is not None:
        lines.append(f"sizes between the studied ones: {fit.family.source}")
    elif chosen.n_total is None:
        lines.append("total sizes are unknown: the fit has no n_total")
    if chosen.probability_best is not None:
        beyond = (
            "how much more of the budget would make up for its loss, to first order,"
            if optimiser.loss_is_minimised
            else f"what it costs in {pricing.unit}"
        )
        lines.append(
            f"regret of an E: {beyond} beyond the best E of a draw, at most {MOST_REGRET:g} times the cost, mean over "
            "the draws in which it can answer; those in which it cannot reach the loss are counted apart"
        )
    if fit.definition.uses_experts and chosen.n_experts == 1 and 1 in fit.experts:
        lines.append("E = 1 is the smallest E studied and counts as no edge: there is nothing below a dense model")
    lines.append(
        "run-to-run noise was not estimated: no configuration was repeated with another seed"
        if fit.noise is None
        else f"run-to-run noise of ln loss {fit.noise:.2g}: in the interval of one run, not in that of the law"
    )
    return lines


def _cost_assumptions(pricing: Pricing, sizes: Sizes, choices: Sequence[Choice]) -> list[str]:
    """How training and serving were paid for."""
    tokens, device = pricing.serve_tokens, pricing.device
    if device is None:
        prompts = tokens * pricing.service.prompt_per_output
        serving = (
            f"2 N_active (T + P) to serve T = {si(tokens)} output tokens after P = {si(prompts)} prompt tokens"
            if tokens
            else "nothing is served"
        )
        return [f"cost in FLOPs: 6 N_active D to train, {serving}"]
    lines = [
        f"{device.title} at {device.usd_per_hour:g} USD an hour ({device.price_source}; {device.price_date})",
        _training(pricing, device, choices),
    ]
    if not tokens:
        return [*lines, "nothing is served"]
    lines += [_load(pricing), *_step_time(pricing.service, device), *_ways_of_serving(pricing.service)]
    if pricing.family is None:
        lines.append(
            "attention is plain multi-head, of 2 n_layers d_model cached elements a token; a family prices grouped or "
            "latent attention, which most served models have"
        )
    if sizes.n_experts > 1 and sizes.n_router is None and pricing.family is None:
        lines.append("routers are left out of serving and memory: the fit does not know their size")
    return lines


def _training(pricing: Pricing, device: Device, choices: Sequence[Choice]) -> str:
    """What training reaches of the device, and where that comes from."""
    speed, mfu = pricing.training_speed, {choice.n_experts: choice.train_mfu for choice in choices}
    device = device if isinstance(speed, MfuByExperts) else speed.peaks(device)
    reached = ", ".join(f"{share:.0%} at E = {e}" for e, share in sorted(mfu.items()) if share is not None)
    return (
        f"training reaches {reached} of {device.peak_flops:.4g} FLOP/s ({device.source}), of 6 N_active D FLOPs; "
        f"{speed.source}"
    )


def _load(pricing: Pricing) -> str:
    """What is served, on how many devices."""
    service, busy = pricing.service, f"{pricing.service.utilisation:.0%}"
    load = f"replicas busy {busy} of the time"
    if pricing.demand is not None:
        load = f"whole replicas for {pricing.demand:.4g} generated tokens per second, at most {busy} busy"
    fleet = "" if service.max_fleet is None else f", {service.max_fleet} in all"
    sequences = (
        "as many sequences a replica as memory and limits leave"
        if service.max_batch is None
        else f"at most {service.max_batch} sequences a replica"
    )
    return (
        f"serving {si(pricing.serve_tokens)} output tokens, {service.generated} a request after a prompt of "
        f"{service.prompt}; {load}; {sequences}, at most {service.max_devices} devices{fleet}"
    )


def _ways_of_serving(service: Service) -> Iterator[str]:
    """Number formats, and what else is not the plainest way to serve."""
    experts = "" if service.bytes_per_expert is None else f", of routed experts {8 * service.bytes_per_expert:g}"
    arithmetic = f"; products in {service.arithmetic}" if service.arithmetic else ""
    yield (
        f"weights of {8 * service.bytes_per_weight:g} bits{experts}, keys and values of {8 * service.bytes_per_kv:g}"
        f"{arithmetic}"
    )
    if service.apart:
        yield "prompts are read by other devices than those that decode, whose time is paid for too"
    if service.prefix_hit:
        yield f"{service.prefix_hit:.0%} of prompt tokens are cached already, and not read again"
    if service.drafted:
        yield f"{service.drafted} tokens are drafted in a step, each accepted with a chance of {service.accepted:.0%}"


def _step_time(service: Service, device: Device) -> list[str]:
    """What a step of serving takes."""
    router = f"a router of skew {service.skew:.2g}" if service.skew else "an even router"
    if service.engine is not None:
        return [speed_in_words(service), f"experts activated by {router}"]
    reached = service.efficiency
    costs = {
        "a step": reached.overhead_s,
        "layers": reached.layer_s,
        "layers of a prompt": reached.prompt_s,
        "activated experts": reached.expert_s,
        "elements written": reached.activation_s,
        "weights read again": reached.reread if service.loops else 0.0,
    }
    overheads = ", ".join(name for name, cost in costs.items() if cost)
    return [
        f"a step takes bytes / {reached.bandwidth_share:.0%} of {device.bandwidth:.4g} bytes/s + FLOPs / "
        f"{reached.flops_share:.0%} of the peak + communication{f' + what {overheads} cost' if overheads else ''} "
        f"({reached.source}); experts activated by {router}"
    ]


def _limits(pricing: Pricing, sizes: Sizes) -> list[str]:
    """Which limits on memory, latency and price were kept."""
    lines, cached, service = [], pricing.knows_the_cache(sizes), pricing.service
    if pricing.memory is not None:
        cache = f" and {CACHED_TOKENS:,} cached tokens" if cached else ""
        lines.append(f"bf16 weights of all experts{cache} in {pricing.memory / 1e9:g} GB (1e9 bytes)")
    if pricing.device is not None and pricing.n_total(sizes) is not None:
        cache = " and the cache of one request" if cached else ""
        lines.append(
            f"weights of all experts{cache} in "
            f"{pricing.most_memory / 1e9:.4g} GB, the memory of {service.max_devices} devices; what training holds "
            "beside them was not considered"
        )
    latencies = {"ttft": service.ttft_s, "tpot": service.tpot_s}
    limits = [f"{name} at most {1e3 * value:g} ms" for name, value in latencies.items() if value]
    if pricing.device is not None and limits:
        meaning = "; ".join(f"{name} is the {METRICS[name]}" for name in latencies)
        lines.append(f"{' and '.join(limits)}, without queueing: {meaning}")
    if pricing.most_per_token is not None:
        lines.append(f"a served token costs at most {pricing.most_per_token:.4g} {pricing.unit}")
    return lines

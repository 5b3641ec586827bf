"""Weaknesses in how cells train: idle devices, narrow heads, tiny batches, memory that is not there."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from scaling.config.cell import Cell
from scaling.config.counts import train_flops
from scaling.config.run import RunConfig, by_trunk
from scaling.config.training_memory import training_memory_bytes
from scaling.formatting import flops, plural, si
from scaling.serving.device import Device
from sweeps.plan.capacity import Machine, host_memory_bytes

MOST_STEPS = 1_000_000
NARROW, MANY_HEADS = 64, 16
# Scores take 4 n_heads d_head FLOPs an attended token, but n_heads values of memory, and tiles of products are 64 wide
# or more: narrow heads cost memory and time at equal FLOPs.
_BATCH_FACTOR, _BATCH_EXPONENT, _BATCH_DOMAIN = 0.0694, 0.3644, (1e17, 1e22)
_FAR_BATCH = 8.0  # the rule's own data scatter by less


def of_training(
    cells: Sequence[RunConfig], labels: Mapping[Cell, str], machine: Machine, device: Device | None
) -> list[str]:
    """What is wrong, in which cells, and what to do. `device`: what GPUs are; None for cells on CPU threads."""
    named = Named(labels)
    return [
        *_idle_devices(cells, named),
        *_narrow_heads(cells, named),
        *_batches(cells, named),
        *_memory(cells, named, machine, device),
        *_split_trunks(cells),
    ]


class Named:
    """Says which cells: their number and the first of them."""

    def __init__(self, labels: Mapping[Cell, str]) -> None:
        self._labels = labels

    def __call__(self, cells: Sequence[RunConfig]) -> str:
        if len(cells) == len(self._labels):
            return "all cells" if len(cells) > 1 else f"the cell {self._labels[cells[0]]}"
        if len(cells) == 1:
            return f"the cell {self._labels[cells[0]]}"
        return f"{len(cells)} of {len(self._labels)} cells, such as {self._labels[cells[0]]}"


def _idle_devices(cells: Iterable[RunConfig], named: Named) -> list[str]:
    """Batches whose sequences cannot be divided among all devices that a cell reserves."""
    groups: dict[tuple[int, int, int, bool], list[RunConfig]] = defaultdict(list)
    for cell in cells:
        gpus = int(cell.resources.gpus)
        reserved = gpus or cell.resources.cpus
        if cell.train.devices(reserved) < reserved:
            groups[cell.train.batch_tokens, cell.train.seq_len, reserved, bool(gpus)].append(cell)
    messages = []
    for (batch, seq_len, reserved, gpus), group in groups.items():
        train = group[0].train
        share = reserved * seq_len * train.accumulate
        parts = f" in {train.accumulate} parts" if train.accumulate > 1 else ""
        messages.append(
            f"{train.sequences} sequences a step{parts} (batch_tokens = {batch}, seq_len = {seq_len}) are divided "
            f"evenly among {train.devices(reserved)} of the {reserved} {'GPUs' if gpus else 'CPU threads'} that a cell "
            f"reserves, and the others idle ({named(group)}); set `batch_tokens` to a multiple of {share}, such as "
            f"{-(-batch // share) * share}"
        )
    return messages


def _narrow_heads(cells: Sequence[RunConfig], named: Named) -> list[str]:
    narrow = [cell for cell in cells if cell.model.n_heads > MANY_HEADS and cell.model.d_head < NARROW]
    if not narrow:
        return []
    worst = max(narrow, key=lambda cell: cell.model.n_heads / cell.model.d_head)
    model = worst.model
    return [
        f"heads of width {model.d_head} at d_model = {model.d_model} are {model.n_heads} heads: their "
        f"scores take more time and memory than the products ({named(narrow)}); set `d_head` to {NARROW}, or more"
    ]


def _batches(cells: Sequence[RunConfig], named: Named) -> list[str]:
    """Steps by the million, and batches far from arXiv 2507.17702, .0694 C^.3644 tokens, within ten times its data."""
    messages = []
    many = [cell for cell in cells if cell.steps > MOST_STEPS]
    if many:
        worst = max(many, key=lambda cell: cell.steps)
        batch = si(worst.train.batch_tokens)
        messages.append(
            f"{si(worst.steps)} optimiser steps: {si(worst.tokens)} tokens in batches of {batch} "
            f"({named(many)}); raise `batch_tokens`, so that no cell takes more than {si(MOST_STEPS)} steps"
        )
    least, most = _BATCH_DOMAIN
    far = []
    for cell in cells:
        cost = train_flops(cell)
        if least <= cost <= most:
            off = cell.train.batch_tokens / (_BATCH_FACTOR * cost**_BATCH_EXPONENT)
            if max(off, 1 / off) > _FAR_BATCH:
                far.append((abs(math.log(off)), cost, cell))
    if far:
        _, cost, worst = max(far, key=lambda entry: entry[0])
        batch = si(worst.train.batch_tokens)
        messages.append(
            f"a batch of {batch} tokens at {si(worst.tokens)} tokens ({flops(cost)} FLOPs), where "
            f"MoE models were best at {si(_BATCH_FACTOR * cost**_BATCH_EXPONENT, 2)} (arXiv 2507.17702): "
            f"{named([cell for _, _, cell in far])}; set `batch_tokens`, and `lr` with it"
        )
    return messages


def _memory(cells: Sequence[RunConfig], named: Named, machine: Machine, device: Device | None) -> list[str]:
    """Cells that no device holds, and cells that together need more than the machine has."""
    of_device = {cell: training_memory_bytes(cell) for cell in cells}
    on_host = {cell: host_memory_bytes(cell, of_device[cell]) for cell in cells if not cell.resources.gpus}
    has = f"of memory at the peak, and this machine has {_gb(machine.memory)}"
    alone = {cell: need for cell, need in on_host.items() if need > machine.memory}
    remedy = "lower `batch_tokens`, set `accumulate` or take a larger machine"
    messages = _too_large(alone, named, f"{has}, for one cell", remedy)
    together: dict[int, dict[RunConfig, float]] = defaultdict(dict)
    for cell, need in on_host.items():
        at_once = machine.at_once(cell.resources)
        if need <= machine.memory < at_once * need:
            together[at_once][cell] = at_once * need
    for at_once, needs in together.items():
        remedy = "set `max_concurrent`, or more `cpus` for these cells, so that fewer train at a time"
        messages += _too_large(needs, named, f"{has}, for {at_once} cells at a time", remedy)
    if device is not None:
        held = {cell: device.memory * min(1.0, cell.resources.gpus) for cell in cells if cell.resources.gpus}
        over = {cell: of_device[cell] for cell in held if of_device[cell] > held[cell]}
        has = f"of memory on each GPU at the peak, and {device.title} has {_gb(device.memory)}, or the share"
        remedy = "set `accumulate`, `remat: true` or more `gpus`"
        messages += _too_large(over, named, f"{has} that a cell reserves", remedy)
    return messages


def _too_large(needs: Mapping[RunConfig, float], named: Named, has: str, remedy: str) -> list[str]:
    return [f"{_gb(max(needs.values()))} {has} ({named([*needs])}); {remedy}"] if needs else []


def _gb(n_bytes: float) -> str:
    return f"{n_bytes / 1e9:,.0f} GB" if n_bytes >= 1e11 else f"{n_bytes / 1e9:.3g} GB"


def _split_trunks(cells: Sequence[RunConfig]) -> list[str]:
    """Trunks whose budgets have different resources: these train apart, each from its first step."""
    first = cells[0].resources
    alike = [cell.model_copy(update={"resources": first}) for cell in cells] if _several(cells) else []
    apart = len(by_trunk(cells)) - len(by_trunk(alike)) if alike else 0
    if not apart:
        return []
    return [
        f"resources differ between token budgets of one model, so {plural(apart, 'trunk')} more train; let `resources` "
        "depend on the model alone, such as n_total, for budgets to share their steps"
    ]


def _several(cells: Sequence[RunConfig]) -> bool:
    return len({cell.resources for cell in cells}) > 1

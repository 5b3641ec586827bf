"""Plausibility: columns of a table that contradict each other, and everything else in it that is to be doubted."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from analysis.tables.counts import COUNTS, PAIRS, TRAINED
from analysis.tables.doubts import Doubt
from analysis.tables.losses import loss_doubts
from analysis.tables.rows import Rows, ratio
from analysis.tables.units import unit_doubts
from scaling.arrays import Array, Booleans
from scaling.bounds import LEAST, MOST_EXPERTS, MOST_FLOPS, MOST_PARAMETERS, MOST_TOKENS
from scaling.columns import COMPUTE, EXPERTS, LOSS, TOKENS
from scaling.formatting import plural

_ROUNDED = 1.01  # counts in tables are rounded: a difference of 1 % is no conflict
_FLOPS_APART = 2.0  # recomputation and the meaning of N explain less than a factor 2 of 6 N D
_CONSTANT = 1.25  # ratios within this factor are one factor
_MOST_WRONG = 0.5  # of the rows that could agree: beyond it the columns are not what they are taken for
_COMPUTE_UNITS = {1e9: "GFLOP", 1e12: "TFLOP", 1e15: "PFLOP", 1e18: "EFLOP", 1e21: "ZFLOP", 8.64e19: "PFLOP/s-days"}
_MOST = {
    **dict.fromkeys(COUNTS, MOST_PARAMETERS),
    EXPERTS: MOST_EXPERTS,
    "top_k": MOST_EXPERTS,
    TOKENS: MOST_TOKENS,
    COMPUTE: MOST_FLOPS,
    LOSS: MOST_PARAMETERS,  # a perplexity may be large
}
_FEW_TOKENS = 0.2  # a parameter; runs have 1 to 1,000
_POSITIVE = (*COUNTS, "top_k", COMPUTE, "batch_tokens", "vocab_size")


def plausibility(
    rows: Rows, terms: Mapping[str, str], given: Collection[str], needed: Sequence[str] = (LOSS,)
) -> list[Doubt]:
    """What is to be doubted in a table whose rows are usable.

    `terms` is the expression behind each of our columns (`analysis.tables.mapping.mapped`), columns outside `given`
    were derived, and `needed` are those that a law reads. Raises InputError where columns are certainly not what they
    are taken for.
    """
    _require_bounds(rows, (*given, *needed))
    units = unit_doubts(rows, terms, given)
    return [
        *units,
        *(loss_doubts(rows, terms) if LOSS in needed else ()),
        *_not_positive(rows, given),
        *_sizes(rows, terms),
        *_experts_per_token(rows, terms),
        *(() if units else _tokens_per_parameter(rows, given)),
        *_batches(rows),
        *(_compute(rows) if {TOKENS, COMPUTE} <= {*given} else ()),
        *repeats(rows, needed),
    ]


def repeats(rows: Rows, needed: Sequence[str]) -> list[Doubt]:
    """Rows that repeat another one: exactly, or in everything but the loss without a seed that tells them apart."""
    frame = rows.frame
    if not {*needed} - {LOSS}:  # read without a law
        needed = [*(name for name in (*COUNTS, EXPERTS, "top_k", TOKENS) if name in frame), *needed]
    inputs = [name for name in needed if name != LOSS and name in frame]
    if not inputs or not frame.duplicated(inputs).any():
        return []
    again = frame.duplicated([name for name in (*needed, "seed", "run_id") if name in frame]).to_numpy(dtype=bool)
    doubts = []
    if again.any():
        count = int(again.sum())
        message = (
            f"{plural(count, 'row')} repeat{'s' if count == 1 else ''} another row's {', '.join(needed)} exactly "
            f"({rows.named(again)}); kept: `drop_duplicates` of `import` drops exact repeats of whole rows"
        )
        doubts.append(rows.doubt("repeated", needed, again, message))
    if LOSS in needed and len(inputs) > 1:
        seeded = np.isfinite(rows.floats("seed"))
        described = [*inputs, *(name for name in map(str, frame) if name not in inputs and _describes(rows, name))]
        alike = frame.duplicated(described, keep=False).to_numpy(dtype=bool) & ~seeded
        alike &= ~frame.duplicated([*described, LOSS], keep=False).to_numpy(dtype=bool)
        if alike.any():
            message = (
                f"runs of one configuration have several losses and no seed ({rows.named(alike)}): run-to-run noise is "
                "not estimated from them; name their seed with `map` seed=COLUMN"
            )
            doubts.append(rows.doubt("no_seed", ["seed"], alike, message))
    return doubts


def _describes(rows: Rows, name: str) -> bool:
    """Whether a column may describe what was run: anything but names of runs, and measured numbers."""
    if name in (LOSS, "run_id", "seed"):
        return False
    if rows.frame[name].dtype.kind != "f":
        return True
    values = rows.floats(name)
    return bool(np.isfinite(values).all() and np.all(np.mod(values, 1.0) == 0))


def _require_bounds(rows: Rows, names: Collection[str]) -> None:
    """Raises InputError for numbers that nothing has: no unit explains them, and a fit would overflow."""
    for name in (name for name in _MOST if name in names):
        values, most = rows.floats(name), _MOST[name]
        beyond = (values > most) | ((values > 0) & (values < LEAST))
        if beyond.any():
            raise rows.refusal(
                f"{name} = {values[beyond][0]:g} {rows.named(beyond)}: it lies between {LEAST:g} and {most:g}; correct "
                "such rows, or leave them out with `where`"
            )


def _not_positive(rows: Rows, given: Collection[str]) -> list[Doubt]:
    doubts = []
    for name in (name for name in _POSITIVE if name in given):
        mask = rows.floats(name) <= 0
        if mask.any():
            message = f"{name} is zero or negative {rows.named(mask)}: leave unknown values blank"
            doubts.append(rows.doubt("not_positive", [name], mask, message))
    return doubts


def _sizes(rows: Rows, terms: Mapping[str, str]) -> list[Doubt]:
    """Active sizes above total ones, and dense models of two sizes."""
    doubts = []
    dense = rows.floats(EXPERTS) == 1
    for active, total in PAIRS:
        apart = ratio(rows.floats(active), rows.floats(total))
        apart[~(apart > 0)] = np.nan
        above, below = apart > _ROUNDED, dense & (apart < 1 / _ROUNDED)
        could = np.isfinite(apart) & ~dense if (np.isfinite(apart) & ~dense).any() else np.isfinite(apart)
        if above.any():
            where = f"{active} exceeds {total} {rows.named(above)} (up to {apart[above].max():.3g} times)"
            if (above & could).sum() > _MOST_WRONG * could.sum() and above.sum() > 1:
                swap = f"`map` '{active}={terms.get(total, total)}' '{total}={terms.get(active, active)}'"
                raise rows.refusal(f"{where}: what a token uses is part of the whole. Are the columns swapped? {swap}")
            message = f"{where}: are the two swapped there, or is one counted without embeddings?"
            doubts.append(rows.doubt("active_above_total", [active, total], above, message))
        if below.any():
            message = (
                f"{total} exceeds {active} {rows.named(below)} with {EXPERTS} = 1 (up to {1 / apart[below].min():.3g} "
                "times): a dense model has a single count"
            )
            doubts.append(rows.doubt("dense_of_two_sizes", [total, active], below, message))
    return doubts


def _experts_per_token(rows: Rows, terms: Mapping[str, str]) -> list[Doubt]:
    experts, top_k = rows.floats(EXPERTS), rows.floats("top_k")
    routed = (experts > 1) & np.isfinite(top_k)
    above = routed & (top_k > experts)
    if not above.any():
        return []
    where = f"top_k exceeds {EXPERTS} {rows.named(above)} (up to {top_k[above].max():g} of {experts[above].min():g})"
    if above.sum() > _MOST_WRONG * routed.sum() and above.sum() > 1:
        swap = f"`map` '{EXPERTS}={terms.get('top_k', 'top_k')}' 'top_k={terms.get(EXPERTS, EXPERTS)}'"
        raise rows.refusal(f"{where}: a token cannot use more experts than there are. Are the columns swapped? {swap}")
    return [rows.doubt("top_k_above_experts", ["top_k", EXPERTS], above, f"{where}: correct these rows")]


def _tokens_per_parameter(rows: Rows, given: Collection[str]) -> list[Doubt]:
    """Fewer tokens than parameters in most rows: N and D are rather swapped, or one is in another unit."""
    size = next((name for name in TRAINED if name in given), None)
    if size is None or TOKENS not in given:
        return []
    per_parameter = ratio(rows.floats(TOKENS), rows.floats(size))
    few = per_parameter < _FEW_TOKENS
    if few.sum() <= _MOST_WRONG * np.isfinite(per_parameter).sum():
        return []
    message = (
        f"{TOKENS} is below {_FEW_TOKENS:g} of {size} {rows.named(few)} (median {np.nanmedian(per_parameter):.3g} "
        "tokens a parameter): are the columns swapped, or one of them in another unit?"
    )
    return [rows.doubt("few_tokens", [TOKENS, size], few, message)]


def _batches(rows: Rows) -> list[Doubt]:
    tokens, batch = rows.floats(TOKENS), rows.floats("batch_tokens")
    below = tokens < batch
    if not below.any():
        return []
    message = (
        f"{TOKENS} is below batch_tokens {rows.named(below)} (by up to {ratio(batch, tokens)[below].max():.3g} times): "
        "less than one step of training; is one of them in another unit?"
    )
    return [rows.doubt("tokens_below_batch", [TOKENS, "batch_tokens"], below, message)]


def _compute(rows: Rows) -> list[Doubt]:
    """Rows whose compute is far from 6 N D and what attention may add, with the factor where it is one."""
    size, tokens = rows.floats("n_active"), rows.floats(TOKENS)
    attention = 12.0 * rows.floats("n_layers") * rows.floats("d_model") * rows.floats("seq_len")
    compute = rows.floats(COMPUTE)
    least = ratio(compute, 6.0 * size * tokens)
    most = ratio(compute, (6.0 * size + np.nan_to_num(attention)) * tokens)
    factor = np.maximum(most, ratio(1.0, least))
    off = factor > _FLOPS_APART
    if not off.any():
        return []
    worst = int(np.nanargmax(np.where(off, factor, np.nan)))
    message = (
        f"{COMPUTE} differs from 6 n_active {TOKENS} by more than a factor {_FLOPS_APART:g} {rows.named(off)} (at "
        f"worst {least[worst]:.3g} times): {_explained(least, off)}"
    )
    return [rows.doubt("compute_off", [COMPUTE, "n_active", TOKENS], off, message)]


def _explained(found: Array, off: Booleans) -> str:
    """What a constant factor means, or what to look at."""
    of_rows = found[np.isfinite(found)]
    if not (off[np.isfinite(found)].all() and of_rows.max() < _CONSTANT * of_rows.min() and len(of_rows) > 1):
        return "check the units, which N is meant, and whether the compute includes more than 6 N D"
    factor = float(np.median(of_rows))
    for unit, name in _COMPUTE_UNITS.items():
        if 1 / _FLOPS_APART < factor * unit < _FLOPS_APART:
            return f"always the same factor: is {COMPUTE} in {name}? `map` '{COMPUTE}={COMPUTE}*{unit:g}'"
    if 1 / 3.6 < factor < 1 / 2.5:
        return f"always a third: the forward pass alone (2 N D)? `map` '{COMPUTE}={COMPUTE}*3'"
    return "always the same factor: check the units and which N is meant"

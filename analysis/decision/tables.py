"""The tables of an answer: choices, performance of a replica, what would change it, fits compared."""

from __future__ import annotations

from dataclasses import replace

from analysis.decision.answer import Answer
from analysis.decision.shape_comparison import Shapes, chance_of_experts
from scaling.formatting import between, cost, number, percent, si, usd
from scaling.table import Column, Table

_EXPERTS, _TOP_K = Column("n_experts", "E"), Column("top_k", "k")
_SIZES = (Column("n_active", "N_active", si), Column("n_total", "N_total", si), Column("tokens", "tokens", si))
_LOSS = Column("loss", "loss", "{:.4f}".format)
_SURE = (Column("probability_best", "best in", percent), Column("regret", "regret", "{:.1%}".format))


def choices_table(answer: Answer, *, detailed: bool = False) -> Table:
    """The best model of every E that can answer, the recommended one first, then by rising cost or loss; `detailed`
    with the interval of the loss and the parts of the cost, the device-hours and MFU of training among them.

    The share of draws in which an E cannot answer is a column only where it says something of some row.
    """
    chosen = answer.best
    parts = (
        Column("loss_interval", "95% interval", lambda ends: between(ends, "{:.3f}".format)),
        _cost_column("cost.train", chosen.cost.unit, "to train"),
        Column("train_device_hours", "device-hours", si),
        Column("train_mfu", "MFU", percent),
        _cost_column("cost.serve", chosen.cost.unit, "to serve"),
    )
    columns = (
        _EXPERTS,
        *_SIZES,
        _LOSS,
        *(parts if detailed else ()),
        _cost_column("cost.total", chosen.cost.unit),
        *_SURE,
        Column("unanswered", "cannot reach the loss", percent),
    )
    notes: tuple[str, ...] = ()
    if chosen.probability_best is not None:
        notes = (
            "best in: share of the draws in which this E is best; regret: what choosing it costs beyond the best "
            "E, expected over the draws",
        )
    choices = (chosen, *answer.recommendation.alternatives)
    table = Table.of("The best model of each expert count", columns, choices, notes).without_empty_columns()
    return table if any(choice.unanswered for choice in choices) else table.without("unanswered")


def replicas_table(answer: Answer) -> Table | None:
    """The cheapest replica of every choice, in the order of `choices_table`; None where nothing is served on a device.

    Layout and fewest devices are columns only where they say something of some row.
    """
    served = [choice for choice in (answer.best, *answer.recommendation.alternatives) if choice.served is not None]
    if not served:
        return None
    columns = (
        _EXPERTS,
        Column("served.n_devices", "devices"),
        Column("served.fewest_devices", "fits on"),
        Column("served.experts_split", "split", lambda by_expert: "experts" if by_expert else "matrices", text=True),
        Column("served.batch", "batch"),
        Column("served.ttft_ms", "TTFT", _three, "ms"),
        Column("served.tpot_ms", "TPOT", _three, "ms"),
        Column("served.output_throughput", "tok/s", si),
        Column("served.request_goodput", "req/s", _three),
        Column("served.usd_per_million", "per M tok", usd),
        Column("served.replicas", "replicas"),
    )
    table = Table.of("Per-replica performance at full load (no queueing)", columns, served).without_empty_columns()
    replicas = [choice.served for choice in served if choice.served is not None]
    if all(replica.fewest_devices == replica.n_devices for replica in replicas):
        table = table.without("served.fewest_devices")
    return table if any(replica.experts_split for replica in replicas) else table.without("served.experts_split")


def what_if_table(answer: Answer, *, changing: bool = False) -> Table | None:
    """What was changed, to what, and the best model then; with `changing` only where another E would be best.

    None where it was not asked, or where nothing is left.
    """
    cases = () if answer.what_if is None else answer.what_if.cases
    cases = tuple(case for case in cases if case.changes or not changing)
    if not cases:
        return None
    columns = (
        Column("what", "if", text=True),
        Column("value", "were", text=True),
        Column("n_experts", "best E"),
        *(column for column in _SIZES if column.field != "n_total"),
        _cost_column("cost", answer.best.cost.unit),
    )
    return Table.of("What would change the answer", columns, cases)


def reference_table(answer: Answer) -> Table | None:
    """Losses that could be kept within the budget, the one asked first, and the best model then; None where no loss is
    kept, or where it was not asked."""
    cases = () if answer.what_if is None else answer.what_if.references
    if not cases:
        return None
    columns = (
        Column("reference.what", "loss kept", text=True),
        Column("reference.n_active", "its N_active", si),
        Column("reference.tokens", "its tokens", si),
        Column("reference.tokens_per_param", "tokens per N", si),
        Column("reference.loss", "loss", "{:.4f}".format),
        Column("n_experts", "best E"),
        _SIZES[0],
        _SIZES[2],
        _cost_column("cost", answer.best.cost.unit),
    )
    return Table.of("What hangs on the loss that is kept", columns, cases)


def crossovers_table(answer: Answer) -> Table | None:
    """The volumes served at which another E becomes the best; None where there are none."""
    crossings = () if answer.what_if is None else answer.what_if.crossovers
    if not crossings:
        return None
    columns = (Column("volume", "tokens served", si), Column("before", "best E below"), Column("after", "best E above"))
    return Table.of("Volumes at which another expert count becomes the best", columns, crossings)


def fits_table(answer: Answer) -> Table | None:
    """The best model of each fit that was compared, the best first; None where only one was asked."""
    if answer.comparison is None:
        return None
    value = _cost_column("value", answer.best.cost.unit)
    if answer.question.goal == "loss":
        value = replace(_LOSS, field="value")
    columns = (Column("name", "fit", text=True), _TOP_K, _EXPERTS, _SIZES[0], _SIZES[2], value, *_SURE)
    return Table.of("The best model of each fit", columns, answer.comparison.rivals).without_empty_columns()


def laws_table(answer: Answer) -> Table | None:
    """What each law of an ensemble would recommend alone; None where one law answers."""
    laws = answer.recommendation.laws
    if not laws:
        return None
    columns = (
        Column("name", "law", text=True),
        Column("weight", "weight", percent),
        _EXPERTS,
        *_SIZES,
        _LOSS,
        _cost_column("cost", answer.best.cost.unit),
        Column("probability_best", "best in", percent),
    )
    notes = (
        "each law's own advice, had it all the weight; losses are of its own corpus and tokenizer, and best in: the "
        "share of its own draws",
    )
    return Table.of("The laws of the ensemble", columns, laws, notes).without_empty_columns()


def shapes_table(answer: Answer, most: int | None = None) -> Table | None:
    """Every shape of experts that was compared, the best first, at most so many; None where there was one."""
    if answer.shapes is None:
        return None
    rows = answer.shapes.rows[:most]
    several = len({row.name for row in answer.shapes.rows}) > 1
    columns = (
        *((Column("name", "fit", text=True),) if several else ()),
        _EXPERTS,
        _TOP_K,
        Column("granularity", "G", "{:.3g}".format),
        Column("d_expert", "d_expert", "{:.0f}".format),
        Column("n_shared", "shared", "{:.3g}".format),
        *_SIZES,
        _LOSS,
        _cost_column("cost", answer.shapes.unit),
        *_SURE,
    )
    table = Table.of("Shapes of experts", columns, rows, _notes_of_shapes(answer.shapes, len(rows)))
    shared = any(row.n_shared for row in rows)
    return (table if shared else table.without("n_shared")).without_empty_columns()


def _notes_of_shapes(shapes: Shapes, shown: int) -> tuple[str, ...]:
    notes = [] if shown == len(shapes.rows) else [f"{shown} of {len(shapes.rows)} shapes, the best first"]
    if shapes.unable:
        notes.append(f"{shapes.unable} more cannot answer within the limits given")
    if shapes.n_draws:
        notes.append(f"best in, regret: over all shapes, in {shapes.n_draws} draws; {chance_of_experts(shapes)}")
    return tuple(notes)


def _cost_column(field: str, unit: str, label: str = "cost") -> Column:
    return Column(field, label, usd) if unit == "USD" else Column(field, label, lambda value: cost(value, unit), unit)


def _three(value: float) -> str:
    return number(value, ".3g") if abs(value) < 999.5 else si(value)

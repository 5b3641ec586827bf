"""From blocks to cells: what `where` leaves out and what no cell can be is counted, and mistakes are errors."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from scaling.config.cell import Cell
from scaling.config.run import RunConfig
from scaling.errors import InputError
from scaling.formatting import plural
from scaling.yaml_text import YamlSource, YamlValue, shown
from sweeps.grid.block import Block, written
from sweeps.grid.formula import Formula, shown_value
from sweeps.grid.maker import Maker
from sweeps.grid.point import Mistake, Refusal

MAX_CELLS = 100_000
_MOST_REASONS = 3  # in an error


@dataclass(frozen=True)
class LeftOut:
    """Combinations that are no cells: why, how many, and the values of the first."""

    reason: str
    count: int
    example: str

    def __str__(self) -> str:
        return f"{plural(self.count, 'combination')}, {self.reason} (the first: {self.example})"


@dataclass(frozen=True)
class Placed:
    """A block with its places in the file: of itself, and of each value of each dimension."""

    block: Block
    place: YamlValue
    values: Sequence[Sequence[YamlValue]]


@dataclass
class Cells:
    """The cells of a grid as they are made; `places` is the number of combinations by reason."""

    maker: Maker
    where: tuple[Formula, ...]
    source: YamlSource
    by_id: dict[str, Cell] = field(default_factory=dict)
    repeated: int = 0
    reasons: dict[str, list[str | int]] = field(default_factory=dict)  # kind -> reason, count, example
    mistakes: dict[int, tuple[Formula, str]] = field(default_factory=dict)
    mistaken: Counter[int] = field(default_factory=Counter)

    def add(self, placed: Placed) -> None:
        """The cells of a block. What is wrong with it goes to the source's errors."""
        tally = _Tally(placed)
        for places, values in placed.block.points():
            point = self.maker.point(values)
            try:
                failed = point.first_failed((*self.where, *placed.block.where))
                if failed is not None:
                    tally.excluded += 1
                    self._leave_out(f"where {failed.text}", f"`where: {failed.text}`", values)
                    continue
                cell = point.cell()
            except Mistake as mistake:
                self._mistake(mistake, placed)
                tally.mistaken += 1
            except Refusal as refused:
                tally.refuse(places, str(refused), said(values))
                self._leave_out(_without_values(str(refused)), f"impossible: {refused}", values)
            else:
                tally.keep(places)
                run_id = cell.run_id(_stand_in(cell))
                self.repeated += run_id in self.by_id
                self.by_id.setdefault(run_id, cell)
        tally.judge(self.source, [*self.where, *placed.block.where])

    def finish(self) -> tuple[Cell, ...]:
        """All cells. Raises InputError with every mistake."""
        for key, (formula, message) in self.mistakes.items():
            more = self.mistaken[key] - 1
            others = f" (and in {plural(more, 'more combination')})" if more else ""
            self.source.fail(YamlValue(None, *formula.place), f"{message}{others}")
        self.source.stop_if_wrong()
        return tuple(self.by_id.values())

    @property
    def left_out(self) -> tuple[LeftOut, ...]:
        return tuple(LeftOut(str(why), int(count), str(example)) for why, count, example in self.reasons.values())

    def _leave_out(self, kind: str, why: str, values: dict[str, object]) -> None:
        entry = self.reasons.setdefault(kind, [why, 0, said(values)])
        entry[1] = int(entry[1]) + 1

    def _mistake(self, mistake: Mistake, placed: Placed) -> None:
        formula, message = mistake.formula, str(mistake)
        if formula is None:
            self.source.fail(placed.place, message)
            return
        if not message.startswith(formula.said):
            message = f"{formula.said}: {formula.text!r} {message}"
        self.mistakes.setdefault(id(formula), (formula, message))
        self.mistaken[id(formula)] += 1


@dataclass
class _Tally:
    """What became of a block's combinations, in all and by value of each dimension."""

    placed: Placed
    excluded: int = 0
    mistaken: int = 0
    kept: set[tuple[int, int]] = field(default_factory=set)  # dimension, position
    refused: dict[tuple[int, int], tuple[str, str]] = field(default_factory=dict)  # the first reason and combination
    reasons: dict[str, tuple[str, str]] = field(default_factory=dict)

    def keep(self, places: tuple[int, ...]) -> None:
        self.kept.update(enumerate(places))

    def refuse(self, places: tuple[int, ...], reason: str, values: str) -> None:
        self.reasons.setdefault(_without_values(reason), (reason, values))
        for key in enumerate(places):
            self.refused.setdefault(key, (reason, values))

    def judge(self, source: YamlSource, where: Sequence[Formula]) -> None:
        """A block without a cell, and a value that is in none, is a mistake: nobody writes it in order to lose it.

        A value that `where` takes out is meant to go.
        """
        if self.mistaken:  # these are reported, and the rest may follow from them
            return
        if not self.kept and not self.refused:
            texts = " and ".join(f"`{condition.text}`" for condition in where)
            source.fail(
                YamlValue(None, *where[-1].place) if where else self.placed.place,
                f"where: {texts} holds for none of the block in line {self.placed.place.line} "
                f"({plural(self.excluded, 'combination')})",
            )
        elif not self.kept:
            for reason, values in list(self.reasons.values())[:_MOST_REASONS]:
                source.fail(self.placed.place, f"impossible cell ({values}): {reason}")
        else:
            for (dimension, position), (reason, values) in self.refused.items():
                if (dimension, position) not in self.kept:
                    names = self.placed.block.dimensions[dimension]
                    value = ", ".join(f"{name}={shown(written(of[position]))}" for name, of in names.items())
                    source.fail(
                        self.placed.values[dimension][position],
                        f"grid.{next(iter(names))}: no cell with {value} is possible, such as ({values}): {reason}; "
                        "remove the value, or leave it out by `where`",
                    )


def expanded(
    maker: Maker, where: tuple[Formula, ...], blocks: Sequence[Placed], source: YamlSource
) -> tuple[tuple[Cell, ...], int, tuple[LeftOut, ...]]:
    """The distinct cells of blocks in their order, the number of repeats, and what was left out.

    Raises InputError with every mistake, and for more than `MAX_CELLS` combinations.
    """
    n_points = sum(placed.block.size for placed in blocks)
    if n_points > MAX_CELLS:
        raise InputError(f"{source.path}: the grid has {n_points:,} cells; allowed: at most {MAX_CELLS:,}")
    made = Cells(maker, where, source)
    for placed in blocks:
        made.add(placed)
    return made.finish(), made.repeated, made.left_out


def _stand_in(cell: Cell) -> str:
    """What stands for the hash of a cell's text, which is not known yet: its paths, packages and tokeniser."""
    if not isinstance(cell, RunConfig):
        return ""
    return json.dumps([cell.data.paths, cell.data.packages, cell.data.tokenizer])


def said(values: Mapping[str, object]) -> str:
    """The values of a combination: `n_experts=4, top_k=8`."""
    texts = ((name, value.text if isinstance(value, Formula) else shown_value(value)) for name, value in values.items())
    return ", ".join(f"{name}={shown(text) if len(text) > 60 else text}" for name, text in texts)


def _without_values(reason: str) -> str:
    """A reason without its values, which is the same for all combinations that it holds for."""
    return re.sub(r"\d[\d.,e+]*", "#", re.sub(r"=[^\s,;:]+", "", reason))

"""A block of a grid: axes that are crossed, axes that vary together, and conditions on their combinations."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sweeps.grid.formula import Formula
from sweeps.grid.names import WHERE, ZIP, as_field


@dataclass(frozen=True)
class Block:
    """What is crossed: each of `dimensions` is one axis, or several of equal length that vary together (`zip`).

    Values are validated, or formulas; None is what the sections say. `where` keeps the combinations that all hold for.
    """

    dimensions: tuple[Mapping[str, Sequence[Any]], ...]
    where: tuple[Formula, ...] = ()

    @staticmethod
    def of(axes: Mapping[str, Sequence[Any]]) -> Block:
        """Axes that are all crossed."""
        return Block(tuple({name: values} for name, values in axes.items()))

    @property
    def axes(self) -> dict[str, Sequence[Any]]:
        """Every axis with its values."""
        return {name: values for dimension in self.dimensions for name, values in dimension.items()}

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields that its axes set, by themselves or by a shorthand."""
        return tuple(dict.fromkeys(map(as_field, self.axes)))

    @property
    def size(self) -> int:
        """The number of combinations, before any is left out."""
        return math.prod(map(_length, self.dimensions))

    def points(self) -> Iterator[tuple[tuple[int, ...], dict[str, Any]]]:
        """Each combination: its position in each dimension, and its values. The last dimension varies fastest."""
        for places in itertools.product(*(range(_length(dimension)) for dimension in self.dimensions)):
            yield (
                places,
                {
                    name: values[place]
                    for place, dimension in zip(places, self.dimensions, strict=True)
                    for name, values in dimension.items()
                },
            )

    def to_yaml(self) -> dict[str, Any]:
        """The block as a grid file says it."""
        document: dict[str, Any] = {}
        together = []
        for dimension in self.dimensions:
            said = {name: [written(value) for value in values] for name, values in dimension.items()}
            if len(said) == 1:
                document |= said
            else:
                together.append(said)
                document[ZIP] = together if len(together) > 1 else said
        if self.where:
            document[WHERE] = written_conditions(self.where)
        return document


def written(value: Any) -> Any:
    """A value or formula as a grid file says it."""
    return value.text if isinstance(value, Formula) else value


def written_conditions(where: Sequence[Formula]) -> Any:
    texts = [condition.text for condition in where]
    return texts if len(texts) > 1 else texts[0]


def _length(dimension: Mapping[str, Sequence[Any]]) -> int:
    return len(next(iter(dimension.values())))

"""The array types of annotations: what a number in the tables or the laws may be, and how it stands in a JSON file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import pandas as pd
    from pydantic import GetCoreSchemaHandler
    from pydantic_core import CoreSchema


@dataclass(frozen=True)
class _AsList:
    """In JSON an array is a list, nested for each axis, with null for NaN."""

    dtype: type

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        from pydantic_core import core_schema

        return core_schema.no_info_plain_validator_function(
            self._read, serialization=core_schema.plain_serializer_function_ser_schema(lambda array: array.tolist())
        )

    def _read(self, value: Any) -> npt.NDArray[Any]:
        """Raises ValueError naming the place of what is no such number, or of a row of another length."""
        if not isinstance(value, list):
            raise ValueError(f"must be a list, found {_shown(value)}")
        self._check(value, "")
        return np.asarray(value, dtype=self.dtype)

    def _check(self, values: list[Any], place: str) -> tuple[int, ...]:
        """The shape of nested lists."""
        if not any(isinstance(value, list) for value in values):
            for index, value in enumerate(values):
                if not (type(value) in _KINDS[self.dtype] or (value is None and self.dtype is float)):
                    raise ValueError(f"at {place}[{index}]: must be a {_WORDS[self.dtype]}, found {_shown(value)}")
            return (len(values),)
        shape: tuple[int, ...] | None = None
        for index, value in enumerate(values):
            if not isinstance(value, list):
                raise ValueError(f"at {place}[{index}]: must be a list as the others are, found {_shown(value)}")
            found = self._check(value, f"{place}[{index}]")
            if shape is not None and found != shape:
                raise ValueError(f"at {place}[{index}]: its shape is {found}, that of the rows before it {shape}")
            shape = found
        return (len(values), *(shape or ()))


_KINDS: dict[type, tuple[type, ...]] = {float: (int, float), int: (int,), bool: (bool,)}
_WORDS = {float: "number or null", int: "whole number", bool: "true or false"}


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:40]}..."


@dataclass(frozen=True)
class AsColumns:
    """In JSON a data frame is its columns by name, each a list. Columns named `numbers` must be there, of numbers."""

    numbers: tuple[str, ...] = ()

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        from pydantic_core import core_schema

        return core_schema.no_info_plain_validator_function(
            self._read,
            serialization=core_schema.plain_serializer_function_ser_schema(lambda frame: frame.to_dict("list")),
        )

    def _read(self, value: Any) -> pd.DataFrame:
        """Raises ValueError naming the column that lacks, is of another length or holds what it must not."""
        import pandas as pd

        if not isinstance(value, dict) or not all(isinstance(column, list) for column in value.values()):
            raise ValueError(f"must be columns by name, each a list, found {_shown(value)}")
        lengths = {name: len(column) for name, column in value.items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"columns of unequal lengths: {', '.join(f'{name} {n}' for name, n in lengths.items())}")
        for name in self.numbers:
            if name not in value:
                raise ValueError(f"has no column {name}")
        for name, column in value.items():
            for index, cell in enumerate(column):
                if isinstance(cell, (list, dict)) or (
                    name in self.numbers and type(cell) not in (int, float, type(None))
                ):
                    raise ValueError(f"at {name}[{index}]: must be a number or null, found {_shown(cell)}")
        frame = pd.DataFrame(value)
        return frame.astype(dict.fromkeys(self.numbers, float)) if self.numbers and not len(frame) else frame


Array = Annotated[npt.NDArray[np.float64], _AsList(float)]
Integers = Annotated[npt.NDArray[np.int_], _AsList(int)]
Booleans = Annotated[npt.NDArray[np.bool_], _AsList(bool)]
Values = float | Array
"""A number, or an array over models, batches or draws."""

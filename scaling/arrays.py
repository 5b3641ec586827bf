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
        try:
            return np.asarray(value, dtype=self.dtype)
        except TypeError as error:
            raise ValueError(str(error)) from error


@dataclass(frozen=True)
class AsColumns:
    """In JSON a data frame is its columns by name, each a list."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        from pydantic_core import core_schema

        return core_schema.no_info_plain_validator_function(
            self._read,
            serialization=core_schema.plain_serializer_function_ser_schema(lambda frame: frame.to_dict("list")),
        )

    def _read(self, value: Any) -> pd.DataFrame:
        import pandas as pd

        try:
            return pd.DataFrame(value)
        except TypeError as error:
            raise ValueError(str(error)) from error


Array = Annotated[npt.NDArray[np.float64], _AsList(float)]
Integers = Annotated[npt.NDArray[np.int_], _AsList(int)]
Booleans = Annotated[npt.NDArray[np.bool_], _AsList(bool)]
Values = float | Array
"""A number, or an array over models, batches or draws."""

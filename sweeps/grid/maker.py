"""What makes the cells of a grid from its points."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, ValidationError

from scaling.tasks import LANGUAGE_MODEL
from sweeps.grid.model_point import ModelPoint
from sweeps.grid.names import Names, as_field, names_of
from sweeps.grid.point import Override, Point, Refusal, reason


@dataclass
class Maker:
    """Makes the cells of a grid. Sections that are equal are one object, so that many cells stay small and quick.

    settings: values and formulas by section, of fields and shorthands.   overrides: of `resources`, the last one wins.
    """

    study: str
    task: str
    settings: Mapping[str, Mapping[str, Any]]
    overrides: tuple[Override, ...] = ()
    names: Names = field(init=False, repr=False)
    _sections: dict[str, BaseModel | Refusal] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        self.names = names_of(self.task)

    def point(self, values: Mapping[str, Any]) -> Point:
        """The point with these values and formulas of axes; None takes the value of the settings.

        An axis replaces what a section says of the same field, by whichever shorthand.
        """
        fixed = {as_field(name) for name, value in values.items() if value is not None}
        given = {
            name: value
            for section in self.settings.values()
            for name, value in section.items()
            if as_field(name) not in fixed
        }
        kind = ModelPoint if self.task == LANGUAGE_MODEL else Point
        return kind(self, given | {name: value for name, value in values.items() if value is not None})

    def section(self, name: str, fields: Mapping[str, Any]) -> Any:
        """A section of these fields. Raises Refusal."""
        key = f"{name} {sorted(fields.items())!r}"
        if key not in self._sections:
            try:
                self._sections[key] = self.names.sections[name].model_validate(dict(fields))
            except ValidationError as error:
                self._sections[key] = Refusal(reason(error))
        made = self._sections[key]
        if isinstance(made, Refusal):
            raise made
        return made

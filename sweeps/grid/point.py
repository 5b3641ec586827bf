"""A point of a grid: one value of each axis, and the cell that it makes once rules and formulas have given the rest."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from pydantic import ValidationError

from scaling.config.cell import Cell
from scaling.errors import InputError
from scaling.tasks.cell import TaskCell
from sweeps.grid.formula import UNKNOWN, Formula, shown_value, shown_values
from sweeps.grid.names import Names, as_field
from sweeps.grid.values import explained, field_value


class Refusal(Exception):
    """A combination of values that no cell can have, with the reason."""


class Mistake(Refusal):
    """A formula that says nothing where it is asked: no combination is to blame, but what was written."""

    def __init__(self, formula: Formula | None, message: str) -> None:
        super().__init__(message)
        self.formula = formula


@dataclass(frozen=True)
class Override:
    """Fields of `resources` for the cells where a condition holds."""

    where: Formula
    fields: Mapping[str, Any]


class Making(Protocol):
    """What a point takes from its grid (`sweeps.grid.maker.Maker`)."""

    study: str
    task: str
    names: Names
    overrides: tuple[Override, ...]

    def section(self, name: str, fields: Mapping[str, Any]) -> Any:
        """A section of these fields. Raises Refusal."""
        ...


class Point(Mapping[str, Any]):
    """The values of a combination by name, each found when it is asked for.

    Raises Refusal for one that validation refuses, and Mistake for a formula without a value or that reads itself.
    Tasks other than the language model have settings and a budget, and no rules (`sweeps.grid.model_point` has those).
    """

    def __init__(self, maker: Making, given: Mapping[str, Any]) -> None:
        self._maker, self._given, self._names = maker, given, maker.names
        self._known: dict[str, Any] = {}
        self._open: list[str] = []

    def __getitem__(self, name: str) -> Any:
        if name not in self._known:
            if name in self._open:
                cycle = self._open[self._open.index(name) :]
                raise Mistake(self._formula_of(cycle), f"reads itself: {' -> '.join([*cycle, name])}")
            self._open.append(name)
            try:
                self._known[name] = self._found(name)
            finally:
                self._open.pop()
        return self._known[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._given)

    def __len__(self) -> int:
        return len(self._given)

    def holds(self, condition: Formula) -> bool:
        """Whether a condition holds. A name that is refused decides nothing; where it matters, raises its Refusal."""
        values: dict[str, Any] = {}
        refusal = None
        for name in condition.reads:
            try:
                values[name] = self[name]
            except Refusal as refused:
                values[name], refusal = UNKNOWN, refused
        found = _asked(condition, values)
        if found is None:
            raise refusal or Mistake(condition, f"cannot be told where {shown_values(condition, values)}")
        return bool(found)

    def first_failed(self, conditions: Iterable[Formula]) -> Formula | None:
        """The first condition that does not hold; one that does not decides, whatever else of the point is refused."""
        refusal = None
        for condition in conditions:
            try:
                if not self.holds(condition):
                    return condition
            except Mistake:
                raise
            except Refusal as refused:
                refusal = refusal or refused
        if refusal is not None:
            raise refusal
        return None

    def cell(self) -> Cell:
        """The cell. Raises Refusal and Mistake."""
        parts: dict[str, Any] = {name: self._section(name) for name in self._names.sections}
        parts |= {"seed": self["seed"], "budget": self[self._names.budget[0]]}
        return self._validated(TaskCell, parts)

    def _validated(self, kind: type[Any], parts: Mapping[str, Any]) -> Any:
        try:
            return kind.model_validate({"study": self._maker.study, "task": self._maker.task, **parts})
        except ValidationError as error:
            raise Refusal(reason(error)) from error

    # ------------------------------------------------------------------------------------------------------ values

    def _found(self, name: str) -> Any:
        if self._names.section_of.get(name) == "resources":
            for override in reversed(self._maker.overrides):
                if name in override.fields and self.holds(override.where):
                    return self._value(name, override.fields[name])
        if name in self._given:
            return self._value(name, self._given[name])
        return self._by_rule(name)

    def _by_rule(self, name: str) -> Any:
        """The value of a name that the grid does not give."""
        field = self._names.kind_of(name).model_fields[self._names.in_cell(name)]
        if field.is_required():
            raise Refusal(f"`{name}` has no default: give it as an axis, such as `{name}: [1K]`")
        return field.get_default()

    def _value(self, name: str, value: Any) -> Any:
        """A value, or what its formula gives, as the field takes it."""
        if not isinstance(value, Formula):
            return value
        values = {read: self[read] for read in value.reads}
        result = _asked(value, values)
        if value.condition:
            if result is None:
                raise Mistake(value, f"cannot be told where {shown_values(value, values)}")
            return result
        try:
            return field_value(self._names.kind_of(name), self._names.in_cell(name), result)
        except ValidationError as error:
            wrong = explained(error.errors()[0])
            if not float(result).is_integer():
                wrong += "; write // to round down, or leave such cells out by `where`"
            found = f"gives {shown_value(result)} where {shown_values(value, values)}"
            raise Mistake(value, f"{found}: {wrong}") from error

    def _formula_of(self, names: list[str]) -> Formula | None:
        """The first formula among names: a cycle has one."""
        values = map(self._given.get, names)
        return next((value for value in values if isinstance(value, Formula)), None)

    def _fields(self, section: str, without: str = "") -> dict[str, Any]:
        """What is given of a section, without what its defaults are."""
        names = [name for name in self._given if self._names.section_of.get(as_field(name)) == section]
        if section == "resources":
            names += [name for override in self._maker.overrides for name in override.fields]
        fields = {name: self[name] for name in dict.fromkeys(map(as_field, names)) if name != without}
        return {name: value for name, value in fields.items() if value is not None}

    def _section(self, name: str, without: str = "") -> Any:
        return self._maker.section(name, self._fields(name, without))


def _asked(formula: Formula, values: Mapping[str, Any]) -> Any:
    try:
        return formula.of(values)
    except InputError as error:
        raise Mistake(formula, str(error)) from error


def reason(error: ValidationError) -> str:
    """The first thing that is wrong, with its field where the message does not name one."""
    detail = error.errors()[0]
    of_field = "" if detail["type"] == "value_error" else f"{detail['loc'][-1]}: "
    return f"{of_field}{explained(detail)}"

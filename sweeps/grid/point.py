"""A point of a grid: one value of each axis, and the cell that it makes once rules and formulas have given the rest."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, ValidationError

from scaling.config.counts import parameters, train_flops
from scaling.config.model import following
from scaling.config.run import RunConfig
from scaling.errors import InputError
from sweeps.grid.formula import UNKNOWN, Formula, shown_value, shown_values
from sweeps.grid.names import COUNTS, FIXES, OF_TRAINING, SECTION_OF, SECTIONS, as_field, home, kind_of
from sweeps.grid.values import explained, field_value

_MOST_ROUNDS = 60
_FOLLOWING = frozenset(following())


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


@dataclass
class Maker:
    """Makes the cells of a grid. Sections that are equal are one object, so that many cells stay small and quick.

    settings: values and formulas by section, of fields and shorthands.   overrides: of `resources`, the last one wins.
    """

    study: str
    task: str
    settings: Mapping[str, Mapping[str, Any]]
    overrides: tuple[Override, ...] = ()
    _sections: dict[str, BaseModel | Refusal] = field(default_factory=dict, repr=False)

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
        return Point(self, given | {name: value for name, value in values.items() if value is not None})

    def section(self, name: str, fields: Mapping[str, Any]) -> Any:
        """A section of these fields. Raises Refusal."""
        key = f"{name} {sorted(fields.items())!r}"
        if key not in self._sections:
            try:
                self._sections[key] = SECTIONS[name].model_validate(dict(fields))
            except ValidationError as error:
                self._sections[key] = Refusal(_reason(error))
        made = self._sections[key]
        if isinstance(made, Refusal):
            raise made
        return made


class Point(Mapping[str, Any]):
    """The values of a combination by name, each found when it is asked for.

    Raises Refusal for one that validation refuses, and Mistake for a formula without a value or that reads itself.
    """

    def __init__(self, maker: Maker, given: Mapping[str, Any]) -> None:
        self._maker, self._given = maker, given
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

    def cell(self) -> RunConfig:
        """The cell. Raises Refusal and Mistake."""
        parts: dict[str, Any] = {name: self._section(name) for name in SECTIONS}
        if parts["model"].router == "soft" and "slots" not in self._given:  # depends on the sequence length
            parts["model"] = self._fields("model")
        for name in ("seed", "tokens"):
            if name in self._given or self._shorthand(name):
                parts[name] = self[name]
        try:
            return RunConfig.model_validate({"study": self._maker.study, "task": self._maker.task, **parts})
        except ValidationError as error:
            raise Refusal(_reason(error)) from error

    # ------------------------------------------------------------------------------------------------------ values

    def _found(self, name: str) -> Any:
        if name in SECTION_OF and home(name) == "resources":
            for override in reversed(self._maker.overrides):
                if name in override.fields and self.holds(override.where):
                    return self._value(name, override.fields[name])
        if name in self._given:
            return self._value(name, self._given[name])
        if shorthand := self._shorthand(name):
            return _RULES[shorthand](self)
        if name in COUNTS:
            return self._counted(name)
        if name in OF_TRAINING:
            return getattr(self._run(), name) if name != "train_flops" else train_flops(self._run())
        if name in FIXES:
            return _ACHIEVED[name](self)
        if name == "lr":
            return self._default_rate()
        if name in _FOLLOWING:  # others of the model
            return getattr(self._section("model"), name)
        return kind_of(name).model_fields[name].get_default()

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
            return field_value(kind_of(name), name, result)
        except ValidationError as error:
            wrong = explained(error.errors()[0])
            if not float(result).is_integer():
                wrong += "; write // to round down, or leave such cells out by `where`"
            found = f"gives {shown_value(result)} where {shown_values(value, values)}"
            raise Mistake(value, f"{found}: {wrong}") from error

    def _shorthand(self, name: str) -> str | None:
        """The shorthand that fixes a field here."""
        return next((short for short, of in FIXES.items() if of == name and short in self._given), None)

    def _formula_of(self, names: list[str]) -> Formula | None:
        """The first formula among names: a cycle has one."""
        values = map(self._given.get, names)
        return next((value for value in values if isinstance(value, Formula)), None)

    def _fields(self, section: str, without: str = "") -> dict[str, Any]:
        """What is given of a section, without what its defaults are."""
        names = [name for name in self._given if SECTION_OF.get(as_field(name)) == section]
        if section == "resources":
            names += [name for override in self._maker.overrides for name in override.fields]
        if "lr_scale" in names and self["lr_scale"] == 1:  # the default, so that such cells are of one trunk with it
            without = "lr"
        fields = {name: self[name] for name in dict.fromkeys(map(as_field, names)) if name != without}
        return {name: value for name, value in fields.items() if value is not None}

    def _section(self, name: str, without: str = "") -> Any:
        return self._maker.section(name, self._fields(name, without))

    def _counted(self, name: str) -> int:
        model = self._section("model")
        sizes = parameters(model, self._section("data").vocab_size)
        return int(sizes.router if name == "n_router" else getattr(sizes, name))

    def _run(self, **tokens: int) -> RunConfig:
        """The cell as far as counts of it need, not validated as a whole."""
        parts = {name: self._section(name) for name in ("model", "data", "train")}
        return RunConfig.model_construct(**parts, tokens=tokens.get("tokens") or self["tokens"])

    def _default_rate(self) -> float:
        """The peak rate by rule, whatever the grid says of it."""
        parts = {"model": self._section("model"), "data": self._section("data"), "train": self._section("train", "lr")}
        return RunConfig.model_construct(**parts).learning_rate

    # ------------------------------------------------------------------------------------------------------- rules

    def _tokens_by_parameters(self) -> int:
        return max(1, round(self["tokens_per_parameter"] * self["n_active"]))

    def _tokens_by_flops(self) -> int:
        batch = self._section("train").batch_tokens
        return batch * nearest_steps(self["flops"], lambda steps: train_flops(self._run(tokens=steps * batch)))

    def _width_of_experts(self) -> int:
        width = 2 * self["d_model"] / self["granularity"]
        if not width.is_integer() or width < 1:
            raise Refusal(
                f"granularity={shown_value(self['granularity'])} at d_model={self['d_model']} makes experts "
                f"2 d_model / granularity = {width:g} wide, which is not whole"
            )
        return int(width)

    def _scaled_rate(self) -> float:
        return float(self["lr_scale"] * self._default_rate())

    def _tokens_per_parameter(self) -> float:
        return float(self["tokens"] / self["n_active"])

    def _granularity(self) -> float:
        return float(2 * self["d_model"] / self["d_expert"])

    def _rate_of_default(self) -> float:
        return float(self["lr"] / self._default_rate())

    def _flops(self) -> float:
        return float(self["train_flops"])


_RULES: Mapping[str, Callable[[Point], Any]] = {
    "tokens_per_parameter": Point._tokens_by_parameters,
    "flops": Point._tokens_by_flops,
    "granularity": Point._width_of_experts,
    "lr_scale": Point._scaled_rate,
}
_ACHIEVED: Mapping[str, Callable[[Point], Any]] = {
    "tokens_per_parameter": Point._tokens_per_parameter,
    "flops": Point._flops,
    "granularity": Point._granularity,
    "lr_scale": Point._rate_of_default,
}


def nearest_steps(flops: float, cost: Callable[[int], float]) -> int:
    """The number of steps, at least 1, whose cost is nearest to `flops`.

    `cost` rises with the steps and is all but linear, so a few steps of the secant method find it.
    """
    steps = max(1, round(flops / cost(1)))
    for _ in range(_MOST_ROUNDS):
        left = flops - cost(steps)
        change = max(1 - steps, round(left / (cost(steps + 1) - cost(steps))))
        if change == 0:
            break
        steps += change
    return min((near for near in (steps - 1, steps, steps + 1) if near >= 1), key=lambda near: abs(cost(near) - flops))


def _asked(formula: Formula, values: Mapping[str, Any]) -> Any:
    try:
        return formula.of(values)
    except InputError as error:
        raise Mistake(formula, str(error)) from error


def _reason(error: ValidationError) -> str:
    """The first thing that is wrong, with its field where the message does not name one."""
    detail = error.errors()[0]
    of_field = "" if detail["type"] == "value_error" else f"{detail['loc'][-1]}: "
    return f"{of_field}{explained(detail)}"

"""A point of a grid of language models: shorthands fix fields, counts can be read, and defaults follow rules."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from scaling.config.counts import parameters, train_flops
from scaling.config.model import following
from scaling.config.run import RunConfig
from sweeps.grid.formula import shown_value
from sweeps.grid.names import COUNTS, FIXES, OF_TRAINING
from sweeps.grid.point import Point, Refusal

_MOST_ROUNDS = 60
_FOLLOWING = frozenset(following())


class ModelPoint(Point):
    """The values of a combination, with the rules of the language model."""

    def cell(self) -> RunConfig:
        """The cell. Raises Refusal and Mistake."""
        parts: dict[str, Any] = {name: self._section(name) for name in self._names.sections}
        if parts["model"].router == "soft" and "slots" not in self._given:  # depends on the sequence length
            parts["model"] = self._fields("model")
        for name in ("seed", "tokens"):
            if name in self._given or self._shorthand(name):
                parts[name] = self[name]
        made: RunConfig = self._validated(RunConfig, parts)
        return made

    def _by_rule(self, name: str) -> Any:
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
        return super()._by_rule(name)

    def _fields(self, section: str, without: str = "") -> dict[str, Any]:
        """What is given of a section; a rate of once the default is the default, so that such cells are of one trunk
        with it."""
        scaled = section == "train" and "lr_scale" in self._given and self["lr_scale"] == 1
        return super()._fields(section, "lr" if scaled else without)

    def _shorthand(self, name: str) -> str | None:
        """The shorthand that fixes a field here."""
        return next((short for short, of in FIXES.items() if of == name and short in self._given), None)

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


_RULES: Mapping[str, Callable[[ModelPoint], Any]] = {
    "tokens_per_parameter": ModelPoint._tokens_by_parameters,
    "flops": ModelPoint._tokens_by_flops,
    "granularity": ModelPoint._width_of_experts,
    "lr_scale": ModelPoint._scaled_rate,
}
_ACHIEVED: Mapping[str, Callable[[ModelPoint], Any]] = {
    "tokens_per_parameter": ModelPoint._tokens_per_parameter,
    "flops": ModelPoint._flops,
    "granularity": ModelPoint._granularity,
    "lr_scale": ModelPoint._rate_of_default,
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

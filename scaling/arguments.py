"""Arguments of the functions of `import scaling`: each is what its annotation says, or an InputError names it."""

from __future__ import annotations

import difflib
import functools
import inspect
import types
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Literal, ParamSpec, TypeVar, Union, get_args, get_origin, get_type_hints

from scaling.errors import InputError
from scaling.formatting import listed

P = ParamSpec("P")
R = TypeVar("R")
_WORDS = {
    float: "a number", int: "a whole number", str: "text", bool: "True or False", Path: "a path", type(None): "None",
}  # fmt: skip
_LETTERS = 40


def checked(hints: Mapping[str, str] = types.MappingProxyType({})) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """A decorator: arguments that are not of the annotated kind raise InputError naming the argument, what it must be
    and what was found. NumPy's numbers are numbers; text is none. `hints` says what to give for an argument, and what
    to write instead of one that the function does not have."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            signature, kinds = _signature(function)
            unknown = [name for name in kwargs if name not in signature.parameters]
            if unknown:
                raise InputError(_unknown(function.__name__, unknown[0], signature, hints))
            for name, value in signature.bind(*args, **kwargs).arguments.items():
                if not _fits(value, kinds[name]):
                    raise InputError(
                        f"`{name}` must be {hints.get(name) or _described(kinds[name])}, found {_found(value)}"
                    )
            return function(*args, **kwargs)

        return call

    return decorate


@functools.cache
def _signature(function: Callable[..., Any]) -> tuple[inspect.Signature, dict[str, Any]]:
    """The parameters of a function, and the kind of each; what it gives back may be unknown at run time."""
    signature = inspect.signature(function)
    annotations = {name: parameter.annotation for name, parameter in signature.parameters.items()}
    taken = types.SimpleNamespace(__annotations__=annotations)
    return signature, get_type_hints(taken, function.__globals__)


def _fits(value: Any, kind: Any) -> bool:
    """Whether a value is of a kind of annotation."""
    if kind is None or kind is type(None):
        return value is None
    if kind is float or kind is int:
        return isinstance(value, Real if kind is float else Integral) and not isinstance(value, bool)
    origin, parts = get_origin(kind), get_args(kind)
    if origin is None:
        return isinstance(value, kind)
    if origin in (Union, types.UnionType):
        return any(_fits(value, part) for part in parts)
    if origin is Literal:
        return isinstance(value, str) and value in parts
    if issubclass(origin, Mapping):
        return isinstance(value, Mapping) and all(_fits(k, parts[0]) and _fits(v, parts[1]) for k, v in value.items())
    if issubclass(origin, Sequence):
        return isinstance(value, Sequence) and not isinstance(value, str) and all(_fits(v, parts[0]) for v in value)
    return isinstance(value, origin)


def _described(kind: Any) -> str:
    """ "a number or None", "a mapping of text to a number"."""
    origin, parts = get_origin(kind), get_args(kind)
    if origin is None:
        return _WORDS.get(kind, getattr(kind, "__name__", str(kind)))
    if origin in (Union, types.UnionType):
        return " or ".join(map(_described, parts))
    if origin is Literal:
        return f"one of {', '.join(map(repr, parts))}"
    if issubclass(origin, Mapping):
        return f"a mapping of {_described(parts[0])} to {_described(parts[1])}"
    return f"several of {_described(parts[0])}"


def _found(value: Any) -> str:
    """Plain values as they are, others by their type."""
    if isinstance(value, (str, Real, list, tuple, dict)) or value is None:
        text = repr(value)
        return text if len(text) <= _LETTERS else f"{text[:_LETTERS]}..."
    return f"a {type(value).__name__}"


def _unknown(function: str, name: str, signature: inspect.Signature, hints: Mapping[str, str]) -> str:
    if name in hints:
        return f"scaling.{function} has no `{name}`: give {hints[name]}"
    alike = difflib.get_close_matches(name, signature.parameters, n=1)
    meant = f"; did you mean `{alike[0]}`?" if alike else f"; it has {listed(signature.parameters, most=40)}"
    return f"scaling.{function} has no `{name}`{meant}"

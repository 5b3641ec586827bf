"""The first state of a training on CPUs without a program of its own for each shape.

A program that initialises a model holds a generator of random bits for each of its weights, and compiles for a third as
long as a training step. Here what is drawn for which weight is read off the traced initialisation, a recipe, and one
small program, the same for all models, draws blocks of normal numbers. The values are those of the initialisation bit
for bit (tests/training/test_initial_values.py): the bits of a number depend on the key of its weight and on its place
alone (threefry, as JAX has it where `jax_threefry_partitionable` is on), and XLA multiplies the two factors behind a
normal number with one another first, as is done here. What is no such initialisation is compiled as a whole.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core as jax_core
from jax.extend.random import threefry2x32_p
from jax.interpreters import partial_eval
from numpy.typing import NDArray

from scaling.training.executable_cache import load_or_compile

Initialisation = Any
"""A tree of what to draw for each value, or a compiled program of the key; `executable_cache` keeps both."""

_ROWS, _COLUMNS = 16, 4096  # of one call of the program: 65,536 numbers
_SQRT_2 = np.float32(np.sqrt(2))
_LEAST = np.nextafter(np.float32(-1), np.float32(0))  # of the uniform numbers that become normal ones
_MOST = 2**32  # numbers of one weight


@dataclass(frozen=True)
class _Normal:
    """Normal numbers: what the key is folded with, their standard deviation, and the shape."""

    fold: int
    deviation: float
    shape: tuple[int, ...]


@dataclass(frozen=True)
class _Constant:
    """One value in every place."""

    value: float
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class _Key:
    """The words of the key itself."""


class _UnknownError(Exception):
    """The initialisation draws something else."""


def initialisation_of(function: Callable[[jax.Array], Any]) -> tuple[Initialisation, Any]:
    """The initialisation that a function of a random key is, which `initial_values` takes, and the shapes of its
    values."""
    key = jax.eval_shape(lambda: jax.random.key(0))
    traced, shapes = jax.make_jaxpr(function, return_shape=True)(key)
    if jax.default_backend() == "cpu" and jax.config.values["jax_threefry_partitionable"]:
        try:
            return jax.tree.unflatten(jax.tree.structure(shapes), _recipe(traced)), shapes
        except _UnknownError:
            pass
    return compile_unoptimised(function, key), shapes


def initial_values(initialisation: Initialisation, seed: int) -> Any:
    """What the function of an initialisation returns for `jax.random.key(seed)`; arrays of NumPy where it is drawn."""
    if isinstance(initialisation, jax.stages.Compiled):
        return initialisation(jax.random.key(seed))
    recipe, tree = jax.tree.flatten(initialisation)
    words = np.array([0, seed], np.uint32) if seed < 2**31 else np.asarray(jax.random.key_data(jax.random.key(seed)))
    drawn = _drawn(words, [one for one in recipe if isinstance(one, _Normal)])
    return jax.tree.unflatten(tree, [_value(one, words, drawn) for one in recipe])


def compile_unoptimised(function: Callable[..., Any], *arguments: Any) -> Any:
    """A program compiled without optimisation, which is faster for something that runs once for milliseconds."""
    options: dict[str, str | bool] = {"xla_backend_optimization_level": "0"} if jax.default_backend() == "cpu" else {}
    return jax.jit(function).lower(*arguments).compile(compiler_options=options)


def _value(one: Any, words: NDArray[np.uint32], drawn: Iterator[NDArray[np.float32]]) -> NDArray[Any]:
    if isinstance(one, _Normal):
        return next(drawn)
    return words if isinstance(one, _Key) else np.full(one.shape, one.value, one.dtype)


def _recipe(traced: jax_core.ClosedJaxpr) -> list[_Normal | _Constant | _Key]:
    """What each value of a traced initialisation is. Raises _UnknownError."""
    jaxpr, _ = partial_eval.dce_jaxpr(traced.jaxpr, [True] * len(traced.jaxpr.outvars), instantiate=True)
    (key,) = jaxpr.invars
    known: dict[Any, Any] = {}

    def of(atom: Any) -> Any:
        if isinstance(atom, jax_core.Literal):
            value = np.asarray(atom.val)
            return _Constant(value.item(), str(value.dtype), ())
        return known.get(atom)

    for equation in jaxpr.eqns:
        name, out, values = equation.primitive.name, equation.outvars[0], [of(one) for one in equation.invars]
        made: Any = out.aval
        if name == "random_fold_in" and equation.invars[0] is key and isinstance(values[1], _Constant):
            known[out] = int(values[1].value)
        elif name == "random_unwrap" and equation.invars[0] is key:
            known[out] = _Key()
        elif equation.params.get("name") == "_normal" and isinstance(values[0], int):
            known[out] = _Normal(values[0], 1.0, made.shape)
        else:
            known[out] = _computed(name, values, made)
    recipe = [of(out) for out in jaxpr.outvars]
    if not all(isinstance(one, _Normal | _Constant | _Key) for one in recipe):
        raise _UnknownError
    return recipe


def _computed(name: str, values: Sequence[Any], out: Any) -> _Normal | _Constant:
    """What an operation makes of a constant, or of normal numbers and a constant. Raises _UnknownError."""
    constants = [one for one in values if isinstance(one, _Constant) and not one.shape]
    normal = values[0] if values and isinstance(values[0], _Normal) else None
    if name == "mul" and normal and len(constants) == 1 and normal.deviation == 1 and out.size < _MOST:
        if out.dtype != np.float32:
            raise _UnknownError
        return _Normal(normal.fold, constants[0].value, out.shape)
    if len(constants) == len(values) == 1:
        if name == "sqrt" and out.dtype == np.float32:
            return _Constant(float(np.sqrt(np.float32(constants[0].value))), str(out.dtype), ())
        if name == "broadcast_in_dim":
            return _Constant(constants[0].value, str(out.dtype), out.shape)
    raise _UnknownError


def _drawn(words: NDArray[np.uint32], wanted: Sequence[_Normal]) -> Iterator[NDArray[np.float32]]:
    """The normal numbers of each weight, drawn in rows of which a call of the program makes some."""
    sizes = [int(np.prod(one.shape)) for one in wanted]
    rows = [(one, start) for one, size in zip(wanted, sizes, strict=True) for start in range(0, size, _COLUMNS)]
    whole = -(-len(rows) // _ROWS) * _ROWS
    fold, start, factor = np.zeros(whole, np.uint32), np.zeros(whole, np.uint32), np.zeros(whole, np.float32)
    fold[: len(rows)], start[: len(rows)] = [one.fold for one, _ in rows], [place for _, place in rows]
    factor[: len(rows)] = [_SQRT_2 * np.float32(one.deviation) for one, _ in rows]
    program, numbers = _program(), np.empty((whole, _COLUMNS), np.float32)
    for first in range(0, whole, _ROWS):
        some = slice(first, first + _ROWS)
        numbers[some] = program(words, fold[some], start[some], factor[some])
    row = 0
    for one, size in zip(wanted, sizes, strict=True):
        count = -(-size // _COLUMNS)
        yield numbers[row : row + count].reshape(-1)[:size].reshape(one.shape)
        row += count


@functools.cache
def _program() -> Any:
    """The compiled `_block`."""
    row = jax.ShapeDtypeStruct((_ROWS,), np.uint32)
    arguments = (jax.ShapeDtypeStruct((2,), np.uint32), row, row, jax.ShapeDtypeStruct((_ROWS,), np.float32))
    key = (_ROWS, _COLUMNS)
    return load_or_compile("normal", key, jax.devices()[:1], lambda: (compile_unoptimised(_block, *arguments),))[0]


def _block(words: jax.Array, fold: jax.Array, start: jax.Array, factor: jax.Array) -> jax.Array:
    """Rows of normal numbers times a factor: those from `start` on of a weight whose key is folded with `fold`.

    As `jax.random.fold_in` and `jax.random.normal` compute them.
    """
    key = threefry2x32_p.bind(*(jnp.full_like(fold, word) for word in words), jnp.zeros_like(fold), fold)
    place = start[:, None] + jnp.arange(_COLUMNS, dtype=jnp.uint32)
    wide = (jnp.broadcast_to(word[:, None], place.shape) for word in key)
    high, low = threefry2x32_p.bind(*wide, jnp.zeros_like(place), place)
    above_one = jax.lax.bitcast_convert_type((high ^ low) >> 9 | jnp.uint32(0x3F800000), jnp.float32)
    uniform = (above_one - 1) * (np.float32(1) - _LEAST) + _LEAST
    return jax.lax.erf_inv(jnp.maximum(_LEAST, uniform)) * factor[:, None]

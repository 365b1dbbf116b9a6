"""The parameters of an environment in JAX: overridden, of each environment, or drawn at each reset.

Domain randomisation (Tobin et al. 2017, arXiv 1703.06907) is a function `key -> params` as
`Config.env_params`:

    def lengths(key):
        return {"length": jax.random.uniform(key, minval=0.25, maxval=1.0)}

    rljax.train("a2c", env="CartPole-v1", env_params=lengths)
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from rljax.utils.errors import in_a_line
from rljax.utils.lookup import load_function, unknown


class Varied(NamedTuple):
    """Parameters that are not the same in all episodes."""

    draw: Callable[[jax.Array, jax.Array], dict[str, jax.Array]]
    """(key, index of the environment in its batch) -> scalars by name."""
    by_index: bool  # whether they depend on the index; else they are drawn at each reset


def override(params: Any, given: Any) -> tuple[Any, Varied | None]:
    """(the parameters, with those overridden that are the same for all, and those that vary).

    Args:
        params: the environment's own, a dataclass; None if it has none.
        given: `Config.env_params`: by name a number, a string, or a tuple of numbers, of which
            environment i has the one at i modulo their number; or a function, or its path, from a
            key to such numbers by name or to parameters of the environment's own type.

    Raises:
        ValueError: the environment has no parameter of that name.
        TypeError: a parameter is of another kind, or the function gives something else.
    """
    if not given:
        return params, None
    if isinstance(given, str) or callable(given):
        function = load_function("env_params", given)
        if params is None:
            raise ValueError(f"env_params = {given!r}: the environment has none")
        return params, Varied(
            lambda key, index: _drawn(params, given, function, key), by_index=False
        )
    given = dict(given)
    for name, value in given.items():
        _check(params, name, value)
    tables = {name: x for name, x in given.items() if isinstance(x, tuple)}
    same = {name: x for name, x in given.items() if name not in tables}
    params = params.replace(**same) if same else params

    def of_index(key, index):
        rows = {name: jnp.asarray(table) for name, table in tables.items()}
        return {name: row[index % len(row)] for name, row in rows.items()}

    return params, Varied(of_index, by_index=True) if tables else None


def _drawn(params, given, function, key):
    try:
        found = function(key)
    except Exception as error:
        raise ValueError(f"env_params = {given!r}: {in_a_line(error)}") from error
    if type(found) is type(params):
        found = {name: x for name, x in vars(found).items() if _is_scalar(x)}
    if not isinstance(found, Mapping):
        what = f"must give a dict or {type(params).__name__}, not {type(found).__name__}"
        raise TypeError(f"env_params = {given!r}: {what}")
    for name, value in found.items():
        _check(params, name, 0)
        if not _is_scalar(value):
            raise TypeError(f"environment parameter {name} = {value!r}: must be a number")
    return {name: _strong(value) for name, value in found.items()}


def _is_scalar(value):
    return isinstance(value, int | float) or getattr(value, "shape", None) == ()


def _strong(value):
    return jax.lax.convert_element_type(value, jnp.result_type(value))


def _check(params, name, value):
    kinds = {x.name: x.type for x in dataclasses.fields(params)} if params is not None else {}
    if name not in kinds:
        raise ValueError(unknown("environment parameter", name, list(kinds)))
    if isinstance(getattr(params, name), str):
        kind, is_right = "text", isinstance(value, str)
    elif kinds[name] in (int, "int"):
        kind, is_right = "a whole number", _is_whole(value)
    else:
        kind, is_right = "a number", isinstance(value, int | float | tuple)
    if not is_right:
        raise TypeError(f"environment parameter {name} = {value!r}: must be {kind}")


def _is_whole(value):
    numbers = value if isinstance(value, tuple) else (value,)
    return all(isinstance(x, int | float) and float(x).is_integer() for x in numbers)

"""Settings of environments in a config: values by name or, in Python, a function."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from rljax.utils import values
from rljax.utils.checks import shown

NAMES = ("env_kwargs", "env_params", "reset_options")
"""The fields of `Config`: each a tuple of (name, value), a function or its path."""


def frozen(name: str, given: Any) -> Any:
    """A setting as a config holds it, hashable: a dict as pairs, their values as `values.frozen`
    gives them. What is neither is returned as it is.

    Raises:
        TypeError: a value is an array.
    """
    if isinstance(given, Mapping):
        given = tuple(sorted(given.items(), key=lambda pair: str(pair[0])))
    return tuple(_frozen(name, *pair) for pair in given) if _is_pairs(given) else given


def _frozen(name, key, item):
    item = values.frozen(item)
    if name == "env_params" and (isinstance(item, values.Frozen) or np.ndim(item) == 1):
        item = tuple(getattr(item, "items", item))  # one for each environment
        item = tuple(values.frozen(x) for x in item)
    if hasattr(item, "dtype"):  # before JAX finds that it cannot be hashed
        raise TypeError(
            f"{name}: {key} = {shown(item)}: must be a value and no array; it is static, and what a"
            f" sweep varies as its axis {name}.{key}"
        )
    return key, item


def check(name: str, given: Any) -> None:
    """Raises a TypeError unless a setting from `frozen` is allowed."""
    if is_function(given):
        return
    if not _is_pairs(given) or not all(isinstance(key, str) for key, _ in given):
        raise TypeError(f"{name} = {shown(given)}: must be a dict, its keys strings")
    is_allowed, allowed = _ALLOWED.get(name, (values.is_value, values.ALLOWED))
    for key, item in given:
        if not is_allowed(item):
            raise TypeError(f"{name}: {key} = {shown(item)}: must be {allowed}")


def is_function(given: Any) -> bool:
    """Whether a setting is a function, its path, or the record of one that has no path, which
    whoever resumes the run gives again."""
    if isinstance(given, str):
        return ":" in given or given.startswith("<")
    return callable(given)


def _is_numbers(x):
    return isinstance(x, tuple) and len(x) > 0 and all(isinstance(one, int | float) for one in x)


_ALLOWED = {
    "env_params": (
        lambda x: isinstance(x, int | float | str) or _is_numbers(x),
        "a number, a bool, a string or a tuple of numbers",
    ),
}


def _is_pairs(value):
    return isinstance(value, tuple) and all(isinstance(x, tuple) and len(x) == 2 for x in value)

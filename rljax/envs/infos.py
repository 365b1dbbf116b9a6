"""What an environment returns as info, and the numbers in it by the names of `Config.log_info`."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np


def numbers(info: Mapping, names: Sequence[str], xp: Any = np) -> Any:
    """Numbers by name, float32 [K], in NumPy or `jax.numpy`. The name "a/b" is of info["a/b"] or,
    if there is no such key, of info["a"]["b"].

    Raises:
        ValueError: the info lacks a name; the message lists what it has.
        TypeError: there is something else than a scalar number.
    """
    return xp.stack([_number(name, _find(info, name), info, xp) for name in names])


def check(source: Any, info: Any) -> None:
    """Raises a TypeError if the info of an environment in JAX is no dict, or has a mask that the
    environment gives in no other way."""
    if not isinstance(info, Mapping):
        raise TypeError(f"info must be a dict, not {type(info).__name__}")
    if "action_mask" in info and not hasattr(source, "action_mask"):
        what = "comes after the first action; give the mask by a method action_mask(state, params)"
        raise TypeError(f"{type(source).__name__}: info['action_mask'] {what}")


def _find(info, name):
    """`_ABSENT` if it is not there."""
    if name in info:
        return info[name]
    for at in (i for i, letter in enumerate(name) if letter == "/"):
        inner = info.get(name[:at])
        found = _find(inner, name[at + 1 :]) if isinstance(inner, Mapping) else _ABSENT
        if found is not _ABSENT:
            return found
    return _ABSENT


def _number(name, value, info, xp):
    if value is _ABSENT:
        there = ", ".join(map(repr, _names(info))) or "nothing"
        raise ValueError(f"log_info: the info of a step has no {name!r}, but {there}")
    shape = np.shape(value)
    dtype = getattr(value, "dtype", None) or np.asarray(value).dtype
    if shape or not any(jnp.issubdtype(dtype, kind) for kind in _KINDS):
        what = f"of shape {list(shape)}" if shape else f"of {dtype}"
        raise TypeError(f"log_info: the info's {name!r} must be a scalar number, not {what}")
    return xp.asarray(value).astype(xp.float32)


def _names(info, before=""):
    for name, value in info.items():
        if isinstance(value, Mapping):
            yield from _names(value, f"{before}{name}/")
        else:
            yield f"{before}{name}"


_ABSENT = object()
_KINDS = (jnp.bool_, jnp.integer, jnp.floating)

"""Checks of settings and options, which are dataclasses of plain types."""

import dataclasses
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from rljax.utils.lookup import unknown


def check(part: Any, *others: str, **least: int) -> None:
    """Checks that fields of a dataclass, except the `others`, are of the annotated types, where
    these are numbers, bools, text, paths and literals, and that none is below its `least`.

    Raises:
        TypeError: a value is of another type.
        ValueError: a value is not one of the known ones, or below the least.
    """
    for field in dataclasses.fields(part):
        name, value = field.name, getattr(part, field.name)
        is_union = isinstance(field.type, types.UnionType)
        kinds = typing.get_args(field.type) if is_union else (field.type,)
        if name in others or (value is None and type(None) in kinds):
            continue
        if typing.get_origin(field.type) is typing.Literal:
            if value not in (allowed := typing.get_args(field.type)):
                raise ValueError(unknown(name, shown(value).strip("'"), list(allowed)))
        elif kinds[0] in _WORDS:
            is_right, words = _WORDS[kinds[0]]
            if not is_right(value):
                raise TypeError(f"{name} = {shown(value)}: must be {words}")
        if name in least and value < least[name]:
            raise ValueError(f"{name} = {value}: must be at least {least[name]}")
        if kinds[0] is float and isinstance(value, int) and abs(value) >= 2**1024:
            raise ValueError(f"{name} = {shown(value)}: must be a number that a float can be")


def check_range(name: str, value: Any, allowed: str, is_allowed: Callable) -> None:
    """Raises a ValueError if a number, or one of an array, is out of range; not if it is traced."""
    try:
        value = np.asarray(value)
    except TypeError:
        return
    if not np.all(is_allowed(value)):
        raise ValueError(f"{name} = {value}: must be {allowed}")


def shown(value: Any) -> str:
    """A value in one short line."""
    try:
        text = " ".join(repr(value).split())
    except RecursionError:
        text = "something nested very deeply"
    return text if len(text) <= 100 else f"{text[:97]}..."


AT_LEAST_0 = ("finite and at least 0", lambda x: np.isfinite(x) & (x >= 0))
ABOVE_0 = ("finite and above 0", lambda x: np.isfinite(x) & (x > 0))
SHARE = ("in [0, 1]", lambda x: (x >= 0) & (x <= 1))
"""Ranges, for `check_range`."""

_WORDS = {
    bool: (lambda x: isinstance(x, bool), "True or False"),
    float: (lambda x: hasattr(x, "__float__") and not isinstance(x, bool | str), "a number"),
    int: (lambda x: isinstance(x, int | np.integer) and not isinstance(x, bool), "a whole number"),
    str: (lambda x: isinstance(x, str), "a name"),
    Path: (lambda x: isinstance(x, Path), "a path"),
}
"""What a value must be, by the type of its field."""

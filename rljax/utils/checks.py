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
    """Checks the type of every field, as it is annotated, and the least of whole numbers.

    Fields of other types than numbers, bools, text, paths and literals are left out.

    Args:
        part: a dataclass.
        others: names of fields that have checks of their own.
        least: name=number; None is allowed where the annotation says so.

    Raises:
        TypeError: a value is of another type.
        ValueError: a value is not one of the known ones, or below the least.
    """
    for field in dataclasses.fields(part):
        name, value = field.name, getattr(part, field.name)
        kinds = _kinds(field.type)
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
    """That numbers, or an array of them, are in their range; traced ones have no value yet.

    Raises:
        ValueError: they are not.
    """
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


def _kinds(annotation):
    is_union = isinstance(annotation, types.UnionType)
    return typing.get_args(annotation) if is_union else (annotation,)


def _is_whole(value):
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _is_number(value):
    return hasattr(value, "__float__") and not isinstance(value, bool | str)


_WORDS = {
    bool: (lambda value: isinstance(value, bool), "True or False"),
    float: (_is_number, "a number"),
    int: (_is_whole, "a whole number"),
    str: (lambda value: isinstance(value, str), "a name"),
    Path: (lambda value: isinstance(value, Path), "a path"),
}
"""What a value must be, by the type of its field."""

"""Dataclasses of settings, in two parts: floats, which programs take as arguments, and all else,
which they are compiled for. `rljax.types` makes pytrees of them. Needs no JAX.

A setting of text can hold floats too, such as "exponential:0.5": a dataclass names the functions
that parse its own in `PARSERS`, a class variable.
"""

import dataclasses
from collections.abc import Hashable, Iterable
from typing import Any, NamedTuple


class Parsed(NamedTuple):
    """A setting of text, parsed."""

    kind: Hashable
    numbers: tuple  # floats, or arrays of them


def parsed(part: Any, name: str) -> Parsed:
    """A setting of text of a dataclass, which inside a program is parsed already."""
    value = getattr(part, name)
    return value if isinstance(value, Parsed) else type(part).PARSERS[name](value)


def split(part: Any) -> tuple[list, tuple]:
    """(the floats, all else) of a dataclass of settings."""
    floats, others = [], []
    parsers = getattr(type(part), "PARSERS", {})
    for field in dataclasses.fields(part):
        if field.name in parsers:
            kind, numbers = parsed(part, field.name)
            floats += numbers
            others.append((kind, len(numbers)))
        else:
            (floats if field.type is float else others).append(getattr(part, field.name))
    return floats, tuple(others)


def joined(kind: type, floats: Iterable, others: Iterable) -> Any:
    """The inverse of `split`, for a dataclass of this kind: settings of text stay `Parsed`. Checks
    nothing, as floats may be traced."""
    # Not kind(...): JAX also makes pytrees of placeholders that are no numbers.
    part, floats, others = object.__new__(kind), iter(floats), iter(others)
    parsers = getattr(kind, "PARSERS", {})
    for field in dataclasses.fields(kind):
        if field.name in parsers:
            name, number = next(others)
            value = Parsed(name, tuple(next(floats) for _ in range(number)))
        else:
            value = next(floats if field.type is float else others)
        object.__setattr__(part, field.name, value)
    return part

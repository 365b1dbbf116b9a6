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


def split(part: Any) -> tuple[list, tuple]:
    """(the floats, all else) of a dataclass of settings."""
    floats, others = [], []
    parsers = getattr(type(part), "PARSERS", {})
    for field in dataclasses.fields(part):
        value = getattr(part, field.name)
        if field.name in parsers:
            parsed = value if isinstance(value, Parsed) else parsers[field.name](value)
            floats += parsed.numbers
            others.append((parsed.kind, len(parsed.numbers)))
        elif field.type is float:
            floats.append(value)
        else:
            others.append(value)
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

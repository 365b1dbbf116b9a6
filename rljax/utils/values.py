"""Values of `Config.env_kwargs`: hashable in a config, exact in JSON, and as text.

A config holds lists and dicts as `Frozen`, because compiled programs are cached by their config. An
environment gets fresh ones each time (`thawed`), so that its changes to them affect no other.

In JSON (`encoded`), what JSON has no form for is an object with one name: {"tuple": [...]},
{"float": "inf"} or "-inf" or "nan", and {"dict": [[key, value], ...]} for a dict that has other
keys than strings or looks like one of these.
"""

import ast
import contextlib
import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

MOST_LEVELS = 32  # the deepest nesting of lists, tuples and dicts
ALLOWED = "a number, a bool, a string, None, or a list, tuple or dict of such"

_SCALARS = bool | int | float | str | None
_TAGS = ("tuple", "float", "dict")


@dataclasses.dataclass(frozen=True)
class Frozen:
    """A hashable list or dict."""

    kind: type  # list or dict
    items: tuple  # of a dict the (key, value) pairs, in order

    def __repr__(self):
        return repr(_thawed(self))


def frozen(value: Any, levels: int = MOST_LEVELS) -> Any:
    """A value as a config holds it: NumPy scalars as Python's, lists and dicts as `Frozen`. Other
    values (see `is_value`), and those nested too deeply, are returned as they are."""
    if isinstance(value, np.generic) or (isinstance(value, np.ndarray) and not value.shape):
        return value.item()
    if not levels:
        return value
    if isinstance(value, dict):
        pairs = value.items()
        return Frozen(dict, tuple((frozen(k, 0), frozen(x, levels - 1)) for k, x in pairs))
    if not isinstance(value, list | tuple):
        return value
    items = tuple(frozen(x, levels - 1) for x in value)
    return items if isinstance(value, tuple) else Frozen(list, items)


def is_value(value: Any) -> bool:
    """Whether a value from `frozen` is `ALLOWED`."""
    if isinstance(value, Frozen) and value.kind is dict:
        return all(isinstance(k, _SCALARS) and is_value(x) for k, x in value.items)
    if isinstance(value, tuple | Frozen):
        return all(map(is_value, value if isinstance(value, tuple) else value.items))
    return isinstance(value, _SCALARS)


def thawed(pairs: Mapping[str, Any] | Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Keyword arguments as an environment takes them, with lists and dicts of its own."""
    return {name: _thawed(value) for name, value in dict(pairs).items()}


def _thawed(value):
    if isinstance(value, Frozen):
        return value.kind(map(_thawed, value.items))
    return tuple(map(_thawed, value)) if isinstance(value, tuple) else value


def encoded(value: Any) -> Any:
    """A value, frozen or not, in a form that JSON can hold."""
    value = _thawed(value)
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": str(value)}
    if isinstance(value, tuple):
        return {"tuple": [encoded(x) for x in value]}
    if isinstance(value, list):
        return [encoded(x) for x in value]
    if not isinstance(value, dict):
        return value
    if all(isinstance(key, str) for key in value) and not _is_tagged(value):
        return {key: encoded(x) for key, x in value.items()}
    return {"dict": [[encoded(key), encoded(x)] for key, x in value.items()]}


def decoded(value: Any) -> Any:
    """The inverse of `encoded`; raises a ValueError or a TypeError for what that does not give."""
    if isinstance(value, list):
        return [decoded(x) for x in value]
    if not isinstance(value, dict):
        return value
    if not _is_tagged(value):
        return {key: decoded(x) for key, x in value.items()}
    ((tag, inner),) = value.items()
    if tag == "float":
        return float(inner)
    if not isinstance(inner, list):
        raise TypeError(f"{tag} = {inner!r}: must be a list")
    if tag == "tuple":
        return tuple(decoded(x) for x in inner)
    return {decoded(key): decoded(x) for key, x in inner}


def read(text: str) -> Any:
    """The value of text as Python or JSON writes it: a number, true, false, None or null, a quoted
    string, a list, tuple or dict. Other text stays text, except that one which begins as a list,
    tuple or dict raises ValueError."""
    with contextlib.suppress(ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return ast.literal_eval(text)
    with contextlib.suppress(ValueError, RecursionError):
        return json.loads(text, parse_constant=_refuse)
    if text[:1] in ("[", "(", "{"):
        raise ValueError(f"{text!r} is no list, tuple or dict as Python or JSON writes it")
    return None if text == "none" else text


def _refuse(name):
    raise ValueError(name)


def written(value: Any) -> str:
    """Text that `read` reads as this value."""
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            if read(value) == value:
                return value
    return repr(value)


def text_of(value: Any) -> str | None:
    """Text that `read` reads as this value; None if there is none, as for infinity."""
    held = frozen(value)
    text = repr(held)
    try:
        return text if is_value(held) and frozen(read(text)) == held else None
    except ValueError:
        return None


def number(value: Any) -> Any:
    """A number from JSON, where `atomic_io.json_bytes` writes "inf", "-inf" or "nan" for some."""
    return float(value) if value in ("inf", "-inf", "nan") else value


def _is_tagged(value):
    return len(value) == 1 and next(iter(value)) in _TAGS

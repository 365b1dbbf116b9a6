"""Axes and points of a sweep, as text."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rljax import sweep
from rljax.sweep import points as spaces
from rljax.utils import atomic_io
from rljax.utils.lookup import unknown
from rljax.utils.values import read as read_value

SAMPLINGS = ("grid", "random", "latin-hypercube")
_FORMS = "NAME=VALUE,VALUE,... or NAME=log:LOW:HIGH:NUMBER or NAME=linear:LOW:HIGH:NUMBER"


def points(options: Any, own: tuple[Any, ...]) -> list[dict]:
    """The points of the axes in a `cli.sweep.SpaceOptions`, of settings of the config and of the
    algorithm's own options; raises ValueError if an axis is malformed, has no such setting or a
    value of another type, or if there are too many points."""
    parsed = {}
    for text in options.axis:
        name, values = parse(text, options.max_points, own)
        if name in parsed:
            raise ValueError(f"axis {name}: is given twice")
        parsed[name] = values
    number = options.num_points
    if options.sampling == "grid":
        number = math.prod(1 if isinstance(a, sweep.Range) else len(a) for a in parsed.values())
    _check_number(number, options.max_points)
    if options.sampling == "grid":
        return sweep.grid(parsed)
    sample = sweep.random if options.sampling == "random" else sweep.latin_hypercube
    return sample(parsed, number, options.sampling_seed)


def _check_number(number, most):
    if number > most:
        raise ValueError(f"{number:,} points: more than --max-points {most:,}")


def parse(text: str, most: int, own: tuple[Any, ...] | None = None) -> tuple[str, Any]:
    """An axis: its name, and at most `most` values, or a `sweep.Range`; raises as `points` does."""
    name, equals, values = text.partition("=")
    if not equals:
        raise ValueError(f"axis {text!r}: must be {_FORMS}")
    spaces.check_name(name, own)
    kind, *bounds = values.split(":")
    is_span = kind in ("log", "linear") and bounds
    try:
        if is_span:
            low, high, *number = bounds
            if number and int(number[0]) > most:
                raise ValueError(f"{int(number[0]):,} points: must be no more than {most:,}")
            span = sweep.log if kind == "log" else sweep.linear
            values = span(float(low), float(high), *map(int, number))
            is_whole = number and spaces.is_whole(name)
            return name, tuple(round(x) for x in values) if is_whole else values
        if not values:
            raise ValueError("must have at least one value")
        items = _split(values, ",")
        return name, [_value(name, item) for item in items]
    except (ValueError, TypeError) as error:
        why = str(error) if not is_span or "must be" in str(error) else f"must be {_FORMS}"
        raise ValueError(f"axis {text!r}: {why}") from None


def _value(name, text):
    """A value of a setting, in its type; its range is checked with the whole point."""
    field = spaces.field(name)
    if field is None:  # of a dict
        return read_value(text)
    kind = field.type
    if kind == str | None and text.lower() == "none":
        return None
    if kind in (str, str | None):
        return text
    if kind is bool:
        if text.lower() not in ("true", "false"):
            raise ValueError(f"{text!r} must be true or false")
        return text.lower() == "true"
    if kind == int | None and text.lower() == "none":
        return None
    if kind in (int, int | None):
        return _whole(text)
    if kind is float:
        try:
            return float(text)
        except ValueError:
            raise ValueError(f"{text!r} must be a number") from None
    if name == "hidden_sizes":
        return tuple(_whole(size) for size in text.split("x"))
    if name in ("wrappers", "core_inputs", "log_info"):
        return () if text.lower() == "none" else tuple(_split(text, "+"))
    if text not in kind.__args__:
        raise ValueError(unknown(name, text, list(kind.__args__)))
    return text


def _split(text, at):
    """Splits at one letter, outside of brackets and quotes."""
    parts, depth, quote = [""], 0, ""
    for letter in text:
        if letter == at and not depth and not quote:
            parts.append("")
            continue
        parts[-1] += letter
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"":
            quote = letter
        else:
            depth += (letter in "([{") - (letter in ")]}")
    return parts


def _whole(text):
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not number.is_integer():
        raise ValueError(f"{text!r} must be a whole number")
    return int(number)


def listed(path: Path, most: int) -> list[dict]:
    """The points of a JSON file, a list of objects; raises ValueError if it cannot be read, has
    another form, or more points than `most`."""
    try:
        with open(path, "rb") as file:  # also a pipe, which a shell may give
            data = file.read(atomic_io.LARGEST + 1)
        if len(data) > atomic_io.LARGEST:
            raise ValueError("it is very large")
        found = atomic_io.parse_json(data)
    except OSError as error:
        raise ValueError(f"points = {str(path)!r}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise ValueError(f"points = {str(path)!r}: is no JSON ({error})") from error
    points = restored(found, f"points = {str(path)!r}")
    _check_number(len(points), most)
    return points


def restored(found: Any, where: str) -> list[dict]:
    """Points from JSON; raises ValueError, which begins with `where`, if it holds none."""
    is_list = isinstance(found, list) and all(isinstance(point, Mapping) for point in found)
    if not is_list or not found:
        raise ValueError(f"{where}: must be a list of objects, of settings by name")
    try:
        return [spaces.restored(point) for point in found]
    except (ValueError, TypeError) as error:
        raise ValueError(f"{where}: {error}") from error

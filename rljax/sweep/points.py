"""Axes of settings, and the points made of them. Needs no JAX.

An axis is a sequence of values, or a `Range` to sample from. Its name is a field of `Config` or of
the algorithm's own options, or one entry of a dict: "env_params.max_steps_in_episode". A point is a
dict of one value for each axis.
"""

import dataclasses
import itertools
import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from rljax.algorithms import ALGORITHMS, settle
from rljax.config import Config
from rljax.utils import env_settings, values
from rljax.utils.lookup import unknown

Point = dict[str, Any]


class Range(NamedTuple):
    """Values between two bounds, to sample from. For a setting that is a whole number they are the
    whole numbers within the bounds: equally likely or, on a logarithmic scale, n with probability
    proportional to log((n + 1/2) / (n - 1/2)), about 1 / n."""

    low: float
    high: float
    is_log: bool = False  # uniform in the logarithm


def linear(low: float, high: float, num: int | None = None) -> Range | tuple[float, ...]:
    """`num` values with equal distances, bounds included; without `num` a `Range`. Raises
    ValueError if the bounds are not finite or in order, or the number is below 1."""
    return _span(low, high, num, is_log=False)


def log(low: float, high: float, num: int | None = None) -> Range | tuple[float, ...]:
    """`linear` with equal ratios; the bounds must be above 0."""
    return _span(low, high, num, is_log=True)


def _span(low, high, num, is_log):
    low, high = float(low), float(high)
    if not (np.isfinite(low) and np.isfinite(high) and low <= high) or (is_log and low <= 0):
        wanted = "0 < LOW <= HIGH" if is_log else "LOW <= HIGH"
        raise ValueError(f"from {low:g} to {high:g}: must be {wanted}, both finite")
    if num is None:
        return Range(low, high, is_log)
    _check_num(num, "values")
    values = (np.geomspace if is_log else np.linspace)(low, high, num)
    width = max(num - 1, 1)
    apart = values * np.log(high / low) / width if is_log else np.full(num, (high - low) / width)
    between = (_rounded(x, d) for x, d in zip(values[1:-1], apart[1:-1]))
    return (low, *between, high)[:num]


def _rounded(x, apart):
    """Rounds to four digits of the distance to the next value: readable, and still distinct."""
    return round(float(x), 3 - math.floor(math.log10(apart))) if apart > 0 else float(x)


def grid(axes: Mapping[str, Sequence | Range]) -> list[Point]:
    """Every combination of values; the last axis changes first. Raises ValueError if an axis is
    empty, has no such field, or is a `Range`."""
    values = {name: values_of(name, axis) for name, axis in axes.items()}
    for name, axis in values.items():
        if isinstance(axis, Range):
            raise ValueError(f"axis {name}: in a grid it needs a number of values, or a list")
    return [dict(zip(values, chosen)) for chosen in itertools.product(*values.values())]


def random(axes: Mapping[str, Sequence | Range], num: int, seed: int = 0) -> list[Point]:
    """`num` points, sampled uniformly. Raises ValueError if `num` is below 1, or an axis is empty,
    has no such field, or lacks the whole number that it must have."""
    _check_num(num, "points")
    values = {name: values_of(name, axis) for name, axis in axes.items()}
    generator = np.random.default_rng(seed)

    def sample(name, axis):
        if isinstance(axis, Range):
            return at(name, axis, generator.uniform())
        return axis[int(generator.integers(len(axis)))]

    return [{name: sample(name, axis) for name, axis in values.items()} for _ in range(num)]


def latin_hypercube(axes: Mapping[str, Sequence | Range], num: int, seed: int = 0) -> list[Point]:
    """`num` points that cover each axis evenly: cut into `num` equal parts, it has one point in
    each (McKay, Beckman and Conover 1979). Raises as `random` does."""
    _check_num(num, "points")
    values = {name: values_of(name, axis) for name, axis in axes.items()}
    generator = np.random.default_rng(seed)
    rows = latin_places(values, num, generator)
    return [{name: at(name, axis, row[name]) for name, axis in values.items()} for row in rows]


def latin_places(names: Collection[str], num: int, generator: Any) -> list[dict[str, float]]:
    """Places on axes, in [0, 1), of which each of `num` equal parts of an axis has one."""
    columns = [
        [(i + x) / num for i, x in zip(generator.permutation(num), generator.uniform(size=num))]
        for _ in names
    ]
    return [dict(zip(names, row)) for row in zip(*columns)]


def _check_num(num, what):
    if type(num) is not int or num < 1:
        raise ValueError(f"{num!r} {what}: must be a whole number of at least 1")


def at(name: str, axis: Sequence | Range, x: float) -> Any:
    """The value of an axis at x of its length, in [0, 1)."""
    if not isinstance(axis, Range):
        return axis[min(int(x * len(axis)), len(axis) - 1)]
    if is_whole(name):
        return _whole_at(axis, x)
    low, high = np.log([axis.low, axis.high]) if axis.is_log else (axis.low, axis.high)
    value = low + x * (high - low)
    value = np.exp(value) if axis.is_log else value
    value = _rounded(value, min(axis.high - axis.low, value if axis.is_log else np.inf) / 10)
    return min(max(value, axis.low), axis.high)


def _whole_at(axis, x):
    """The whole number of a range at x of its length."""
    low, high = math.ceil(axis.low), math.floor(axis.high)
    found = low + int(x * (high + 1 - low))
    if axis.is_log:
        start, end = np.log([low - 0.5, high + 0.5])
        found = round(float(np.exp(start + x * (end - start))))
    return min(max(found, low), high)


def values_of(name: str, axis: Sequence | Range) -> tuple | Range:
    """An axis as a tuple of values without repetition, or a `Range`. Raises ValueError if there is
    no such setting, or no value."""
    check_name(name)
    if isinstance(axis, Range):
        if is_whole(name) and math.ceil(axis.low) > math.floor(axis.high):
            raise ValueError(f"axis {name}: no whole number is from {axis.low:g} to {axis.high:g}")
        return axis
    if isinstance(axis, str) or not isinstance(axis, Iterable):
        raise ValueError(f"axis {name} = {axis!r}: must be a sequence of values, or a range")
    found = [x.item() if isinstance(x, np.generic) else x for x in axis]
    if is_whole(name):  # of a span
        found = [round(x) if isinstance(x, float) and x.is_integer() else x for x in found]
    if not found:
        raise ValueError(f"axis {name}: must have at least one value")
    if field(name) is None:  # 1 is not True, to an environment
        return tuple(x for i, x in enumerate(found) if repr(x) not in map(repr, found[:i]))
    found = [tuple(x) if isinstance(x, list) else x for x in found]
    return tuple(x for i, x in enumerate(found) if x not in found[:i])


def field(name: str) -> dataclasses.Field | None:
    """The field of `Config`, or of an algorithm's own options, with this name; None for an entry of
    a dict."""
    return _fields().get(name)


def _fields(own=None):
    """Those of `Config` and of the algorithm's own options; by default of all algorithms."""
    every = [options for known in ALGORITHMS.values() for options in known.own]
    parts = (Config, *(every if own is None else own))
    return {name: x for part in parts for name, x in part.__dataclass_fields__.items()}


def is_whole(name: str) -> bool:
    """Whether a setting is a whole number."""
    found = field(name)
    return found is not None and found.type in (int, int | None)


def is_float(name: str) -> bool:
    """Whether a setting is a float."""
    found = field(name)
    return found is not None and found.type is float


def check_name(name: str, own: Sequence[Any] | None = None) -> None:
    """Raises ValueError, with the nearest names, if no setting has this name. By default the own
    options of all algorithms are settings."""
    known = list(_fields(own))
    parent, dot, entry = name.partition(".")
    is_dict = name in env_settings.NAMES  # of which an entry can be an axis
    if (parent in env_settings.NAMES and dot and entry) or (name in known and not is_dict):
        return
    if is_dict:
        raise ValueError(f"axis {name}: name one entry of it, as in {name}.NAME")
    raise ValueError(unknown("setting", name, known))


def apply(base: Config, own: tuple[Any, ...], point: Point) -> tuple[Config, tuple[Any, ...]]:
    """The settings of a point, on top of others, checked; raises as `algorithms.settle` does."""
    of_config, of_own = {}, {}
    for name, value in point.items():
        parent, dot, entry = name.partition(".")
        if dot:
            pairs = of_config.get(parent, getattr(base, parent))
            if env_settings.is_function(pairs):
                raise ValueError(f"{name}: {parent} = {pairs!r} is a function, without entries")
            of_config[parent] = {**dict(pairs), entry: value}
        else:
            (of_config if name in Config.__dataclass_fields__ else of_own)[name] = value
    own = tuple(dataclasses.replace(options, **of_own) for options in own)
    return settle(dataclasses.replace(base, **of_config), own), own


def recorded(point: Point) -> dict:
    """A point as JSON, which `restored` reads."""
    from rljax.runs import records  # and with it JAX, which --help does without

    return {n: records.plain(n, x) if field(n) else values.encoded(x) for n, x in point.items()}


def restored(point: Mapping) -> Point:
    """A point from JSON, which has no tuples; raises ValueError or TypeError."""
    found = {}
    for name, value in point.items():
        if field(name) is None:
            value = values.decoded(value)
        elif isinstance(value, list):
            value = tuple(value)
        found[name] = values.number(value) if is_float(name) else value
    return found


def label(value: Any) -> str:
    """A value in tables and legends, as an axis has it: sizes as 64x64, names and wrappers as a+b=1
    or none."""
    if isinstance(value, float):
        return f"{value:.6g}"
    if not isinstance(value, tuple):
        return str(value)
    if value and all(type(size) is int for size in value):
        return "x".join(map(str, value))
    names = [_wrapper_label(item) for item in value]
    return str(value) if None in names else "+".join(names) or "none"


def _wrapper_label(item):
    """A name, a path or a function, with its value if it has one; None for anything else."""
    what, *value = item if isinstance(item, tuple) and len(item) == 2 else (item,)
    what = getattr(what, "__name__", what)
    is_name = isinstance(what, str) and re.match(r"[a-zA-Z_][\w.]*(:[\w.]+)?(=|$)", what)
    return "=".join((what, *map(str, value))) if is_name else None


def describe(point: Point) -> str:
    """A point in words."""
    return " ".join(f"{name}={label(value)}" for name, value in point.items()) or "no axes"

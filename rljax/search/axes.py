"""The axes of a search: values to choose from or ranges, some of which count under a condition.
Needs no JAX."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from rljax.config import Config
from rljax.sweep import points as spaces
from rljax.sweep.points import Point, Range


class When(NamedTuple):
    """An axis that counts where a setting, of an axis before it, has one of some values; elsewhere
    its setting is that of the base."""

    axis: Sequence | Range
    name: str
    values: Sequence


class Axis(NamedTuple):
    """An axis, checked."""

    values: tuple | Range
    condition: tuple[str, tuple] | None  # (name, values)
    otherwise: Any  # its value where the condition does not hold


Axes = dict[str, Axis]
MISSING = object()  # the value of an entry that is not there


def checked(given: Mapping[str, Sequence | Range | When], base: Config, own: Sequence[Any]) -> Axes:
    """Raises ValueError or TypeError if there is no axis, an axis has no such setting or no value,
    or its condition is of no axis before it."""
    if not given:
        raise ValueError("a search must have at least one axis")
    found: Axes = {}
    for name, axis in given.items():
        condition = None
        if isinstance(axis, When):
            condition = _condition(name, axis, found)
            axis = axis.axis
        spaces.check_name(name, own)
        if name in ("total_timesteps", "env"):
            what = "of all trials" if name == "env" else "of all trials: cap it by trial_steps"
            raise ValueError(f"axis {name}: cannot be one of a search, as it is that {what}")
        otherwise = setting(name, base, own)
        if condition and otherwise is MISSING:
            raise ValueError(f"axis {name}: with a condition it needs a value in the base as well")
        found[name] = Axis(spaces.values_of(name, axis), condition, otherwise)
    return found


def _condition(name, axis, before):
    """(name, values) of a condition on an axis before; raises ValueError."""
    where = f"axis {name}: the condition"
    parent = before.get(axis.name)
    if parent is None or isinstance(parent.values, Range) or isinstance(axis.values, Range):
        known = [n for n, x in before.items() if not isinstance(x.values, Range)]
        wanted = "must be NAME=VALUE,... of an axis with values before it"
        raise ValueError(f"{where} on {axis.name} {wanted}, of which there are {known or 'none'}")
    values = spaces.values_of(axis.name, axis.values)
    for value in values:
        if value not in parent.values:
            raise ValueError(f"{where}: {axis.name} is never {spaces.label(value)}")
    return axis.name, values


def setting(name: str, base: Config, own: Sequence[Any]) -> Any:
    """The value of a setting, MISSING for an entry that is not there."""
    parent, dot, entry = name.partition(".")
    if dot:
        pairs = getattr(base, parent)
        return dict(pairs).get(entry, MISSING) if isinstance(pairs, tuple | Mapping) else MISSING
    return next(getattr(part, name) for part in (base, *own) if hasattr(part, name))


def counts(axes: Axes, name: str, point: Mapping) -> bool:
    """Whether an axis counts in a point that has the axes before it: its condition holds, and the
    axis that this is of counts itself."""
    condition = axes[name].condition
    if condition is None:
        return True
    parent, values = condition
    return point[parent] in values and counts(axes, parent, point)


def point_at(axes: Axes, places: Mapping[str, float]) -> Point:
    """The point at a place in [0, 1) on each axis."""
    point: Point = {}
    for name, axis in axes.items():
        here = counts(axes, name, point)
        point[name] = spaces.at(name, axis.values, places[name]) if here else axis.otherwise
    return point


def corners(axes: Axes) -> list[Point]:
    """Points that have the ends and every value of each axis, with the conditions for it to count;
    the other axes are in their middle."""
    found = [point_at(axes, dict.fromkeys(axes, x)) for x in (0.0, 0.5, 1 - 1e-9)]
    for name, axis in axes.items():
        number = 2 if isinstance(axis.values, Range) else len(axis.values)
        for i in range(number):
            places = dict.fromkeys(axes, 0.5) | _where_it_counts(axes, name)
            found.append(point_at(axes, places | {name: (i + 0.5) / number}))
    return found


def _where_it_counts(axes, name):
    """Places of other axes at which an axis counts."""
    if axes[name].condition is None:
        return {}
    parent, values = axes[name].condition
    return {
        parent: _place(parent, axes[parent].values, values[0]),
        **_where_it_counts(axes, parent),
    }


def places_of(axes: Axes, point: Mapping) -> dict[str, float | None]:
    """The inverse: the middle of what has this value; None where an axis does not count."""
    return {
        name: _place(name, axis.values, point[name]) if counts(axes, name, point) else None
        for name, axis in axes.items()
    }


def _place(name, values, value):
    if not isinstance(values, Range):
        return (values.index(value) + 0.5) / len(values)
    low, high, x = values.low, values.high, value
    if spaces.is_whole(name):  # each of which is the middle of its part
        low, high = math.ceil(low) - 0.5, math.floor(high) + 0.5
    if values.is_log:
        low, high, x = map(math.log, (low, high, x))
    return float(np.clip((x - low) / (high - low or 1.0), 0, 1 - 1e-9))


def recorded(axes: Axes) -> dict:
    """As JSON, which `restored` reads."""

    def values(name, axis):
        if isinstance(axis, Range):
            return axis._asdict()
        return [spaces.recorded({name: x})[name] for x in axis]

    return {
        name: {
            "values": values(name, axis.values),
            "when": axis.condition and {"name": axis.condition[0], "is": values(*axis.condition)},
        }
        for name, axis in axes.items()
    }


def restored(record: Mapping) -> dict[str, Sequence | Range | When]:
    """What `checked` takes; raises KeyError, ValueError or TypeError if it is damaged."""

    def values(name, found):
        if isinstance(found, Mapping):
            return Range(float(found["low"]), float(found["high"]), bool(found["is_log"]))
        return [spaces.restored({name: x})[name] for x in found]

    found = {}
    for name, axis in record.items():
        found[name] = values(name, axis["values"])
        if axis["when"] is not None:
            parent = axis["when"]["name"]
            found[name] = When(found[name], parent, values(parent, axis["when"]["is"]))
    return found

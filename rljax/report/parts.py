"""Numbers, marks and lines that the parts about runs and about sweeps share."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from rljax import analysis
from rljax.analysis.statistics import interval, iqm
from rljax.report.charts import Line
from rljax.report.html import Element, tag
from rljax.utils import values

MOST_POINTS = 400  # of a line; of longer ones some are left out


def decoded(tree: Any) -> Any:
    """What was read from JSON, where numbers that are not finite are text."""
    if isinstance(tree, dict):
        return {name: decoded(x) for name, x in tree.items()}
    if isinstance(tree, list):
        return [decoded(x) for x in tree]
    return values.number(tree) if tree in ("nan", "inf", "-inf") else tree


def number(x: float | None) -> str:
    """With two decimals, a dash if it is not known."""
    return "-" if x is None or math.isnan(x) else f"{x:,.2f}"


def count(x: float | None) -> str:
    """Of what is counted."""
    return "-" if x is None or math.isnan(x) else f"{x:,.0f}"


def seconds(x: float | None) -> str:
    """A time."""
    return "-" if x is None or math.isnan(x) else f"{x:,.1f} s"


def ends(low_and_high: Sequence[float] | None) -> str:
    """An interval."""
    known = low_and_high and all(map(math.isfinite, low_and_high))
    return " … ".join(map(number, low_and_high)) if known else "-"


def in_tiles(found: Iterable[tuple[str, str, bool]]) -> Element:
    """(a figure, what it is, whether it is bad news), side by side."""
    tiles = [
        tag("div", tag("b", x), tag("span", what), class_="tile bad" if is_bad else "tile")
        for x, what, is_bad in found
    ]
    return tag("div", tiles, class_="tiles")


def scale(every: Iterable[float | None]) -> tuple[float, float]:
    """The ends of a line for `track`, on which all these numbers and 0 have a place."""
    known = [x for x in every if x is not None and math.isfinite(x)]
    return min([0.0, *known]), max([0.0, *known])


def track(
    between: tuple[float, float], value: float | None, band: Sequence[float] | None = None
) -> Element:
    """A value, and its interval, as marks on a line between two ends."""
    low, high = between

    def place(x):
        return 100 * (x - low) / (high - low or 1.0)

    marks = []
    if band and all(map(math.isfinite, band)):
        style = f"left:{place(band[0]):.1f}%;width:{place(band[1]) - place(band[0]):.1f}%"
        marks.append(tag("i", style=style))
    if value is not None and math.isfinite(value):
        marks.append(tag("b", style=f"left:{place(value):.1f}%"))
    return tag("div", marks, class_="track", aria_hidden="true")


def curve(metrics: Any, label: str, look: int = 0, column: str = "episodic_return") -> Line:
    """The IQM over seeds of a column, with its interval."""
    if column.startswith("episodic_"):
        steps, every = analysis.learning_curve(metrics, column)
    else:
        wide = metrics.pivot_table(index="seed", columns="env_steps", values=column, dropna=False)
        steps, every = wide.columns.to_numpy(), wide.to_numpy(float)
    if not len(every):
        return Line(label, np.zeros(0), np.zeros(0), look=look)
    chosen = thinned(steps)
    steps, every = steps[chosen], every[:, chosen]
    every = np.where(np.isfinite(every), every, np.nan)
    low, high = interval(every) if len(every) > 1 else (None, None)
    return Line(label, steps, iqm(every, axis=0), low, high, look)


def thinned(steps: np.ndarray) -> np.ndarray:
    """Which of a line's points are drawn: all, or evenly spaced ones."""
    number_of_them = min(MOST_POINTS, len(steps))
    return np.unique(np.linspace(0, len(steps) - 1, number_of_them).round().astype(int))

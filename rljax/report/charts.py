"""Charts as SVG and HTML, which have any width: the picture of the lines is stretched, their
strokes and the texts around them are not."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from rljax.analysis.style import COLORS, short_number
from rljax.report.html import Element, tag

SIZE = 1_000  # of the picture's own units, both ways
NUM_COLORS, NUM_DASHES = len(COLORS), 5  # those of page.css


class Line(NamedTuple):
    """A line of a chart: P points, of which those that are NaN interrupt it."""

    label: str
    x: np.ndarray  # [P]
    y: np.ndarray  # [P]
    low: np.ndarray | None = None  # [P] of a band
    high: np.ndarray | None = None
    number: int = 0  # of its colour and its dashes
    kind: str = "main"  # "main"; "thin" for one of many; "points" for points without a line


class Ticks(NamedTuple):
    """What is written below a chart's horizontal axis."""

    places: Sequence[float]
    labels: Sequence[str]


def chart(
    title: str,
    lines: Sequence[Line],
    x_label: str = "environment steps",
    ticks: Ticks | None = None,
    names: Mapping[float, str] | None = None,
) -> Element:
    """A chart whose lines can be read by pointing, and hidden by clicks on their names.

    Args:
        names: of the places on the horizontal axis, where they are no numbers to be shown.
    """
    (left, right), (bottom, top) = _range([x.x for x in lines], 0.0), _heights(lines)
    ticks = ticks or _ticks(left, right, short_number)
    heights = _ticks(bottom, top, lambda y: f"{y:,.6g}")

    def across(x):
        return (np.asarray(x, float) - left) / (right - left)

    def down(y):
        return 1 - (np.asarray(y, float) - bottom) / (top - bottom)

    levels = [f"M0 {_at(down(y))}H{SIZE}" for y in heights.places]
    drawn = [tag("path", class_="grid", d="".join(levels))]
    drawn += [part for i, line in enumerate(lines) for part in _drawn(i, line, across, down)]
    box = f"0 0 {SIZE} {SIZE}"
    picture = tag("svg", drawn, viewBox=box, preserveAspectRatio="none", aria_hidden="true")
    sides = [
        [_text("y", "top", down(y), label) for y, label in zip(*heights)],
        [_text("x", "left", across(x), label) for x, label in zip(*ticks)],
    ]
    what = f"{title}: {', '.join(line.label for line in lines[:8])}"
    area = tag(
        *("div", picture, sides, tag("div", class_="cursor", hidden="")),
        **dict(class_="area", tabindex="0", role="img", aria_label=what),
    )
    named = [[_number(x), name] for x, name in (names or {}).items()]
    data = {"x": [left, right], "names": named, "lines": [_data(line) for line in lines]}
    return tag(
        "figure",
        tag("figcaption", title),
        area,
        tag("div", x_label, class_="x-label"),
        _legend(lines) if len(lines) > 1 else None,
        tag("div", class_="tooltip", hidden="", aria_live="polite"),
        tag("script", json.dumps(data).replace("</", r"<\/"), type="application/json"),
        class_="chart",
    )


def bars(title: str, values: Sequence[float], x_label: str) -> Element:
    """A histogram of the values of 0, 1, 2 and so on."""
    most, total = max(values), sum(values)
    bar = [
        tag(
            *("div",),
            **dict(class_="bar", style=f"height:{100 * x / most:.2f}%"),
            title=f"{i}: {x:,} ({x / total:.1%})",
        )
        for i, x in enumerate(values)
    ]
    places = _ticks(0, len(values) - 1, short_number).places
    below = [_text("x", "left", (i + 0.5) / len(values), f"{i:g}") for i in places]
    return tag(
        "figure",
        tag("figcaption", title),
        tag("div", tag("div", bar, class_="bars"), below, class_="area"),
        tag("div", x_label, class_="x-label"),
        class_="chart",
    )


def heat_map(title: str, cells: Any, x: str, y: str) -> Element:
    """Of a `pandas.DataFrame` whose index and columns are the values of two settings."""
    from matplotlib import colormaps

    low, high = np.nanmin(cells.to_numpy()), np.nanmax(cells.to_numpy())

    def cell(value):
        if np.isnan(value):
            return tag("td", "-", class_="number")
        share = (value - low) / (high - low or 1.0)
        red, green, blue = (int(255 * part) for part in colormaps["cividis"](share)[:3])
        ink = "#000" if share > 0.5 else "#fff"
        style = f"background:rgb({red},{green},{blue});color:{ink}"
        return tag("td", f"{value:,.4g}", class_="number", style=style)

    rows = [
        tag("tr", tag("th", _value(name), scope="row"), [cell(v) for v in row])
        for name, row in zip(cells.index, cells.to_numpy(float))
    ]
    names = [tag("th", _value(name), scope="col") for name in cells.columns]
    head = [
        tag("tr", tag("th"), tag("th", x, colspan=len(names), scope="colgroup")),
        tag("tr", tag("th", y, scope="col"), names),
    ]
    body = tag("table", tag("thead", head), tag("tbody", rows), class_="heat")
    return tag("figure", tag("figcaption", title), tag("div", body, class_="scroll"))


def _value(x: Any) -> str:
    return f"{x:g}" if isinstance(x, float) else str(x)


def _drawn(i, line, across, down):
    look = dict(data_line=i, class_=f"{line.kind} c{line.number % NUM_COLORS}")
    if line.kind != "points":
        look["class_"] += f" d{line.number % NUM_DASHES}"
    x, y = _at(across(line.x)), _at(down(line.y))
    is_known = np.isfinite(line.y)
    if line.low is not None and (known := is_known & np.isfinite(line.low)).any():
        low, high = _at(down(line.low))[known], _at(down(line.high))[known]
        edge = [*zip(x[known], low), *zip(x[known][::-1], high[::-1])]
        path = "M" + "L".join(f"{a} {b}" for a, b in edge) + "Z"
        yield tag("path", d=path, data_line=i, class_=f"band c{line.number % NUM_COLORS}")
    path, is_in = [], False
    for a, b, known in zip(x, y, is_known):
        if known:
            path.append(f"{'L' if is_in else 'M'}{a} {b}")
        is_in = known and line.kind != "points"
    if line.kind == "points" or is_known.sum() == 1:
        path = [f"{step}h0" for step in path]  # which is seen as a point
        look["class_"] += " dots"
    yield tag("path", d="".join(path), **look)


def _at(share):
    """Shares of the picture in its units, as short numbers."""
    return np.round(np.nan_to_num(share) * SIZE, 1)


def _text(side, edge, share, label):
    return tag("span", label, class_=f"tick {side}", style=f"{edge}:{100 * float(share):.2f}%")


def _legend(lines):
    """A button for each line; those of many lines can be pressed together."""
    thin = [line for line in lines if line.kind == "thin"]
    together = tag("button", "all seeds", type="button", class_="all", aria_pressed="true")
    buttons = [_button(i, line) for i, line in enumerate(lines)]
    return tag("div", buttons, together if len(thin) > 1 else None, class_="legend")


def _button(i, line):
    dash = f" d{line.number % NUM_DASHES}" if line.kind != "points" else " dots"
    look = f"{line.kind} c{line.number % NUM_COLORS}{dash}"
    sample = tag("path", d="M12 5h0" if line.kind == "points" else "M0 5H24", class_=look)
    swatch = tag("svg", sample, viewBox="0 0 24 10", class_="swatch", aria_hidden="true")
    return tag("button", swatch, line.label, type="button", data_line=i, aria_pressed="true")


def _data(line: Line) -> Mapping:
    """What the page's script reads: six digits of each number, null for NaN."""
    columns = dict(x=line.x, y=line.y, low=line.low, high=line.high)
    found = {n: [_number(x) for x in column] for n, column in columns.items() if column is not None}
    return {"label": line.label, "kind": line.kind, "color": line.number % NUM_COLORS, **found}


def _number(x):
    return float(f"{x:.6g}") if np.isfinite(x) else None


def _heights(lines):
    found = [column for x in lines for column in (x.y, x.low, x.high) if column is not None]
    return _range(found, 0.04)


def _range(columns, margin):
    """Of all finite numbers, with this share more at both ends; never empty."""
    every = np.concatenate([np.asarray(column, float) for column in columns] or [np.zeros(0)])
    every = every[np.isfinite(every)]
    low, high = (float(every.min()), float(every.max())) if len(every) else (0.0, 1.0)
    if low == high:
        around = abs(low) / 2 or 0.5
        low, high = low - around, high + around
    more = margin * (high - low)
    return low - more, high + more


def _ticks(low, high, label):
    from matplotlib.ticker import MaxNLocator

    locator = MaxNLocator(5, steps=[1, 2, 2.5, 5, 10])
    places = [x for x in locator.tick_values(low, high) if low <= x <= high]
    return Ticks(places, [label(x) for x in places])

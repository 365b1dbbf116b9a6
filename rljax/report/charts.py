"""Charts as SVG and HTML, which have any width: the picture of the lines is stretched, their
strokes and the texts around them are not."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from rljax.analysis.style import COLORS, STYLES, short_number
from rljax.report.html import Element, tag
from rljax.runs.labels import value

SIZE = 1_000  # of the picture's own units, both ways
NUM_COLORS, NUM_DASHES = len(COLORS), len(STYLES)  # those of page.css

MOST_LETTERS = 24  # of the horizontal axis, before its labels are slanted
MOST_BARS_TOLD = 20  # to those who do not see them


class Line(NamedTuple):
    """A line of a chart: P points, of which those that are NaN interrupt it."""

    label: str
    x: np.ndarray  # [P]
    y: np.ndarray  # [P]
    low: np.ndarray | None = None  # [P] of a band
    high: np.ndarray | None = None
    look: int = 0  # the number of its colour and its dashes
    kind: str = "main"  # "thin" for one of many; "points" and "squares" are not joined by a line

    @property
    def is_joined(self) -> bool:
        return self.kind in ("main", "thin")

    @property
    def classes(self) -> str:
        """Of page.css."""
        color = f"{self.kind} c{self.look % NUM_COLORS}"
        return f"{color} d{self.look % NUM_DASHES}" if self.is_joined else f"dots {color}"


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
    heights = [_text("y", "top", down(y), label) for y, label in zip(*heights)]
    below = [_text("x", "left", across(x), label) for x, label in zip(*ticks)]
    is_slanted = sum(map(len, ticks.labels)) > MOST_LETTERS
    what = f"{title}: {', '.join(line.label for line in lines[:8])}"
    cursor = tag("div", class_="cursor", hidden="")
    look = "area slanted" if is_slanted else "area"
    within = [picture, heights, below, cursor]
    area = tag("div", within, class_=look, tabindex="0", role="img", aria_label=what)
    xs = list(dict.fromkeys(tuple(map(_number, line.x)) for line in lines))
    named = [[_number(x), name] for x, name in (names or {}).items()]
    ranges = {"x": [left, right], "y": [bottom, top]}
    data = {**ranges, "names": named, "xs": xs, "lines": [_data(line, xs) for line in lines]}
    return tag(
        "figure",
        tag("figcaption", title),
        area,
        tag("div", x_label, class_="x-label"),
        _legend(lines) if len(lines) > 1 else None,
        tag("div", class_="tooltip", hidden=""),
        tag("script", json.dumps(data).replace("</", r"<\/"), type="application/json"),
        class_="chart",
    )


def bars(title: str, values: Sequence[float], x_label: str) -> Element:
    """A histogram of the values of 0, 1, 2 and so on."""
    most, total = max(values), sum(values)
    told = [f"{i}: {x:,} ({x / total:.1%})" for i, x in enumerate(values)]
    heights = [f"height:{100 * x / most:.2f}%" for x in values]
    bar = [tag("div", class_="bar", style=x, title=text) for x, text in zip(heights, told)]
    places = _ticks(0, len(values) - 1, short_number).places
    below = [_text("x", "left", (i + 0.5) / len(values), f"{i:g}") for i in places]
    what = f"{title}: {', '.join(told[:MOST_BARS_TOLD])}"
    drawn = tag("div", bar, class_="bars")
    return tag(
        "figure",
        tag("figcaption", title),
        tag("div", drawn, below, class_="area", role="img", aria_label=what),
        tag("div", x_label, class_="x-label"),
        class_="chart",
    )


def heat_map(title: str, cells: Any, x: str, y: str) -> Element:
    """Of a `pandas.DataFrame` whose index and columns are the values of two settings."""
    from matplotlib import colormaps

    low, high = np.nanmin(cells.to_numpy()), np.nanmax(cells.to_numpy())

    def cell(result):
        if np.isnan(result):
            return tag("td", "-", class_="number")
        share = (result - low) / (high - low or 1.0)
        red, green, blue = (int(255 * part) for part in colormaps["cividis"](share)[:3])
        ink = "#000" if share > 0.5 else "#fff"
        style = f"background:rgb({red},{green},{blue});color:{ink}"
        return tag("td", f"{result:,.4g}", class_="number", style=style)

    rows = [
        tag("tr", tag("th", value(name), scope="row"), [cell(v) for v in row])
        for name, row in zip(cells.index, cells.to_numpy(float))
    ]
    names = [tag("th", value(name), scope="col") for name in cells.columns]
    head = [
        tag("tr", tag("th"), tag("th", x, colspan=len(names), scope="colgroup")),
        tag("tr", tag("th", y, scope="col"), names),
    ]
    body = tag("table", tag("thead", head), tag("tbody", rows), class_="heat")
    return tag("figure", tag("figcaption", title), tag("div", body, class_="scroll"))


def _drawn(i, line, across, down):
    """The line, on its band."""
    x, y = _at(across(line.x)), _at(down(line.y))
    is_known = np.isfinite(line.y)
    if line.low is not None and (known := is_known & np.isfinite(line.low)).any():
        low, high = _at(down(line.low))[known], _at(down(line.high))[known]
        edge = [*zip(x[known], low), *zip(x[known][::-1], high[::-1])]
        path = "M" + "L".join(f"{a} {b}" for a, b in edge) + "Z"
        yield tag("path", d=path, data_line=i, class_=f"band c{line.look % NUM_COLORS}")
    path, is_in = [], False
    for a, b, known in zip(x, y, is_known):
        if known:
            path.append(f"{'L' if is_in else 'M'}{a} {b}")
        is_in = known and line.is_joined
    classes = line.classes
    if not line.is_joined or is_known.sum() == 1:
        path = [f"{step}h0" for step in path]  # which is seen as a point
        classes = classes if "dots" in classes else f"dots {classes}"
    yield tag("path", d="".join(path), data_line=i, class_=classes)


def _at(share):
    """Shares of the picture in its units, as short numbers; those that are not finite anywhere."""
    return np.round(np.where(np.isfinite(share), share, 0.0) * SIZE, 1)


def _text(side, edge, share, label):
    return tag("span", label, class_=f"tick {side}", style=f"{edge}:{100 * float(share):.2f}%")


def _legend(lines):
    """A button for each line; those of many lines can be pressed together."""
    thin = [line for line in lines if line.kind == "thin"]
    together = tag("button", "all seeds", type="button", class_="all", aria_pressed="true")
    buttons = [_button(i, line) for i, line in enumerate(lines)]
    return tag("div", buttons, together if len(thin) > 1 else None, class_="legend")


def _button(i, line):
    sample = tag("path", d="M0 5H24" if line.is_joined else "M12 5h0", class_=line.classes)
    swatch = tag("svg", sample, viewBox="0 0 24 10", class_="swatch", aria_hidden="true")
    return tag("button", swatch, line.label, type="button", data_line=i, aria_pressed="true")


def _data(line: Line, xs: Sequence[tuple]) -> Mapping:
    """What the page's script reads: numbers of six digits, null for NaN; `x` is one of xs."""
    columns = dict(y=line.y, low=line.low, high=line.high)
    found = {n: [*map(_number, column)] for n, column in columns.items() if column is not None}
    place = xs.index(tuple(map(_number, line.x)))
    look = {"kind": line.kind, "color": line.look % NUM_COLORS}
    return {"label": line.label, **look, "x": place, **found}


def _number(x):
    """For JSON: whole numbers as they are."""
    if not np.isfinite(x):
        return None
    return int(x) if float(x).is_integer() and abs(x) < 2**53 else float(f"{x:.6g}")


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

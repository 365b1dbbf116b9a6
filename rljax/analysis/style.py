"""The one style of all figures: colours (Okabe and Ito) that are distinct for colour-blind readers,
and line styles and markers that are distinct without colour."""

import io
from collections.abc import Iterable, Sized
from pathlib import Path
from typing import Any

import numpy as np

from rljax.utils import atomic_io

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#56B4E9", "#E69F00")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
LEGEND_BELOW = dict(loc="outside lower center", frameon=False, handlelength=3)
STYLES = ("-", (0, (5, 1.5)), (0, (1, 1.2)), (0, (6, 1.5, 1, 1.5)), (0, (3, 1, 1, 1, 1, 1)))


def check_colors(by: str, groups: Sized) -> None:
    """Raises a ValueError if the column `by` has more groups than there are colours."""
    if len(groups) > len(COLORS):
        raise ValueError(f"by = {by!r}: has {len(groups)} values, more than {len(COLORS)} colours")


def new_figure(width: float, height: float, rows: int = 1, columns: int = 1) -> tuple[Any, Any]:
    """(a matplotlib Figure of this size in inches, its axes as `subplots` returns them)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    figure._repr_png_ = lambda: _image(figure, "png")  # notebooks show the figure with it
    return figure, figure.subplots(rows, columns)


def of_line(i: int) -> dict[str, Any]:
    """The look of the i-th line."""
    return dict(color=COLORS[i % len(COLORS)], linestyle=STYLES[i % len(STYLES)], linewidth=2)


def draw_line(axes: Any, i: int, x: Any, value: Any, ends: Any = None, label: str = "") -> None:
    """Draws the i-th line, on the band of its interval, whose ends are (low, high)."""
    if ends is not None:
        axes.fill_between(x, *ends, color=of_line(i)["color"], alpha=0.2, linewidth=0)
    mark_points(axes.plot(x, value, label=label, **of_line(i)))


def mark_points(lines: Iterable[Any]) -> None:
    """Adds a marker to lines of a single point, which are invisible otherwise."""
    for line in lines:
        if np.isfinite(line.get_ydata()).sum() == 1:
            line.set_marker("o")


def dress(axes: Any, title: str) -> None:
    """Sets the title, the grid and short numbers on the horizontal axis."""
    axes.set(title=escaped(title))
    axes.xaxis.set_major_formatter(short_number)
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def escaped(text: str) -> str:
    """Text whose dollars begin no formula."""
    return text.replace("$", r"\$")


def save(figure: Any, paths: Iterable[Path]) -> Any:
    """Writes the figure to each path, in the format of its suffix, and returns it."""
    for path in paths:
        atomic_io.write(path, _image(figure, path.suffix[1:]))
    return figure


def _image(figure, kind):
    image = io.BytesIO()
    figure.savefig(image, format=kind)
    return image.getvalue()


def short_number(x: float, _: Any = None) -> str:
    """A number with k, M or B for thousands, millions and billions; a matplotlib formatter."""
    for unit, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(x) >= unit:
            return f"{x / unit:g}{letter}"
    return f"{x:g}"

"""Figures from tidy tables, in one style.

Colours (Okabe and Ito) stay apart for colour-blind readers, and line styles and markers without
colour. Each function takes the files to write, whose suffixes say the kinds, such as .png and .svg,
and returns the matplotlib Figure, which a notebook shows.
"""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rljax.analysis.statistics import estimate, interval, iqm, performance_profile
from rljax.analysis.tidy import (
    all_returns,
    counted,
    learning_curve,
    scores,
    split,
    without_return,
)
from rljax.utils import atomic_io

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#56B4E9", "#E69F00")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
STYLES = ("-", (0, (5, 1.5)), (0, (1, 1.2)), (0, (6, 1.5, 1, 1.5)), (0, (3, 1, 1, 1, 1, 1)))


def plot_learning_curves(
    curves: Mapping[str, Mapping[str, np.ndarray]], title: str, *paths: Path, by: str | None = None
) -> Any:
    """Draws the return of one or several runs: the IQM over seeds with its 95% interval.

    Of a single run every seed is drawn as well, from its first return on; the curve begins where
    all seeds have one. Seeds of which no episode ended are named and not drawn.

    Args:
        curves: label to columns of metrics.csv; with `by`, the table of a sweep.
        by: a column of it: a curve for each of its values.

    Raises:
        ValueError: there is no such column, or it has more values than there are colours.
    """
    curves = _with_colors(by, split(curves, by)) if by else curves
    below = 0.25 * (1 + len(curves)) if len(curves) > 1 else 0.0  # inches, for the legend
    figure = _figure(6.4, 4.0 + below)
    axes = figure.add_subplot()
    seeds = [
        _draw_curve(axes, metrics, i, label, every_seed=len(curves) == 1)
        for i, (label, metrics) in enumerate(curves.items())
    ]
    if not any(seeds):
        _say_why_empty(axes, curves)
    if axes.get_legend_handles_labels()[0]:
        title_of_legend = "IQM and 95% interval" if max(seeds) > 1 else None
        settings = dict(frameon=False, title=title_of_legend, handlelength=3)
        if len(curves) == 1:
            axes.legend(loc="best", **settings)
        else:  # long labels would cover the curves
            figure.legend(loc="outside lower center", **settings)
    _dress(axes, title)
    axes.set(xlabel="environment steps per seed", ylabel="return per episode")
    return _save(figure, paths)


def plot_grid(runs: Mapping[str, Mapping[str, np.ndarray]], *paths: Path) -> Any:
    """Draws the learning curves of several environments, each in a panel of its own: the IQM over
    seeds with its 95% interval, and every seed.

    Args:
        runs: title of the panel to columns of metrics.csv.
    """
    columns = min(3, len(runs)) if len(runs) != 4 else 2
    rows = -(-len(runs) // columns)
    figure = _figure(3.4 * columns, 2.7 * rows + 0.3)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    most_seeds = 0
    for axes, (title, metrics) in zip(grid, runs.items()):
        seeds = _draw_curve(axes, metrics, 0, "", every_seed=True)
        most_seeds = max(most_seeds, seeds)
        if not seeds:
            _say_why_empty(axes, {title: metrics})
        elif missing := _missing(metrics):
            where = dict(transform=axes.transAxes, ha="right", va="bottom", size="x-small")
            axes.text(0.98, 0.03, missing, **where)
        _dress(axes, title)
    for axes in grid[len(runs) :]:
        axes.remove()
    below = "environment steps per seed"
    below += "; IQM over seeds with its 95% interval" * (most_seeds > 1)
    figure.supxlabel(below, fontsize="medium")
    figure.supylabel("return per episode", fontsize="medium")
    return _save(figure, paths)


def plot_sensitivity(
    table: Any, axis: str, *paths: Path, by: str | None = None, title: str = ""
) -> Any:
    """Draws the final return against a setting, every agent a point, with the IQM and its 95%
    interval where several share a value (as figure 2 of arXiv 1602.01783 has the learning rate).

    A setting that spans more than a decade is on a logarithmic axis; names, and fewer than four
    numbers, are side by side. Agents that diverged are crosses, at the lowest return of the table;
    where none has a return, there is nothing to draw.

    Args:
        table: of a sweep.
        by: another setting, of few values, for colours.

    Raises:
        ValueError: there is no such setting; `by` has more values than there are colours.
    """
    finals = counted(table)
    groups = _with_colors(by, split(finals, by)) if by else {"": finals}
    figure = _figure(6.4, 4.0)
    axes = figure.add_subplot()
    ticks = _Ticks(split(finals, axis), finals[axis])
    for i, (label, agents) in enumerate(groups.items()):
        _draw_sensitivity(axes, agents, axis, ticks, i, label)
    _dress(axes, _title(title, len(finals)))
    ticks.put(axes)
    axes.set(xlabel=_text(axis), ylabel="final return")
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="best", frameon=False)
    return _save(figure, paths)


def plot_heat_map(table: Any, x: str, y: str, *paths: Path, title: str = "") -> Any:
    """Draws the final return over two settings: the IQM over all agents of a cell, whatever their
    other settings.

    Args:
        table: of a sweep.

    Raises:
        ValueError: there is no such setting.
    """
    finals = counted(table)
    columns, rows = list(split(finals, x)), list(split(finals, y))
    cells = np.full((len(rows), len(columns)), np.nan)
    for i, of_row in enumerate(split(finals, y).values()):
        for label, agents in split(of_row, x).items():
            cells[i, columns.index(label)] = iqm(agents["final_return"].to_numpy())
    figure = _figure(2.2 + 0.55 * max(6, len(columns)), 1.6 + 0.4 * max(5, len(rows)))
    axes = figure.add_subplot()
    image = axes.imshow(cells, cmap="cividis", origin="lower", aspect="auto")
    figure.colorbar(image, ax=axes, label="final return, IQM")
    turned = dict(rotation=45, ha="right", rotation_mode="anchor") if len(columns) > 5 else {}
    axes.set_xticks(range(len(columns)), [_value(label) for label in columns], **turned)
    axes.set_yticks(range(len(rows)), [_value(label) for label in rows])
    if cells.size <= 150 and not np.isnan(cells).all():
        middle = (np.nanmin(cells) + np.nanmax(cells)) / 2
        for (i, j), value in np.ndenumerate(cells):
            color = "white" if value < middle else "black"
            if not np.isnan(value):
                axes.text(j, i, f"{value:.3g}", ha="center", va="center", color=color, size=7)
    axes.set(title=_text(_title(title, len(finals))), xlabel=_text(x), ylabel=_text(y))
    return _save(figure, paths)


def plot_performance_profiles(
    table: Any,
    by: str,
    *paths: Path,
    limits: Mapping[str, tuple[float, float]] | None = None,
    title: str = "",
) -> Any:
    """Draws, for each value of a column, which share of its runs scores above a threshold, for all
    thresholds, with the 95% interval: higher is better everywhere, and curves that cross say which
    is better for whom.

    Args:
        table: of a sweep, or of several that were put together.
        limits: as `scores` takes them.

    Raises:
        ValueError: as `scores` does; the column has more values than there are colours.
    """
    found = _with_colors(by, scores(table, by, limits))
    lowest, highest = min(map(np.min, found.values())), max(map(np.max, found.values()))
    room = 0.02 * (highest - lowest or 1.0)
    taus = np.linspace(lowest - room, highest + room, 101)
    figure = _figure(6.4, 4.0 + 0.25 * (1 + len(found)))
    axes = figure.add_subplot()
    for i, (label, runs) in enumerate(found.items()):
        share = estimate(runs, lambda block: performance_profile(block, taus), resamples=1000)
        color, style = COLORS[i], STYLES[i % len(STYLES)]
        axes.fill_between(taus, share.low, share.high, color=color, alpha=0.2, linewidth=0)
        label = f"{_text(label)}, {len(runs)} runs"
        axes.plot(taus, share.value, color=color, linestyle=style, linewidth=2, label=label)
    _dress(axes, _title(title, sum(runs.size for runs in found.values())))
    is_scaled = limits is not None or next(iter(found.values())).shape[1] > 1
    what = "scaled final return" if is_scaled else "final return"
    axes.set(xlabel=f"{what} \N{GREEK SMALL LETTER TAU}", ylim=(-0.02, 1.02))
    axes.set(ylabel="share of runs above \N{GREEK SMALL LETTER TAU}")
    figure.legend(loc="outside lower center", frameon=False, handlelength=3)
    return _save(figure, paths)


def _with_colors(by, groups):
    """The groups, if there are colours enough."""
    if len(groups) > len(COLORS):
        raise ValueError(f"by = {by!r}: has {len(groups)} values, more than {len(COLORS)} colours")
    return groups


class _Ticks:
    """Where the values of a setting are on the horizontal axis: four finite numbers or more where
    they are, on a logarithmic one if they span more than a decade; all else side by side."""

    def __init__(self, groups, values):
        self.labels = [_value(label) for label in groups]
        is_number = values.dtype.kind in "iuf" and np.isfinite(values).all()
        self.is_number = is_number and len(groups) >= 4
        lowest, highest = (values.min(), values.max()) if self.is_number else (0, 0)
        self.is_log = self.is_number and lowest > 0 and highest >= 10 * lowest

    def at(self, label, value):
        return value if self.is_number else self.labels.index(_value(label))

    def put(self, axes):
        if not self.is_number:
            axes.set_xticks(range(len(self.labels)), self.labels)
            axes.set_xlim(-0.5, len(self.labels) - 0.5)
        elif self.is_log:
            from matplotlib.ticker import LogFormatterSciNotation

            axes.set_xscale("log")
            axes.xaxis.set_major_formatter(LogFormatterSciNotation())


def _draw_sensitivity(axes, agents, axis, ticks, i, label):
    color, groups, label = COLORS[i], split(agents, axis), _text(label)
    middle, points = [], []
    for name, rows in groups.items():
        returns, at = rows["final_return"].to_numpy(), ticks.at(name, rows[axis].iloc[0])
        apart = 0.0 if ticks.is_number else 0.06 * (np.arange(len(rows)) % 5 - 2)
        points += zip(at + np.broadcast_to(apart, len(rows)), returns, rows["diverged"])
        middle.append((at, iqm(returns), *interval(returns)))
    points, (at, value, low, high) = np.array(points, float), np.array(middle).T
    for diverged, style in ((0, dict(s=14, marker=MARKERS[i], lw=0)), (1, dict(s=22, marker="x"))):
        chosen = points[points[:, 2] == diverged]
        axes.scatter(chosen[:, 0], chosen[:, 1], color=color, alpha=0.35, zorder=1, **style)
    if len(agents) < 2 * len(groups):
        return  # most values have a single agent: there is nothing to take the middle of
    style = dict(color=color, linestyle=STYLES[i % len(STYLES)], zorder=2)
    if ticks.is_number:
        axes.fill_between(at, low, high, color=color, alpha=0.2, linewidth=0)
        axes.plot(at, value, linewidth=2, label=label or "IQM and 95% interval", **style)
    else:
        bars = np.array([value - low, high - value])
        style["linestyle"] = ""
        bar = dict(marker="_", markersize=14, capsize=4, linewidth=2)
        axes.errorbar(at, value, bars, label=label or "IQM and 95% interval", **bar, **style)


def _value(label):
    """Of "name = value"."""
    return _text(label.partition(" = ")[2])


def _title(title, number):
    """How many agents there are, with it."""
    return f"{title}, {number:,} agents" if title else f"{number:,} agents"


def _figure(width, height):
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    figure._repr_png_ = lambda: _picture(figure, "png")  # notebooks ask for it
    return figure


def _draw_curve(axes, metrics, i, label, every_seed):
    """Of one run; how many seeds are drawn."""
    env_steps, returns = learning_curve(metrics)
    style = dict(color=COLORS[i % len(COLORS)], linestyle=STYLES[i % len(STYLES)], linewidth=2)
    if not len(returns):
        if label:
            axes.plot([], [], label=f"{_text(label)}, no episode ended", **style)
        return 0
    if every_seed:
        _, all_steps, of_each = all_returns(metrics)
        thin = dict(color=style["color"], alpha=0.22, linewidth=0.7)
        _mark_points(axes.plot(all_steps, of_each.T, **thin))
    if len(returns) > 1:
        low, high = interval(returns)
        axes.fill_between(env_steps, low, high, color=style["color"], alpha=0.2, linewidth=0)
    seeds = "1 seed" if len(returns) == 1 else f"{len(returns)} seeds"
    label = ", ".join(part for part in (_text(label), seeds, _missing(metrics)) if part)
    _mark_points(axes.plot(env_steps, iqm(returns, axis=0), label=label, **style))
    return len(returns)


def _mark_points(lines):
    """A line through a single point would not be seen."""
    for line in lines:
        if np.isfinite(line.get_ydata()).sum() == 1:
            line.set_marker("o")


def _missing(metrics):
    """Of which seeds no episode ended, in words, or nothing."""
    found, kind = without_return(metrics), "agent" if "agent" in metrics else "seed"
    if not found:
        return ""
    named = ", ".join(map(str, found))
    many = f"{kind}s {named}" if len(found) <= 8 else f"{len(found)} {kind}s"
    return f"no episode ended: {kind} {named}" if len(found) == 1 else f"no episode ended: {many}"


def _say_why_empty(axes, curves):
    has_rows = any(len(metrics["env_steps"]) for metrics in curves.values())
    text = "no episode ended" if has_rows else "no rows of metrics"
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", size="large")
    axes.set(xticks=[], yticks=[])


def _text(words):
    """With no meaning for a dollar, which else begins a formula."""
    return words.replace("$", r"\$")


def _dress(axes, title):
    axes.set(title=_text(title))
    axes.xaxis.set_major_formatter(_short_number)
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def _save(figure, paths):
    for path in paths:
        atomic_io.write(path, _picture(figure, path.suffix[1:]))
    return figure


def _picture(figure, kind):
    picture = io.BytesIO()
    figure.savefig(picture, format=kind)
    return picture.getvalue()


def _short_number(x, _=None):
    for unit, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(x) >= unit:
            return f"{x / unit:g}{letter}"
    return f"{x:g}"

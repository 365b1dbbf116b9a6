"""Figures from tidy tables, in one style.

Each function writes the figure to `paths`, in the formats of their suffixes (.png, .svg and so on),
and returns the matplotlib Figure, which a notebook shows. A WriteError says that a file could not
be written, a ValueError that the table has no such column, or that a column shown by colour has
more values than there are colours.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rljax.analysis import style, tidy
from rljax.analysis.sensitivity import sensitivities
from rljax.analysis.statistics import estimate, interval, iqm, performance_profile
from rljax.analysis.style import COLORS, MARKERS, dress, escaped, save
from rljax.analysis.tidy import Limits, all_returns, counted, learning_curve, scores, split


def plot_learning_curves(
    curves: Mapping[str, Mapping[str, np.ndarray]], title: str, *paths: Path, by: str | None = None
) -> Any:
    """Plots the return of one or several runs: the IQM over seeds with its 95% interval.

    A curve begins where every seed has a return. Of a single run each seed is plotted too, from its
    first return on. Seeds without an ended episode are named instead.

    Args:
        curves: label to columns of metrics.csv; with `by`, the table of a sweep.
        by: a column of that table; each of its values gets a curve.
    """
    if by:
        curves = split(curves, by)
        style.check_colors(by, curves)
    is_one = len(curves) == 1
    below = 0.0 if is_one else 0.25 * (1 + len(curves))  # inches, for the legend
    figure, axes = style.new_figure(6.4, 4.0 + below)
    seeds = [
        _draw_curve(axes, metrics, i, label, every_seed=is_one)
        for i, (label, metrics) in enumerate(curves.items())
    ]
    if not any(seeds):
        _say_why_empty(axes, curves)
    if axes.get_legend_handles_labels()[0]:
        # On the axes, the long labels of several curves would hide lines.
        target, where = (axes, dict(loc="best")) if is_one else (figure, {})
        legend_title = "IQM and 95% interval" if max(seeds) > 1 else None
        target.legend(title=legend_title, **style.LEGEND_BELOW | where)
    dress(axes, title)
    axes.set(xlabel="environment steps per seed", ylabel="return per episode")
    return save(figure, paths)


def plot_grid(panels: Mapping[str, Mapping[str, Mapping[str, np.ndarray]]], *paths: Path) -> Any:
    """Plots learning curves in panels: the IQM over seeds with its 95% interval and, where a panel
    has a single run, every seed. `panels` maps the title of each to its runs, and their labels,
    which are the same in all panels, to columns of metrics.csv."""
    columns = min(3, len(panels)) if len(panels) != 4 else 2
    rows, labels = -(-len(panels) // columns), list(next(iter(panels.values())))
    room = 0.25 * (len(labels) > 1)  # inches, for the legend
    figure, grid = style.new_figure(3.4 * columns, 2.7 * rows + 0.3 + room, rows, columns)
    grid, most_seeds = np.ravel(grid), 0
    for axes, (title, curves) in zip(grid, panels.items()):
        seeds = [
            _draw_curve(axes, metrics, i, label, every_seed=len(curves) == 1)
            for i, (label, metrics) in enumerate(curves.items())
        ]
        most_seeds = max(most_seeds, *seeds)
        if not any(seeds):
            _say_why_empty(axes, curves)
        elif missing := _all_missing(curves):
            where = dict(transform=axes.transAxes, ha="right", va="bottom", size="x-small")
            axes.text(0.98, 0.03, missing, **where)
        dress(axes, title)
    if len(labels) > 1:
        lines, _ = grid[0].get_legend_handles_labels()
        above = {**style.LEGEND_BELOW, "loc": "outside upper center", "ncols": len(labels)}
        figure.legend(lines, [*map(escaped, labels)], **above)  # the axis has its name below
    for axes in grid[len(panels) :]:
        axes.remove()
    what = "; IQM over seeds with its 95% interval" * (most_seeds > 1)
    figure.supxlabel(f"environment steps per seed{what}", fontsize="medium")
    figure.supylabel("return per episode", fontsize="medium")
    return save(figure, paths)


def plot_sensitivity(
    table: Any, axis: str, *paths: Path, by: str | None = None, title: str = ""
) -> Any:
    """Plots the final return of a sweep's trials against a setting: every trial as a point, and the
    IQM with its 95% interval where several trials share a value (as in figure 2 of arXiv
    1602.01783). `by` is another setting, of few values, shown by colour.

    The axis of a setting that spans more than a decade is logarithmic; names, and fewer than four
    numbers, are side by side. Diverged trials are crosses at the lowest return of the table; if no
    trial has a return, nothing is plotted.
    """
    finals = counted(table)
    groups = split(finals, by) if by else {"": finals}
    style.check_colors(by, groups)
    figure, axes = style.new_figure(6.4, 4.0)
    dress(axes, _title(title, len(finals)))
    places = _set_x_axis(axes, split(finals, axis), finals[axis])
    for i, (label, trials) in enumerate(groups.items()):
        _draw_sensitivity(axes, i, split(trials, axis), *places, escaped(label))
    axes.set(xlabel=escaped(axis), ylabel="final return")
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="best", frameon=False)
    return save(figure, paths)


def plot_heat_map(table: Any, x: str, y: str, *paths: Path, title: str = "") -> Any:
    """Plots the final return of a sweep over two settings: the IQM over all trials of a cell,
    whatever their other settings."""
    finals = counted(table)
    columns, rows = split(finals, x), split(finals, y)
    cells = finals.groupby([y, x])["final_return"].agg(iqm).unstack().to_numpy()
    width, height = 2.2 + 0.55 * max(6, len(columns)), 1.6 + 0.4 * max(5, len(rows))
    figure, axes = style.new_figure(width, height)
    image = axes.imshow(cells, cmap="cividis", origin="lower", aspect="auto")
    figure.colorbar(image, ax=axes, label="final return (IQM)")
    turned = dict(rotation=45, ha="right", rotation_mode="anchor") if len(columns) > 5 else {}
    axes.set_xticks(range(len(columns)), _values(columns), **turned)
    axes.set_yticks(range(len(rows)), _values(rows))
    if cells.size <= 150 and not np.isnan(cells).all():
        middle = (np.nanmin(cells) + np.nanmax(cells)) / 2
        for (i, j), value in np.ndenumerate(cells):
            color = "white" if value < middle else "black"
            if not np.isnan(value):
                axes.text(j, i, f"{value:.3g}", ha="center", va="center", color=color, size=7)
    axes.set(title=escaped(_title(title, len(finals))), xlabel=escaped(x), ylabel=escaped(y))
    return save(figure, paths)


def plot_performance_profiles(
    table: Any, by: str, *paths: Path, limits: Limits = None, title: str = ""
) -> Any:
    """Plots, for each value of a column, the share of its runs that score above a threshold, for
    all thresholds, with the 95% interval. A curve above another is better; where two cross, the
    ranking depends on the threshold. Table, limits and errors are those of `scores`."""
    found = scores(table, by, limits)
    style.check_colors(by, found)
    lowest, highest = min(map(np.min, found.values())), max(map(np.max, found.values()))
    room = 0.02 * (highest - lowest or 1.0)
    taus = np.linspace(lowest - room, highest + room, 101)
    figure, axes = style.new_figure(6.4, 4.0 + 0.25 * (1 + len(found)))
    for i, (label, runs) in enumerate(found.items()):
        share = estimate(runs, lambda block: performance_profile(block, taus), resamples=1000)
        label = f"{escaped(label)}, {len(runs)} runs"
        style.draw_line(axes, i, taus, share.value, (share.low, share.high), label)
    dress(axes, _title(title, sum(runs.size for runs in found.values())))
    is_scaled = limits is not None or next(iter(found.values())).shape[1] > 1
    what = "scaled final return" if is_scaled else "final return"
    axes.set(xlabel=f"{what} \N{GREEK SMALL LETTER TAU}", ylim=(-0.02, 1.02))
    axes.set(ylabel="share of runs above \N{GREEK SMALL LETTER TAU}")
    figure.legend(**style.LEGEND_BELOW)
    return save(figure, paths)


def plot_sensitivity_plane(
    tables: Mapping[str, Mapping[str, np.ndarray]], *paths: Path, title: str = ""
) -> Any:
    """Plots methods by their sensitivity and by their score tuned for each environment: good is
    the upper left (Adkins et al. 2024, see `sensitivity`). Along a dotted line the score with one
    setting for all environments is the same.

    Args:
        tables: of each method, by its label, with the same environments.
    """
    found = sensitivities(tables)
    figure, axes = style.new_figure(5.0, 4.0 + 0.25 * (1 + len(found)))
    for i, (label, x) in enumerate(found.items()):
        marker = dict(color=COLORS[i % len(COLORS)], marker=MARKERS[i % len(MARKERS)])
        axes.plot([x.sensitivity], [x.tuned], linestyle="none", label=escaped(label), **marker)
    right = max(0.1, *(1.2 * x.sensitivity for x in found.values()))
    for fixed in {x.fixed for x in found.values()}:
        axes.plot([0, right], [fixed, fixed + right], ":", color="#808080", linewidth=1)
    axes.set(xlim=(-0.03 * right, right), ylim=(None, 1.03))
    axes.set(xlabel="sensitivity: what is lost with one setting for all", ylabel="tuned score")
    figure.legend(**style.LEGEND_BELOW)
    dress(axes, title)
    return save(figure, paths)


def _set_x_axis(axes, groups, values):
    """Prepares the horizontal axis for a setting; returns (whether its values are numbers on it,
    label to position)."""
    if len(groups) >= 4 and values.dtype.kind in "iuf" and np.isfinite(values).all():
        if values.min() > 0 and values.max() >= 10 * values.min():
            from matplotlib.ticker import LogFormatterSciNotation

            axes.set_xscale("log")
            axes.xaxis.set_major_formatter(LogFormatterSciNotation())
        return True, {label: rows[values.name].iloc[0] for label, rows in groups.items()}
    axes.set_xticks(range(len(groups)), _values(groups))
    axes.set_xlim(-0.5, len(groups) - 0.5)
    return False, {label: i for i, label in enumerate(groups)}


def _draw_sensitivity(axes, i, groups, are_numbers, places, label):
    color, middle, points = COLORS[i], [], []
    for name, trials in groups.items():
        returns, at = trials["final_return"].to_numpy(), places[name]
        apart = 0.0 if are_numbers else 0.06 * (np.arange(len(trials)) % 5 - 2)
        points += zip(at + np.broadcast_to(apart, len(trials)), returns, trials["diverged"])
        middle.append((at, iqm(returns), *interval(returns)))
    points, (at, value, low, high) = np.array(points, float), np.array(middle).T
    for diverged, shape in ((0, dict(s=14, marker=MARKERS[i], lw=0)), (1, dict(s=22, marker="x"))):
        chosen = points[points[:, 2] == diverged]
        axes.scatter(chosen[:, 0], chosen[:, 1], color=color, alpha=0.35, **shape)
    if len(points) < 2 * len(groups):
        return  # most values have a single trial, which needs no IQM
    label = label or "IQM and 95% interval"
    if are_numbers:
        style.draw_line(axes, i, at, value, (low, high), label)
    else:
        bars = dict(marker="_", markersize=14, capsize=4, linewidth=2, linestyle="")
        ends = np.array([value - low, high - value])
        axes.errorbar(at, value, ends, color=color, label=label, **bars)


def _values(labels):
    """Of "name = value"."""
    return [escaped(label.partition(" = ")[2]) for label in labels]


def _title(title, number):
    return f"{title}, {number:,} trials" if title else f"{number:,} trials"


def _draw_curve(axes, metrics, i, label, every_seed):
    """Plots one run; returns its number of seeds with a return."""
    env_steps, returns = learning_curve(metrics)
    if not len(returns):
        if label:
            axes.plot([], [], label=f"{escaped(label)}, no episode ended", **style.of_line(i))
        return 0
    if every_seed:
        _, all_steps, of_each = all_returns(metrics)
        thin = dict(color=style.of_line(i)["color"], alpha=0.22, linewidth=0.7)
        style.mark_points(axes.plot(all_steps, of_each.T, **thin))
    seeds = "1 seed" if len(returns) == 1 else f"{len(returns)} seeds"
    label = ", ".join(part for part in (escaped(label), seeds, _missing(metrics)) if part)
    ends = interval(returns) if len(returns) > 1 else None
    style.draw_line(axes, i, env_steps, iqm(returns, axis=0), ends, label)
    return len(returns)


def _missing(metrics):
    """Which seeds have no ended episode, in words; "" if all have one."""
    found, kind = tidy.without_return(metrics), "trial" if "trial" in metrics else "seed"
    which = f"{kind}{'s' * (len(found) > 1)} {', '.join(map(str, found))}"
    which = which if len(found) <= 8 else f"{len(found)} {kind}s"
    return f"no episode ended: {which}" if found else ""


def _all_missing(curves):
    """`_missing` of each run, on a line of its own."""
    found = {escaped(label): _missing(metrics) for label, metrics in curves.items()}
    return "\n".join(f"{label}: {text}" if label else text for label, text in found.items() if text)


def _say_why_empty(axes, curves):
    has_rows = any(len(metrics["env_steps"]) for metrics in curves.values())
    text = "no episode ended" if has_rows else "no rows of metrics"
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", size="large")
    axes.set(xticks=[], yticks=[])

"""Statistics over seeds, and plots, from tidy tables."""

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rljax import files

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#56B4E9", "#E69F00")
STYLES = ("-", (0, (5, 1.5)), (0, (1, 1.2)), (0, (6, 1.5, 1, 1.5)), (0, (3, 1, 1, 1, 1, 1)))


def iqm(values: np.ndarray, axis: int = -1) -> np.ndarray:
    """Interquartile mean: the mean of the middle half (Agarwal et al. 2021, arXiv 2108.13264).

    A quarter of the values, rounded down, is left out at either end.
    """
    values = np.sort(np.asarray(values, float), axis=axis)
    size = values.shape[axis]
    return np.take(values, range(size // 4, size - size // 4), axis=axis).mean(axis=axis)


def interval(
    values: np.ndarray,
    statistic: Callable[..., np.ndarray] = iqm,
    level: float = 0.95,
    resamples: int = 2000,
) -> tuple[np.ndarray, np.ndarray]:
    """Percentile-bootstrap confidence interval of a statistic over seeds.

    Args:
        values: [S, ...] one row per seed.
        statistic: called with an `axis`.

    Returns:
        (low, high), both [...].
    """
    values = np.asarray(values, float)
    chosen = np.random.default_rng(0).integers(len(values), size=(resamples, len(values)))
    found = statistic(values[chosen], axis=1)
    tail = 100 * (1 - level) / 2
    low, high = np.percentile(found, [tail, 100 - tail], axis=0)
    return low, high


def learning_curve(metrics: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return against environment steps, per seed.

    Where no episode of a seed ended since the last row, its last return stands; rows before
    every seed has a return are left out.

    Args:
        metrics: columns of metrics.csv.

    Returns:
        (env_steps [P], returns [S, P]).
    """
    env_steps = np.unique(metrics["env_steps"])
    seeds = np.unique(metrics["seed"])
    returns = np.full((len(seeds), len(env_steps)), np.nan)
    row = np.searchsorted(seeds, metrics["seed"])
    column = np.searchsorted(env_steps, metrics["env_steps"])
    returns[row, column] = metrics["episodic_return"]
    for i in range(1, len(env_steps)):
        returns[:, i] = np.where(np.isnan(returns[:, i]), returns[:, i - 1], returns[:, i])
    known = ~np.isnan(returns).any(axis=0)
    return env_steps[known], returns[:, known]


def plot_learning_curves(
    curves: Mapping[str, Mapping[str, np.ndarray]], title: str, *paths: Path
) -> Any:
    """Draws the return of one or several runs: the IQM over seeds with its 95% interval.

    Colours (Okabe and Ito) stay apart for colour-blind readers, and line styles without colour. Of
    a single run every seed is drawn as well.

    Args:
        curves: label to columns of metrics.csv.
        paths: files to write; their suffixes say the kinds, such as .png and .svg.

    Returns:
        The matplotlib Figure; a notebook shows it.
    """
    below = 0.25 * (1 + len(curves)) if len(curves) > 1 else 0.0  # inches, for the legend
    figure = _figure(6.4, 4.0 + below)
    axes = figure.add_subplot()
    for i, (label, metrics) in enumerate(curves.items()):
        _draw_curve(axes, metrics, i, label, every_seed=len(curves) == 1)
    if axes.get_legend_handles_labels()[0]:
        several = any(len(np.unique(metrics["seed"])) > 1 for metrics in curves.values())
        title_of_legend = "IQM and 95% interval" if several else None
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
        paths: files to write; their suffixes say the kinds.

    Returns:
        The matplotlib Figure.
    """
    columns = min(3, len(runs)) if len(runs) != 4 else 2
    rows = -(-len(runs) // columns)
    figure = _figure(3.4 * columns, 2.7 * rows + 0.3)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, (title, metrics) in zip(grid, runs.items()):
        _draw_curve(axes, metrics, 0, "", every_seed=True)
        _dress(axes, title)
    for axes in grid[len(runs) :]:
        axes.remove()
    below = "environment steps per seed; IQM over seeds with its 95% interval"
    figure.supxlabel(below, fontsize="medium")
    figure.supylabel("return per episode", fontsize="medium")
    return _save(figure, paths)


def _figure(width, height):
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _draw_curve(axes, metrics, i, label, every_seed):
    env_steps, returns = learning_curve(metrics)
    if not len(env_steps):
        return
    color, style = COLORS[i % len(COLORS)], STYLES[i % len(STYLES)]
    if every_seed:
        axes.plot(env_steps, returns.T, color=color, alpha=0.22, linewidth=0.7)
    low, high = interval(returns)
    axes.fill_between(env_steps, low, high, color=color, alpha=0.2, linewidth=0)
    seeds = "1 seed" if len(returns) == 1 else f"{len(returns)} seeds"
    label = ", ".join(part for part in (label, seeds) if part)
    middle = iqm(returns, axis=0)
    axes.plot(env_steps, middle, color=color, linestyle=style, linewidth=2, label=label)


def _dress(axes, title):
    axes.set(title=title)
    axes.xaxis.set_major_formatter(_short_number)
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def _save(figure, paths):
    for path in paths:
        picture = io.BytesIO()
        figure.savefig(picture, format=path.suffix[1:])
        files.write(path, picture.getvalue())
    return figure


def _short_number(x, _=None):
    for unit, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(x) >= unit:
            return f"{x / unit:g}{letter}"
    return f"{x:g}"

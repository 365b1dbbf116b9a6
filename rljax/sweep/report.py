"""The end of a sweep: its points ranked, its figures, its table."""

import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from rljax import analysis
from rljax.loggers.summaries import print_sweep
from rljax.sweep import results
from rljax.sweep.points import describe
from rljax.utils import atomic_io

SHOWN = 10  # points in the table, at most
CURVES = 5  # points in the figure of learning curves, at most


def finish(asked: Any, summary: dict, folder: Path, display: Any) -> None:
    """Ranks the points of a `directory.Asked`, draws the figures, writes sweep.json, to which it
    adds the ranking, and shows the table."""
    table = results.read(folder) if summary["agents_finished"] else None
    ranking = None if table is None else analysis.rank(table)
    figures = [] if table is None else _draw(table, ranking, asked, folder)
    if ranking is not None:
        summary["ranking"] = _records(ranking)
    atomic_io.write_json(folder / "sweep.json", summary)
    display.stop()

    def show(console):
        print_sweep(console, summary, ranking, SHOWN)
        print_files(console, figures, folder, summary["status"])

    display.result(summary, show)


def print_files(console: Any, figures: Iterable[Path], folder: Path, status: str) -> None:
    """Prints where a sweep's or a search's files are, and how it is resumed."""
    for path in figures:
        console.print(f"figure: {path}", soft_wrap=True)
    console.print(f"run directory: {folder}", soft_wrap=True)
    if status != "completed":
        console.print(f"resume with: --resume {shlex.quote(str(folder))}", soft_wrap=True)


def _records(ranking):
    """For JSON: None where there is no return, or no interval."""
    optional = ("iqm", "low", "high", "lowest")
    return [
        {n: None if n in optional and np.isnan(x) else x for n, x in row.items()}
        for row in ranking.to_dict("records")
    ]


def _draw(table, ranking, asked, folder):
    """Writes the figures as PNG and SVG; the paths of the former."""
    varied = [name for name in analysis.axes(table) if table[name].nunique() > 1]
    drawn = []

    def paths(name):
        drawn.append(folder / f"{name}.png")
        return drawn[-1], folder / f"{name}.svg"

    title = f"{asked.options.algorithm.upper()} on {asked.envs}"
    for name in varied:
        analysis.plot_sensitivity(table, name, *paths(f"sensitivity_{name}"), title=title)
    if len(varied) >= 2 and asked.heat_map:
        x, y = sorted(varied, key=lambda name: -table[name].nunique())[:2]
        analysis.plot_heat_map(table, x, y, *paths("heat_map"), title=title)
    best = ranking["point"][:CURVES]
    curves = {describe(asked.points[i]): table[table["point"] == i] for i in best}
    title += f", the best {len(curves)} of {len(ranking)} points" if len(ranking) > CURVES else ""
    analysis.plot_learning_curves(curves, title, *paths("learning_curves"))
    return drawn


def plural(number: int, what: str) -> str:
    """ "3 seeds", "1 seed"."""
    return f"{number:,} {what}{'s' * (number > 1)}"

"""The parts of a page about a sweep."""

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rljax import analysis
from rljax.analysis.statistics import interval, iqm
from rljax.analysis.style import short_number
from rljax.report import parts, recipes
from rljax.report.charts import Line, Ticks, chart, heat_map
from rljax.report.html import Element, folded, table, tag
from rljax.runs import directory, labels
from rljax.runs.run import read_summary
from rljax.sweep import results
from rljax.sweep.points import describe

SHOWN = 10  # points of the ranking that are not folded away
CURVES = 5  # points whose learning curves are drawn
MOST_CELLS = 400  # of a heat map
MOST_MAPS = 6


class Told(NamedTuple):
    """What a sweep left in its directory."""

    run_dir: Path
    record: dict
    metrics: Any  # a `pandas.DataFrame`: results.csv
    summary: dict  # sweep.json; empty while it is in progress


def is_one(record: Mapping) -> bool:
    """Whether a config.json is that of a sweep."""
    return "points" in record


def read(run_dir: Path) -> Told:
    """Raises ValueError if it is no sweep's directory, or damaged."""
    record, path = directory.read_record(run_dir), Path(run_dir) / "results.csv"
    has_begun = path.exists() and path.stat().st_size
    found = results.read(run_dir) if has_begun else results.frame([])
    summary = parts.decoded(read_summary(Path(run_dir), "sweep.json"))
    return Told(Path(run_dir), record, found, summary)


def title(sweep: Told) -> str:
    algorithm = str(sweep.record["run"].get("algorithm", "")).upper()
    names = ", ".join(_varied(sweep)) or "seeds"
    return f"{algorithm} on {', '.join(_envs(sweep))}: a sweep over {names}"


def sections(sweep: Told) -> list[Element | None]:
    """All about one sweep."""
    if not len(sweep.metrics):
        return [tag("p", "No trial has ended.", class_="soft")]
    envs, found = _envs(sweep), [_tiles(sweep)]
    for env in envs:
        rows = sweep.metrics
        if len(envs) > 1:  # whose returns cannot be compared
            rows = rows[rows["env"] == env]
            found.append(tag("h3", env))
        found += _of_env(sweep._replace(metrics=rows))
    return [
        *found,
        tag("h3", "What was run"),
        *recipes.chosen(sweep.record),
        folded("Run it again", *recipes.again(sweep.record)),
        folded("Versions and machine", recipes.origin(sweep.record)),
    ]


def _of_env(sweep):
    ranking, varied = analysis.rank(sweep.metrics), _varied(sweep)
    pairs = [*itertools.combinations(varied, 2)][:MOST_MAPS]
    maps = [part for pair in pairs if (part := _map(sweep, *pair)) is not None]
    how = "Of all trials with a value, whatever their other settings."
    return [
        *_ranking(sweep, ranking),
        *learning(sweep, ranking),
        *([tag("h3", "Sensitivity"), tag("p", how, class_="soft")] if varied else []),
        tag("div", [sensitivity(sweep, name) for name in varied], class_="charts"),
        *([tag("h3", "Two settings together"), tag("div", maps, class_="maps")] if maps else []),
    ]


def _envs(sweep):
    known = sweep.metrics["env"].unique() if "env" in sweep.metrics else []
    return [*map(str, known)] or [str(sweep.record["config"].get("env"))]


def _varied(sweep):
    if not len(sweep.metrics):
        return []
    return [n for n in analysis.axes(sweep.metrics) if sweep.metrics[n].nunique() > 1]


def _tiles(sweep):
    summary, metrics = sweep.summary, sweep.metrics
    status, ends = summary.get("status", "not ended"), metrics.groupby("trial").tail(1)
    diverged, failed = int(ends["diverged"].sum()), summary.get("agents_failed", 0)
    found = [
        (f"{metrics['point'].nunique():,}", "points", False),
        (f"{len(ends):,}", "trials", False),
        (f"{diverged:,}", "diverged", diverged > 0),
        (parts.count(summary.get("steps_per_second")), "steps per second, all trials", False),
        (parts.seconds(summary.get("wall_seconds")), "wall time", False),
        (status, "status", status != "completed"),
    ]
    return parts.in_tiles(found + [(f"{failed:,}", "failed", True)] * bool(failed))


def _named(row, names):
    return describe({name: row[name] for name in names}) if names else "the only point"


def _ranking(sweep, ranking):
    varied, rows = _varied(sweep), []
    between = parts.scale(ranking[["low", "high", "iqm"]].to_numpy(float).ravel())
    for place, row in enumerate(ranking.to_dict("records"), 1):
        ends = row["low"], row["high"]
        figures = [parts.number(row["iqm"]), parts.ends(ends), parts.number(row["lowest"])]
        mark = parts.track(between, row["iqm"], ends)
        settings = [labels.value(row[name]) for name in varied]
        rows.append([str(place), *settings, *figures, mark, str(row["diverged"] or "")])
    head = ["", *varied, "IQM", "95% interval", "lowest seed", "", "diverged"]
    found = [tag("h3", "Ranking"), table(head, rows[:SHOWN])]
    if len(rows) > SHOWN:
        found.append(folded(f"The other {len(rows) - SHOWN:,}", table(head, rows[SHOWN:])))
    return found


def learning(sweep: Any, ranking: Any) -> list[Element]:
    """The learning curves of the best points; of a search's as well."""
    varied, lines = _varied(sweep), []
    for i, row in enumerate(ranking.head(CURVES).to_dict("records")):
        rows = sweep.metrics[sweep.metrics["point"] == row["point"]]
        lines.append(parts.curve(rows, _named(row, varied), i))
    which = f"the best {CURVES} points" if len(ranking) > CURVES else "all points"
    drawn = chart(f"Return per episode, in training, {which}", lines)
    return [tag("h3", "Learning"), tag("div", drawn, class_="wide")]


def sensitivity(sweep: Any, name: str) -> Element:
    """Final returns against a setting; of a search's as well."""
    finals = analysis.tidy.counted(sweep.metrics)
    groups = [*finals.groupby(name, sort=True)]
    values, kinds = [x for x, _ in groups], finals[name].dtype.kind
    places, ticks = _places(values, kinds in "iuf")
    at = dict(zip(values, places))
    lines = []
    for label, rows in (
        ("trials", finals[~finals["diverged"]]),
        ("diverged", finals[finals["diverged"]]),
    ):
        x, y = np.array([at[x] for x in rows[name]], float), rows["final_return"].to_numpy()
        kind = "points" if label == "trials" else "squares"
        lines += [Line(label, x, y, look=int(label == "diverged"), kind=kind)] * bool(len(rows))
    if len(finals) > len(groups):
        returns = [rows["final_return"].to_numpy() for _, rows in groups]
        low, high = np.array([interval(x) for x in returns]).T
        middle = np.array([iqm(x) for x in returns])
        lines.append(Line("IQM and 95% interval", np.array(places, float), middle, low, high))
    names = {x: labels.value(value) for value, x in at.items()}
    return chart(f"Final return against {name}", lines, name, ticks, names)


def _places(values, are_numbers):
    """Where values stand on an axis, and its ticks: side by side where they are names, or few."""
    if not are_numbers or len(values) <= 6 or not np.isfinite(values).all():
        places = [float(i) for i in range(len(values))]
        return places, Ticks(places, [labels.value(x) for x in values])
    values = np.array(values, float)
    if values.min() <= 0 or values.max() < 10 * values.min():
        return values, None
    places = np.log10(values)
    whole = np.arange(np.ceil(places.min()), np.floor(places.max()) + 1)
    return places, Ticks(whole, [short_number(10**x) for x in whole])


def _map(sweep, one, other):
    finals = analysis.tidy.counted(sweep.metrics)
    y, x = sorted((one, other), key=lambda name: finals[name].nunique())
    cells = finals.groupby([y, x])["final_return"].agg(iqm).unstack()
    if cells.size > MOST_CELLS or cells.isna().to_numpy().mean() > 0.5:
        return None  # of points that are no grid
    return heat_map(f"IQM of the final return, {y} and {x}", cells, x, y)

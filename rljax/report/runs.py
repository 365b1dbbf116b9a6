"""The parts of a page about a run."""

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from rljax import analysis
from rljax.analysis.statistics import interval, iqm
from rljax.loggers import tables
from rljax.report import recipes
from rljax.report.charts import Line, bars, chart
from rljax.report.html import Element, folded, table, tag
from rljax.runs import directory, labels
from rljax.runs.run import load, read_summary
from rljax.utils import atomic_io
from rljax.utils.errors import TrainingError

MOST_SEEDS = 32  # that are drawn one by one
MOST_STEPS = 500  # of the episode that is shown
_KNOWN = ("episodic_return", "steps_per_second", "wall_seconds", "updates", "episodes")
_STALENESS = ("staleness_mean", "staleness_max")


class Told(NamedTuple):
    """What a run left in its directory."""

    run_dir: Path
    record: dict
    metrics: Any  # a `pandas.DataFrame`
    evaluations: Any  # another, as loggers get its rows; empty if there were none
    summary: dict  # empty while it is in progress


def read(run_dir: Path) -> Told:
    """Raises ValueError if it is no run directory, or damaged."""
    record, metrics = directory.read_record(run_dir), tables.read_metrics(run_dir)
    evaluations = pd.DataFrame(tables.read_evaluations(run_dir))
    return Told(Path(run_dir), record, metrics, evaluations, read_summary(run_dir))


def title(run: Told) -> str:
    return labels.title([run.record])


def sections(run: Told, most_bytes: int, animated: bool) -> list[Element]:
    """All about one run, of which the animation takes at most this number of bytes."""
    several = tag("p", "IQM over seeds, with its 95% interval.", class_="soft")
    return [
        tiles(run),
        tag("h3", "What was run"),
        *recipes.chosen(run.record),
        folded("Run it again", *recipes.again(run.record)),
        tag("h3", "Learning"),
        tag("div", _learning(run), class_="wide"),
        _evaluations(run),
        *_final(run),
        *(_animation(run, most_bytes) if animated else []),
        tag("h3", "Losses and other metrics"),
        several if run.metrics["seed"].nunique() > 1 else None,
        tag("div", _losses(run), class_="charts"),
        *_staleness(run),
        tag("h3", "Speed"),
        _speed(run),
        folded("Versions and machine", recipes.origin(run.record)),
    ]


def tiles(run: Told) -> Element:
    """The figures that are asked for first."""
    summary = run.summary
    final, status = summary.get("final_return"), summary.get("status", "not ended")
    found = []
    if final:
        ends = final.get("ci95")
        what = f"IQM, 95% interval {number(ends[0])} … {number(ends[1])}" if ends else "one seed"
        found.append((number(final["iqm"]), f"final return ({what})", False))
    elif summary.get("last_return") is not None:
        found.append((number(summary["last_return"]), "last return in training", False))
    seeds = run.metrics["seed"].nunique()
    found.append((f"{seeds}", "seed" if seeds == 1 else "seeds", False))
    steps = int(run.metrics["env_steps"].max()) if len(run.metrics) else 0
    found.append((f"{steps:,}", "environment steps per seed", False))
    if "steps_per_second" in summary:
        found.append((f"{summary['steps_per_second']:,.0f}", "steps per second", False))
    found.append((status, "status", status not in ("completed", "stopped")))
    return in_tiles(found)


def in_tiles(found: Sequence[tuple[str, str, bool]]) -> Element:
    """(a figure, what it is, whether it is bad news), side by side."""
    tiles = [
        tag("div", tag("b", x), tag("span", what), class_="tile bad" if is_bad else "tile")
        for x, what, is_bad in found
    ]
    return tag("div", tiles, class_="tiles")


def curve(metrics: Any, label: str, number: int = 0, column: str = "episodic_return") -> Line:
    """The IQM over seeds with its interval."""
    if column == "episodic_return":
        steps, every = analysis.learning_curve(metrics)
    else:
        wide = metrics.pivot_table(index="seed", columns="env_steps", values=column, dropna=False)
        steps, every = wide.columns.to_numpy(), wide.to_numpy(float)
    if not len(every):
        return Line(label, np.zeros(0), np.zeros(0), number=number)
    low, high = interval(every) if len(every) > 1 else (None, None)
    return Line(label, steps, iqm(every, axis=0), low, high, number)


def _learning(run):
    seeds, steps, returns = analysis.tidy.all_returns(run.metrics)
    several = "IQM and 95% interval" if len(seeds) > 1 else f"seed {seeds[0]}" if len(seeds) else ""
    lines = [curve(run.metrics, several)]
    if len(seeds) > 1:
        shown = list(zip(seeds, returns))[:MOST_SEEDS]
        lines += [Line(f"seed {seed}", steps, y, kind="thin") for seed, y in shown]
    parts = [chart("Return per episode, in training", lines)]
    if missing := analysis.without_return(run.metrics):
        text = f"No episode ended of seed {', '.join(map(str, missing))}."
        parts.append(tag("p", text, class_="soft"))
    if len(seeds) > MOST_SEEDS:
        text = f"The first {MOST_SEEDS} of {len(seeds)} seeds are drawn one by one."
        parts.append(tag("p", text, class_="soft"))
    return parts


def _evaluations(run):
    if not len(run.evaluations):
        return None
    found = run.evaluations.rename(columns={"eval/episodic_return": "episodic_return"})
    lines = [curve(found, "IQM and 95% interval")]
    groups = [*found.groupby("seed")]
    if len(groups) > 1:
        lines += [
            Line(
                f"seed {seed}", *(rows[n].to_numpy() for n in ("env_steps", "episodic_return"))
            )._replace(kind="thin")
            for seed, rows in groups[:MOST_SEEDS]
        ]
    else:
        lines[0] = lines[0]._replace(label=f"seed {groups[0][0]}")
    return tag("div", chart("Return per episode, in evaluations", lines), class_="wide")


def _final(run):
    final = run.summary.get("final_return")
    if not final:
        return [tag("p", "No evaluation after training.", class_="soft")]
    per_seed, seeds = final["per_seed"], run.summary["seeds"]
    last = run.metrics.groupby("seed")["episodic_return"].last()
    scale = _scale(per_seed)
    rows = [
        [f"seed {seed}", number(x), number(last.get(seed, np.nan)), track(scale, x)]
        for seed, x in zip(seeds, per_seed)
    ]
    if len(seeds) > 1:
        rows.append(["IQM", number(final["iqm"]), "", track(scale, final["iqm"], final["ci95"])])
        rows.append(["mean", number(final["mean"]), "", track(scale, final["mean"])])
    text = f"{number_of(final.get('episodes'))} {final.get('mode', '')} episodes of each seed"
    if cut := final.get("unfinished"):
        text += f"; {cut:,} cut after {number_of(final.get('max_steps'))} steps"
    parts = [
        tag("h3", "Evaluation after training"),
        table(["", "return", "last in training", ""], rows),
        tag("p", f"{text}.", class_="soft"),
    ]
    return parts + _fresh(run)


def _fresh(run):
    """What evaluate.py found."""
    try:
        found = atomic_io.read_json(run.run_dir / "evaluation.json")
        text = f"evaluate.py: {found['episodes']:,} fresh {found['mode']} episodes of each seed, "
        ends = found["ci95"]
        between = f", 95% interval {number(ends[0])} … {number(ends[1])}" if ends else ""
        return [tag("p", f"{text}IQM {number(found['iqm'])}{between}.")]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _animation(run, most_bytes):
    head = tag("h3", "The agent")
    try:
        loaded = load(run.run_dir)
        images, returns = loaded.pictures(max_steps=MOST_STEPS)
    except (ValueError, TypeError, TrainingError) as error:
        return [head, tag("p", f"Not drawn: {error}", class_="soft")]
    still = io.BytesIO()
    images[0].save(still, "PNG", optimize=True)
    film = _small_gif(images, most_bytes)
    moving, still = (base64.b64encode(x).decode() for x in (film, still.getvalue()))
    calm = tag(
        "source", srcset=f"data:image/png;base64,{still}", media="(prefers-reduced-motion: reduce)"
    )
    what = f"seed {loaded.seeds[0]}, greedy: {len(images) - 1:,} steps, return {number(returns[0])}"
    width, height = images[0].size
    image = tag(
        *("img",),
        **dict(src=f"data:image/gif;base64,{moving}", alt=what, width=width, height=height),
    )
    return [head, tag("figure", tag("picture", calm, image), tag("p", what, class_="soft"))]


def _small_gif(images, most_bytes):
    """A GIF of at most this size: of fewer pictures, then of smaller ones, where it must be."""
    from rljax.envs import render

    every, seconds = -(-len(images) // 250), len(images) / 30
    while True:
        chosen = images[::every]
        film = render.gif(chosen, max(1.0, len(chosen) / seconds))
        if len(film) <= most_bytes or len(chosen) < 4:
            return film
        if len(chosen) > 60:
            every *= 2
        else:
            images = [x.resize((x.width // 2, x.height // 2)) for x in images]


def _losses(run):
    names = [n for n in run.metrics if n not in (*_KNOWN, *_STALENESS, "seed", "env_steps")]
    first = ["policy_loss", "value_loss", "entropy", "explained_variance"]
    names = [n for n in first if n in names] + [n for n in names if n not in first]
    label = "IQM" if run.metrics["seed"].nunique() > 1 else "seed"
    known = [n for n in names if run.metrics[n].notna().any()]
    return [chart(name, [curve(run.metrics, label, column=name)]) for name in known]


def _staleness(run):
    if _STALENESS[0] not in run.metrics:
        return []
    lines = [
        curve(run.metrics, name.removeprefix("staleness_"), i, name)
        for i, name in enumerate(_STALENESS)
    ]
    found = run.summary.get("staleness") or {}
    parts = [chart("Staleness of gradients, in updates", lines)]
    if found.get("histogram"):
        parts.append(bars("Gradients of each staleness", found["histogram"], "updates since"))
    rows = [
        ["gradients applied", number_of(run.summary.get("gradients_applied"))],
        ["gradients rejected", number_of(run.summary.get("gradients_rejected"))],
        ["worker restarts", number_of(run.summary.get("worker_restarts"))],
        [
            "staleness: mean, 95%, max",
            ", ".join(number(found.get(n)) for n in ("mean", "p95", "max")),
        ],
    ]
    counts = [table([], rows)] if run.summary else []
    return [tag("h3", "Staleness"), tag("div", parts, class_="charts"), *counts]


def _speed(run):
    line = curve(run.metrics, "each seed's share", column="steps_per_second")
    known = {
        "environment steps, all seeds": number_of(run.summary.get("env_steps", 0) * _seeds(run)),
        "steps per second": number_of(run.summary.get("steps_per_second")),
        "compilation": _seconds(run.summary.get("compile_seconds")),
        "wall time": _seconds(run.summary.get("wall_seconds")),
    }
    rows = [[name, x] for name, x in known.items()] if run.summary else []
    for name, seconds in (run.summary.get("logger_seconds") or {}).items():
        rows.append([f"logger {name}", ", ".join(f"{n} {x:.2f} s" for n, x in seconds.items())])
    return tag("div", chart("Steps per second", [line]), table([], rows), class_="charts")


def _seeds(run):
    return len(run.summary.get("seeds", []))


def track(scale: tuple[float, float], value: float, ends: Sequence[float] | None = None) -> Element:
    """A value, and its interval, as a mark on a line between two ends."""
    low, high = scale

    def place(x):
        return 100 * (x - low) / (high - low or 1.0)

    band = None
    if ends and not np.isnan(ends).any():
        style = f"left:{place(ends[0]):.1f}%;width:{place(ends[1]) - place(ends[0]):.1f}%"
        band = tag("i", style=style)
    mark = None if np.isnan(value) else tag("b", style=f"left:{place(value):.1f}%")
    return tag("div", band, mark, class_="track", aria_hidden="true")


def _scale(values):
    known = [x for x in values if np.isfinite(x)] or [0.0]
    return min(*known, 0.0), max(*known, 0.0)


def number(x: float | None) -> str:
    """With two decimals, a dash if it is not known."""
    return "-" if x is None or np.isnan(x) else f"{x:,.2f}"


def number_of(x: float | None) -> str:
    """Of what is counted."""
    return "-" if x is None else f"{x:,.0f}"


def _seconds(x):
    return "-" if x is None else f"{x:,.1f} s"

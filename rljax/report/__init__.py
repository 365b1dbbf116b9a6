"""A page about runs and sweeps: one HTML file, which loads nothing.

html      elements, and the page around them (page.css, page.js)
charts    curves, histograms and heat maps
recipes   what was run, and how to run it again
runs      the parts about a run
sweeps    the parts about a sweep
"""

import time
from collections.abc import Sequence
from pathlib import Path

from rljax.report import runs, sweeps
from rljax.report.charts import chart
from rljax.report.html import document, table, tag
from rljax.runs import directory, labels
from rljax.utils import atomic_io, errors

LARGEST = 5_000_000  # bytes of a page
_ANIMATIONS = 3_000_000  # of them, for all agents
_ANIMATION = 1_500_000  # at most, for one


def write(path: Path, run_dirs: Sequence[Path], animated: bool = True) -> Path:
    """Writes the page about runs, or sweeps, to a file.

    Args:
        animated: whether each run's agent is shown, for which its environment is made.

    Raises:
        ValueError: there is no such run, it is damaged, or the page would be too large.
        WriteError: the file could not be written.
    """
    data = page([*map(Path, run_dirs)], animated).encode()
    if len(data) > LARGEST:
        size = f"{len(data) / 1e6:.1f} MB, more than {LARGEST / 1e6:g}"
        raise ValueError(f"run_dirs: the page of these {len(run_dirs)} has {size}: give fewer")
    atomic_io.write(Path(path), data)
    return Path(path)


def page(run_dirs: Sequence[Path], animated: bool = True) -> str:
    """The page as text; raises as `write` does."""
    told = [_read(run_dir) for run_dir in run_dirs]
    of_runs = [one for one in told if isinstance(one, runs.Told)]
    share = min(_ANIMATION, _ANIMATIONS // max(1, len(of_runs)))
    parts = []
    for i, one in enumerate(told):
        is_run = isinstance(one, runs.Told)
        parts.append(tag("h2", _name(told, i), id=f"run-{i}") if len(told) > 1 else None)
        try:
            parts += runs.sections(one, share, animated) if is_run else sweeps.sections(one)
        except (KeyError, TypeError, AttributeError) as error:
            why = errors.in_a_line(error)
            raise ValueError(f"{str(one.run_dir)!r} holds a damaged file ({why})") from error
    head = _name(told, 0) if len(told) == 1 else f"{len(told)} runs: {_titles(told)}"
    when = f"Written on {time.strftime('%Y-%m-%d')} from {', '.join(map(str, run_dirs))}"
    first = [tag("h1", head), tag("p", when, class_="soft")]
    return document(head, first, _comparison(told, of_runs) if len(told) > 1 else None, parts)


def _read(run_dir):
    record = directory.read_record(run_dir)
    return (sweeps if sweeps.is_one(record) else runs).read(run_dir)


def _title(one):
    return (runs if isinstance(one, runs.Told) else sweeps).title(one)


def _titles(told):
    return ", ".join(dict.fromkeys(map(_title, told)))


def _name(told, i):
    """A run's title, with its directory where several have it."""
    every = [*map(_title, told)]
    return every[i] if every.count(every[i]) == 1 else f"{every[i]} · {told[i].run_dir}"


def _comparison(told, of_runs):
    links = [tag("li", tag("a", _name(told, i), href=f"#run-{i}")) for i in range(len(told))]
    parts = [tag("nav", tag("ul", links))]
    by_env = {}
    for one in of_runs:
        by_env.setdefault(str(one.record["config"].get("env")), []).append(one)
    for env, group in by_env.items():
        if len(group) > 1:
            parts += _compared(env, group)
    return parts


def _compared(env, group):
    """The runs of an environment in one chart and one table."""
    names = labels.of_runs([one.run_dir for one in group], [one.record for one in group])
    lines = [runs.curve(one.metrics, name, i) for i, (name, one) in enumerate(zip(names, group))]
    finals = [one.summary.get("final_return") or {} for one in group]
    known = [x for final in finals for x in final.get("per_seed", ())]
    scale = min([0.0, *known]), max([0.0, *known])
    rows = []
    for name, one, final in zip(names, group, finals):
        ends = final.get("ci95")
        between = " … ".join(map(runs.number, ends)) if ends else "-"
        bar = runs.track(scale, final["iqm"], ends) if final else ""
        speed = one.summary.get("steps_per_second")
        seeds = str(one.metrics["seed"].nunique())
        figures = [runs.number(final.get("iqm")), between, bar, seeds]
        rows.append([name, *figures, "-" if speed is None else f"{speed:,.0f}"])
    return [
        tag("h2", f"Compared on {env}"),
        tag("div", chart("Return per episode, in training: IQM", lines), class_="wide"),
        table(["run", "final IQM", "95% interval", "", "seeds", "steps per second"], rows),
    ]

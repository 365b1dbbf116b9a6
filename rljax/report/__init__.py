"""A page about runs and sweeps: one HTML file, which loads nothing.

html       elements, and the page around them (page.css, page.js)
charts     curves, histograms and heat maps
parts      numbers, marks and lines that runs and sweeps share
recipes    what was run, and how to run it again
animation  the agent in an episode
runs       all about a run
sweeps     all about a sweep
searches   all about a search
"""

import contextlib
import time
from collections.abc import Sequence
from pathlib import Path

from rljax.report import parts, runs, searches, sweeps
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
    found = []
    for i, one in enumerate(told):
        found.append(tag("h2", _name(told, i), id=f"run-{i}") if len(told) > 1 else None)
        with _telling(one):
            more = (share, animated) if isinstance(one, runs.Told) else ()
            found += _about(one).sections(one, *more)
    if len(told) == 1:
        _raise_headings(found)
    head = _name(told, 0) if len(told) == 1 else f"{len(told)} runs: {_titles(told)}"
    when = f"Written on {time.strftime('%Y-%m-%d')} from {', '.join(map(str, run_dirs))}"
    first = [tag("h1", head), tag("p", when, class_="soft")]
    return document(head, first, _comparison(told, of_runs) if len(told) > 1 else None, found)


@contextlib.contextmanager
def _telling(one):
    """A file that holds other things than a run writes is a ValueError."""
    try:
        yield
    except (LookupError, TypeError, AttributeError, ArithmeticError) as error:
        why = errors.in_a_line(error)
        raise ValueError(f"{str(one.run_dir)!r} holds a damaged file ({why})") from error


def _raise_headings(found):
    """Below the page's title come those of the second level."""
    for element in found:
        if element is not None and element.tag == "h3":
            element.tag = "h2"
            element.set("class", "part")


def _read(run_dir):
    record = directory.read_record(run_dir)
    kind = next((x for x in (sweeps, searches) if x.is_one(record)), runs)
    return kind.read(run_dir)


def _about(one):
    """The module about what was read."""
    kinds = {runs.Told: runs, sweeps.Told: sweeps, searches.Told: searches}
    return kinds[type(one)]


def _titles(told):
    return ", ".join(dict.fromkeys(map(_title, told)))


def _title(one):
    return _about(one).title(one)


def _name(told, i):
    """A run's title, with its directory where several have it."""
    every = [*map(_title, told)]
    return every[i] if every.count(every[i]) == 1 else f"{every[i]} · {told[i].run_dir}"


def _comparison(told, of_runs):
    links = [tag("li", tag("a", _name(told, i), href=f"#run-{i}")) for i in range(len(told))]
    found = [tag("nav", tag("ul", links))]
    by_env = {}
    for one in of_runs:
        by_env.setdefault(str(one.record["config"].get("env")), []).append(one)
    for env, group in by_env.items():
        if len(group) > 1:
            with _telling(group[0]):
                found += _compared(env, group)
    return found


def _compared(env, group):
    """The runs of an environment in one chart and one table."""
    names = labels.of_runs([one.run_dir for one in group], [one.record for one in group])
    lines = [parts.curve(one.metrics, name, i) for i, (name, one) in enumerate(zip(names, group))]
    finals = [one.summary.get("final_return") or {} for one in group]
    between = parts.scale(x for final in finals for x in (final.get("iqm"), *_ends(final)))
    rows = []
    for name, one, final in zip(names, group, finals):
        mark = parts.track(between, final.get("iqm"), _ends(final))
        seeds = str(one.metrics["seed"].nunique())
        figures = [parts.number(final.get("iqm")), parts.ends(_ends(final)), mark, seeds]
        rows.append([name, *figures, parts.count(one.summary.get("steps_per_second"))])
    return [
        tag("h2", f"Compared on {env}"),
        tag("div", chart("Return per episode, in training: IQM", lines), class_="wide"),
        table(["run", "final IQM", "95% interval", "", "seeds", "steps per second"], rows),
    ]


def _ends(final):
    return final.get("ci95") or ()

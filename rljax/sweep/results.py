"""The tidy table: a row for each agent and log point."""

import csv
import io
import mmap
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rljax.loggers.tables import FIGURES, STALENESS
from rljax.sweep.points import Point, label
from rljax.sweep.trials import Trial
from rljax.types import Metrics
from rljax.utils import atomic_io

_KINDS = dict.fromkeys(("agent", "point", "seed", "env_steps", "updates", "episodes"), int)
_KINDS["diverged"] = bool
"""Of the columns that are no settings; figures are floats."""
_LONGEST = 2**20  # bytes of a line


class Result(NamedTuple):
    """What came of agents whose training is finished, in NumPy."""

    agents: list[Trial]
    metrics: Metrics
    """[R, A] one row for each log point."""
    eval_returns: np.ndarray | None
    """[A] mean return of the evaluation after training, or None without one."""


class Failure(NamedTuple):
    """An agent that could not be trained to its end."""

    agent: Trial
    why: str


class Progress(NamedTuple):
    """A step of a sweep."""

    env_steps: int = 0
    """Environment steps since the last one, over all agents."""
    seconds: float = 0.0
    """That they took, compilation and evaluation left out."""
    result: Result | None = None
    """Of agents that have just been finished."""
    failure: Failure | None = None
    """Of an agent in a process: an exception, or the process's death."""


def columns(result: Result) -> dict[str, np.ndarray]:
    """The rows of finished agents, by the names of their columns: agent after agent, log point
    after log point.

    `eval_return`, in an agent's last row, is the mean return of full episodes after training; NaN
    elsewhere, and of agents that have `diverged`: gradient or parameters were not finite at this
    log point or before (of A3C, the gradients of this log point's row), or that return was not.
    """
    metrics, agents = result.metrics, result.agents
    num_rows = len(metrics.updates)
    batch = np.array([agent.config.batch_size for agent in agents])
    diverged = np.maximum.accumulate(np.asarray(metrics.diverged_at) > 0, axis=0)
    if metrics.staleness_mean is not None:  # A3C rejects such gradients, and may get over it
        diverged = diverged | np.isnan(metrics.policy_loss + metrics.grad_norm)
    eval_return = np.full(diverged.shape, np.nan)
    if result.eval_returns is not None:
        diverged[-1] |= ~np.isfinite(result.eval_returns)
        eval_return[-1] = np.where(diverged[-1], np.nan, result.eval_returns)
    names = FIGURES if metrics.staleness_mean is None else FIGURES + STALENESS

    def each(values):
        return np.repeat(np.array(values), num_rows)

    settings = {
        name: each(_column([agent.settings[name] for agent in agents]))
        for name in agents[0].settings
    }
    measured = {
        "env_steps": metrics.updates.astype(np.int64) * batch,
        "updates": metrics.updates,
        "episodes": metrics.episodes.astype(np.int64),
        **{name: getattr(metrics, name) for name in names},
        "eval_return": eval_return,
        "diverged": diverged,
    }
    return {
        "agent": each([agent.number for agent in agents]),
        "point": each([agent.point for agent in agents]),
        "seed": each([agent.seed for agent in agents]),
        **settings,
        **{name: np.asarray(x).T.ravel() for name, x in measured.items()},
    }


def _column(values):
    """Numbers, bools and names as they are, all else in words."""
    plain = all(isinstance(x, bool | int | float | str) for x in values)
    return values if plain else [label(x) for x in values]


def header(first: Point, is_a3c: bool) -> str:
    """The first line of the table as text.

    Args:
        first: any point of the sweep.
    """
    figures = FIGURES + STALENESS if is_a3c else FIGURES
    names = ("agent", "point", "seed", *first, "env_steps", "updates", "episodes", *figures)
    return ",".join((*names, "eval_return", "diverged")) + "\n"


def lines(result: Result) -> str:
    """The rows of finished agents as text: figures to six digits, settings to all of theirs."""
    own = 3 + len(result.agents[0].settings)  # columns that are the same in all rows of an agent
    table = list(columns(result).values())
    num_rows = len(result.metrics.updates)
    firsts = zip(*(column[::num_rows].tolist() for column in table[:own]))
    begins = [begin for first in firsts for begin in [_csv(first)] * num_rows]
    formats = ["%.6g" if column.dtype.kind == "f" else "%s" for column in table[own:]]
    line = "," + ",".join(formats) + "\n"
    rows = zip(*(column.tolist() for column in table[own:]))
    return "".join([begin + (line % row).replace("nan", "") for begin, row in zip(begins, rows)])


def _csv(values):
    """A row as CSV, without a line's end of its own."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerow(values)  # which it also quotes
    return text.getvalue().removesuffix("\r\n")


def frame(tables: Iterable[dict[str, np.ndarray]]) -> Any:
    """Columns of several results as one `pandas.DataFrame`, sorted by agent and log point."""
    import pandas as pd

    table = pd.concat([pd.DataFrame(columns) for columns in tables], ignore_index=True)
    return table.sort_values(["agent", "env_steps"], kind="stable", ignore_index=True)


def read(path: Path) -> Any:
    """A results.csv, or a sweep's directory, as a `pandas.DataFrame`, sorted by agent. A last line
    that is still being written, or was cut, is left out.

    Raises:
        ValueError: there is none, or it is no such table.
    """
    import pandas as pd

    path = Path(path)
    path = path / "results.csv" if path.is_dir() else path
    try:
        with atomic_io.opened(path) as file:
            lines = _whole_lines(file)
            names = list(pd.read_csv(lines, nrows=0))
            settings = names[3 : names.index("env_steps")]
            if lacking := {*_KINDS, "episodic_return", "eval_return"} - set(names):
                raise ValueError(f"it has no column {min(lacking)!r}")
            kinds = {name: _KINDS.get(name, float) for name in names} | dict.fromkeys(settings, str)
            missing = {name: [""] for name in names if kinds[name] is float}
            lines.seek(0)
            table = pd.read_csv(lines, dtype=kinds, keep_default_na=False, na_values=missing)
        table = table.assign(**{name: _parsed(table[name]) for name in settings})
        return table.sort_values(["agent", "env_steps"], kind="stable", ignore_index=True)
    except OSError as error:
        raise ValueError(f"{str(path)!r} cannot be read ({error.strerror})") from error
    except (KeyError, ValueError, TypeError, OverflowError) as error:
        why = " ".join(str(error).split())
        raise ValueError(f"{str(path)!r} is damaged ({why})") from error


def _whole_lines(file):
    """A file up to its last line's end, without reading it: it may be larger than memory."""
    size, head = os.fstat(file.fileno()).st_size, file.readline(_LONGEST)
    start = file.seek(max(0, size - _LONGEST))
    end = file.read(_LONGEST).rfind(b"\n")
    if end < 0 or not head.endswith(b"\n"):
        raise ValueError("it has no lines")
    return mmap.mmap(file.fileno(), start + end + 1, access=mmap.ACCESS_READ)


def _parsed(texts):
    """A column of a setting: numbers or bools, with every digit, if all values are."""
    values = {text: text for text in texts.unique()}
    for kind in (int, float, {"True": True, "False": False}.__getitem__):
        try:
            values = {text: kind(text) for text in values}
            break
        except (KeyError, ValueError):
            pass
    return texts.map(values)

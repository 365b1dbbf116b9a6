"""The tidy table: a row for each trial and log point."""

import contextlib
import csv
import io
import mmap
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from rljax.config import Config, default_log_interval
from rljax.loggers import tables
from rljax.sweep.options import SweepOptions
from rljax.sweep.points import label
from rljax.sweep.trials import Trial
from rljax.types import Metrics
from rljax.utils import atomic_io, errors

# Of the columns that are no settings; metrics are floats.
_KINDS = dict.fromkeys(("trial", "point", "seed", "env_steps", "updates", "episodes"), int)
_KINDS["diverged"] = bool
OLD_TRIAL = "agent"  # the column "trial" in tables of earlier versions
_LONGEST = 2**20  # bytes of a line


class Result(NamedTuple):
    """Trials whose training is finished, in NumPy."""

    trials: list[Trial]
    metrics: Metrics  # [R, A] one row for each log point
    eval_returns: np.ndarray | None  # [A] mean return after training, or None if not evaluated


class Held(NamedTuple):
    """Trials that may continue, in NumPy."""

    trials: list[Trial]
    states: Any  # [A] as what trained them has them, without the type of random keys
    keys: tuple[int, ...]  # which of their leaves are random keys
    metrics: Metrics  # [R, A] the rows so far

    @property
    def places(self) -> dict[int, int]:
        """Of the trials here, by their numbers."""
        return {trial.number: i for i, trial in enumerate(self.trials)}

    def take(self, numbers: Sequence[int]) -> "Held":
        """The trials of these numbers, in this order."""
        places = self.places
        return self.at(np.array([places[number] for number in numbers], int))

    def at(self, places: np.ndarray) -> "Held":
        """The trials in these places, in this order."""
        states = jax.tree.map(lambda x: x[places], self.states)
        trials = [self.trials[i] for i in places]
        return Held(trials, states, self.keys, of_trials(self.metrics, places))


class Stretch(NamedTuple):
    """A part of the training of a group, by rows of metrics."""

    rows: int  # at which it ends
    held: Held | None = None  # the trials to continue with; without, all are new
    one_size: bool = False  # programs of one size, filled up with copies


class Failure(NamedTuple):
    """A trial that could not be trained to its end."""

    trial: Trial
    why: str


class Progress(NamedTuple):
    """What one step of a sweep produced."""

    env_steps: int = 0  # since the last one, over all trials
    seconds: float = 0.0  # that they took, without compilation and evaluation
    compile_seconds: float = 0.0
    result: Result | None = None  # of trials that have just been finished
    held: Held | None = None  # of trials at the end of a stretch
    failure: Any = None  # a `Failure` of a trial: an exception, or its process's death


def num_rows(config: Config) -> int:
    """Of metrics, of a whole run."""
    return -(-config.num_updates // default_log_interval(config))


def updates_at(config: Config, rows: int) -> int:
    """After this number of rows of metrics."""
    return min(rows * default_log_interval(config), config.num_updates)


def of_trials(metrics: Metrics, at: Any) -> Metrics:
    """Those of some trials, of metrics [R, A]."""
    return jax.tree.map(lambda x: x[:, at], metrics)


def joined(parts: Sequence[Held]) -> Held:
    """All trials of one group, at the end of a stretch."""
    trials = [trial for part in parts for trial in part.trials]
    states = jax.tree.map(lambda *x: np.concatenate(x), *(part.states for part in parts))
    metrics = jax.tree.map(lambda *x: np.concatenate(x, 1), *(part.metrics for part in parts))
    return Held(trials, states, parts[0].keys, metrics)


def evaluated(config: Config, learners: Any, keys: Any, how: SweepOptions):
    """[A] mean returns of learners [A] in the evaluation after training, or None without one."""
    from rljax import evaluation

    if not how.eval_episodes:
        return None
    keys = evaluation.evaluation_keys(keys, config.num_updates)
    number, sizes = how.eval_episodes, dict(num_envs=how.eval_envs, max_steps=how.eval_max_steps)
    result = evaluation.evaluate(config, learners, keys, number, how.greedy, **sizes)
    return result.returns.astype(float).mean(axis=1)


def columns(result: Result) -> dict[str, np.ndarray]:
    """The rows of finished trials by column: trial after trial, log point after log point.

    `eval_return`, in a trial's last row, is the mean return of full episodes after training; NaN
    elsewhere, and for trials that have `diverged`: loss, gradient or parameters were not finite at
    this log point or before (in A3C, the gradients of this row), or that return was not.
    """
    metrics, trials = result.metrics, result.trials
    num_rows = len(metrics.updates)
    batch = np.array([trial.config.batch_size for trial in trials])
    diverged = np.maximum.accumulate(np.asarray(metrics.diverged_at) > 0, axis=0)
    # A3C rejects gradients that are not finite, and may recover.
    diverged = diverged | np.isnan(metrics.losses.get("loss", 0) + metrics.grad_norm)
    eval_return = np.full(diverged.shape, np.nan)
    if result.eval_returns is not None:
        diverged[-1] |= ~np.isfinite(result.eval_returns)
        eval_return[-1] = np.where(diverged[-1], np.nan, result.eval_returns)

    def each(values):
        return np.repeat(np.array(values), num_rows)

    names = trials[0].settings
    settings = {name: each(_column([trial.settings[name] for trial in trials])) for name in names}
    measured = {
        "env_steps": metrics.updates.astype(np.int64) * batch,
        "updates": metrics.updates,
        "episodes": metrics.episodes.astype(np.int64),
        **tables.means(metrics, trials[0].config.log_info),
        **metrics.extra,
        "eval_return": eval_return,
        "diverged": diverged,
    }
    return {
        "trial": each([trial.number for trial in trials]),
        "point": each([trial.point for trial in trials]),
        "seed": each([trial.seed for trial in trials]),
        **settings,  # an axis `loss` goes before the metric of this name
        **{n: np.asarray(x).T.ravel() for n, x in measured.items() if n not in settings},
    }


def _column(values):
    """Numbers, bools and names as they are, others as labels."""
    plain = all(isinstance(x, bool | int | float | str) for x in values)
    return values if plain else [label(x) for x in values]


def lines(result: Result, names: Sequence[str] | None = None, metrics: Sequence[str] = ()) -> str:
    """The rows of finished trials as text: metrics with six digits, settings with all. They have
    the columns `names`, of which unknown ones stay empty; without names they begin with a header,
    of their own columns and those `metrics` of other trials that are not among them."""
    own = 3 + len(result.trials[0].settings)  # columns that are the same in all rows of a trial
    found = columns(result)
    header, names = not names, names or list(dict.fromkeys([*found, *metrics]))
    num_rows = len(result.metrics.updates)
    empty = np.full(num_rows * len(result.trials), np.nan)
    table = [found.get("trial" if name == OLD_TRIAL else name, empty) for name in names]
    firsts = zip(*(column[::num_rows].tolist() for column in table[:own]))
    begins = [begin for first in firsts for begin in [as_csv(first)] * num_rows]
    formats = ["%.6g" if column.dtype.kind == "f" else "%s" for column in table[own:]]
    line = "," + ",".join(formats) + "\n"
    rows = zip(*(column.tolist() for column in table[own:]))
    text = [begin + (line % row).replace("nan", "") for begin, row in zip(begins, rows)]
    return (as_csv(names) + "\n") * header + "".join(text)


def as_csv(values: Iterable) -> str:
    """A row as CSV, without a line end."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerow(values)  # which it also quotes
    return text.getvalue().removesuffix("\r\n")


def frame(tables: Iterable[dict[str, np.ndarray]]) -> Any:
    """Columns of several results as one `pandas.DataFrame`, sorted by trial and log point."""
    import pandas as pd

    empty = pd.DataFrame(columns=["trial", "env_steps"])
    table = pd.concat([pd.DataFrame(x) for x in tables] or [empty], ignore_index=True)
    return table.sort_values(["trial", "env_steps"], kind="stable", ignore_index=True)


def read(path: Path) -> Any:
    """A results.csv, or a sweep's directory, as a `pandas.DataFrame`, sorted by trial. Leaves out
    an incomplete last line; raises ValueError if there is no such table."""
    import pandas as pd

    path = Path(path)
    path = path / "results.csv" if path.is_dir() else path
    try:
        with atomic_io.opened(path) as file:
            lines = _whole_lines(file)
            names = [*pd.read_csv(lines, nrows=0)]
            names[:1] = ["trial" if names[0] == OLD_TRIAL else names[0]]
            settings = names[3 : names.index("env_steps")]
            if lacking := {*_KINDS, "episodic_return", "eval_return"} - set(names):
                raise ValueError(f"it has no column {min(lacking)!r}")
            kinds = {name: _KINDS.get(name, float) for name in names} | dict.fromkeys(settings, str)
            missing = {name: [""] for name in names if kinds[name] is float}
            lines.seek(0)
            how = dict(names=names, header=0, keep_default_na=False, na_values=missing)
            table = pd.read_csv(lines, dtype=kinds, **how)
        table = table.assign(**{name: _parsed(table[name]) for name in settings})
        return table.sort_values(["trial", "env_steps"], kind="stable", ignore_index=True)
    except OSError as error:
        raise ValueError(f"{str(path)!r} cannot be read ({error.strerror})") from error
    except errors.WRONG as error:
        why = " ".join(str(error).split())
        raise ValueError(f"{str(path)!r} is damaged ({why})") from error


def _whole_lines(file):
    """A file up to its last line end, not read: it may be larger than memory."""
    size, head = os.fstat(file.fileno()).st_size, file.readline(_LONGEST)
    start = file.seek(max(0, size - _LONGEST))
    end = file.read(_LONGEST).rfind(b"\n")
    if end < 0 or not head.endswith(b"\n"):
        raise ValueError("it has no lines")
    return mmap.mmap(file.fileno(), start + end + 1, access=mmap.ACCESS_READ)


def _parsed(texts):
    """A column of a setting: numbers or bools, with every digit, if all values are."""
    for kind in (int, float, {"True": True, "False": False}.__getitem__):
        with contextlib.suppress(KeyError, ValueError):
            return texts.map({text: kind(text) for text in texts.unique()})
    return texts

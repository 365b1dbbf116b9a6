"""Learning curves, final returns and rankings from tidy tables.

A table is a `pandas.DataFrame` or any mapping from names to columns. It has a row for each log
point of a seed (metrics.csv) or of a trial of a sweep (results.csv, in which `agent` is the trial's
number). The settings that trials differ in are the columns between `seed` and `env_steps`.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from rljax.analysis.statistics import interval, iqm
from rljax.utils.lookup import unknown


def learning_curve(metrics: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return against environment steps, per seed or per trial of a sweep.

    A row in which no episode of a seed ended repeats the seed's last return. Seeds without any
    ended episode are left out (see `without_return`), and so are rows before all others have a
    return: a mean over those that already have one would favour short episodes.

    Returns:
        (env_steps [P], returns [S, P]).
    """
    _, env_steps, returns = all_returns(metrics)
    returns = returns[~np.isnan(returns).all(axis=1)]
    known = ~np.isnan(returns).any(axis=0) if len(returns) else np.zeros(len(env_steps), bool)
    return env_steps[known], returns[:, known]


def without_return(metrics: Mapping[str, np.ndarray]) -> list[int]:
    """The seeds, or trials of a sweep, without any ended episode."""
    seeds, _, returns = all_returns(metrics)
    return [int(seed) for seed in seeds[np.isnan(returns).all(axis=1)]]


def all_returns(
    metrics: Mapping[str, np.ndarray],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """As `learning_curve`, with all seeds and rows: (seeds [S], env_steps [P], returns [S, P], NaN
    until a seed's first episode ended)."""
    env_steps = np.unique(metrics["env_steps"])
    who = np.asarray(metrics["trial" if "trial" in metrics else "seed"])
    seeds = np.unique(who)
    returns = np.full((len(seeds), len(env_steps)), np.nan)
    row = np.searchsorted(seeds, who)
    column = np.searchsorted(env_steps, metrics["env_steps"])
    returns[row, column] = metrics["episodic_return"]
    for i in range(1, len(env_steps)):
        returns[:, i] = np.where(np.isnan(returns[:, i]), returns[:, i - 1], returns[:, i])
    return seeds, env_steps, returns


def axes(table: Mapping[str, np.ndarray]) -> list[str]:
    """The settings that a sweep's trials differ in."""
    names = list(table)
    return names[names.index("seed") + 1 : names.index("env_steps")]


def final_returns(table: Mapping[str, np.ndarray], *more: str) -> Any:
    """The final return of each trial of a sweep.

    It is the mean return of the evaluation after training or, if there was none, of the episodes
    that ended in the last tenth of the trial's rows. It is NaN if the trial diverged, or no episode
    ended.

    Args:
        table: rows of results.csv, of one sweep or of several, those of a trial together.
        more: other columns to keep.

    Returns:
        A `pandas.DataFrame`, a row for each trial: agent, point, seed, its settings, final_return,
        diverged, and `more`.
    """
    import pandas as pd

    columns = {name: np.asarray(table[name]) for name in table}
    agent, env_steps = columns["trial"], columns["env_steps"]
    begins = (agent[1:] != agent[:-1]) | (env_steps[1:] <= env_steps[:-1])
    first = np.flatnonzero(np.r_[True, begins])
    last = np.r_[first[1:], len(agent)] - 1
    late = last + 1 - np.maximum(1, (last + 1 - first) // 10)
    returns = columns["episodic_return"].astype(float)
    weight = np.where(np.isnan(returns), 0, columns["episodes"])
    sums = np.r_[0.0, np.cumsum(weight * np.nan_to_num(returns))]
    numbers = np.r_[0, np.cumsum(weight)]
    with np.errstate(invalid="ignore"):
        in_training = (sums[last + 1] - sums[late]) / (numbers[last + 1] - numbers[late])
    evaluated = columns["eval_return"][last].astype(float)
    diverged = columns["diverged"][last].astype(bool)
    final = np.where(np.isnan(evaluated), in_training, evaluated)
    kept = {name: columns[name][last] for name in ("trial", "point", "seed", *axes(table))}
    found = {"final_return": np.where(diverged, np.nan, final), "diverged": diverged}
    return pd.DataFrame({**kept, **found, **{name: columns[name][last] for name in more}})


def rank(table: Mapping[str, np.ndarray]) -> Any:
    """The points of a sweep, ordered by the IQM over seeds of the final return, the best first.

    A trial without a final return, because it diverged or no episode ended, gets the lowest of the
    table, so that no setting gains from it; if no trial has one, all are NaN. Returns of different
    environments are compared as they are: pass the rows of one.

    Args:
        table: rows of results.csv, of one sweep.

    Returns:
        A `pandas.DataFrame`, a row for each point: point, its settings, iqm, low and high (the 95%
        interval, NaN with one seed), lowest (of its seeds), seeds, diverged (number of them).
    """
    import pandas as pd

    rows = []
    for point, trials in counted(table).groupby("point", sort=True):
        returns = trials["final_return"].to_numpy()
        low, high = interval(returns)
        rows.append(
            {
                "point": point,
                **{name: trials[name].iloc[0] for name in axes(table)},
                "iqm": float(iqm(returns)),
                "low": float(low),
                "high": float(high),
                "lowest": returns.min(),
                "seeds": len(returns),
                "diverged": int(trials["diverged"].sum()),
            }
        )
    by = ["iqm", "low", "lowest"]  # the latter two if IQMs are equal
    return pd.DataFrame(rows).sort_values(by, ascending=False, kind="stable", ignore_index=True)


def counted(table: Mapping[str, np.ndarray], *more: str) -> Any:
    """`final_returns`, with the lowest of the table (of the same environment, if there are several)
    for trials that have none; NaN if no trial has one."""
    finals = final_returns(table, *more)
    groups = finals["env"] if "env" in finals else np.zeros(len(finals))
    lowest = finals.groupby(np.asarray(groups))["final_return"].transform("min")
    finals["final_return"] = finals["final_return"].fillna(lowest)
    return finals


def split(table: Any, by: str) -> dict[str, Any]:
    """The rows of a table for each value of a column, keyed by "column = value".

    Raises:
        ValueError: there is no such column.
    """
    if by not in table:
        raise ValueError(unknown("column", by, list(table)))
    groups = table.groupby(by, sort=True)
    return {f"{by} = {x:g}" if isinstance(x, float) else f"{by} = {x}": rows for x, rows in groups}


def scores(table: Any, by: str, limits: Mapping[str, tuple[float, float]] | None = None) -> dict:
    """Final returns as scores [S, T], for each value of a column; the tasks are environments.

    Args:
        table: rows of results.csv; a single task if the environment is not among its axes.
        by: what is compared: a setting, or a user's own column, such as the algorithm if tables
            were concatenated.
        limits: for each environment the returns that score 0 and 1; by default the lowest and the
            highest of the table if there are several environments, and otherwise no scaling.

    Returns:
        {"by = value": scores}; a trial without a final return scores as the lowest one.

    Raises:
        ValueError: there is no such column; an environment has fewer runs than another, or none
            with a return.
    """
    finals = counted(table, *([by] if by in table else []))
    if finals["final_return"].isna().any():
        raise ValueError("no run of an environment has a final return")
    finals["task"] = finals.get("env", "")
    if limits is None and finals["task"].nunique() > 1:
        limits = {
            env: (rows["final_return"].min(), rows["final_return"].max())
            for env, rows in finals.groupby("task")
        }
    found = {}
    for label, rows in split(finals, by).items():
        columns = []
        for env, runs in rows.groupby("task", sort=True):
            low, high = (limits or {}).get(env, (0.0, 1.0))
            columns.append((runs["final_return"].to_numpy() - low) / (high - low or 1.0))
        if len({len(column) for column in columns}) > 1:
            raise ValueError(f"{label}: must have as many runs of each environment")
        found[label] = np.stack(columns, axis=1)
    return found

"""Learning curves, final returns and rankings from tidy tables.

A table is a `pandas.DataFrame` or any mapping from names to columns. It has a row for each log
point of a seed (metrics.csv) or of a trial of a sweep (results.csv). The settings that trials
differ in are the columns between `seed` and `env_steps`.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from rljax.analysis.statistics import interval, iqm
from rljax.utils.lookup import unknown

Limits = Mapping[str, tuple[float, float]] | None


def learning_curve(
    metrics: Mapping[str, np.ndarray], column: str = "episodic_return"
) -> tuple[np.ndarray, np.ndarray]:
    """(env_steps [P], returns [S, P]), per seed or per trial of a sweep.

    A row in which no episode of a seed ended repeats the seed's last return. Seeds without any
    ended episode are left out (see `without_return`), and so are rows before all others have a
    return: a mean over those that already have one would favour short episodes. The same holds for
    rows after the last one of a seed.

    Args:
        column: another number of episodes, instead of their return.
    """
    _, env_steps, returns = all_returns(metrics, column)
    returns = returns[~np.isnan(returns).all(axis=1)]
    known = ~np.isnan(returns).any(axis=0) if len(returns) else np.zeros(len(env_steps), bool)
    return env_steps[known], returns[:, known]


def without_return(metrics: Mapping[str, np.ndarray]) -> list[int]:
    """The seeds, or trials of a sweep, without any ended episode."""
    seeds, _, returns = all_returns(metrics)
    return [int(seed) for seed in seeds[np.isnan(returns).all(axis=1)]]


def all_returns(
    metrics: Mapping[str, np.ndarray], column: str = "episodic_return"
) -> tuple[np.ndarray, ...]:
    """As `learning_curve`, with all seeds and rows: (seeds [S], env_steps [P], returns [S, P], NaN
    until a seed's first episode ended, and after its last row)."""
    env_steps, place = np.unique(metrics["env_steps"], return_inverse=True)
    who = np.asarray(metrics["trial" if "trial" in metrics else "seed"])
    seeds, row = np.unique(who, return_inverse=True)
    returns = np.full((len(seeds), len(env_steps)), np.nan)
    returns[row, place] = metrics[column]
    last = np.zeros(len(seeds), int)
    np.maximum.at(last, row, place)
    for i in range(1, len(env_steps)):
        is_empty = np.isnan(returns[:, i]) & (i <= last)
        returns[:, i] = np.where(is_empty, returns[:, i - 1], returns[:, i])
    return seeds, env_steps, returns


def axes(table: Mapping[str, np.ndarray]) -> list[str]:
    """The settings that a sweep's trials differ in."""
    names = list(table)
    return names[names.index("seed") + 1 : names.index("env_steps")]


def final_returns(table: Mapping[str, np.ndarray], *more: str) -> Any:
    """The final return of each trial of a sweep: the mean return of the evaluation after training
    or, if there was none, of the episodes that ended in the last tenth of the trial's rows. It is
    NaN if the trial diverged, or no episode ended.

    Args:
        table: rows of results.csv, of one sweep or of several, those of a trial together.
        more: other columns to keep.

    Returns:
        A `pandas.DataFrame` of trial, point, seed, settings, final_return, diverged and `more`.
    """
    import pandas as pd

    rows = pd.DataFrame({name: np.asarray(table[name]) for name in table})
    is_first = (rows["trial"] != rows["trial"].shift()) | (rows["env_steps"].diff() <= 0)
    trial = is_first.cumsum()
    trials = rows.groupby(trial)
    tenth = trials["trial"].transform("size") // 10
    is_late = trials.cumcount(ascending=False) < tenth.clip(lower=1)
    weights = rows["episodes"].where(is_late & rows["episodic_return"].notna(), 0)
    sums = (weights * rows["episodic_return"].fillna(0)).groupby(trial).sum()
    in_training = sums / weights.groupby(trial).sum()
    last = trials.tail(1).set_index(in_training.index)
    diverged = last["diverged"].astype(bool)
    final = last["eval_return"].astype(float).fillna(in_training).mask(diverged)
    found = last[["trial", "point", "seed", *axes(table)]]
    found = found.assign(final_return=final, diverged=diverged, **last[list(more)])
    return found.reset_index(drop=True)


def rank(table: Mapping[str, np.ndarray]) -> Any:
    """The points of a sweep, ordered by the IQM over seeds of the final return, the best first.

    A trial without a final return, because it diverged or no episode ended, gets the lowest of the
    table, so that no setting gains from it; if no trial has one, all are NaN. Returns of different
    environments are compared as they are: pass the rows of one.

    Returns:
        A `pandas.DataFrame` of point, settings, iqm, low and high (the 95% interval), lowest (of
        its seeds), seeds and diverged (numbers of them).
    """
    import pandas as pd

    rows = []
    for point, trials in counted(table).groupby("point", sort=True):
        returns = trials["final_return"].to_numpy()
        ends = dict(zip(("low", "high"), map(float, interval(returns))))
        found = {"iqm": float(iqm(returns)), **ends, "lowest": returns.min()}
        counts = {"seeds": len(returns), "diverged": int(trials["diverged"].sum())}
        settings = {name: trials[name].iloc[0] for name in axes(table)}
        rows.append({"point": point, **settings, **found, **counts})
    by = ["iqm", "low", "lowest"]  # the latter two if IQMs are equal
    return pd.DataFrame(rows).sort_values(by, ascending=False, kind="stable", ignore_index=True)


def counted(table: Mapping[str, np.ndarray], *more: str) -> Any:
    """`final_returns`, where a trial without one gets the lowest of its environment."""
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


def scores(table: Any, by: str, limits: Limits = None) -> dict[str, np.ndarray]:
    """Final returns as scores [S, T], keyed by "column = value"; the tasks are environments. A
    trial without a final return scores as the lowest one.

    Args:
        table: rows of results.csv; a single task if the environment is not among its axes.
        by: what is compared: a setting, or a user's own column, such as the algorithm if tables
            were concatenated.
        limits: for each environment the returns that score 0 and 1; by default the lowest and the
            highest of the table if there are several environments, and otherwise no scaling.

    Raises:
        ValueError: there is no such column; an environment has fewer runs than another, or none
            with a return.
    """
    finals = counted(table, *([by] if by in table else []))
    if finals["final_return"].isna().any():
        raise ValueError("no run of an environment has a final return")
    finals["task"] = finals.get("env", "")
    groups = finals.groupby("task")["final_return"]
    if limits is None and finals["task"].nunique() > 1:
        limits = {env: (runs.min(), runs.max()) for env, runs in groups}
    low, high = np.array([(limits or {}).get(env, (0.0, 1.0)) for env in finals["task"]], float).T
    finals["score"] = (finals["final_return"] - low) / np.where(high == low, 1.0, high - low)
    found = {}
    for label, rows in split(finals, by).items():
        columns = [runs.to_numpy() for _, runs in rows.groupby("task")["score"]]
        if len(set(map(len, columns))) > 1:
            raise ValueError(f"{label}: must have as many runs of each environment")
        found[label] = np.stack(columns, axis=1)
    return found

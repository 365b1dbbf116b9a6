"""What tidy tables say: the metrics of a run, and those of a sweep.

A table is a `pandas.DataFrame` or any mapping from names to columns, a row for each log point of a
seed (metrics.csv) or of an agent (results.csv). Which settings a sweep's agents differ by are the
columns between `seed` and `env_steps`.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from rljax.analysis.statistics import interval, iqm


def learning_curve(metrics: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return against environment steps, per seed, or per agent of a sweep.

    Where no episode of a seed ended since the last row, its last return stands. Seeds of which no
    episode ended at all are left out (`without_return` names them), and so are rows before each
    of the others has a return: a mean over those that have one yet is of the quick episodes.

    Args:
        metrics: columns of metrics.csv or results.csv.

    Returns:
        (env_steps [P], returns [S, P]).
    """
    _, env_steps, returns = all_returns(metrics)
    returns = returns[~np.isnan(returns).all(axis=1)]
    known = ~np.isnan(returns).any(axis=0) if len(returns) else np.zeros(len(env_steps), bool)
    return env_steps[known], returns[:, known]


def without_return(metrics: Mapping[str, np.ndarray]) -> list[int]:
    """The seeds, or agents of a sweep, of which no episode ended."""
    seeds, _, returns = all_returns(metrics)
    return [int(seed) for seed in seeds[np.isnan(returns).all(axis=1)]]


def all_returns(
    metrics: Mapping[str, np.ndarray],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """As `learning_curve`, of all seeds and rows: (seeds [S], env_steps [P], returns [S, P], NaN
    before a seed's first episode ended)."""
    env_steps = np.unique(metrics["env_steps"])
    who = np.asarray(metrics["agent" if "agent" in metrics else "seed"])
    seeds = np.unique(who)
    returns = np.full((len(seeds), len(env_steps)), np.nan)
    row = np.searchsorted(seeds, who)
    column = np.searchsorted(env_steps, metrics["env_steps"])
    returns[row, column] = metrics["episodic_return"]
    for i in range(1, len(env_steps)):
        returns[:, i] = np.where(np.isnan(returns[:, i]), returns[:, i - 1], returns[:, i])
    return seeds, env_steps, returns


def axes(table: Mapping[str, np.ndarray]) -> list[str]:
    """The settings that a sweep's agents differ by."""
    names = list(table)
    return names[names.index("seed") + 1 : names.index("env_steps")]


def final_returns(table: Mapping[str, np.ndarray], *more: str) -> Any:
    """What each agent of a sweep came to.

    Its final return is that of the evaluation after training, or where there was none the mean of
    the episodes that ended in the last tenth of its rows. It is NaN where no episode ended, and
    where the agent diverged, whatever NaN parameters may do.

    Args:
        table: rows of results.csv, those of an agent one after another; or of several sweeps, one
            after another.
        more: other columns to keep.

    Returns:
        A `pandas.DataFrame`, a row for each agent: agent, point, seed, its settings, final_return,
        diverged, and `more`.
    """
    import pandas as pd

    columns = {name: np.asarray(table[name]) for name in table}
    agent, env_steps = columns["agent"], columns["env_steps"]
    begins = (agent[1:] != agent[:-1]) | (env_steps[1:] <= env_steps[:-1])
    first = np.flatnonzero(np.r_[True, begins])
    last = np.r_[first[1:], len(agent)] - 1
    late = last + 1 - np.maximum(1, (last + 1 - first) // 10)
    returns, episodes = columns["episodic_return"].astype(float), columns["episodes"]
    weight = np.where(np.isnan(returns), 0, episodes)
    sums = np.r_[0.0, np.cumsum(weight * np.nan_to_num(returns))]
    numbers = np.r_[0, np.cumsum(weight)]
    with np.errstate(invalid="ignore"):
        in_training = (sums[last + 1] - sums[late]) / (numbers[last + 1] - numbers[late])
    evaluated = columns["eval_return"][last].astype(float)
    diverged = columns["diverged"][last].astype(bool)
    final = np.where(np.isnan(evaluated), in_training, evaluated)
    kept = ["agent", "point", "seed", *axes(table)]
    return pd.DataFrame(
        {
            **{name: columns[name][last] for name in kept},
            "final_return": np.where(diverged, np.nan, final),
            "diverged": diverged,
            **{name: columns[name][last] for name in more},
        }
    )


def rank(table: Mapping[str, np.ndarray]) -> Any:
    """The points of a sweep, the best first: by the IQM over seeds of the final return.

    An agent without a final return, because it diverged or no episode ended, counts as the lowest
    one of the table: a setting is not better for what it lost. Where no agent has one, nor has any
    point. Returns of different environments are compared as they are; take one's rows alone.

    Args:
        table: rows of results.csv, of one sweep.

    Returns:
        A `pandas.DataFrame`, a row for each point: point, its settings, iqm, low and high (the 95%
        interval, NaN with one seed), lowest (of its seeds), seeds, diverged (how many of them).
    """
    import pandas as pd

    finals = counted(table)
    settings = axes(table)
    rows = []
    for point, agents in finals.groupby("point", sort=True):
        returns = agents["final_return"].to_numpy()
        low, high = interval(returns)
        rows.append(
            {
                "point": point,
                **{name: agents[name].iloc[0] for name in settings},
                "iqm": float(iqm(returns)),
                "low": float(low),
                "high": float(high),
                "lowest": returns.min(),
                "seeds": len(returns),
                "diverged": int(agents["diverged"].sum()),
            }
        )
    ranking = pd.DataFrame(rows)
    by = ["iqm", "low", "lowest"]  # the latter two where IQMs are equal
    return ranking.sort_values(by, ascending=False, kind="stable", ignore_index=True)


def counted(table: Mapping[str, np.ndarray], *more: str) -> Any:
    """`final_returns`, with the lowest of the table (of the same environment, where they differ)
    for agents that have none; NaN where there is no lowest."""
    finals = final_returns(table, *more)
    groups = finals["env"] if "env" in finals else np.zeros(len(finals))
    lowest = finals.groupby(np.asarray(groups))["final_return"].transform("min")
    finals["final_return"] = finals["final_return"].fillna(lowest)
    return finals


def split(table: Any, by: str) -> dict[str, Any]:
    """The rows of a table for each value of a column, by "column = value".

    Raises:
        ValueError: it has no such column.
    """
    from rljax.config import unknown

    if by not in table:
        raise ValueError(unknown("column", by, list(table)))
    groups = table.groupby(by, sort=True)
    return {f"{by} = {_words(value)}": rows for value, rows in groups}


def _words(value):
    return f"{value:g}" if isinstance(value, float) else str(value)


def scores(table: Any, by: str, limits: Mapping[str, tuple[float, float]] | None = None) -> dict:
    """Final returns as scores [S, T], for each value of a column: runs of each environment.

    Args:
        table: rows of results.csv; where the environment is no axis it is one task.
        by: what is compared: a setting, or a column of one's own, such as the algorithm of tables
            that were put together.
        limits: of each environment the returns that score 0 and 1; by default the lowest and the
            highest of the table, where there are several environments, and else no scale.

    Returns:
        {"by = value": scores}; the scores of a diverged agent are those of the lowest return.

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

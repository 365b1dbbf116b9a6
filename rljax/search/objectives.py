"""What a search makes better: a number for each trial, and one for each point and seed."""

from collections.abc import Mapping, Sequence

import numpy as np

from rljax.types import Metrics


def of_trials(metrics: Metrics, objective: str, num_rows: int) -> np.ndarray:
    """[A] of trials with rows of metrics [R, A], of a run that has `num_rows`; NaN for one that has
    diverged, or without an ended episode.

    final: the mean return of the episodes in the last tenth of a run's rows or, before its end, in
    no more than half of the rows so far. auc: the mean over all rows, of which those without an
    ended episode repeat the one before, or the first one. best: the highest of the rows.
    """
    returns = np.asarray(metrics.episodic_return, float)
    episodes = np.asarray(metrics.episodes, float)
    rows = len(returns)
    has_any = (episodes > 0) & np.isfinite(returns)
    if objective == "final":
        last = slice(rows - max(1, min(num_rows // 10, -(-rows // 2))), None)
        weights = np.where(has_any, episodes, 0)[last]
        number = weights.sum(axis=0)
        total = np.where(has_any, episodes * returns, 0)[last].sum(axis=0)
        found = np.divide(total, number, where=number > 0, out=np.full(total.shape, np.nan))
    elif objective == "best":
        found = np.where(has_any, returns, -np.inf).max(axis=0)
    else:
        filled = np.where(has_any, returns, np.nan)
        for i in range(1, rows):
            filled[i] = np.where(np.isnan(filled[i]), filled[i - 1], filled[i])
        for i in range(rows - 2, -1, -1):
            filled[i] = np.where(np.isnan(filled[i]), filled[i + 1], filled[i])
        found = filled.mean(axis=0)
    wrong = (np.asarray(metrics.diverged_at) > 0).any(axis=0) | ~has_any.any(axis=0)
    return np.where(wrong | ~np.isfinite(found), np.nan, found)


def scores(
    raw: np.ndarray,
    envs: Sequence[str],
    limits: Mapping[str, tuple[float, float]],
    lowest: np.ndarray | None = None,
) -> np.ndarray:
    """[P, S] of returns [P, E, S]. NaN counts as the lowest that is known of its environment.

    In one environment they are the returns; in several the means of the shares of their limits or,
    without limits, of their ranks among all runs of an environment, from 0 to 1, ties in the
    middle.

    Args:
        lowest: [E] of others, NaN where none is known.
    """
    points, num_envs, seeds = raw.shape
    found = np.zeros((num_envs, points, seeds))
    for i, env in enumerate(envs):
        values = with_lowest(raw[:, i], np.nan if lowest is None else lowest[i])
        if num_envs > 1 and limits:
            low, high = limits[env]
            values = (values - low) / (high - low)
        elif num_envs > 1:
            from scipy.stats import rankdata

            values = (rankdata(values).reshape(values.shape) - 1) / max(1, values.size - 1)
        found[i] = values
    return found.mean(axis=0)


UNKNOWN = -1e30
"""Counts for what has no return where no return is known at all: below any that may come."""


def with_lowest(values: np.ndarray, lowest: float = np.nan) -> np.ndarray:
    """NaN replaced by the lowest number, of them and one more."""
    known = [*values[np.isfinite(values)], *([lowest] if np.isfinite(lowest) else [])]
    return np.where(np.isfinite(values), values, min(known) if known else UNKNOWN)

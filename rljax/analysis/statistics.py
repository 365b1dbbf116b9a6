"""Aggregates of scores, their intervals, and comparisons (Agarwal et al. 2021, arXiv 2108.13264).

Scores are [..., S, T]: runs with S seeds on T tasks, each task's on a scale that can be compared
with the others'. A vector [S] is of a single task.

Intervals are percentile bootstraps, stratified: of each task, so many seeds as there are are drawn
with replacement, apart from the other tasks'. One seed has no interval: its ends are NaN. With few
seeds they are too narrow: an interval of
95% for the mean of normal scores held the truth 83% of the time with 5 seeds, 91% with 10 and 92%
with 20 (a thousand simulations each).
"""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

FEWEST = 5
"""Seeds below which an interval tells nothing."""

_BLOCK = 500_000
"""Scores that are resampled at once."""


class Estimate(NamedTuple):
    """A statistic with its interval; of one seed that is NaN."""

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray


class Comparison(NamedTuple):
    """Of two sets of runs, the first against the second."""

    difference: Estimate
    """Of their aggregates."""
    probability: Estimate
    """That a run of the first does better than one of the second."""
    is_decided: bool
    """Whether the seeds are enough to tell which is better."""
    sentence: str
    """All of this in words."""


def iqm(values: np.ndarray, axis: int | tuple[int, ...] = -1) -> np.ndarray:
    """Interquartile mean: the mean of the middle half.

    A quarter of the values, rounded down, is left out at either end. It is NaN where a value is:
    sorting would put that above all others, and leave it out.
    """
    values = np.asarray(values, float)
    if isinstance(axis, tuple):
        last = range(-len(axis), 0)
        values = np.moveaxis(values, axis, last).reshape(*np.delete(values.shape, axis), -1)
        axis = -1
    size = values.shape[axis]
    cut = size // 4
    ordered = np.partition(values, (cut, size - cut - 1), axis=axis) if cut else values
    middle = np.take(ordered, range(cut, size - cut), axis=axis).mean(axis=axis)
    return np.where(np.isnan(values).any(axis=axis), np.nan, middle)[()]


def aggregate_mean(scores: np.ndarray) -> np.ndarray:
    """[..., S, T] -> [...]: the mean over seeds and tasks."""
    return np.mean(scores, axis=(-2, -1))


def aggregate_median(scores: np.ndarray) -> np.ndarray:
    """[..., S, T] -> [...]: the median over tasks of the mean over seeds."""
    return np.median(np.mean(scores, axis=-2), axis=-1)


def aggregate_iqm(scores: np.ndarray) -> np.ndarray:
    """[..., S, T] -> [...]: the interquartile mean over all runs of all tasks."""
    return iqm(scores, axis=(-2, -1))


def aggregate_optimality_gap(scores: np.ndarray, target: float = 1.0) -> np.ndarray:
    """[..., S, T] -> [...]: by how much runs fall short of a target score, on average; what is
    above it does not count."""
    return target - np.mean(np.minimum(scores, target), axis=(-2, -1))


def performance_profile(scores: np.ndarray, taus: np.ndarray) -> np.ndarray:
    """[..., S, T], [K] -> [..., K]: the share of runs that score above each threshold, over all
    tasks (the run-score distribution of the paper's section 4.2)."""
    above = [np.mean(np.asarray(scores) > tau, axis=(-2, -1)) for tau in np.asarray(taus)]
    return np.stack(above, axis=-1)


def estimate(
    scores: np.ndarray,
    statistic: Callable[[np.ndarray], np.ndarray] = aggregate_iqm,
    level: float = 0.95,
    resamples: int = 2000,
) -> Estimate:
    """A statistic of scores [S, T] or [S], with its stratified-bootstrap interval.

    Args:
        statistic: [..., S, T] -> [...] or [..., K].

    Raises:
        ValueError: the scores are of another rank, or there are none.
    """
    scores = _matrix(scores)
    blocks = _resampled(scores, resamples, np.random.default_rng(0))
    found = np.concatenate([statistic(block) for block in blocks])
    return Estimate(statistic(scores), *_percentiles(found, level, len(scores)))


def interval(
    values: np.ndarray,
    statistic: Callable[..., np.ndarray] = iqm,
    level: float = 0.95,
    resamples: int = 2000,
) -> tuple[np.ndarray, np.ndarray]:
    """Percentile-bootstrap confidence interval of a statistic over seeds, of each column by itself.

    Args:
        values: [S, ...] one row per seed.
        statistic: called with an `axis`.

    Returns:
        (low, high), both [...]; NaN with one seed, which says nothing of the others.
    """
    values = np.asarray(values, float)
    generator = np.random.default_rng(0)
    found = [
        statistic(values[generator.integers(len(values), size=(number, len(values)))], axis=1)
        for number in _blocks(resamples, values.size)
    ]
    return _percentiles(np.concatenate(found), level, len(values))


def probability_of_improvement(
    x: np.ndarray, y: np.ndarray, level: float = 0.95, resamples: int = 2000
) -> Estimate:
    """How probable it is that a run of x scores above one of y on the same task, taken over tasks
    drawn at random: the mean over tasks of the Mann-Whitney statistic, in which a tie is a half.

    Args:
        x, y: [S, T] or [S]; the numbers of seeds may differ.

    Raises:
        ValueError: as `estimate` does; the tasks are not as many.
    """
    x, y = _pair(x, y)
    wins = (x[:, None] > y) + 0.5 * (x[:, None] == y)  # [Sx, Sy, T]
    generator = np.random.default_rng(0)
    # A resample is how often each seed of each task was drawn.
    drawn_x, drawn_y = (_counts(scores.shape, resamples, generator) for scores in (x, y))
    weighted = np.matmul(drawn_x, wins.transpose(2, 0, 1))  # [T, R, Sy]
    found = np.einsum("trj,trj->r", weighted, drawn_y) / (len(x) * len(y) * x.shape[1])
    return Estimate(wins.mean(), *_percentiles(found, level, min(len(x), len(y))))


def compare(
    x: np.ndarray,
    y: np.ndarray,
    names: tuple[str, str] = ("the first", "the second"),
    statistic: Callable[[np.ndarray], np.ndarray] = aggregate_iqm,
    level: float = 0.95,
    resamples: int = 10_000,
) -> Comparison:
    """Whether the runs of x are better than those of y, and whether there are enough to tell.

    The seeds are enough if the interval of the difference does not hold 0 and neither set has fewer
    than FEWEST. A setting that was chosen by these very runs must be run again on fresh seeds
    first: the best of many looks better than it is.

    Args:
        x, y: [S, T] or [S]; the numbers of seeds may differ.
        statistic: [..., S, T] -> [...].

    Raises:
        ValueError: as `probability_of_improvement` does.
    """
    x, y = _pair(x, y)
    generator = np.random.default_rng(0)
    of_x, of_y = (
        np.concatenate([statistic(block) for block in _resampled(scores, resamples, generator)])
        for scores in (x, y)
    )
    ends = _percentiles(of_x - of_y, level, min(len(x), len(y)))
    difference = Estimate(statistic(x) - statistic(y), *ends)
    is_decided = bool(difference.low > 0 or difference.high < 0)
    is_decided = is_decided and min(len(x), len(y)) >= FEWEST
    sentence = _sentence(difference, len(x), len(y), names, is_decided, level)
    probability = probability_of_improvement(x, y, level, resamples)
    return Comparison(difference, probability, is_decided, sentence)


def _sentence(difference, num_x, num_y, names, is_decided, level):
    value, low, high = (float(x) for x in difference)
    first, second = names if value >= 0 else names[::-1]
    found, of = f"{first} is above {second} by {abs(value):.4g}", f"{names[0]} less {names[1]}"
    if value == 0:
        found, of = f"{names[0]} and {names[1]} are equal", "the difference"
    if not math.isnan(low):
        found += f" ({level:.0%} interval of {of}: {low:.4g} to {high:.4g})"
    seeds = f"{num_x} and {num_y} seeds"
    if is_decided:
        return f"{found}: {seeds} are enough to tell."
    fewest = min(num_x, num_y)
    if fewest < FEWEST:
        why = "for an interval" if math.isnan(low) else "to trust the interval"
        return f"{found}: {seeds} are too few {why}; take at least {FEWEST} each."
    if value == 0:
        return f"{found}: {seeds} do not tell them apart."
    needed = fewest * ((high - low) / 2 / value) ** 2
    if needed > 1000:
        return f"{found}: {seeds} are not enough to tell; it would take more than a thousand each."
    needed = max(math.ceil(needed), fewest + 1)
    return (
        f"{found}: {seeds} are not enough to tell; about {needed} each would be, if the difference"
        " is as large as it looks."
    )


def _matrix(scores):
    """[S, T] of finite scores."""
    scores = np.asarray(scores, float)
    scores = scores[:, None] if scores.ndim == 1 else scores
    if scores.ndim != 2 or not scores.size:
        raise ValueError(f"scores of shape {scores.shape}: must be [seeds] or [seeds, tasks]")
    if not np.isfinite(scores).all():
        raise ValueError("scores: must all be finite; what becomes of a run that diverged is yours")
    return scores


def _pair(x, y):
    x, y = _matrix(x), _matrix(y)
    if x.shape[1] != y.shape[1]:
        raise ValueError(f"{x.shape[1]} and {y.shape[1]} tasks: must be the same tasks")
    return x, y


def _resampled(scores, resamples, generator) -> Iterator[np.ndarray]:
    """Bootstrap samples of scores [S, T], in blocks [R, S, T]."""
    num_seeds, num_tasks = scores.shape
    tasks = np.arange(num_tasks)
    for number in _blocks(resamples, scores.size):
        shape = (number, num_seeds, num_tasks)
        yield scores[generator.integers(num_seeds, size=shape, dtype=np.int32), tasks]


def _blocks(resamples, size):
    """How many resamples to draw at a time, of so many values each."""
    most = max(1, _BLOCK // size)
    for start in range(0, resamples, most):
        yield min(most, resamples - start)


def _counts(shape, resamples, generator):
    """[T, R, S] how often each seed is drawn."""
    num_seeds, num_tasks = shape
    even = np.full(num_seeds, 1 / num_seeds)
    return generator.multinomial(num_seeds, even, size=(num_tasks, resamples)).astype(np.float32)


def _percentiles(found, level, num_seeds):
    """(low, high) of resamples [R, ...] of so many seeds."""
    if num_seeds < 2:
        return np.full(found.shape[1:], np.nan)[()], np.full(found.shape[1:], np.nan)[()]
    tail = 100 * (1 - level) / 2
    low, high = np.percentile(found, [tail, 100 - tail], axis=0)
    return low, high

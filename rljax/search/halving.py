"""Successive halving (Jamieson and Talwalkar 2016, arXiv 1502.07943) with intervals over seeds, and
Hyperband (Li et al. 2018, arXiv 1603.06560). Needs no JAX.

A bracket of n points is trained to the share 1 / eta^(K - 1) of a run, its first of K rungs; the
best n / eta of them to eta times as much, and so on to the end. As far as the budget's slack goes,
a point that is not among them continues, too, if its seeds do not tell it from the best.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import stdtrit


def shares(rungs: int, eta: int, last: float = 1.0) -> list[float]:
    """The shares of a run at which the rungs of a bracket end, of which the last one is given."""
    return [last * float(eta) ** (i + 1 - rungs) for i in range(rungs)]


def cost(points: int, ends: Sequence[float], eta: int, begun: float = 0.0) -> float:
    """The runs that a number of points take from the share `begun` on, if only those go on after a
    rung that must: the sum over rungs of the points and the length."""
    lengths = np.diff([begun, *ends])
    left = []
    for _ in ends:
        left.append(points)
        points = -(-points // eta)
    return float(np.dot(left, lengths))


def points_for(runs: float, ends: Sequence[float], eta: int, slack: float) -> int:
    """The most points of a bracket that takes at most this number of runs, with its slack."""
    within = (runs / (1 + slack) if len(ends) > 1 else runs) * (1 + 1e-9)
    low, high = 0, 1 + int(within / ends[0])
    while low < high:  # the cost grows with the points
        middle = (low + high + 1) // 2
        low, high = (middle, high) if cost(middle, ends, eta) <= within else (low, middle - 1)
    return low


def most_that_go_on(runs: float, rung: int, ends: Sequence[float], eta: int, points: int) -> int:
    """The most points, of this number, that can go on after a rung within these runs."""
    rest, begun = ends[rung + 1 :], ends[rung]
    fitting = (n for n in range(points, 0, -1) if cost(n, rest, eta, begun) <= runs * (1 + 1e-9))
    return next(fitting, 0)


def fewest(ends: Sequence[float], eta: int) -> int:
    """The points of the smallest bracket that is worth it."""
    return eta if len(ends) > 1 else 1


class Decision(NamedTuple):
    """Which points of a rung go on."""

    kept: list[int]  # those that go on, the best first
    by_interval: int  # how many of them by the interval alone
    in_doubt: int  # how many ended though their interval would have kept them, for want of slack


def decide(scores: np.ndarray, eta: int, confidence: float, most: int) -> Decision:
    """The end of a rung.

    The best ceil(P / eta) points, by their mean over seeds, go on. Of the others those end that are
    below the best one: if d are the differences of their scores, seed by seed, and t the quantile
    of Student's distribution, mean(d) > t * std(d) / sqrt(S). The rest continue as well, the best
    first, as far as there is slack.

    Args:
        scores: [P, S], all finite; a row of equal differences has an interval of one point.
        most: points that may go on, those that do in any case included.
    """
    order = np.argsort(-scores.mean(axis=1), kind="stable")
    number = -(-len(scores) // eta)
    first, others = order[:number], order[number:]
    open_ones = others[~is_below(scores[others], scores[order[0]], confidence)]
    more = open_ones[: max(0, most - number)]
    kept = [*map(int, first), *map(int, more)]
    return Decision(kept, len(more), len(open_ones) - len(more))


def is_below(scores: np.ndarray, best: np.ndarray, confidence: float) -> np.ndarray:
    """[P] whether points [P, S] are below the best [S] by a paired, one-sided t interval."""
    seeds = len(best)
    differences = best - scores
    error = differences.std(axis=1, ddof=1) / math.sqrt(seeds)
    return differences.mean(axis=1) > stdtrit(seeds - 1, confidence) * error

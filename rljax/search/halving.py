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


def shares(rungs: int, eta: int, last: float = 1.0) -> list[float]:
    """The shares of a run at which the rungs of a bracket end."""
    return [last / eta ** (rungs - 1 - i) for i in range(rungs)]


def cost(points: int, ends: Sequence[float], eta: int) -> float:
    """The runs that a bracket without ties takes: the sum of what all points train."""
    lengths = np.diff([0.0, *ends])
    left = [-(-points // eta**i) for i in range(len(ends))]
    return float(np.dot(left, lengths))


def cost_of_one_more(rung: int, ends: Sequence[float], eta: int) -> float:
    """The runs that a point takes which goes on after a rung beside those that must: of its own
    steps, and of those that it has others take, for of more points more go on."""
    lengths = np.diff(ends)[rung:]
    return float(sum(length / eta**i for i, length in enumerate(lengths)))


def points_for(runs: float, ends: Sequence[float], eta: int, slack: float) -> int:
    """The most points of a bracket that takes at most this number of runs, with its slack."""
    within = runs / (1 + slack) if len(ends) > 1 else runs
    found = int(within / cost(1000 * eta ** len(ends), ends, eta) * 1000 * eta ** len(ends))
    while found and cost(found, ends, eta) > within * (1 + 1e-9):
        found -= 1
    return found


def fewest(ends: Sequence[float], eta: int) -> int:
    """The points of the smallest bracket that is worth it."""
    return eta if len(ends) > 1 else 1


class Decision(NamedTuple):
    """Which points of a rung go on."""

    order: list[int]  # all points, the best first
    kept: list[int]  # those that go on, in this order
    by_interval: int  # how many of them by the interval alone
    in_doubt: int  # how many ended though their interval would have kept them, for want of slack


def decide(scores: np.ndarray, eta: int, confidence: float, most_more: int) -> Decision:
    """The end of a rung.

    The best ceil(P / eta) points, by their mean over seeds, go on. Of the others those end that are
    below the best one: if d are the differences of their scores, seed by seed, and t the quantile
    of Student's distribution, mean(d) > t * std(d) / sqrt(S). The rest continue as well, the best
    first, as far as there is slack.

    Args:
        scores: [P, S], all finite; a row of equal differences has an interval of one point.
        most_more: points that may go on by the interval alone.
    """
    order = np.argsort(-scores.mean(axis=1), kind="stable")
    number = -(-len(scores) // eta)
    first, others = order[:number], order[number:]
    open_ones = others[~is_below(scores[others], scores[order[0]], confidence)]
    more = open_ones[: max(0, most_more)]
    kept = [*map(int, first), *map(int, more)]
    return Decision([*map(int, order)], kept, len(more), len(open_ones) - len(more))


def is_below(scores: np.ndarray, best: np.ndarray, confidence: float) -> np.ndarray:
    """[P] whether points [P, S] are below the best [S] by a paired, one-sided t interval."""
    from scipy.special import stdtrit

    seeds = len(best)
    differences = best - scores
    error = differences.std(axis=1, ddof=1) / math.sqrt(seeds)
    return differences.mean(axis=1) > stdtrit(seeds - 1, confidence) * error

"""Brackets, the decision at a rung and the scores it is made of, against slow references."""

import itertools

import numpy as np
import pytest
import scipy.stats

from rljax.search import halving, objectives
from rljax.types import Metrics


def simulated(points, ends, eta):
    """The runs that a bracket takes, point by point."""
    taken, before = 0.0, 0.0
    for end in ends:
        for _ in range(points):
            taken += end - before
        points, before = -(-points // eta), end
    return taken


@pytest.mark.parametrize("eta", [2, 3, 4])
@pytest.mark.parametrize("rungs", [1, 2, 3, 5])
def test_the_cost_of_a_bracket(eta, rungs):
    ends = halving.shares(rungs, eta, 0.8)
    assert len(ends) == rungs
    assert ends[-1] == 0.8
    assert all(b == pytest.approx(eta * a) for a, b in itertools.pairwise(ends))
    for points in (1, 2, 7, 64):
        assert halving.cost(points, ends, eta) == pytest.approx(simulated(points, ends, eta))


@pytest.mark.parametrize("slack", [0.0, 1.0])
@pytest.mark.parametrize("rungs", [1, 3])
def test_a_bracket_is_as_large_as_the_budget_allows(rungs, slack):
    ends = halving.shares(rungs, 4)
    for runs in (0.1, 1.0, 3.7, 40.0, 1000.0):
        found = halving.points_for(runs, ends, 4, slack)
        within = runs / (1 + slack) if rungs > 1 else runs
        assert simulated(found, ends, 4) <= within * (1 + 1e-6)
        assert simulated(found + 1, ends, 4) > within


@pytest.mark.parametrize("eta", [2, 3, 4])
@pytest.mark.parametrize("rungs", [2, 3, 4])
def test_what_goes_on_never_takes_more_than_there_is(eta, rungs):
    """If nothing can be told apart, so that all goes on that may."""
    ends = halving.shares(rungs, eta)
    for points, slack in itertools.product((2, 5, 16, 61), (0.0, 0.25, 1.0)):
        left = halving.cost(points, ends, eta) * (1 + slack)
        live, before = points, 0.0
        for rung, end in enumerate(ends[:-1]):
            left, before = left - live * (end - before), end
            most = halving.most_that_go_on(left, rung, ends, eta, live)
            assert most >= -(-live // eta)  # those that must
            live = most
        assert live * (1 - before) <= left + 1e-6


def drawn(seed, points=12, seeds=4):
    generator = np.random.default_rng(seed)
    centres, spreads = generator.normal(size=points), generator.uniform(0.1, 3, points)
    shared = generator.normal(size=seeds)  # what a seed has in common for all points
    return centres[:, None] + shared + spreads[:, None] * generator.normal(size=(points, seeds))


@pytest.mark.parametrize("seed", range(6))
def test_those_end_that_the_interval_tells_from_the_best(seed):
    scores, eta, confidence = drawn(seed), 4, 0.9
    means = scores.mean(axis=1)
    best = scores[means.argmax()]
    below = [
        scipy.stats.ttest_rel(best, row, alternative="greater").pvalue < 1 - confidence
        for row in scores
    ]
    found = halving.decide(scores, eta, confidence, most=12)
    order = sorted(range(12), key=lambda i: -means[i])
    assert found.kept[:3] == order[:3]
    assert set(found.kept[3:]) == {i for i in order[3:] if not below[i]}
    assert found.by_interval == len(found.kept) - 3
    assert found.in_doubt == 0
    fewer = halving.decide(scores, eta, confidence, most=4)
    assert fewer.kept == found.kept[:4]
    assert fewer.by_interval + fewer.in_doubt == found.by_interval


def test_ties_go_on():
    """Nobody ended an episode yet: nothing tells the points apart."""
    found = halving.decide(np.zeros((8, 4)), 4, 0.9, most=12)
    assert (len(found.kept), found.by_interval) == (8, 6)
    equal = np.array([[2.0] * 4, [1.0] * 4, [2.0] * 4, [0.0] * 4])
    found = halving.decide(equal, 4, 0.99, most=12)
    assert found.kept == [0, 2]


def metrics(returns, episodes, diverged=None):
    returns, episodes = np.array(returns, float), np.array(episodes, float)
    zeros = np.zeros(returns.shape)
    diverged = zeros.astype(int) if diverged is None else diverged
    return Metrics(zeros, episodes, returns, zeros, {}, zeros, zeros, diverged)


def test_the_final_return_is_that_of_the_last_tenth():
    generator = np.random.default_rng(0)
    returns, episodes = generator.normal(size=(100, 3)), generator.integers(0, 4, (100, 3))
    returns[episodes == 0] = np.nan
    found = objectives.of_trials(metrics(returns, episodes), "final", 100)
    for a in range(3):
        total, number = 0.0, 0
        for row in range(90, 100):
            if episodes[row, a]:
                total, number = (
                    total + episodes[row, a] * returns[row, a],
                    number + episodes[row, a],
                )
        assert found[a] == pytest.approx(total / number)
    early = objectives.of_trials(metrics(returns[:6], episodes[:6]), "final", 100)
    rows = slice(3, 6)  # half of what there is
    weights = episodes[rows]
    wanted = np.nansum(weights * np.nan_to_num(returns[rows]), 0) / weights.sum(0)
    np.testing.assert_allclose(early, wanted)


def test_other_objectives():
    returns = [[np.nan, 1.0], [2.0, np.nan], [np.nan, 5.0], [4.0, 3.0]]
    episodes = [[0, 1], [1, 0], [0, 1], [1, 1]]
    found = objectives.of_trials(metrics(returns, episodes), "auc", 4)
    np.testing.assert_allclose(found, [(2 + 2 + 2 + 4) / 4, (1 + 1 + 5 + 3) / 4])
    found = objectives.of_trials(metrics(returns, episodes), "best", 4)
    np.testing.assert_allclose(found, [4, 5])


@pytest.mark.parametrize("objective", ["final", "auc", "best"])
def test_what_diverged_or_never_ended_has_no_score(objective):
    returns = np.array([[1.0, 1.0, np.nan]] * 4)
    episodes = np.array([[1, 1, 0]] * 4)
    diverged = np.array([[0, 0, 0], [0, 2, 0], [0, 2, 0], [0, 2, 0]])
    found = objectives.of_trials(metrics(returns, episodes, diverged), objective, 4)
    np.testing.assert_array_equal(found, [1, np.nan, np.nan])


def test_scores_of_several_environments():
    raw = np.array([[[1.0, 3.0], [-200, -100]], [[2.0, np.nan], [-400, -300]]])  # [P, E, S]
    limits = {"a": (0.0, 4.0), "b": (-500.0, -100.0)}
    found = objectives.scores(raw, ["a", "b"], limits)
    np.testing.assert_allclose(found, [[(0.25 + 0.75) / 2, (0.75 + 1) / 2], [0.375, 0.375]])
    ranks = objectives.scores(raw, ["a", "b"], {})
    of_a = np.array([[0.5, 3], [2, 0.5]]) / 3  # the lowest twice: NaN is as low as 1
    of_b = np.array([[2, 3], [0, 1]]) / 3
    np.testing.assert_allclose(ranks, (of_a + of_b) / 2)
    np.testing.assert_allclose(objectives.scores(raw[:, :1], ["a"], {}), [[1, 3], [2, 1]])
    nothing = np.full((2, 1, 3), np.nan)
    assert (objectives.scores(nothing, ["a"], {}) == objectives.UNKNOWN).all()
    assert (objectives.scores(nothing, ["a"], {}, np.array([-500.0])) == -500).all()

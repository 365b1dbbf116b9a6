"""Aggregates, intervals and comparisons of scores: slow references, and rliable's numbers."""

import numpy as np
import pytest
from scipy import stats

from rljax import analysis


@pytest.fixture(scope="module")
def scores():
    """[10, 26] of two sets of runs."""
    generator = np.random.default_rng(7)
    x = generator.gamma(2, 0.5, size=(10, 26))
    return x, x * 1.05 + 0.1 * generator.normal(size=(10, 26))


def test_aggregates_are_those_of_the_paper(scores):
    x, _ = scores
    assert analysis.aggregate_mean(x) == pytest.approx(sum(map(sum, x)) / 260)
    means = sorted(sum(x[:, task]) / 10 for task in range(26))
    assert analysis.aggregate_median(x) == pytest.approx((means[12] + means[13]) / 2)
    assert analysis.aggregate_iqm(x) == pytest.approx(stats.trim_mean(x, 0.25, axis=None))
    gap = sum(max(0.0, 1 - score) for score in x.ravel()) / 260
    assert analysis.aggregate_optimality_gap(x) == pytest.approx(gap)
    gap = sum(max(0.0, 0.3 - score) for score in x.ravel()) / 260
    assert analysis.aggregate_optimality_gap(x, 0.3) == pytest.approx(gap)


def test_aggregates_of_many_matrices_are_those_of_each(scores):
    both = np.stack(scores)
    for aggregate in (
        analysis.aggregate_mean,
        analysis.aggregate_median,
        analysis.aggregate_iqm,
        analysis.aggregate_optimality_gap,
    ):
        np.testing.assert_allclose(aggregate(both), [aggregate(x) for x in scores])


RLIABLE = {
    "mean": (0.83978431, 0.77041852, 0.91277972),
    "median": (0.86442921, 0.73075433, 0.92187341),
    "iqm": (0.70941864, 0.64402253, 0.78387291),
    "optimality_gap": (0.33537671, 0.30045234, 0.37095246),
}
"""What rliable 1.2 gives for these scores: value, low and high, of 2,000 resamples."""


@pytest.mark.parametrize("name", RLIABLE)
def test_estimates_are_rliables(scores, name):
    """The ends of the intervals to the noise of so many resamples."""
    found = analysis.estimate(scores[0], getattr(analysis, f"aggregate_{name}"), resamples=4000)
    value, low, high = RLIABLE[name]
    assert found.value == pytest.approx(value, abs=1e-7)
    np.testing.assert_allclose([found.low, found.high], [low, high], atol=0.06 * (high - low))


def test_the_probability_of_improvement_is_rliables(scores):
    found = analysis.probability_of_improvement(scores[1], scores[0], resamples=4000)
    assert found.value == pytest.approx(0.5311538461538461)
    np.testing.assert_allclose([found.low, found.high], [0.48153846, 0.58153846], atol=0.006)


def test_performance_profiles_are_rliables(scores):
    taus = np.linspace(0, 3, 7)
    found = analysis.estimate(
        scores[0], lambda x: analysis.performance_profile(x, taus), resamples=4000
    )
    shares = [1.0, 0.65769231, 0.28846154, 0.13461538, 0.05769231, 0.02307692, 0.00769231]
    np.testing.assert_allclose(found.value, shares, atol=1e-8)
    lows = [1.0, 0.6, 0.23461538, 0.09615385, 0.03076923, 0.00769231, 0.0]
    highs = [1.0, 0.71538462, 0.34230769, 0.17692308, 0.08461538, 0.04230769, 0.01923077]
    np.testing.assert_allclose(found.low, lows, atol=0.008)
    np.testing.assert_allclose(found.high, highs, atol=0.008)


def test_the_probability_of_improvement_is_the_mann_whitney_statistic():
    generator = np.random.default_rng(0)
    x, y = generator.integers(5, size=(7, 3)), generator.integers(5, size=(4, 3))  # with ties
    parts = [stats.mannwhitneyu(x[:, t], y[:, t]).statistic / 28 for t in range(3)]
    assert analysis.probability_of_improvement(x, y).value == pytest.approx(np.mean(parts))


def test_its_interval_is_that_of_a_slow_bootstrap():
    generator = np.random.default_rng(1)
    x, y = generator.normal(0.5, size=(6, 2)), generator.normal(size=(5, 2))
    found = []
    for _ in range(4000):
        wins = 0.0
        for task in range(2):
            drawn_x, drawn_y = generator.choice(x[:, task], 6), generator.choice(y[:, task], 5)
            wins += np.mean(drawn_x[:, None] > drawn_y) / 2
        found.append(wins)
    estimate = analysis.probability_of_improvement(x, y, resamples=20_000)
    wanted = np.percentile(found, [2.5, 97.5])
    np.testing.assert_allclose([estimate.low, estimate.high], wanted, atol=0.03)


def test_the_bootstrap_is_stratified():
    """Tasks on scales of their own, with equal seeds: there is no chance in any resample."""
    scores = np.tile([1.0, 50.0, 1000.0], (6, 1))
    value, low, high = analysis.estimate(scores, analysis.aggregate_mean)
    assert value == low == high == pytest.approx(np.mean([1.0, 50.0, 1000.0]))


def test_the_interval_narrows_with_seeds_and_holds_the_value(scores):
    widths = []
    for number in (3, 10):
        value, low, high = analysis.estimate(scores[0][:number])
        assert low < value < high
        widths.append(high - low)
    assert widths[0] > 1.3 * widths[1]


def test_intervals_of_ten_seeds_hold_the_truth_nine_times_in_ten():
    generator = np.random.default_rng(2)
    held = 0
    for _ in range(300):
        _, low, high = analysis.estimate(generator.normal(size=10), resamples=500)
        held += low <= 0 <= high
    assert 0.87 < held / 300 <= 0.98


def test_a_difference_that_is_there_is_told_with_enough_seeds():
    generator = np.random.default_rng(3)
    better, worse = generator.normal(2, size=20), generator.normal(0, size=20)
    found = analysis.compare(better, worse, names=("A", "B"))
    assert found.is_decided
    value, low, high = found.difference
    assert low < value < high
    assert value == pytest.approx(analysis.iqm(better) - analysis.iqm(worse))
    assert found.sentence == (
        f"A is above B by {value:.4g} (95% interval of A less B: {low:.4g} to {high:.4g}): 20 and"
        " 20 seeds are enough to tell."
    )
    assert found.probability.low > 0.5
    back = analysis.compare(worse, better, names=("B", "A"))
    assert back.is_decided
    assert back.sentence.startswith("A is above B by")
    assert back.difference.value == -value


def test_chance_is_seldom_told_for_a_difference():
    generator = np.random.default_rng(4)
    told = [
        analysis.compare(*generator.normal(size=(2, 10)), resamples=500).is_decided
        for _ in range(200)
    ]
    assert np.mean(told) < 0.12


def test_what_is_too_little_is_said():
    x = np.array([1.0, 2, 3, 4, 9, 10])
    few = analysis.compare(x + 100, x[:3])
    assert not few.is_decided
    assert "6 and 3 seeds are too few to trust the interval; take at least 5 each" in few.sentence
    near = analysis.compare(x + 2, x)
    assert not near.is_decided
    assert "6 and 6 seeds are not enough to tell; about " in near.sentence
    same = analysis.compare(x, x)
    assert not same.is_decided
    assert "are equal" in same.sentence
    assert "6 and 6 seeds do not tell them apart" in same.sentence
    small = analysis.compare(x + 0.01, x, statistic=analysis.aggregate_mean)
    assert "not enough to tell; it would take more than a thousand each" in small.sentence


def test_one_seed_has_no_interval():
    one, many = np.array([1.0]), np.array([3.0, 4, 5, 6, 7])
    profile = analysis.estimate(one, lambda x: analysis.performance_profile(x, [0.0, 2.0]))
    assert profile.value.tolist() == [1, 0]
    assert np.isnan([profile.low, profile.high]).all()
    for x, y in ((one, many), (many, one), (one, one)):
        assert np.isnan(analysis.probability_of_improvement(x, y)[1:]).all()
        comparison = analysis.compare(x, y, ("A", "B"))
        assert np.isnan(comparison.difference[1:]).all()
        assert not comparison.is_decided
    assert analysis.compare(many, one, ("A", "B")).sentence == (
        "A is above B by 4: 5 and 1 seeds are too few for an interval; take at least 5 each."
    )
    assert "equal: 1 and 1 seeds are too few for" in analysis.compare(one, one).sentence


def test_about_so_many_seeds_are_needed_as_it_says():
    """The interval narrows with the root of their number: with so many as are named, seeds like
    these would just be enough."""
    x, y = np.array([0.0, 1, 2, 3, 4, 5]), np.array([1.0, 2, 3, 4, 5, 6])
    found = analysis.compare(x, y, statistic=analysis.aggregate_mean)
    number = int(found.sentence.split("about ")[1].split()[0])
    times = number / 6
    more, fewer = (
        analysis.compare(
            np.tile(x, round(by * times)),
            np.tile(y, round(by * times)),
            statistic=analysis.aggregate_mean,
        )
        for by in (1.4, 0.6)
    )
    assert more.is_decided
    assert not fewer.is_decided


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: analysis.estimate(np.zeros((2, 3, 4))), r"shape \(2, 3, 4\): must be \[seeds\]"),
        (lambda: analysis.estimate(np.zeros(0)), r"must be \[seeds\]"),
        (lambda: analysis.estimate([1.0, np.nan]), "must all be finite"),
        (lambda: analysis.compare(np.zeros((5, 2)), np.zeros((5, 3))), "2 and 3 tasks"),
    ],
)
def test_what_are_no_scores_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()

"""Statistics over seeds, and the plot."""

import matplotlib.image
import numpy as np
import pytest
from scipy import stats

from rljax import analysis

NAN = float("nan")


def table(*rows):
    """Columns of metrics.csv from (seed, env_steps, episodic_return)."""
    columns = np.array(rows, float).reshape(-1, 3).T
    return dict(zip(("seed", "env_steps", "episodic_return"), columns))


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 7, 8, 10, 33])
def test_iqm_is_the_mean_without_a_quarter_at_either_end(size):
    values = np.random.default_rng(size).normal(size=(size, 3)) ** 3
    expected = stats.trim_mean(values, 0.25, axis=0)
    np.testing.assert_allclose(analysis.iqm(values, axis=0), expected)
    np.testing.assert_allclose(analysis.iqm(values.T), expected)


def test_the_interval_holds_the_statistic_and_shrinks_with_more_seeds():
    rng = np.random.default_rng(0)
    widths = []
    for seeds in (5, 50, 500):
        values = rng.normal(3, 1, size=(seeds, 4))
        low, high = analysis.interval(values)
        found = analysis.iqm(values, axis=0)
        assert low.shape == high.shape == (4,)
        assert np.all((low < found) & (found < high))
        widths.append((high - low).mean())
    assert widths[0] > 2 * widths[1] > 4 * widths[2]


def test_the_interval_of_the_mean_is_that_of_the_normal_theory():
    values = np.random.default_rng(1).normal(size=400)
    mean, half = values.mean(), 1.96 * values.std() / np.sqrt(400)
    low, high = analysis.interval(values, statistic=np.mean)
    np.testing.assert_allclose([low, high], [mean - half, mean + half], atol=0.15 * half)


def test_a_lower_level_gives_a_narrower_interval_inside():
    values = np.random.default_rng(2).normal(size=20)
    low, high = analysis.interval(values, level=0.95)
    inner_low, inner_high = analysis.interval(values, level=0.5)
    assert low < inner_low < inner_high < high


def test_the_interval_is_the_same_every_time():
    values = np.random.default_rng(3).normal(size=9)
    assert analysis.interval(values) == analysis.interval(values)


def test_the_interval_of_one_seed_is_its_value():
    assert analysis.interval(np.array([7.0])) == (7, 7)


def test_a_learning_curve_fills_gaps_with_the_last_return():
    metrics = table(
        *[(0, 10, NAN), (1, 10, NAN)],
        *[(0, 20, 1.0), (1, 20, NAN)],  # seed 1 has no return yet: the row is left out
        *[(0, 30, NAN), (1, 30, 5.0)],
        *[(0, 40, 3.0), (1, 40, NAN)],
        *[(0, 50, NAN), (1, 50, NAN)],
    )
    env_steps, returns = analysis.learning_curve(metrics)
    np.testing.assert_array_equal(env_steps, [30, 40, 50])
    np.testing.assert_array_equal(returns, [[1, 3, 3], [5, 5, 5]])


def test_a_learning_curve_sorts_its_rows_by_seed_and_step():
    metrics = table((7, 20, 4.0), (3, 10, 1.0), (7, 10, 2.0), (3, 20, 3.0))
    env_steps, returns = analysis.learning_curve(metrics)
    np.testing.assert_array_equal(env_steps, [10, 20])
    np.testing.assert_array_equal(returns, [[1, 3], [2, 4]])


@pytest.mark.parametrize(
    "metrics",
    [
        table(*((seed, 1000 * i, i + seed) for seed in range(3) for i in range(1, 5))),
        table((0, 1000, 1.0), (0, 2_000_000, 2.0)),
        table((0, 10, NAN), (0, 20, NAN)),
        table(),
    ],
    ids=["three seeds", "one seed", "no episode ended", "no rows"],
)
def test_the_plot_is_a_picture(metrics, tmp_path):
    path = tmp_path / "curve.png"
    analysis.plot_learning_curves({"": metrics}, "CartPole-v1", path)
    assert path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    picture = matplotlib.image.imread(path)
    assert picture.shape[:2] == (600, 960)
    assert picture[..., :3].std() > 0.01  # something is drawn

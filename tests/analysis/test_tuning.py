"""Which settings matter, and how much is lost without tuning, on tables whose answer is known."""

import importlib.util
import itertools

import numpy as np
import pandas as pd
import pytest

from rljax import analysis

extra = pytest.mark.skipif(
    importlib.util.find_spec("optuna") is None or importlib.util.find_spec("sklearn") is None,
    reason="the extra search is not installed",
)


def table(points, returns, seeds=3, steps=(10, 20)):
    """Of points as dicts, and a function of (point, seed, env_steps)."""
    rows = []
    for number, (point, seed) in enumerate(itertools.product(range(len(points)), range(seeds))):
        for at in steps:
            value = returns(points[point], seed, at)
            end = {"env_steps": at, "episodes": 1, "episodic_return": value}
            end |= {"eval_return": np.nan, "diverged": False}
            rows.append({"trial": number, "point": point, "seed": seed, **points[point], **end})
    return pd.DataFrame(rows)


def grid(**axes):
    return [dict(zip(axes, values)) for values in itertools.product(*axes.values())]


@extra
def test_importance_is_the_share_of_the_variance():
    """Of a sum of independent parts with variances 16, 1 and 0."""
    points = grid(a=[0.0, 1.0, 2.0, 3.0], b=[1, 2, 3, 4], c=["x", "y"])
    found = analysis.importance(table(points, lambda p, *_: 4 * p["a"] + p["b"]))
    assert list(found) == ["a", "b", "c"]
    assert sum(found.values()) == pytest.approx(1)
    assert found["a"] == pytest.approx(16 / 17, abs=0.04)
    assert found["c"] < 0.01
    assert found == analysis.importance(table(points, lambda p, *_: 4 * p["a"] + p["b"]))


@extra
@pytest.mark.parametrize(
    ("points", "message"),
    [
        (grid(a=[1.0, 2.0]), "2 points: must be at least 8"),
        (grid(a=[1.0]), "no axis has several values"),
    ],
)
def test_what_says_nothing_of_importance(points, message):
    with pytest.raises(ValueError, match=message):
        analysis.importance(table(points, lambda p, *_: p["a"]))


def test_importance_without_the_extra(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "optuna", None)
    with pytest.raises(ValueError, match=r"the package optuna is missing: pip install -e"):
        analysis.importance(table(grid(a=[1.0, 2.0]), lambda p, *_: p["a"]))


def test_trials_are_compared_where_they_have_one_length():
    rows = table(grid(a=[1.0, 2.0, 3.0]), lambda p, seed, at: p["a"] * at)
    ended = (rows["point"] == 1) & (rows["env_steps"] == 20)
    found = analysis.at_same_length(rows[~ended])
    assert set(found["env_steps"]) == {10}
    assert found["point"].nunique() == 3
    rows["episodic_return"] = rows["episodic_return"].where(rows["env_steps"] > 10)
    found = analysis.at_same_length(rows[~ended])  # nobody had ended an episode by then
    assert set(found["point"]) == {0, 2}
    assert found["env_steps"].max() == 20


def two_environments(best_of, steepness):
    """A grid of a and b; in each environment a score that falls with the distance from its best."""
    points = [{"env": env, **p} for env in best_of for p in grid(a=[0, 1, 2, 3], b=[0, 1, 2])]

    def returns(point, seed, at):
        best = best_of[point["env"]]
        return -sum(steepness * abs(point[name] - best[name]) for name in ("a", "b"))

    return table(points, returns)


def by_hand(rows):
    """(tuned, fixed), by loops."""
    last = rows[rows["env_steps"] == rows["env_steps"].max()]
    scores = {}
    for env, group in last.groupby("env"):
        means = group.groupby(["a", "b"])["episodic_return"].mean()
        low, high = np.quantile(means, 0.05), np.quantile(means, 0.95)
        scores[env] = {k: min(1.0, max(0.0, (x - low) / (high - low))) for k, x in means.items()}
    tuned = np.mean([max(found.values()) for found in scores.values()])
    keys = next(iter(scores.values()))
    return tuned, max(np.mean([found[key] for found in scores.values()]) for key in keys)


def test_sensitivity_is_what_one_setting_for_all_loses():
    rows = two_environments({"x": dict(a=0, b=1), "y": dict(a=3, b=1)}, 1.0)
    found = analysis.sensitivity(rows)
    tuned, fixed = by_hand(rows)
    assert found.tuned == pytest.approx(tuned) == 1.0
    assert found.fixed == pytest.approx(fixed)
    assert found.sensitivity == pytest.approx(tuned - fixed)
    assert found.sensitivity > 0.2
    assert found.dimensionality == 1  # a alone differs


def test_what_needs_no_tuning_is_not_sensitive():
    rows = two_environments({"x": dict(a=2, b=1), "y": dict(a=2, b=1)}, 5.0)
    found = analysis.sensitivity(rows)
    assert (found.sensitivity, found.dimensionality) == (0.0, 0)
    one = rows[rows["env"] == "x"]
    assert analysis.sensitivity(one.drop(columns="env")).sensitivity == 0.0


def test_points_that_are_no_grid_have_no_dimensionality():
    rows = two_environments({"x": dict(a=0, b=1), "y": dict(a=3, b=1)}, 1.0)
    assert analysis.sensitivity(rows[(rows["a"] != 1) | (rows["b"] != 2)]).dimensionality is None


def test_an_environment_without_a_point():
    rows = two_environments({"x": dict(a=0, b=1), "y": dict(a=3, b=1)}, 1.0)
    with pytest.raises(ValueError, match="every setting must have runs in every environment"):
        analysis.sensitivity(rows[(rows["env"] == "x") | (rows["a"] > 0)])


def test_the_plane(tmp_path):
    tables = {
        "one": two_environments({"x": dict(a=0, b=1), "y": dict(a=3, b=1)}, 1.0),
        "two": two_environments({"x": dict(a=2, b=1), "y": dict(a=2, b=1)}, 2.0),
    }
    figure = analysis.plot_sensitivity_plane(tables, tmp_path / "plane.png")
    assert (tmp_path / "plane.png").stat().st_size > 5_000
    found = analysis.sensitivities(tables)
    drawn = {line.get_label(): line for line in figure.axes[0].lines}
    for label, x in found.items():
        assert drawn[label].get_xdata()[0] == pytest.approx(x.sensitivity)
        assert drawn[label].get_ydata()[0] == pytest.approx(x.tuned)

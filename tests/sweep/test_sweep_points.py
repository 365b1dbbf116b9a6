"""Search spaces: axes to points, and points to trials in groups."""

import dataclasses

import numpy as np
import pytest

from rljax import Config, sweep
from rljax.config import WorkerConfig

AXES = {"learning_rate": sweep.log(1e-4, 1e-1), "ent_coef": [0.0, 0.5], "num_steps": (4, 8)}


def test_a_grid_has_every_combination_and_the_last_axis_changes_first():
    points = sweep.grid({"gamma": [0.9, 0.99], "num_steps": [5, 16], "anneal_lr": [True]})
    assert points == [
        {"gamma": 0.9, "num_steps": 5, "anneal_lr": True},
        {"gamma": 0.9, "num_steps": 16, "anneal_lr": True},
        {"gamma": 0.99, "num_steps": 5, "anneal_lr": True},
        {"gamma": 0.99, "num_steps": 16, "anneal_lr": True},
    ]


def test_spans_have_equal_ratios_or_distances():
    rates = np.array(sweep.log(1e-4, 1e-2, 9))
    np.testing.assert_allclose(rates[1:] / rates[:-1], 10**0.25, rtol=1e-3)
    assert (rates[0], rates[-1]) == (1e-4, 1e-2)
    assert sweep.linear(0.9, 1.0, 3) == (0.9, 0.95, 1.0)
    assert sweep.linear(123456, 234567, 2) == (123456, 234567)
    assert sweep.log(0.5, 2, 1) == (0.5,)
    assert sweep.log(3.0, 3.0, 1) == (3.0,)


def test_values_near_one_stay_apart_and_within_their_bounds():
    gammas = sweep.linear(0.999, 0.9999, 20)
    assert len(set(gammas)) == 20
    np.testing.assert_allclose(gammas, np.linspace(0.999, 0.9999, 20), rtol=1e-8)
    axis = {"gamma": sweep.log(0.99, 0.99999)}
    drawn = [point["gamma"] for point in sweep.random(axis, 100)]
    assert len(set(drawn)) > 90
    assert max(drawn) <= 0.99999


def test_a_span_of_whole_numbers_has_none_twice():
    points = sweep.grid({"num_steps": sweep.linear(1, 3, 3)})
    assert [point["num_steps"] for point in points] == [1, 2, 3]
    assert all(type(point["num_steps"]) is int for point in points)
    steps = [p["num_steps"] for p in sweep.random({"num_steps": sweep.log(1, 4)}, 200)]
    assert set(steps) == {1, 2, 3, 4}


def test_random_points_are_uniform_in_their_axes():
    points = sweep.random(AXES, 2000, seed=0)
    assert points == sweep.random(AXES, 2000, seed=0) != sweep.random(AXES, 2000, seed=1)
    rates = np.log10([point["learning_rate"] for point in points])
    assert rates.min() >= -4
    assert rates.max() <= -1
    assert abs(rates.mean() + 2.5) < 0.1
    assert abs(np.mean([point["ent_coef"] for point in points]) - 0.25) < 0.03
    assert {point["num_steps"] for point in points} == {4, 8}


@pytest.mark.parametrize("seed", range(3))
def test_a_latin_hypercube_has_one_point_in_each_part_of_each_axis(seed):
    points = sweep.latin_hypercube({**AXES, "gamma": sweep.linear(0.5, 0.9)}, 20, seed)
    rates = np.log10([point["learning_rate"] for point in points])
    gammas = np.array([point["gamma"] for point in points])
    assert sorted(np.floor((rates + 4) / 3 * 20).clip(0, 19)) == list(range(20))
    assert sorted(np.floor((gammas - 0.5) / 0.4 * 20).clip(0, 19)) == list(range(20))
    assert [point["ent_coef"] for point in points].count(0.5) == 10
    assert list(np.argsort(rates)) != list(np.argsort(gammas))


@pytest.mark.parametrize("draw", [sweep.random, sweep.latin_hypercube])
@pytest.mark.parametrize(
    ("span", "weights"),
    [
        (sweep.linear(1, 4), [1, 1, 1, 1]),
        (sweep.linear(0.5, 4.9), [1, 1, 1, 1]),
        (sweep.log(1, 4), np.diff(np.log([0.5, 1.5, 2.5, 3.5, 4.5]))),
        (sweep.linear(1, 1), [1]),
        (sweep.log(1, 1), [1]),
    ],
)
def test_whole_numbers_of_a_range_have_their_weight_at_the_ends_too(draw, span, weights):
    number = 12_000
    steps = [point["num_steps"] for point in draw({"num_steps": span}, number)]
    assert {type(x) for x in steps} == {int}
    found = np.bincount(steps, minlength=len(weights) + 1)
    assert found[0] == 0
    expected = number * np.array(weights) / np.sum(weights)
    noise = 4 * np.sqrt(number) / 2 if draw is sweep.random else 1
    np.testing.assert_allclose(found[1:], expected, atol=noise)


def test_a_latin_hypercube_of_whole_numbers_has_all_as_often():
    points = sweep.latin_hypercube({"num_steps": sweep.linear(3, 7)}, 20)
    assert sorted(point["num_steps"] for point in points) == sorted([3, 4, 5, 6, 7] * 4)


def test_real_numbers_of_a_range_are_as_they_were():
    axes = {"learning_rate": sweep.log(1e-4, 1e-1), "gamma": sweep.linear(0.5, 0.9)}
    assert sweep.random(axes, 2, seed=3) == [
        {"learning_rate": 0.0001807, "gamma": 0.59472},
        {"learning_rate": 0.025341, "gamma": 0.73286},
    ]
    assert sweep.latin_hypercube(axes, 2, seed=3) == [
        {"learning_rate": 0.007165, "gamma": 0.61643},
        {"learning_rate": 0.0015919, "gamma": 0.71883},
    ]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: sweep.log(0, 1, 3), "must be 0 < LOW <= HIGH"),
        (lambda: sweep.linear(2, 1, 3), "from 2 to 1: must be LOW <= HIGH"),
        (lambda: sweep.linear(0, 1, 0), "0 values: must be a whole number of at least 1"),
        (lambda: sweep.grid({"gamma": []}), "axis gamma: must have at least one value"),
        (lambda: sweep.grid({"gamma": "0.9"}), "must be a sequence of values"),
        (lambda: sweep.grid(AXES), "learning_rate: in a grid it needs a number of values"),
        (lambda: sweep.grid({"lerning_rate": [1]}), "did you mean learning_rate"),
        (lambda: sweep.grid({"env_params": [1]}), "name one entry of it, as in env_params.NAME"),
        (
            lambda: sweep.random({"num_steps": sweep.linear(1.2, 1.8)}, 3),
            "axis num_steps: no whole number is from 1.2 to 1.8",
        ),
        (lambda: sweep.random(AXES, 0), "0 points: must be a whole number of at least 1"),
    ],
)
def test_what_is_no_axis_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_trials_that_differ_in_floats_and_seeds_are_a_group():
    points = sweep.grid({"learning_rate": [0.1, 0.2], "num_steps": [4, 8], "gamma": [0.5]})
    groups = sweep.plan(Config(), points, [7, 9])
    assert [group.static for group in groups] == [
        {"num_steps": 4, "gamma": 0.5},
        {"num_steps": 8, "gamma": 0.5},
    ]
    assert [[trial.number for trial in group.trials] for group in groups] == [
        [0, 1, 4, 5],
        [2, 3, 6, 7],
    ]
    for group in groups:
        for trial in group.trials:
            assert (trial.point, trial.seed) == (trial.number // 2, [7, 9][trial.number % 2])
            assert trial.config == dataclasses.replace(Config(), **points[trial.point])


def test_an_entry_of_a_dict_is_an_axis():
    base = Config(env_params={"max_steps_in_episode": 200, "gravity": 9.8})
    points = sweep.grid({"env_params.gravity": [1.0, 5.0]})
    groups = sweep.plan(base, points, [0])
    found = [dict(group.trials[0].config.env_params) for group in groups]
    assert found == [{"max_steps_in_episode": 200, "gravity": g} for g in (1.0, 5.0)]


def test_a3c_has_the_axes_of_its_workers():
    base, own = Config(num_envs=1), (WorkerConfig(),)
    points = sweep.grid({"num_workers": [1, 2], "envs_per_worker": [1, 4]})
    groups = sweep.plan(base, points, [0], "a3c", own)
    trials = [group.trials[0] for group in groups]
    assert [(x.own[0].num_workers, x.config.num_envs) for x in trials] == [
        (1, 1),
        (1, 4),
        (2, 1),
        (2, 4),
    ]
    with pytest.raises(ValueError, match="unknown setting 'num_workers'"):
        sweep.plan(base, points, [0])
    with pytest.raises(ValueError, match="num_envs = 2: A3C has envs_per_worker instead"):
        sweep.plan(base, [{"num_envs": 2}], [0], "a3c", own)


@pytest.mark.parametrize(
    ("points", "error", "message"),
    [
        ([{"gamma": 0.9}, {"gamma": 1.5}], ValueError, r"point 1 \(gamma=1.5\): gamma = 1.5: must"),
        ([{"num_steps": 2.5}], TypeError, r"point 0 \(num_steps=2.5\): num_steps = 2.5: must be a"),
        ([{"optimizer": "adma"}], ValueError, "did you mean adam"),
        ([{"gamma": 0.9}, {"vf_coef": 0.9}], ValueError, "point 1: must be of the same settings"),
        ([{"total_timesteps": 10**30}], ValueError, r"must be less than 2\*\*31 rollouts of 80"),
        ([{"num_envs": 10**6}], ValueError, "point 0 .*one rollout must not be longer"),
        ([], ValueError, "at least one point"),
    ],
)
def test_a_bad_point_is_named(points, error, message):
    with pytest.raises(error, match=message):
        sweep.plan(Config(), points, [0])


def test_points_list_their_settings_in_any_order():
    points = [{"gamma": 0.9, "num_steps": 4}, {"num_steps": 8, "gamma": 0.8}]
    groups = sweep.plan(Config(), points, [0])
    assert [list(group.trials[0].settings.items()) for group in groups] == [
        [("gamma", 0.9), ("num_steps", 4)],
        [("gamma", 0.8), ("num_steps", 8)],
    ]


@pytest.mark.parametrize(
    ("seeds", "message"),
    [([], "at least one seed"), ([-1], "seed = -1: must be"), ([2**32], "below 2")],
)
def test_a_sweep_needs_seeds(seeds, message):
    with pytest.raises(ValueError, match=message):
        sweep.plan(Config(), [{"gamma": 0.9}], seeds)

"""What chooses the points: where they lie, what they depend on, what a study of Optuna is told."""

import importlib.util
import json

import numpy as np
import pytest

from rljax import Config, sweep
from rljax.config import WorkerConfig
from rljax.search import axes, samplers
from rljax.sweep.points import Range

BASE = Config(core_size=48)
GIVEN = {
    "learning_rate": sweep.log(1e-4, 1e-1),
    "num_steps": [5, 16, 32],
    "core": ["none", "lstm"],
    "core_size": sweep.When([32, 64], "core", ["lstm"]),
    "num_envs": sweep.log(4, 64),
    "network": ["mlp", "minatar"],
}
AXES = axes.checked(GIVEN, BASE, ())
optuna = pytest.mark.skipif(
    importlib.util.find_spec("optuna") is None, reason="the extra search is not installed"
)
NAMES = [*samplers.OWN, *(pytest.param(name, marks=optuna) for name in samplers.OF_OPTUNA)]


def made(name, tmp_path, seed=3, given=AXES):
    return samplers.make(name, given, seed, tmp_path / "run", None, None)


def asked(sampler, rounds=3, number=6):
    """Points, of which larger rates are better."""
    found = []
    for _ in range(rounds):
        found += sampler.ask(number)
        for i in range(len(found) - number, len(found)):
            sampler.tell(i, found[i]["learning_rate"], 1.0 if i % 2 else 0.25, bool(i % 2))
    return found


@pytest.mark.parametrize("name", NAMES)
def test_points_lie_on_the_axes(name, tmp_path):
    for point in asked(made(name, tmp_path)):
        assert list(point) == list(GIVEN)
        assert 1e-4 <= point["learning_rate"] <= 1e-1
        assert point["num_steps"] in (5, 16, 32)
        assert type(point["num_envs"]) is int
        assert 4 <= point["num_envs"] <= 64
        assert point["core_size"] in ((32, 64) if point["core"] == "lstm" else (48,))


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_gives_the_same_points(name, tmp_path):
    first, again = (asked(made(name, tmp_path / x)) for x in "ab")
    assert first == again
    assert asked(made(name, tmp_path / "c", seed=4)) != first


def test_a_latin_hypercube_has_one_point_in_each_part(tmp_path):
    given = axes.checked({"gamma": sweep.linear(0.5, 0.9)}, BASE, ())
    points = made("latin-hypercube", tmp_path, given=given).ask(10)
    places = sorted((point["gamma"] - 0.5) / 0.4 for point in points)
    assert [int(10 * min(x, 0.999)) for x in places] == list(range(10))


def test_evolution_goes_on_from_the_best(tmp_path):
    """Of those trained to the end, as a score after a quarter of a run is another thing."""
    sampler = made("evolution", tmp_path)
    told = asked(sampler, rounds=1, number=40)
    children = sampler.ask(200)
    whole = sorted((x["learning_rate"] for x in told[1::2]), reverse=True)[:10]
    middle = np.median([np.log(point["learning_rate"]) for point in children])
    assert np.log(min(whole)) - 1 < middle < np.log(max(whole)) + 1
    assert middle > np.log(np.median([x["learning_rate"] for x in told]))


def test_perturbations_are_not_correlated():
    """Each setting has a random key of its own: with one for all they would move together."""
    names = ["learning_rate", "gamma", "gae_lambda", "ent_coef"]
    given = axes.checked({name: sweep.linear(0.1, 0.9) for name in names}, BASE, ())
    parent = dict.fromkeys(names, 0.5)
    told = [samplers.Told(parent, 1.0, 1.0)]
    children = samplers.evolution(given, 4000, (0, 1), told)
    moves = np.array([[child[name] - 0.5 for name in names] for child in children])
    assert (moves.std(axis=0) > 0.05).all()
    found = np.corrcoef(moves.T) - np.eye(4)
    assert abs(found).max() < 0.06  # 4 / sqrt(4000)
    sizes = np.corrcoef(abs(moves).T) - np.eye(4)
    assert abs(sizes).max() < 0.06


def test_axes_are_read_from_what_is_recorded():
    told = json.loads(json.dumps(axes.recorded(AXES)))
    assert axes.checked(axes.restored(told), BASE, ()) == AXES


def test_a_place_is_that_of_its_value():
    generator = np.random.default_rng(0)
    for _ in range(50):
        places = dict(zip(AXES, generator.uniform(size=len(AXES))))
        point = axes.point_at(AXES, places)
        again = axes.places_of(AXES, point)
        known = {name: x for name, x in again.items() if x is not None}
        found = axes.point_at(AXES, {**places, **known})
        assert found.pop("learning_rate") == pytest.approx(point.pop("learning_rate"), rel=1e-3)
        assert found == point


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "must have at least one axis"),
        ({"learning_rat": [1.0]}, "unknown setting 'learning_rat': did you mean"),
        ({"gamma": []}, "axis gamma: must have at least one value"),
        ({"num_workers": [1, 2]}, "unknown setting 'num_workers'"),
        ({"total_timesteps": [10, 20]}, "cannot be one of a search"),
        ({"env": ["a", "b"]}, "cannot be one of a search"),
        ({"core_size": sweep.When([1], "core", ["lstm"])}, "of an axis with values before it"),
        (
            {"gamma": sweep.log(0.9, 1), "num_steps": sweep.When([4], "gamma", [0.9])},
            "of an axis with values before it",
        ),
        (
            {"num_envs": [2, 4], "num_steps": sweep.When([4], "num_envs", sweep.log(2, 4))},
            "of an axis with values before it",
        ),
        (
            {"core": ["none", "gru"], "core_size": sweep.When([1], "core", ["lstm"])},
            "axis core_size: the condition: core is never lstm",
        ),
        ({"num_steps": Range(5.2, 5.8)}, "no whole number is from 5.2 to 5.8"),
    ],
)
def test_bad_axes(given, message):
    with pytest.raises(ValueError, match=message):
        axes.checked(given, BASE, ())


def test_conditions_of_conditions():
    """What depends on an axis that does not count does not count either, whatever the base has."""
    given = {
        "core": ["none", "lstm"],
        "core_size": sweep.When([48, 64], "core", ["lstm"]),
        "num_steps": sweep.When([7, 9], "core_size", [48]),
    }
    found = axes.checked(given, BASE, ())
    assert axes.point_at(found, {"core": 0.1, "core_size": 0.1, "num_steps": 0.1}) == {
        "core": "none",
        "core_size": 48,
        "num_steps": BASE.num_steps,
    }
    assert axes.point_at(found, dict.fromkeys(given, 0.6))["core_size"] == 64
    every = [(x["core"], x["core_size"], x["num_steps"]) for x in axes.corners(found)]
    assert {("lstm", 48, 7), ("lstm", 48, 9), ("lstm", 64, BASE.num_steps)} <= set(every)


def test_an_algorithm_s_own_options_are_axes():
    own = (WorkerConfig(),)
    found = axes.checked({"num_workers": [1, 2]}, BASE, own)
    assert axes.point_at(found, {"num_workers": 0.9}) == {"num_workers": 2}


def test_bad_samplers(tmp_path):
    with pytest.raises(ValueError, match="unknown sampler 'tpee': did you mean tpe"):
        made("tpee", tmp_path)
    with pytest.raises(ValueError, match="storage = 'x': is of Optuna's samplers"):
        samplers.make("random", AXES, 0, tmp_path, "x", None)


def test_without_optuna(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "optuna", None)
    with pytest.raises(ValueError, match="the package optuna is missing: pip install"):
        made("tpe", tmp_path)


@optuna
def test_a_study_remembers_and_is_shared(tmp_path):
    import optuna as library

    path = f"sqlite:///{tmp_path}/s.db"
    one = samplers.make("tpe", AXES, 0, tmp_path / "one", path, "shared")
    two = samplers.make("tpe", AXES, 1, tmp_path / "two", path, "shared")
    points = one.ask(2)
    two.ask(3)
    one.tell(0, 5.0, 1.0, True)
    one.tell(1, 3.0, 0.25, False)
    two.tell(0, 4.0, 1.0, True)
    study = library.load_study(study_name="shared", storage=path)
    states = [trial.state.name for trial in study.trials]
    assert states == ["COMPLETE", "PRUNED", "COMPLETE", "RUNNING", "RUNNING"]
    assert study.best_value == 5.0
    assert study.trials[1].intermediate_values == {250_000: 3.0}
    # It is continued, and what it had asked for and never trained has failed.
    again = samplers.make("tpe", AXES, 1, tmp_path / "two", path, "shared")
    again.restore([], [2, 3])
    again.forget_others()
    again.tell(0, -1.0, 1.0, True)  # told before
    again.tell(1, 6.0, 1.0, True)
    study = library.load_study(study_name="shared", storage=path)
    assert [x.value for x in study.trials] == [5.0, 3.0, 4.0, 6.0, None]
    assert study.trials[4].state.name == "FAIL"
    # Another search's axes are refused.
    other = axes.checked({"gamma": [0.9, 0.99]}, BASE, ())
    with pytest.raises(ValueError, match="study 'shared' is of other axes"):
        samplers.make("tpe", other, 1, tmp_path / "three", path, "shared")
    assert len(points) == 2


@optuna
def test_a_storage_that_cannot_be_had(tmp_path):
    with pytest.raises(ValueError, match="storage = ") as told:
        samplers.make("tpe", AXES, 0, tmp_path / "a", f"sqlite:///{tmp_path}/no/such/s.db", None)
    assert len(str(told.value).splitlines()) == 1
    for name, message in (
        ("optuna.samplers:Nothing", "has no attribute 'Nothing'"),
        ("optuna.samplers:GridSampler", "cannot be made without arguments"),
        ("os:getcwd", "must be a class of Optuna's samplers"),
    ):
        with pytest.raises(ValueError, match=message):
            made(name, tmp_path)

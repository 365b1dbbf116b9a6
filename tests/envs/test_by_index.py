"""Gymnasium environments that differ by their index, and the options of their resets."""

import json

import host_probes
import numpy as np
import pytest
from small_runs import stop_at_update

import rljax
from rljax import a2c, envs, evaluation
from rljax.config import Config
from rljax.runs import directory, records
from rljax.sweep import points
from rljax.utils import atomic_io, seeds

INDEXED = dict(
    env="host_probes:Indexed",
    env_kwargs="host_probes:by_index",
    reset_options="host_probes:options_by_index",
    log_info=("index", "level"),
)
SMALL = dict(total_timesteps=96, num_steps=3, hidden_sizes=(4,), num_seeds=1, quiet=True)


def infos_at_the_ends(settings, num_episodes=2):
    """[number of episodes, B, K] of walks, which take 3 steps."""
    env = envs.make(**settings)
    with env.open() as running:
        running.reset(range(env.num_envs))
        steps = [running.step(np.zeros(env.num_envs, int)) for _ in range(3 * num_episodes)]
    assert all((step.info == 0).all() for t, step in enumerate(steps) if t % 3 < 2)
    return np.stack([step.info for step in steps[2::3]])


@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_each_has_arguments_and_options_of_its_own_at_every_reset(vectorization):
    found = infos_at_the_ends({**INDEXED, "num_envs": 3, "vectorization": vectorization})
    np.testing.assert_array_equal(found, [[[0, 10], [1, 11], [2, 12]]] * 2)


@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_functions_of_this_program_alone_and_values_that_are_the_same_for_all(vectorization):
    told = {**INDEXED, "num_envs": 2, "vectorization": vectorization}
    told |= {"env_kwargs": lambda index: {"index": 7 * index}}
    found = infos_at_the_ends(
        {**told, "reset_options": Config(reset_options={"level": 3}).reset_options}
    )
    np.testing.assert_array_equal(found, [[[0, 3], [7, 3]]] * 2)


def test_an_environment_without_options_is_not_asked_to_take_them():
    class Old(host_probes.Walk):
        def reset(self, *, seed=None):
            return super().reset(seed=seed)

    with envs.make(Old).open() as running:
        running.reset([0])
    with pytest.raises(TypeError, match="unexpected keyword argument 'options'"):
        raise_cause(lambda: envs.make(Old, reset_options=(("level", 1),)))


def raise_cause(call):
    """The environment's own exception."""
    try:
        call()
    except Exception as error:
        raise (error.__context__ or error) from None


def test_an_evaluation_counts_from_0_and_shares_the_episodes_evenly():
    config = Config(**INDEXED, num_envs=4, hidden_sizes=(4,))
    keys = seeds.keys([0])
    learners = a2c.init_seeds(config, keys).learner
    found = evaluation.evaluate(config, learners, keys, 6, greedy=True)
    assert found.info[0, :, 0].tolist() == [0, 1, 2, 3, 0, 1]
    assert found.info[0, :, 1].tolist() == [10, 11, 12, 13, 10, 11]
    two = evaluation.evaluate(config, learners, keys, 6, greedy=True, num_envs=2)
    assert two.info[0, :, 0].tolist() == [0, 1] * 3


def test_they_are_recorded_by_name_and_given_again_on_resume(tmp_path):
    """To the bits of an undisturbed run; others are refused."""
    told = {**SMALL, **INDEXED, "num_envs": 4, "eval_episodes": 4}
    told |= dict(env_kwargs=host_probes.by_index, reset_options=lambda index: {"level": index})
    whole = rljax.train("a2c", **told, run_dir=tmp_path / "whole")
    assert (whole.metrics["info/index"] == 1.5).all()
    assert (whole.metrics["info/level"] == 1.5).all()
    record = directory.read_record(whole.run_dir)["config"]
    assert record["env_kwargs"] == "host_probes:by_index"
    assert record["reset_options"].startswith("<function ")
    assert rljax.load(whole.run_dir).config.env_kwargs == "host_probes:by_index"
    with pytest.MonkeyPatch.context() as patch:
        stop_at_update(patch, 4)
        run = rljax.train("a2c", **told, run_dir=tmp_path / "run")
    assert run.status == "interrupted"
    with pytest.raises(ValueError, match=r"the run has reset_options = '<function .*, not {}"):
        rljax.resume(run.run_dir, reset_options={}, quiet=True)
    again = {"reset_options": told["reset_options"]}
    assert rljax.resume(run.run_dir, **again, quiet=True).status == "completed"
    summaries = [
        json.loads((path / "summary.json").read_text()) for path in (run.run_dir, whole.run_dir)
    ]
    assert summaries[0]["last_info"] == summaries[1]["last_info"] == {"index": 1.5, "level": 1.5}


def test_options_are_recorded_as_values():
    given = {"level": 3, "at": (1, 2.5), "more": {"x": [float("inf"), None]}}
    config = Config(reset_options=given)
    record = json.loads(atomic_io.json_bytes({"config": records.config_record(config)}))
    assert records.read_config(record) == config
    assert config != Config(reset_options={**given, "level": 3.0})


def test_a_sweep_has_no_axis_of_a_function():
    with pytest.raises(ValueError, match="env_kwargs = 'host_probes:by_index' is a function"):
        points.apply(Config(**INDEXED), (), {"env_kwargs.index": 1})
    config, _ = points.apply(Config(reset_options={"level": 1}), (), {"reset_options.level": 2})
    assert config.reset_options == (("level", 2),)


@pytest.mark.slow
def test_workers_environments_count_on():
    told = {**SMALL, **INDEXED, "total_timesteps": 48, "eval_episodes": 2}
    own = dict(num_workers=2, envs_per_worker=2, lockstep=True, log_interval=2)
    run = rljax.train("a3c", **told, **own)
    assert (run.metrics["info/index"] == 1.5).all()
    assert (run.metrics["info/level"] == 11.5).all()
    assert run.summary["final_return"]["info"] == {"index": 0.5, "level": 10.5}


@pytest.mark.parametrize(
    ("settings", "kind", "message"),
    [
        (dict(env_kwargs="host_probes:nothing"), ValueError, "has no attribute 'nothing'"),
        (
            dict(env_kwargs="host_probes:ANSWERS"),
            TypeError,
            "'host_probes:ANSWERS': must be a function",
        ),
        (
            dict(env_kwargs="host_probes:wrong_by_index"),
            ValueError,
            "environment 1: TypeError: env_kwargs = 'host_probes:wrong_by_index', for the"
            " environment 1: must return a dict, not 1",
        ),
        (
            dict(env_kwargs="host_probes:failing_by_index"),
            ValueError,
            "for the environment 1: KeyError: 1",
        ),
        (dict(env_kwargs=lambda index: {"size": 1}), TypeError, "does not take them"),
        (dict(env_kwargs=3), TypeError, "env_kwargs = 3: must be a dict, its keys strings"),
        (dict(reset_options="level"), TypeError, "reset_options = 'level': must be a dict"),
        (
            dict(env="probes:Configured", reset_options=()),
            ValueError,
            "is written in JAX, and gymnasium's environments alone differ by their index",
        ),
        (
            dict(env="probes:Telling", env_kwargs=(), reset_options={"level": 1}),
            ValueError,
            "'probes:Telling' is written in JAX, and gymnasium's environments alone have them",
        ),
    ],
)
def test_what_does_not_fit_is_refused_in_a_line(tmp_path, settings, kind, message):
    told = {**SMALL, **INDEXED, "log_info": (), "num_envs": 2, **settings}
    with pytest.raises((ValueError, TypeError), match=message) as caught:
        rljax.train("a2c", **told, run_dir=tmp_path / "run")
    assert isinstance(caught.value, kind)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()

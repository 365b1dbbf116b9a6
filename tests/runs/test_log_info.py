"""Numbers of an environment's info as metrics: the means at the last steps of episodes."""

import dataclasses
import json
from functools import partial
from unittest import mock

import jax
import numpy as np
import probes
import pytest
from small_runs import CONFIG, OPTIONS, SETTINGS, TIMES, results, stop_at_update, train

import rljax
from rljax import a2c, evaluation, rollout, sweep
from rljax.config import Config
from rljax.sweep import results as results_of_sweep
from rljax.utils import seeds
from rljax.utils.errors import TrainingError

IN_JAX = dict(env="probes:Telling", log_info=("steps", "episode/r", "is/long"))
ON_HOST = dict(env="host_probes:recorded", log_info=("episode/l", "episode/r"))
SHORT = dict(total_timesteps=640, eval_every=320, eval_episodes=2)


def check(metrics, log_info):
    """The first two are the length and the return of an episode."""
    for name, usual in zip(log_info, ("episodic_length", "episodic_return")):
        assert metrics[usual].notna().any()
        np.testing.assert_allclose(metrics[f"info/{name}"], metrics[usual], rtol=1e-5)


@pytest.fixture(scope="module")
def in_jax(tmp_path_factory):
    return train(tmp_path_factory.mktemp("runs") / "run", **SHORT, **IN_JAX)


def test_they_are_columns_and_in_the_summary(in_jax):
    check(in_jax.metrics, IN_JAX["log_info"])
    columns = [*in_jax.metrics][6:11]
    assert columns == ["episodic_length", "info/steps", "info/episode/r", "info/is/long", "loss"]
    assert in_jax.metrics["info/is/long"].between(0, 1).all()
    assert in_jax.metrics["info/is/long"].nunique() > 5
    assert list(rljax.load(in_jax.run_dir).metrics) == list(in_jax.metrics)
    summary = json.loads((in_jax.run_dir / "summary.json").read_text())
    assert list(summary["last_info"]) == list(IN_JAX["log_info"])
    assert summary["last_info"]["episode/r"] == pytest.approx(summary["last_return"])


def test_nothing_else_changes(in_jax):
    usual = train(**SHORT, env=IN_JAX["env"])
    logged = [f"info/{name}" for name in IN_JAX["log_info"]]
    np.testing.assert_allclose(
        in_jax.metrics.drop(columns=[*TIMES, *logged]), usual.metrics.drop(columns=TIMES), 1e-4
    )
    assert "last_info" not in usual.summary
    assert "info" not in usual.summary["final_return"]


def test_evaluations_have_them(in_jax):
    header, *rows = (in_jax.run_dir / "evaluations.csv").read_text().splitlines()
    assert header.split(",")[5:] == ["info/steps", "info/episode/r", "info/is/long"]
    assert len(rows) == 4
    for row in rows:
        assert float(row.split(",")[4]) == pytest.approx(float(row.split(",")[6]))
    final = in_jax.summary["final_return"]
    assert final["info"]["episode/r"] == pytest.approx(final["mean"])
    assert in_jax.evaluate(3)["info"].keys() == set(IN_JAX["log_info"])


@pytest.mark.parametrize("settings", [IN_JAX, ON_HOST])
def test_an_evaluation_has_them_of_each_episode(settings):
    """Of one that was cut there is none."""
    config = Config(**settings, hidden_sizes=(4,), num_envs=3)
    keys = seeds.keys([0, 1])
    learners = a2c.init_seeds(config, keys).learner
    found = evaluation.evaluate(config, learners, keys, 7, greedy=False)
    assert found.info.shape == (2, 7, len(config.log_info))
    np.testing.assert_array_equal(found.info[..., 0], found.lengths)
    np.testing.assert_allclose(found.info[..., 1], found.returns, rtol=1e-5)
    short = evaluation.evaluate(config, learners, keys, 7, greedy=False, max_steps=2)
    assert not short.finished.all()
    assert (short.info[..., 0] == np.where(short.finished, short.lengths, 0)).all()
    means = rljax.runs.run.info_means(short)
    number = short.finished.sum(axis=1)
    np.testing.assert_allclose(means[:, 0], short.info[..., 0].sum(axis=1) / number)


@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_host_environments_need_them_at_the_end_of_an_episode_alone(tmp_path, vectorization):
    told = dict(SHORT, **ON_HOST, vectorization=vectorization, num_seeds=1)
    run = train(tmp_path / "run", **told)
    check(run.metrics, ON_HOST["log_info"])
    header, *rows = (run.run_dir / "evaluations.csv").read_text().splitlines()
    assert header.endswith(",info/episode/l,info/episode/r")
    for row in rows:
        assert float(row.split(",")[4]) == pytest.approx(float(row.split(",")[6]))


@pytest.mark.slow
@pytest.mark.parametrize("settings", [IN_JAX, ON_HOST])
def test_workers_send_them(settings):
    """A number that is not finite is none of learning's: gradients are applied as ever."""
    told = {**SETTINGS, **OPTIONS, **SHORT, **settings, "num_seeds": 1, "eval_every": 0}
    run = rljax.train("a3c", **told | dict(num_envs=2, envs_per_worker=2, num_workers=1))
    assert run.status == "completed"
    check(run.metrics, settings["log_info"])


def test_a_value_that_is_not_finite_is_none_of_learnings():
    told = dict(total_timesteps=64, num_envs=1, num_steps=4, hidden_sizes=(4,), quiet=True)
    env = dict(env="host_probes:Telling", env_kwargs={"value": float("nan")}, log_info=("told",))
    run = rljax.train("a3c", **told, **env, num_workers=1, eval_episodes=1, log_interval=2)
    assert run.status == "completed"
    assert run.metrics["info/told"].isna().all()
    assert run.metrics["loss"].notna().all()
    assert run.metrics["episodic_return"].notna().any()


def test_rows_without_an_ended_episode_are_empty():
    told = dict(env="probes:Truncating", env_params={"max_steps_in_episode": 6})

    class Telling(probes.Truncating):
        def step_env(self, *args):
            *answer, _ = super().step_env(*args)
            return *answer, {"one": 1.0}

    run = train(**{**SHORT, **told, "env": Telling()}, log_info=("one",), log_interval=1)
    none = run.metrics["episodes"] == 0
    assert none.any()
    assert not none.all()
    assert run.metrics["info/one"][none].isna().all()
    assert (run.metrics["info/one"][~none] == 1).all()


def test_a_run_with_them_is_resumed_to_the_same_bits(tmp_path):
    """From within a row, whose sums are in the checkpoint."""
    told = dict(SHORT, **IN_JAX, log_interval=2)
    other = train(tmp_path / "whole", **told)
    with pytest.MonkeyPatch.context() as patch:
        stop_at_update(patch, 21)
        assert train(tmp_path / "run", **told).status == "interrupted"
    with pytest.raises(ValueError, match=r"the run has log_info = \('steps'.*not \('steps',\)"):
        rljax.resume(tmp_path / "run", log_info=("steps",), quiet=True)
    assert rljax.resume(tmp_path / "run", quiet=True).status == "completed"
    assert results(tmp_path / "run") == results(other.run_dir)


@pytest.mark.slow
def test_sharded_environments_give_the_same():
    config = dataclasses.replace(CONFIG, total_timesteps=320, **IN_JAX)
    rows = []
    for large in (seeds.LARGE, 1.0):
        with mock.patch.object(seeds, "LARGE", large):
            chunks = a2c.chunks(config, seeds.keys([0]), log_interval=10)
            rows.append([metrics.info for _, metrics in chunks if metrics.updates[0] % 10 == 0])
    assert np.shape(rows[0]) == (2, 1, 3)
    np.testing.assert_allclose(rows[1], rows[0], rtol=1e-5)


@pytest.mark.slow
def test_a_sweep_has_them(tmp_path):
    config = dataclasses.replace(CONFIG, total_timesteps=160, **IN_JAX)
    told = dict(run_dir=tmp_path / "sweep", quiet=True, eval_episodes=1)
    sweep.run(config, {"learning_rate": (0.01, 0.02)}, [0], **told)
    check(results_of_sweep.read(tmp_path / "sweep"), IN_JAX["log_info"])


@pytest.mark.parametrize("algorithm", ["a2c", "a3c"])
def test_a_host_environment_without_them_is_told_in_a_line(algorithm):
    told = {**SETTINGS, "env": "host_probes:Telling", "num_envs": 1, "quiet": True}
    own = dict(num_workers=1) if algorithm == "a3c" else {}
    with pytest.raises(TrainingError) as caught:
        rljax.train(algorithm, **told, **own, num_seeds=1, log_info=("success",))
    line = "environment 0 of host_probes:Telling at step 3: log_info: the info of a step has no"
    assert f"{line} 'success', but 'told'" in str(caught.value)
    assert "Traceback" not in str(caught.value)


@pytest.mark.parametrize("algorithm", ["a2c", "a3c"])
def test_an_environment_in_jax_without_them_is_refused(tmp_path, algorithm):
    told = {**SETTINGS, **SHORT, "num_envs": 1, "log_info": ("success",)}
    with pytest.raises(ValueError, match="log_info: the info of a step has no 'success', but") as e:
        rljax.train(algorithm, **told, run_dir=tmp_path / "run")
    assert "\n" not in str(e.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("names", "kind", "message"),
    [
        ("is_success", TypeError, "log_info = 'is_success': must be a tuple of names"),
        (("a,b",), ValueError, "log_info: 'a,b': must be printable, without commas"),
        (("a\n",), ValueError, r"log_info: 'a\\n': must be printable"),
        (("",), ValueError, "log_info: '': must be printable"),
        (("a", "a"), ValueError, "log_info: 'a': is there twice"),
    ],
)
def test_wrong_names_are_refused(names, kind, message):
    with pytest.raises(kind, match=message):
        Config(log_info=names).validate()


def test_without_them_no_program_has_an_array_more():
    env, network = rollout.make_env_and_network(CONFIG)
    state = jax.eval_shape(a2c.init, CONFIG, jax.random.key(0))
    collect = partial(rollout.collect, CONFIG, env, network)
    _, batch = jax.eval_shape(collect, state.learner, state.actor)
    assert batch.info is None
    assert state.row.info is None

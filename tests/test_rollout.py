"""Rollouts against plain Python loops."""

import dataclasses

import jax
import numpy as np
import pytest
import tiny

from rljax import Config, a2c, a3c, evaluation, networks, rollout
from rljax.config import WorkerConfig
from rljax.rollout import make_env_and_network
from rljax.types import EpisodeStats, Transition
from rljax.utils.forkserver import EnvError


def test_track_against_a_loop():
    rng = np.random.default_rng(0)
    zeros, track = np.zeros(5, np.float32), jax.jit(rollout.track)
    stats = EpisodeStats(zeros, np.zeros(5, np.int32), zeros)
    returns, lengths = np.zeros(5), np.zeros(5, int)
    for _ in range(6):
        reward = rng.normal(size=(7, 5)).astype(np.float32)
        terminated, truncated = rng.random((2, 7, 5)) < 0.15
        info = np.where(rng.random((7, 5, 2)) < 0.1, np.nan, rng.random((7, 5, 2)))
        info[terminated | truncated] = 2.0
        batch = Transition(None, None, reward, terminated, truncated, None, info=info)
        stats, (*finished, infos) = track(stats, batch)
        expected = np.zeros(3)
        for t in range(7):
            returns, lengths = returns + reward[t], lengths + 1
            for b in np.nonzero(terminated[t] | truncated[t])[0]:
                expected += (1, returns[b], lengths[b])
                returns[b] = lengths[b] = 0
        np.testing.assert_allclose(finished, expected, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(infos, [2 * expected[0]] * 2)
        np.testing.assert_allclose(stats.episodic_return, returns, rtol=1e-5, atol=1e-5)
        np.testing.assert_array_equal(stats.episodic_length, lengths)


def test_collect_on_a_scripted_environment():
    """Time-major; the true successor in final_obs; the next rollout goes on where this ended."""
    config = Config(env="probes:Scripted", num_envs=2, num_steps=5, hidden_sizes=(4,))
    env, network = make_env_and_network(config)
    learning = tiny.init_learner(config, network, env.spec, jax.random.key(0))
    actor = tiny.init_actor(env, network, config.num_envs, jax.random.key(1))
    actor, first = tiny.collect(config, env, network, learning, actor)
    actor, second = tiny.collect(config, env, network, learning, actor)
    both = jax.tree.map(lambda x, y: np.concatenate([x, y])[:, 0], first, second)
    np.testing.assert_array_equal(both.obs[:, 0], [0, 1, 2, 0, 1, 2, 0, 1, 2, 0])
    np.testing.assert_array_equal(both.final_obs[:, 0], [1, 2, 3, 1, 2, 3, 1, 2, 3, 1])
    np.testing.assert_array_equal(both.reward, both.obs[:, 0])
    np.testing.assert_array_equal(both.terminated, both.obs[:, 0] == 2)
    assert not both.truncated.any()
    assert first.action.shape == (5, 2)
    np.testing.assert_array_equal(actor.obs[:, 0], [1, 1])


def test_actions_follow_the_policy():
    """The share of action 1 in a long rollout is its probability, within 4 standard errors."""
    config = Config(env="probes:Scripted", num_envs=64, num_steps=64, hidden_sizes=(4,))
    env, network = make_env_and_network(config)
    learning = tiny.init_learner(config, network, env.spec, jax.random.key(0))
    params = jax.tree.map(lambda x: x, learning.params)
    params["params"]["actor_head"]["bias"] = np.float32([0, 1])
    params["params"]["actor_head"]["kernel"] = np.zeros((4, 2), np.float32)
    actor = tiny.init_actor(env, network, config.num_envs, jax.random.key(1))
    _, batch = tiny.collect(config, env, network, learning._replace(params=params), actor)
    probability = 1 / (1 + np.exp(-1.0))
    error = np.sqrt(probability * (1 - probability) / batch.action.size)
    assert abs(np.mean(batch.action) - probability) < 4 * error


def test_continuous_actions_reach_the_environment_in_its_shape():
    config = Config(env="Pendulum-v1", num_envs=3, num_steps=2, hidden_sizes=(4,))
    env, network = make_env_and_network(config)
    assert isinstance(network, networks.ActorCritic)
    learning = tiny.init_learner(config, network, env.spec, jax.random.key(0))
    actor = tiny.init_actor(env, network, config.num_envs, jax.random.key(1))
    _, batch = tiny.collect(config, env, network, learning, actor)
    assert batch.action.shape == (2, 3, 1)
    assert batch.reward.shape == (2, 3)
    assert np.all(np.isfinite(batch.reward))


@pytest.mark.parametrize("env", ["probes:RewardByAction", "host_probes:RewardByAction"])
def test_64_bits_are_refused(env):
    """Environments would give other types, and the two kinds other results."""
    config = dataclasses.replace(tiny.CONFIG, env=env)
    learners = a2c.init_seeds(config, jax.random.split(jax.random.key(0), 1)).learner
    keys = jax.random.split(jax.random.key(1), 1)
    jax.config.update("jax_enable_x64", True)
    try:
        with pytest.raises(ValueError, match=r"jax_enable_x64 = True: must be off"):
            a2c.init(config, jax.random.key(0))
        with pytest.raises(ValueError, match=r"jax_enable_x64 = True: must be off"):
            next(a2c.chunks(config, jax.random.split(jax.random.key(0), 1)))
        with pytest.raises(ValueError, match=r"jax_enable_x64 = True: must be off"):
            a3c.train(config, WorkerConfig(num_workers=1, envs_per_worker=4), jax.random.key(0))
        with pytest.raises(EnvError, match=r"jax_enable_x64 = True: must be off"):
            evaluation.evaluate(config, learners, keys, 1, greedy=True)
    finally:
        jax.config.update("jax_enable_x64", False)

"""What every kind of environment promises of a `Step`: gymnax's, and gymnasium's in this process
and in processes of their own."""

import dataclasses
from functools import partial
from typing import NamedTuple

import chance
import jax
import numpy as np
import pytest
import tiny

from rljax import Config, envs, rollout
from rljax.envs import host_envs
from rljax.envs.host_envs import HostEnv
from rljax.envs.interface import Step
from rljax.envs.spaces import Box
from rljax.networks import distributions

STEPS, ENVS, LIMIT = 40, 3, 15


def cartpole(obs, action):
    """The next observation: Barto, Sutton and Anderson 1983, by Euler's method."""
    x, v, angle, w = obs.astype(float)
    force = 10.0 if action == 1 else -10.0
    temp = (force + 0.05 * w**2 * np.sin(angle)) / 1.1
    turn = (9.8 * np.sin(angle) - np.cos(angle) * temp) / (
        0.5 * (4 / 3 - 0.1 * np.cos(angle) ** 2 / 1.1)
    )
    push = temp - 0.05 * turn * np.cos(angle) / 1.1
    return np.array([x + 0.02 * v, v + 0.02 * push, angle + 0.02 * w, w + 0.02 * turn])


def cartpole_ends(obs):
    return abs(obs[0]) > 2.4 or abs(obs[2]) > 12 * np.pi / 180


def pendulum(obs, action):
    """The next observation: a rod of length and mass 1, by Euler's method."""
    cos, sin, w = obs.astype(float)
    w = np.clip(w + 0.05 * (15 * sin + 3 * np.clip(action[0], -2, 2)), -8, 8)
    angle = np.arctan2(sin, cos) + 0.05 * w
    return np.array([np.cos(angle), np.sin(angle), w])


class Known(NamedTuple):
    """What is known of an environment without asking it."""

    successor: object
    ends: object
    is_start: object


CARTPOLE = Known(cartpole, cartpole_ends, lambda obs: np.all(np.abs(obs) <= 0.05))
STACK = 3
STACKED_CARTPOLE = Known(
    lambda obs, action: np.concatenate([obs[4:], cartpole(obs[-4:], action)]),
    lambda obs: cartpole_ends(obs[-4:]),
    lambda obs: CARTPOLE.is_start(obs) and np.array_equal(obs, np.tile(obs[:4], STACK)),
)
PENDULUM = Known(pendulum, lambda obs: False, lambda obs: abs(obs[2]) <= 1)
KINDS = {
    "gymnax CartPole": ("gymnax/CartPole-v1", "sync", CARTPOLE),
    "gymnax Pendulum": ("gymnax/Pendulum-v1", "sync", PENDULUM),
    "CartPole, sync": ("gymnasium/CartPole-v1", "sync", CARTPOLE),
    "CartPole, async": ("gymnasium/CartPole-v1", "async", CARTPOLE),
    "Pendulum, sync": ("gymnasium/Pendulum-v1", "sync", PENDULUM),
    "Pendulum, async": ("gymnasium/Pendulum-v1", "async", PENDULUM),
    "gymnax CartPole, stacked": ("gymnax/CartPole-v1", "sync", STACKED_CARTPOLE),
    "CartPole, sync, stacked": ("gymnasium/CartPole-v1", "sync", STACKED_CARTPOLE),
    "CartPole, async, stacked": ("gymnasium/CartPole-v1", "async", STACKED_CARTPOLE),
}


def make(name, vectorization, **more):
    if name.startswith("gymnax"):
        return envs.make(name, (), (("max_steps_in_episode", LIMIT),), **more)
    return envs.make(name, (("max_episode_steps", LIMIT),), (), ENVS, vectorization, **more)


def play(env, actions, seed):
    """(first observations [B, ...], Step [T, B, ...])."""
    key, key_reset = jax.random.split(jax.random.key(seed))
    if isinstance(env, HostEnv):
        with env.open() as running:
            obs, _ = running.reset(host_envs.seeds(key_reset, ENVS))
            steps = [running.step(action) for action in actions]
        return obs, jax.tree.map(lambda *x: np.stack(x), *steps)

    return jax.tree.map(np.asarray, scan(env, actions, key, key_reset))


@partial(jax.jit, static_argnums=0)
def scan(env, actions, key, key_reset):
    def step(state, action_and_key):
        action, key = action_and_key
        return jax.vmap(env.step)(chance.of_all(env, key, state, ENVS), state, action)

    state, obs = jax.vmap(env.reset)(jax.random.split(key_reset, ENVS))
    return obs, jax.lax.scan(step, state, (actions, jax.random.split(key, len(actions))))[1]


@pytest.mark.parametrize("kind", KINDS)
def test_the_contract(kind):
    name, vectorization, known = KINDS[kind]
    env = make(name, vectorization, frame_stack=STACK if known is STACKED_CARTPOLE else 1)
    rng = np.random.default_rng(0)
    if isinstance(env.spec.action_space, Box):
        actions = rng.uniform(-2, 2, (STEPS, ENVS, 1)).astype(np.float32)
    else:
        actions = rng.integers(env.spec.action_space.n, size=(STEPS, ENVS), dtype=np.int32)
    obs, steps = play(env, actions, seed=0)

    # The spec agrees with what comes out.
    shape = env.spec.obs_shape
    assert obs.shape == (ENVS, *shape)
    flags = [(STEPS, ENVS)] * 3
    assert jax.tree.map(np.shape, steps) == Step(
        (STEPS, ENVS, *shape), *flags, (STEPS, ENVS, *shape)
    )
    dtypes = Step("float32", "float32", "bool", "bool", "float32")
    assert jax.tree.map(lambda x: str(x.dtype), steps) == dtypes

    # The true successor, the ends of episodes, and where the next one goes on.
    age = np.zeros(ENVS, int)
    assert all(known.is_start(one) for one in obs)
    for t in range(STEPS):
        age += 1
        for i in range(ENVS):
            successor = known.successor(obs[i], actions[t, i])
            np.testing.assert_allclose(steps.final_obs[t, i], successor, rtol=1e-4, atol=1e-5)
            assert steps.terminated[t, i] == known.ends(steps.final_obs[t, i])
            assert steps.truncated[t, i] == (age[i] >= LIMIT)
            if steps.terminated[t, i] or steps.truncated[t, i]:
                age[i] = 0
                assert known.is_start(steps.obs[t, i])
                assert not np.array_equal(steps.obs[t, i], steps.final_obs[t, i])
            else:
                np.testing.assert_array_equal(steps.obs[t, i], steps.final_obs[t, i])
        obs = steps.obs[t]
    done = steps.terminated | steps.truncated
    assert done.sum() >= 2 * ENVS
    assert len(np.unique(steps.obs[done], axis=0)) == done.sum()  # each start is another

    # The same seed, the same stream.
    again, other = (play(env, actions, seed)[1] for seed in (0, 1))
    jax.tree.map(np.testing.assert_array_equal, steps, again)
    assert not np.array_equal(steps.obs, other.obs)


def test_processes_change_nothing_of_the_stream():
    actions = np.random.default_rng(1).integers(2, size=(STEPS, ENVS), dtype=np.int32)
    sync, other = (play(make("gymnasium/CartPole-v1", v), actions, 3) for v in ("sync", "async"))
    jax.tree.map(np.testing.assert_array_equal, sync, other)


def test_one_environment_in_both_forms_gives_the_same_transitions():
    """A Dict of observations, a mask, terminations and truncations; the policy's chance is the
    same in both."""
    config = Config(env="probes:Counter", num_envs=2, num_steps=40, hidden_sizes=(4,))
    env, network = rollout.make_env_and_network(config)
    learning = tiny.init_learner(config, network, env.spec, jax.random.key(0))
    actor = tiny.init_actor(env, network, config.num_envs, jax.random.key(1))
    _, in_jax = tiny.collect(config, env, network, learning, actor)

    config = dataclasses.replace(config, env="host_probes:Counter")
    env, network = rollout.make_env_and_network(config)
    assert isinstance(env, HostEnv)
    key_action = jax.random.split(actor.key, 3)[1]
    noise = distributions.noise(env.spec.action_space, key_action, (config.num_steps, 2))
    act = jax.jit(lambda *args: rollout.act(network, learning, *args)[:2])

    def choose(t, obs, mask, before):
        actions, carry = act(obs, mask, noise, t)
        return rollout.on_host(env, actions), carry

    with env.open() as running:
        obs, mask = running.reset([0, 1])
        _, _, in_python = rollout.loop(choose, running.step, obs, mask, config.num_steps)

    jax.tree.map(np.testing.assert_array_equal, in_jax._replace(recorded=None), in_python)
    chosen, odd = in_python.action, in_python.obs[..., 2] == 1
    assert not in_python.mask[odd, 2].any()
    assert set(chosen[~odd].tolist()) == {0, 1, 2}
    assert set(chosen[odd].tolist()) == {0, 1}
    assert in_python.terminated.any()
    assert in_python.truncated.any()

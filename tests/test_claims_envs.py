"""The environments of experiments/claims behave as their descriptions say."""

import time

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnax.environments.classic_control.pendulum import Pendulum
from scripts import script

CORRIDOR = script("claims/corridor")


@pytest.mark.parametrize(
    ("position", "action", "then"),
    [(0, 1, 1), (0, 0, 0), (1, 1, 0), (1, 0, 2), (2, 1, 3), (2, 0, 1)],
)
def test_the_second_state_of_the_corridor_reverses_actions(position, action, then):
    env = CORRIDOR.Corridor()
    state = CORRIDOR.CorridorState(time=jnp.int32(0), position=jnp.int32(position))
    obs, state, reward, terminated, _ = env.step_env(None, state, action, env.default_params)
    assert (state.position, reward, terminated) == (then, -1, then == 3)
    np.testing.assert_array_equal(obs, env.reset_env(None, env.default_params)[0])


def test_returns_of_policies_in_the_corridor():
    """The figures of the book's example."""
    given = [CORRIDOR.expected_return(right) for right in (0.05, 0.59, 0.95)]
    assert given == pytest.approx([-82.1, -11.66, -44.2], abs=0.1)


def test_expected_returns_are_those_of_episodes():
    env = CORRIDOR.Corridor()
    params = env.default_params

    def one_step(carry, key):
        state, done, total = carry
        action = jax.random.bernoulli(key, 0.7).astype(jnp.int32)
        _, state, reward, ends, _ = env.step_env(key, state, action, params)
        return (state, done | ends, total + reward * ~done), None

    def episode(key):
        state = env.reset_env(key, params)[1]
        begun = state, jnp.bool_(False), jnp.float32(0)
        return jax.lax.scan(one_step, begun, jax.random.split(key, 500))[0]

    _, done, returns = jax.vmap(episode)(jax.random.split(jax.random.key(0), 2_000))
    assert done.all()
    error = 4 * float(np.std(returns)) / len(returns) ** 0.5
    assert float(np.mean(returns)) == pytest.approx(CORRIDOR.expected_return(0.7), abs=error)


def test_an_episode_of_the_corridor_is_cut():
    env = CORRIDOR.Corridor()
    late = CORRIDOR.CorridorState(time=jnp.int32(499), position=jnp.int32(0))
    answer = env.step(jax.random.key(0), late, 0, env.default_params)
    assert (bool(answer[3]), bool(answer[4])) == (False, True)


@pytest.mark.parametrize(("action", "torque"), [(0, -2.0), (1, -1.0), (2, 0.0), (4, 2.0)])
def test_torques_are_pendulums(action, torque):
    ours, theirs = script("claims/torques").Torques(5), Pendulum()
    params = theirs.default_params
    key = jax.random.key(0)
    _, state = theirs.reset_env(key, params)
    given = ours.step_env(key, state, action, params)
    wanted = theirs.step_env(key, state, jnp.array([torque]), params)
    jax.tree.map(np.testing.assert_array_equal, given, wanted)
    assert ours.action_space(params).n == 5


def test_slowed_is_cartpole_that_takes_its_time():
    ours, theirs = script("claims/slowed").Slowed(20), gymnasium.make("CartPole-v1")
    np.testing.assert_array_equal(ours.reset(seed=1)[0], theirs.reset(seed=1)[0])
    begun = time.perf_counter()
    for action in (0, 1, 1):
        given, wanted = ours.step(action), theirs.step(action)
        np.testing.assert_array_equal(given[0], wanted[0])
        assert given[1:4] == wanted[1:4]
    assert time.perf_counter() - begun >= 0.06


def test_the_model_of_the_machine():
    """A part's own speed, and what sleeping adds where each process has one environment."""
    machine = script("claims/machine")
    config, _ = machine.settings("a2c", 0, (16, 0), 10_000)
    env, speed, sleep = 1e-5, 8_000.0, 1e-3
    batch = 16 * config.num_steps
    rest = batch * (1 / speed - env)
    how = dict(env=env, rest=rest)
    assert machine.predicted("a2c", config, (16, 0), 0.0, **how) == pytest.approx(speed)
    together = machine.predicted("a2c", config, (16, 0), sleep, **how)
    assert together == pytest.approx(1 / (1 / speed + sleep))
    alone = machine.predicted("a3c", config, (16, 1), sleep, **how)
    assert alone == pytest.approx(together)
    many = machine.predicted("a3c", config, (16, 1_000), sleep, **how)
    assert many == pytest.approx(speed * machine.platform.cores())

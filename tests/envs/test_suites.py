"""What every suite written in JAX promises, checked against the suite's own step."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rljax import Config, a2c, envs, evaluation
from rljax.envs.spaces import Box

LIMIT, STEPS, ENVS = 5, 12, 3


class Row(NamedTuple):
    """An environment, and what its suite says of it."""

    env: str
    params: dict  # with which an episode is cut after `limit` steps
    raw: Callable
    """() -> (key, state, action) -> (obs, reward, whether the episode is over, for either reason)
    of the suite's own step."""
    ending: Callable[[Any], Any]
    """From a state after a step or more to one in which action 0 terminates the episode."""
    kwargs: tuple = ()
    dtype: str = "float32"
    is_random: bool = True  # whether episodes begin differently
    limit: float = LIMIT

    @property
    def suite(self):
        return self.env.partition("/")[0]


def craftax():
    from craftax.craftax_env import make_craftax_env_from_name

    world = make_craftax_env_from_name("Craftax-Classic-Symbolic-v1", auto_reset=False)
    params = world.default_params.replace(max_timesteps=LIMIT)

    def step(key, state, action):
        obs, _, reward, done, _ = world.step_env(key, state, action, params)
        return obs, reward, done

    return step


def xminigrid():
    import xminigrid

    grid, params = xminigrid.make("MiniGrid-EmptyRandom-6x6", max_steps=LIMIT)

    def step(key, state, action):
        after = grid.step(params, state, action)
        tile, colour = after.observation[..., 0], after.observation[..., 1]
        obs = jnp.concatenate([jnp.eye(13, dtype=bool)[tile], jnp.eye(12, dtype=bool)[colour]], -1)
        return obs, after.reward, after.last()

    return step


def at_the_goal(state):
    """Of MiniGrid-EmptyRandom-6x6, before the wall behind it."""
    agent = state.state.agent.replace(position=jnp.array([4, 4]), direction=jnp.array(1))
    return state.replace(state=state.state.replace(agent=agent))


def octax():
    from octax.environments import create_environment

    game = create_environment("pong", max_num_steps_per_episodes=LIMIT)[0]

    def step(key, state, action):
        _, frames, reward, terminated, truncated, _ = game.step(state, action)
        return frames.transpose(0, 2, 1), reward, terminated | truncated

    return step


def brax():
    from brax import envs
    from brax.envs.wrappers.training import EpisodeWrapper

    world = EpisodeWrapper(envs.get_environment("inverted_pendulum"), LIMIT, action_repeat=1)

    def step(key, state, action):
        info = world.reset(key).info | state.own.info | {"steps": state.time.astype(float)}
        after = world.step(state.own.replace(info=info), action)
        return after.obs, after.reward, after.done != 0

    return step


def fallen(state):
    """Of inverted_pendulum."""
    body = state.own.pipeline_state
    body = body.replace(q=body.q.at[1].set(1.0))
    return state.replace(own=state.own.replace(pipeline_state=body))


def jumanji():
    import jumanji

    game = jumanji.make("Snake-v1", **dict(SNAKE))

    def step(key, state, action):
        _, after = game.step(state.own, action)
        return after.observation.grid, after.reward, after.last()

    return step


def at_a_wall(state):
    """Of Snake, where the way up, action 0, ends the episode."""
    mask = state.own.action_mask.at[0].set(False)
    return state._replace(own=state.own.replace(action_mask=mask))


def pgx():
    import pgx

    game = pgx.make("minatar-breakout")

    def step(key, state, action):
        after = game.step(state, action, key)
        return after.observation, after.rewards[0], after.terminated

    return step


def missed(state):
    """Of Breakout, before the ball reaches the bottom, far from the paddle."""
    where = {"_ball_x": 0, "_ball_y": 8, "_ball_dir": 2, "_pos": 9}
    return state.replace(**{name: jnp.int32(x) for name, x in where.items()})


SNAKE = (("num_rows", 30), ("num_cols", 30), ("time_limit", LIMIT))
ROWS = [
    Row(
        "craftax/Craftax-Classic-Symbolic-v1",
        {"max_timesteps": LIMIT},
        craftax,
        lambda state: state.replace(player_health=-9),
    ),
    Row(
        "xminigrid/MiniGrid-EmptyRandom-6x6",
        {"max_steps": LIMIT},
        xminigrid,
        at_the_goal,
        dtype="bool",
    ),
    Row(
        "octax/pong",
        {"max_steps_in_episode": LIMIT},
        octax,
        lambda state: state.replace(V=state.V.at[14].set(90)),  # won by 9
        dtype="bool",
        is_random=False,
    ),
    Row("brax/inverted_pendulum", {"episode_length": LIMIT}, brax, fallen),
    Row("jumanji/Snake-v1", {}, jumanji, at_a_wall, kwargs=SNAKE),
    Row("pgx/minatar-breakout", {}, pgx, missed, dtype="bool", limit=np.inf),
]
SLOW = {"brax", "craftax", "jumanji", "xminigrid"}  # which take long to compile


def marked(row):
    return pytest.param(row, marks=[pytest.mark.slow] * (row.suite in SLOW), id=row.env)


every_suite = pytest.mark.parametrize("row", [marked(row) for row in ROWS])


def make(row):
    pytest.importorskip(row.suite)
    return envs.make(row.env, row.kwargs, tuple(row.params.items()))


def action_of(env, number):
    space = env.spec.action_space
    return jnp.zeros(space.shape) if isinstance(space, Box) else jnp.int32(number)


@every_suite
def test_a_step_is_the_suites_own_and_its_ends_are_told_apart(row):
    env = make(row)
    assert str(env.spec.observation.dtype) == row.dtype
    step, raw = jax.jit(env.mdp.step), jax.jit(row.raw())
    state, obs = jax.jit(env.mdp.reset)(jax.random.key(0), 0)
    assert (obs.shape, str(obs.dtype)) == (env.spec.obs_shape, row.dtype)

    def compare(key, state, action, terminated, truncated):
        after, answer = step(key, state, action)
        obs, reward, is_over = raw(key, state, action)
        np.testing.assert_allclose(answer.final_obs, obs, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(answer.reward, reward, rtol=1e-5, atol=1e-5)
        assert (bool(answer.terminated), bool(answer.truncated)) == (terminated, truncated)
        assert bool(is_over) == (terminated or truncated)
        return after

    for t in range(1, LIMIT + 1):
        key = jax.random.key(t)
        if t > 1:
            compare(key, row.ending(state), action_of(env, 0), True, t == row.limit)
        state = compare(key, state, action_of(env, 1 + t % 2), False, t == row.limit)


@every_suite
def test_the_next_episode_begins_where_one_ends(row):
    env = make(row)
    obs, steps = play(env, 0)
    kinds = jax.tree.map(lambda x: str(x.dtype), (obs, *steps[:5]))
    assert kinds == (row.dtype, row.dtype, "float32", "bool", "bool", row.dtype)
    done, age = steps.terminated | steps.truncated, np.zeros(ENVS, int)
    for t in range(STEPS):
        age += 1
        np.testing.assert_array_equal(steps.truncated[t], age >= row.limit)
        age[done[t]] = 0
    assert done.sum() >= ENVS * (STEPS // row.limit)
    assert done.any()
    np.testing.assert_array_equal(steps.obs[~done], steps.final_obs[~done])
    assert np.any(steps.obs[done] != steps.final_obs[done])
    if row.is_random:
        assert len(np.unique(obs, axis=0)) > 1
    else:
        assert all(np.array_equal(start, obs[0]) for start in steps.obs[done])

    jax.tree.map(np.testing.assert_array_equal, play(env, 0), (obs, steps))
    assert not all(map(np.array_equal, jax.tree.leaves(play(env, 1)), jax.tree.leaves(steps)))


def play(env, seed):
    """(first observations [B, ...], Step [T, B, ...]) of random actions."""
    return jax.tree.map(np.asarray, scan(env, jax.random.key(seed)))


@partial(jax.jit, static_argnums=0)
def scan(env, key):
    key_reset, key_action, key_draw = jax.random.split(key, 3)
    states, obs = jax.vmap(env.reset)(jax.random.split(key_reset, ENVS), jnp.arange(ENVS))
    states, randomness = env.draw(key_draw, states, (STEPS, ENVS))
    shape, space = (STEPS, ENVS), env.spec.action_space
    if isinstance(space, Box):
        actions = jax.random.uniform(key_action, (*shape, *space.shape), minval=-1)
    else:
        actions = jax.random.randint(key_action, shape, 0, space.n)

    def step(states, given):
        return jax.vmap(env.step)(given[0], states, given[1])

    return obs, jax.lax.scan(step, states, (randomness, actions))[1]


@pytest.mark.slow
@every_suite
def test_it_trains_and_is_evaluated(row):
    pytest.importorskip(row.suite)
    config = Config(
        env=row.env,
        env_kwargs=row.kwargs,
        env_params=row.params,
        num_envs=2,
        num_steps=4,
        total_timesteps=16,
        hidden_sizes=(4,),
    )
    keys = jax.random.split(jax.random.key(0), 1)
    *_, (states, metrics) = a2c.chunks(config, keys)
    assert int(states.learner.updates[0]) == 2
    assert np.isfinite(metrics.losses["value_loss"]).all()
    found = evaluation.evaluate(config, states.learner, keys, 2, False, num_envs=2)
    assert (np.asarray(found.lengths) <= row.limit).all()

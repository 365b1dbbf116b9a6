"""Generated environments in gymnax's form, right and wrong ones: they go through a rollout as a
plain loop says, or are refused in a line that names them."""

from functools import partial

import chance
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnax.environments import spaces
from gymnax.environments.environment import Environment, EnvParams
from hypothesis import given, note, settings
from hypothesis import strategies as st

from rljax import envs
from rljax.envs import encoding

LIMIT, STEPS = 3, 7


def fails(error):
    def fail(*args):
        raise error

    return fail


# Each: (whether it is right, what the environment is made with).

LEAVES = [  # (when reset, step: leaf -> leaf)
    (True, (0, lambda x: x + 1)),
    (True, (0.5, lambda x: x / 2)),
    (True, (False, lambda x: ~x)),
    (True, (1.0, lambda x: 2)),
    (True, (np.int8(3), lambda x: x + 1)),
    (True, (np.zeros(2), lambda x: x + 1)),
    (True, (jnp.uint8(250), lambda x: x + jnp.uint8(3))),
    (True, (jnp.zeros((2, 3)), lambda x: x.at[0].add(1.0))),
    (True, (jax.random.key(1), lambda key: jax.random.split(key)[1])),
    (True, ({"a": 0, "b": (jnp.float16(1), ())}, lambda x: {**x, "a": x["a"] - 1})),
    (False, (0, lambda x: x + 0.5)),
    (False, (jnp.float32(0), jnp.float16)),
    (False, (0, jnp.int16)),
    (False, (jnp.zeros(2), lambda x: x[:1])),
    (False, (jnp.zeros(2), lambda x: jnp.zeros((1, 2)))),
    (False, ({"a": 0}, lambda x: {"b": 0})),
    (False, (jax.random.key(1), jax.random.key_data)),
]
OBSERVATIONS = [  # (time -> observation, declared space)
    (True, (lambda t: jnp.float32([1, 0.5]) * t, None)),
    (True, (lambda t: jnp.full((2, 2), t, jnp.uint8), spaces.Box(0, 255, (2, 2), jnp.uint8))),
    (True, (lambda t: t, spaces.Discrete(LIMIT + 1))),
    (True, (lambda t: t, None)),
    (True, (lambda t: {"a": t, "b": (jnp.ones(2, bool), 0.5 * t)}, None)),
    (True, (lambda t: [t, jnp.float16(1)], None)),
    (True, (lambda t: t + 0.5, spaces.Discrete(3))),  # declared wrongly
    (False, (lambda t: jnp.complex64(t), None)),
    (False, (lambda t: {"a": "text"}, None)),
    (False, (lambda t: None, None)),
    (False, (fails(ZeroDivisionError("of the user's")), None)),
]
REWARDS = [  # time -> reward
    (True, lambda t: 1.5),
    (True, lambda t: t),
    (True, lambda t: True),
    (True, lambda t: jnp.float16(0.5) * t),
    (True, lambda t: np.int8(-3)),
    (False, lambda t: jnp.ones(1)),
    (False, lambda t: None),
    (False, lambda t: "1"),
    (False, lambda t: 1j),
    (False, fails(KeyError())),
    (False, fails(SystemExit(3))),
    (False, lambda t: 1 if t > 1 else 0),
]
FLAGS = [  # time -> terminated
    (True, lambda t: t >= 2),
    (True, lambda t: False),
    (True, lambda t: t // 2),
    (True, lambda t: jnp.float32(t - 1)),
    (False, lambda t: None),
    (False, lambda t: t[None] >= 2),
    (False, lambda t: "no"),
]
INFOS = [(True, {}), (True, {"a": 1}), (False, None), (False, {"action_mask": np.ones(2)})]
ANSWERS = [(True, lambda answer: answer)] * 4 + [
    (False, lambda answer: answer[:-1]),
    (False, lambda answer: (*answer, {})),
    (False, lambda answer: answer[0]),
]


class Generated(Environment):
    """Steps through gymnax's own step."""

    def __init__(self, leaf, observation, reward, flag, info, at_reset, at_step):
        self.leaf, self.observation, self.reward, self.flag = leaf, observation, reward, flag
        self.info, self.at_reset, self.at_step = info, at_reset, at_step

    @property
    def default_params(self):
        return EnvParams(max_steps_in_episode=LIMIT)

    def reset_env(self, key, params):
        state = {"time": jnp.int32(0), "leaf": self.leaf[0]}
        return self.at_reset((self.observation[0](state["time"]), state))

    def step_env(self, key, state, action, params):
        time = state["time"] + 1
        state = {"time": time, "leaf": self.leaf[1](state["leaf"])}
        answer = self.observation[0](time), state, self.reward(time), self.flag(time), self.info
        return self.at_step(answer)

    def is_truncated(self, state, params):
        return state["time"] >= params.max_steps_in_episode

    def action_space(self, params):
        return spaces.Discrete(2)

    def observation_space(self, params):
        if self.observation[1] is None:
            raise NotImplementedError
        return self.observation[1]


class WithOwnStep(Generated):
    """Has a step of its own, of which nothing is known. The leaf goes on through resets."""

    def reset(self, key, params):
        return self.reset_env(key, params)

    def step(self, key, state, action, params):
        obs, state, reward, terminated, info = self.step_env(key, state, action, params)
        truncated = self.is_truncated(state, params)
        time = jnp.where(jnp.logical_or(terminated, truncated), 0, state["time"])
        info = {**info, "final_observation": obs}
        state = {**state, "time": time}
        return self.observation[0](time), state, reward, terminated, truncated, info


@st.composite
def environments(draw):
    """(an environment, whether it is right)."""
    faulty = draw(st.sampled_from(["", "", "leaf", "obs", "reward", "flag", "info", "answer"]))

    def choose(name, cases):
        return draw(
            st.sampled_from([case for is_right, case in cases if is_right == (name != faulty)])
        )

    kind = draw(st.sampled_from([Generated, WithOwnStep]))
    at_reset, at_step = (choose("answer", ANSWERS) for _ in range(2))
    parts = (
        choose(*part)
        for part in zip(
            ("leaf", "obs", "reward", "flag", "info"), (LEAVES, OBSERVATIONS, REWARDS, FLAGS, INFOS)
        )
    )
    return kind(*parts, at_reset, at_step), not faulty


def slow_vector(env, time):
    """The encoded observation, by NumPy."""
    obs, space = env.observation[0](jnp.int32(time)), env.observation[1]
    if isinstance(space, spaces.Discrete) and np.issubdtype(obs.dtype, np.integer):
        return np.eye(space.n)[int(obs)]
    flat = np.concatenate([np.ravel(leaf).astype(float) for leaf in jax.tree.leaves(obs)])
    return flat / 255 if isinstance(space, spaces.Box) else flat


def check(env):
    """Two copies of the environment through a scan, against a loop in Python."""
    made = envs.make(env)
    as_float32 = partial(encoding.as_float32, getattr(made.spec.observation, "scale", 1.0))

    @jax.jit
    def run(key):
        def step(state, key):
            draws = chance.of_all(made, key, state, 2)
            return jax.vmap(made.step)(draws, state, jnp.zeros(2, jnp.int32))

        state, _ = jax.vmap(made.reset)(jax.random.split(key, 2))
        return jax.lax.scan(step, state, jax.random.split(key, STEPS))

    end, steps = run(jax.random.key(0))
    time, leaf = 0, env.leaf[0]
    for t in range(STEPS):
        time, leaf = (
            time + 1,
            jax.tree.map(jnp.asarray, env.leaf[1](jax.tree.map(jnp.asarray, leaf))),
        )
        terminated, truncated = bool(env.flag(jnp.int32(time))), time >= LIMIT
        for b in range(2):
            final_obs = np.ravel(as_float32(steps.final_obs[t, b]))
            np.testing.assert_allclose(final_obs, slow_vector(env, time), rtol=1e-3)
            assert steps.reward[t, b] == float(env.reward(jnp.int32(time)))
            assert (steps.terminated[t, b], steps.truncated[t, b]) == (terminated, truncated)
        if terminated or truncated:
            time, leaf = 0, env.leaf[0] if type(env) is Generated else leaf
        obs = np.ravel(as_float32(steps.obs[t, 0]))
        np.testing.assert_allclose(obs, slow_vector(env, time), rtol=1e-3)
    raw = jax.tree.map(lambda x: x[0], end["leaf"])
    for found, expected in zip(jax.tree.leaves(raw), jax.tree.leaves(leaf)):
        if jax.dtypes.issubdtype(found.dtype, jax.dtypes.prng_key):
            found, expected = jax.random.key_data(found), jax.random.key_data(expected)
        np.testing.assert_allclose(np.asarray(found), np.asarray(expected))


def go_through_or_are_refused(case):
    env, is_right = case
    note(vars(env))
    if is_right:
        check(env)
        return
    with pytest.raises((ValueError, TypeError)) as refusal:
        envs.make(env)
    text = str(refusal.value)
    note(text)
    assert text.startswith(f"env = '{type(env).__name__}': "), text
    assert "\n" not in text
    assert type(refusal.value) in (ValueError, TypeError)


@settings(max_examples=40, deadline=None, derandomize=True, database=None)
@given(environments())
def test_generated_environments(case):
    go_through_or_are_refused(case)


@pytest.mark.slow
@settings(max_examples=400, deadline=None, database=None)
@given(environments())
def test_many_generated_environments(case):
    go_through_or_are_refused(case)

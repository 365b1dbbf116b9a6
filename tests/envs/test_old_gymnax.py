"""Environments whose `done` includes the time limit: gymnax's before 1.0, and popjaxrl's."""

import re

import chance
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from gymnax.environments import spaces
from gymnax.environments.environment import Environment

from rljax import envs

LIMIT, END = 5, 6


@struct.dataclass
class State:
    mark: jax.Array
    time: int


@struct.dataclass
class Params:
    max_steps_in_episode: int = LIMIT


@struct.dataclass
class NoParams:
    pass


class OldBase:
    """As gymnax's was."""

    def step(self, key, state, action, params=None):
        obs, after, reward, done, info = self.step_env(key, state, action, params)
        fresh_obs, fresh = self.reset_env(key, params)
        after = jax.tree.map(lambda x, y: jax.lax.select(done, x, y), fresh, after)
        return jnp.where(done, fresh_obs, obs), after, reward, done, info

    def reset(self, key, params=None):
        return self.reset_env(key, params)


class Rules:
    """The mark grows by the action, and ends an episode at END. Observed are the mark and the share
    of the time limit that has passed."""

    default_params = Params()

    def limit(self, params):
        return params.max_steps_in_episode

    def observed(self, state, params):
        return jnp.stack([state.mark, state.time / self.limit(params)])

    def reset_env(self, key, params):
        state = State(jnp.float32(0), jnp.int32(0))
        return self.observed(state, params), state

    def step_env(self, key, state, action, params):
        state = State(state.mark + action, state.time + 1)
        done = self.is_terminal(state, params)
        return self.observed(state, params), state, state.mark, done, {"discount": 1.0 - done}

    def is_terminal(self, state, params):
        return (state.mark >= END) | (state.time >= self.limit(params))

    def action_space(self, params=None):
        return spaces.Discrete(4)


class Five(Rules, OldBase):
    """With a base class of its own."""


class OnTodays(Rules, Environment):
    """With the base class of today's gymnax, as a user has it installed."""


class Attribute(Rules, Environment):
    """The time limit is an attribute, as in popjaxrl."""

    default_params = NoParams()

    def __init__(self, max_steps_in_episode=LIMIT):
        self.max_steps_in_episode = max_steps_in_episode

    def limit(self, params):
        return self.max_steps_in_episode


class Masked(Five):
    def action_mask(self, state, params):
        return jnp.arange(4) != state.mark


KINDS = [Five, OnTodays, Attribute, Masked]


def play(env, actions):
    """The first observation and the steps of one environment."""
    state, first = env.reset(jax.random.key(0))
    step, steps = jax.jit(env.step), []
    for action in actions:
        state, answer = step(chance.of_one(env, jax.random.key(1), state), state, np.int32(action))
        steps.append(answer)
    return first, steps


@pytest.mark.parametrize("kind", KINDS)
def test_ends_and_cuts_are_told_apart(kind):
    # Cut after 5 steps; ended after 2; ended in the last step before the limit.
    actions = [1] * 5 + [3, 3] + [1, 1, 1, 1, 2]
    first, steps = play(envs.make(kind), actions)
    np.testing.assert_array_equal(first, [0, 0])
    assert [int(s.terminated) for s in steps] == [0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1]
    assert [int(s.truncated) for s in steps] == [0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]
    marks = [1, 2, 3, 4, 5, 3, 6, 1, 2, 3, 4, 6]
    times = [1, 2, 3, 4, 5, 1, 2, 1, 2, 3, 4, 5]
    seen = np.stack([s.final_obs for s in steps])
    np.testing.assert_allclose(seen, np.transpose([marks, np.divide(times, LIMIT)]), rtol=1e-6)
    assert [float(s.reward) for s in steps] == marks
    for s in steps:
        done = bool(s.terminated | s.truncated)
        np.testing.assert_array_equal(s.obs, [0, 0] if done else s.final_obs)


def test_the_limit_is_a_parameter_or_an_argument():
    shorter = envs.make(Five, env_params={"max_steps_in_episode": 3})
    assert [bool(s.truncated) for s in play(shorter, [1] * 3)[1]] == [False, False, True]
    shorter = envs.make(Attribute, env_kwargs={"max_steps_in_episode": 3})
    assert [bool(s.truncated) for s in play(shorter, [1] * 3)[1]] == [False, False, True]


def test_a_mask_is_of_the_environments_own_state():
    env = envs.make(Masked)
    state, _ = env.reset(jax.random.key(0))
    np.testing.assert_array_equal(env.mask(state), [False, True, True, True])
    _, steps = play(env, [2])
    np.testing.assert_array_equal(steps[0].mask, [True, True, False, True])


class Heavy(Five):
    """A step is a product of matrices, on which both `done` and the reward depend."""

    def step_env(self, key, state, action, params):
        noise = jax.random.normal(key, (8, 8))
        moved = State(state.mark + (noise @ noise).sum(), state.time)
        return super().step_env(key, moved, action, params)


def test_the_second_step_costs_nothing():
    env = envs.make(Heavy)
    state, _ = env.reset(jax.random.key(0))
    step = jax.jit(env.mdp.step).lower(jax.random.key(0), state, jnp.int32(0))
    asked, compiled = step.as_text(), step.compile().as_text()
    assert len(re.findall(r"stablehlo.dot_general", asked)) == 2
    assert len(re.findall(r"= f32\[8,8\]\S* (?:dot|custom-call)\(", compiled)) == 1


class NoLimit(Rules, Environment):
    default_params = NoParams()

    def limit(self, params):
        return LIMIT


class NoLimitFive(Rules, OldBase):
    default_params = NoParams()

    def limit(self, params):
        return LIMIT


class DoesMore(Five):
    def step(self, key, state, action, params=None):
        obs, state, reward, done, info = super().step(key, state, action, params)
        return obs, state, 2 * reward, done, info


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        (NoLimit, "NoLimit.step_env returns done, as before gymnax 1.0, and its time limit is not"),
        (NoLimitFive, "must have max_steps_in_episode, or is_truncated"),
        (DoesMore, "DoesMore.step must return .* not 5 values, as before gymnax 1.0"),
    ],
)
def test_others_are_refused(kind, why):
    with pytest.raises(TypeError, match=why) as error:
        envs.make(kind)
    assert "\n" not in str(error.value)


class Todays(Rules, Environment):
    """An environment of today's form, with an `is_terminal` of its own."""

    def step_env(self, key, state, action, params):
        obs, state, reward, _, info = super().step_env(key, state, action, params)
        return obs, state, reward, state.mark >= END, info

    def is_truncated(self, state, params):
        return state.time >= self.limit(params)


def test_todays_form_is_left_as_it_is():
    env = envs.make(Todays)
    state, _ = env.reset(jax.random.key(0))
    assert isinstance(state, State)

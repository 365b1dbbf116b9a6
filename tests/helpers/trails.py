"""An environment whose observation is all there is to know of it, in gymnax's form and gymnasium's,
so that a plain loop can tell what comes next; and own wrappers, as a config names them."""

import functools

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
from erratic_envs import drawn
from flax import struct
from gymnax.environments import spaces
from gymnax.environments.environment import Environment, EnvParams, EnvState

LONGEST = 9


def after(mark, action):
    """(the next mark, the reward of the step to it)."""
    mark = (3 * mark + 5 * action + 1) % 97
    return mark, mark / 16 - 3


@struct.dataclass
class State(EnvState):
    """The episode ends after `length` steps: 0 terminated, 1 truncated, 2 both."""

    mark: jax.Array
    taken: jax.Array
    length: jax.Array
    how: jax.Array


class InJax(Environment):
    @property
    def default_params(self):
        return EnvParams()

    def reset_env(self, key, params):
        mark, length, how = drawn(key, 97, LONGEST)
        state = State(jnp.int32(0), mark=mark, taken=jnp.int32(-1), length=length, how=how)
        return self.look(state), state

    def step_env(self, key, state, action, params):
        mark, reward = after(state.mark, action)
        state = state.replace(time=state.time + 1, mark=mark, taken=jnp.int32(action))
        terminated = (state.time == state.length) & (state.how != 1)
        return self.look(state), state, reward, terminated, {}

    def is_truncated(self, state, params):
        return (state.time == state.length) & (state.how != 0)

    def look(self, state):
        return jnp.float32([state.mark, state.taken, state.time, state.length, state.how])

    def action_space(self, params):
        return spaces.Discrete(3)

    def observation_space(self, params):
        return spaces.Box(-1, 97, (5,))


class MaskedInJax(InJax):
    def action_mask(self, state, params):
        return jnp.arange(3) != state.mark % 3


class ResettingInJax(InJax):
    """Resets itself in its step."""

    def step(self, key, state, action, params=None):
        obs, following, *rest, info = super().step(key, state, action, params)
        return obs, following, *rest, info


class OnHost(gymnasium.Env):
    action_space = gymnasium.spaces.Discrete(3)
    observation_space = gymnasium.spaces.Box(-1, 97, (5,))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        draw = self.np_random.integers
        self.obs = np.float32([draw(97), -1, 0, draw(1, LONGEST + 1), draw(3)])
        return self.obs, self.info()

    def step(self, action):
        mark, _, time, length, how = self.obs
        mark, reward = after(mark, action)
        self.obs[:3] = mark, action, time + 1  # one array for all observations
        ends = time + 1 == length
        return (
            self.obs,
            float(reward),
            bool(ends and how != 1),
            bool(ends and how != 0),
            self.info(),
        )

    def info(self):
        return {}


class MaskedOnHost(OnHost):
    def info(self):
        return {"action_mask": np.int8(np.arange(3) != self.obs[0] % 3)}


def halved(env, of=2):
    """Rewards of an environment in JAX, in parts."""

    def step(key, state, action):
        state, answer = env.step(key, state, action)
        return state, answer._replace(reward=answer.reward / of)

    return env._replace(step=step)


class Halved(gymnasium.RewardWrapper):
    def __init__(self, env, of=2):
        super().__init__(env)
        self.of = of

    def reward(self, reward):
        return reward / self.of


quartered = functools.partial(halved, of=4)
NOTHING = 3

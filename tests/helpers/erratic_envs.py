"""Environments whose episodes end after 1 to 4 steps, terminated, truncated or both, as chance has
it; in gymnax's form and in gymnasium's. Observed is a mark, another one at each step, as numbers of
several kinds."""

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnax.environments import spaces
from gymnax.environments.environment import Environment, EnvParams, EnvState

SHAPES = {
    "vector": (2,),
    "number": (),
    "image": (4, 4, 2),
    "first": (2, 4, 5),
    "grey": (4, 5),
    "grid": (4, 5),
}
BYTES = ("image", "first", "grey")


@struct.dataclass
class State(EnvState):
    mark: jax.Array
    length: jax.Array
    how: jax.Array  # 0 terminated, 1 truncated, 2 both


class InJax(Environment):
    def __init__(self, kind="vector"):
        self.kind = kind

    @property
    def default_params(self):
        return EnvParams()

    def reset_env(self, key, params):
        mark, length, how = drawn(key, marks=200, longest=4)
        state = State(time=jnp.int32(0), mark=mark, length=length, how=how)
        return self.observe_mark(mark), state

    def step_env(self, key, state, action, params):
        state = state.replace(time=state.time + 1, mark=state.mark + 3 + action)
        terminated = (state.time == state.length) & (state.how != 1)
        return self.observe_mark(state.mark), state, jnp.float32(1), terminated, {}

    def is_truncated(self, state, params):
        return (state.time == state.length) & (state.how != 0)

    def observe_mark(self, mark):
        return observed(self.kind, mark, jnp)

    def action_space(self, params):
        return spaces.Discrete(2)

    def observation_space(self, params):
        if self.kind == "dict":
            return spaces.Dict({"mark": spaces.Box(0, 300, (1,)), "odd": spaces.Discrete(2)})
        if self.kind == "discrete":
            return spaces.Discrete(300)
        return spaces.Box(0, 255 if self.kind in BYTES else 300, SHAPES[self.kind])


class OnHost(gymnasium.Env):
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, kind="vector"):
        self.kind = kind
        box = gymnasium.spaces.Box
        if kind == "dict":
            parts = {"mark": box(0, 300, (1,)), "odd": gymnasium.spaces.Discrete(2)}
            self.observation_space = gymnasium.spaces.Dict(parts)
        elif kind == "discrete":
            self.observation_space = gymnasium.spaces.Discrete(300)
        elif kind in BYTES:
            self.observation_space = box(0, 255, SHAPES[kind], np.uint8)
        else:
            self.observation_space = box(0, 300, SHAPES[kind])

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.time, self.mark = 0, int(self.np_random.integers(200))
        self.length, self.how = int(self.np_random.integers(1, 5)), int(self.np_random.integers(3))
        return observed(self.kind, self.mark, np), {}

    def step(self, action):
        self.time, self.mark = self.time + 1, self.mark + 3 + int(action)
        ends = self.time == self.length
        flags = ends and self.how != 1, ends and self.how != 0
        return observed(self.kind, self.mark, np), 1.0, *flags, {}


def drawn(key, marks, longest):
    """A first mark, how long the episode is, and how it ends."""
    ends = (0, marks), (1, longest + 1), (0, 3)
    keys = jax.random.split(key, len(ends))
    return [jax.random.randint(one, (), *bounds) for one, bounds in zip(keys, ends)]


def observed(kind, mark, xp):
    """A mark from 0 to 219 as an observation of a kind."""
    if kind == "dict":
        return {"mark": xp.asarray([mark], xp.float32), "odd": xp.asarray(mark % 2, xp.int32)}
    if kind == "discrete":
        return xp.asarray(mark, xp.int32)
    shape = SHAPES[kind]
    numbers = mark + xp.arange(np.prod(shape, dtype=int)).reshape(shape)
    return numbers.astype(xp.uint8 if kind in BYTES else xp.float32)

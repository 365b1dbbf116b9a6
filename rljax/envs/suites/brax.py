"""Brax (Freeman et al. 2021, arXiv 2106.13281): all its environments.

Brax's own step has no time limit: `episode_length` truncates. Actions are from -1 to 1. The keyword
argument `backend` chooses the physics: "generalized" (the default of most), "spring", "positional"
or "mjx". Info has brax's metrics.
"""

import contextlib
import io
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from gymnax.environments import spaces
from gymnax.environments.environment import Environment

from rljax.utils.lookup import unknown

with contextlib.redirect_stdout(io.StringIO()):  # MuJoCo prints which other packages it lacks
    from brax import envs


@struct.dataclass
class _Params:
    episode_length: int = 1000


@struct.dataclass
class _State:
    own: envs.State
    time: jax.Array


def ids() -> list[str]:
    return sorted(envs._envs)


def make(name: str, **kwargs: Any) -> Environment:
    """An environment, with the keyword arguments of its class in brax."""
    if name not in ids():
        raise ValueError(unknown("environment", name, ids()))
    return _World(envs.get_environment(name, **kwargs))


class _World(Environment):
    default_params = _Params()

    def __init__(self, world):
        self.world = world

    def reset_env(self, key, params):
        own = self.world.reset(key)
        return own.obs, _State(own, jnp.int32(0))

    def step_env(self, key, state, action, params):
        own = jax.tree.map(lambda x: x, state.own)  # whose metrics brax changes
        own = self.world.step(own, action)
        return own.obs, _State(own, state.time + 1), own.reward, own.done != 0, own.metrics

    def is_truncated(self, state, params):
        return state.time >= params.episode_length

    def action_space(self, params=None):
        return spaces.Box(-1.0, 1.0, (self.world.action_size,))

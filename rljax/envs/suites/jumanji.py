"""Jumanji (Bonnet et al. 2024, arXiv 2306.09884): its environments that give one reward.

The keyword argument `time_limit` truncates, though jumanji's `discount` is then 0 as at an end by
rule. An observation is the array beside `action_mask` and `step_count`, or a Dict of several. A
mask of combinations of discrete actions makes them one action. Info has the scalars of `extras`.
"""

import copy
import math
from collections import namedtuple
from typing import Any

import jax
import jax.numpy as jnp
import jumanji
from gymnasium import spaces
from gymnax.environments.environment import Environment

from rljax.utils.lookup import unknown

_OTHERS = "Connector-", "LevelBasedForaging-", "MultiCVRP-", "SearchAndRescue-"
_MASK, _OUT_OF_REACH = "action_mask", 2**30  # steps
_State = namedtuple("_State", "own mask time is_truncated")  # jumanji's, bools, int32, bool


def ids() -> list[str]:
    return sorted(x for x in jumanji.registered_environments() if not x.startswith(_OTHERS))


def make(name: str, **kwargs: Any) -> Environment:
    """An environment, with the keyword arguments of its class in jumanji."""
    if name.startswith(_OTHERS):
        raise ValueError("its actions or rewards are of several agents, and one is trained")
    if name not in ids():
        raise ValueError(unknown("environment", name, ids()))
    return _Game(jumanji.make(name, **kwargs))


class _Game(Environment):
    costly_reset, default_params = True, None

    def __init__(self, source):
        self.source, self.limit = copy.copy(source), getattr(source, "time_limit", _OUT_OF_REACH)
        self.source.time_limit = _OUT_OF_REACH  # what still ends an episode is a rule
        self.shape, mask = source.action_spec.shape, getattr(source.observation_spec, _MASK, None)
        self.nvec = tuple(jnp.ravel(source.action_spec.num_values).tolist())
        self.is_one = len(self.nvec) == 1 or (mask is not None and mask.shape == self.nvec)
        if mask is not None:
            self.action_mask = lambda state, params: state.mask

    def reset_env(self, key, params):
        own, first = self.source.reset(key)
        obs, mask = self._split(first.observation)
        return obs, _State(own, mask, jnp.int32(0), jnp.bool_(False))

    def step_env(self, key, state, action, params):
        action = jnp.stack(jnp.unravel_index(action, self.nvec)) if self.is_one else action
        own = jax.tree.map(lambda x: x, state.own)  # which some environments change
        own, now = self.source.step(own, action.reshape(self.shape))
        time, terminated = state.time + 1, now.last() & (now.discount == 0)
        truncated = (time >= self.limit) | (now.last() & ~terminated)
        info = {name: x for name, x in now.extras.items() if jnp.ndim(x) == 0}
        obs, mask = self._split(now.observation)
        return obs, _State(own, mask, time, truncated), now.reward, terminated, info

    def is_truncated(self, state, params):
        return state.is_truncated

    def action_space(self, params=None):
        n = self.nvec
        return spaces.Discrete(math.prod(n)) if self.is_one else spaces.MultiDiscrete(n)

    def _split(self, obs):
        """What is observed, and the mask: all true where no action is valid, as before an end."""
        fields = obs._asdict()
        mask, _ = fields.pop(_MASK, None), fields.pop("step_count", None)
        if mask is not None:
            mask = jnp.ravel(mask) if self.is_one else mask
            mask |= ~mask.any(axis=-1, keepdims=True)
        return fields if len(fields) > 1 else next(iter(fields.values())), mask

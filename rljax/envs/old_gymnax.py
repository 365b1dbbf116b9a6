"""Environments in the form of gymnax below 1.0, whose `done` includes the time limit.

Their `step_env` returns (obs, state, reward, done, info), and so does their `step`, unless it is
that of gymnax as it is today. They are adapted where `max_steps_in_episode` is known, of their
params or, as in popjaxrl, of the environment itself: a second `step_env`, with this limit out of
reach, tells whether the episode terminated; else `done` says that it was truncated. As nothing else
of the second one is used, the compiler leaves one step and a further condition.
"""

import contextlib
import copy
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from gymnax.environments.environment import Environment

_LIMIT = "max_steps_in_episode"
_OUT_OF_REACH = 2**30


def adapted(source: Any, params: Any, action: jax.ShapeDtypeStruct) -> Any:
    """The environment itself if it is of today's form, else one of that form.

    Raises:
        TypeError: it is of the old form, and its time limit is not known.
    """
    if not _is_old(source, params, action):
        return source
    if not hasattr(params, _LIMIT) and not hasattr(source, _LIMIT):
        what = "returns done, as before gymnax 1.0, and its time limit is not known"
        where = f"its params or itself must have {_LIMIT}, or is_truncated(state, params) tell it"
        raise TypeError(f"{type(source).__name__}.step_env {what}: {where}")
    return _Adapted(source)


def _is_old(source, params, action):
    kind, usual = type(source), (Environment.step, Environment.reset)
    if isinstance(source, Environment) and (kind.step, kind.reset) == usual:
        if kind.is_truncated is not Environment.is_truncated:
            return False
        # `is_terminal` was the condition of `done`; `is_terminated` takes its place in gymnax 1.0.
        is_before = kind.is_terminated is Environment.is_terminated
        had_condition = kind.is_terminal is not Environment.is_terminal
        return (is_before and had_condition) or not hasattr(params, _LIMIT)
    if not all(hasattr(kind, method) for method in ("step", "step_env", "reset", "reset_env")):
        return False
    step, step_env = (_definer(kind, method) for method in ("step", "step_env"))
    if step is not step_env and issubclass(step, step_env):
        return False  # it does more than `step_env`, and would be lost
    return _number_of_values(source, params, action) == 5


def _definer(kind, method):
    return next(base for base in kind.__mro__ if method in vars(base))


def _number_of_values(source, params, action):
    """Of what `step` returns; 0 if it fails, which is reported elsewhere."""
    numbers = [0]

    def step(key, action):
        numbers.append(len(source.step(key, source.reset(key, params)[1], action, params)))

    with contextlib.suppress(Exception):
        jax.eval_shape(step, jax.eval_shape(jax.random.key, 0), action)
    return numbers[-1]


@struct.dataclass
class _State:
    own: Any
    truncated: jax.Array  # bool


class _Adapted(Environment):
    def __init__(self, source: Any):
        self.source = source
        self.action_space = source.action_space
        self.costly_reset = getattr(source, "costly_reset", False)
        if hasattr(source, "observation_space"):
            self.observation_space = source.observation_space
        if hasattr(source, "action_mask"):
            self.action_mask = lambda state, params: source.action_mask(state.own, params)

    def reset_env(self, key: jax.Array, params: Any) -> tuple[Any, _State]:
        obs, own = self.source.reset_env(key, params)
        return obs, _State(own, jnp.bool_(False))

    def step_env(
        self, key: jax.Array, state: _State, action: jax.Array, params: Any
    ) -> tuple[Any, _State, jax.Array, jax.Array, dict]:
        answer = self.source.step_env(key, state.own, action, params)
        if not isinstance(answer, tuple | list) or len(answer) != 5:
            name = f"{type(self.source).__name__}.step_env"
            raise TypeError(f"{name} must return (obs, state, reward, done, info)")
        obs, own, reward, done, info = answer
        source, unlimited = _without_limit(self.source, params)
        terminated = jnp.bool_(source.step_env(key, state.own, action, unlimited)[3])
        truncated = jnp.logical_and(done, ~terminated)
        return obs, _State(own, truncated), reward, terminated, info

    def is_truncated(self, state: _State, params: Any) -> jax.Array:
        return state.truncated


def _without_limit(source, params):
    if hasattr(params, _LIMIT):
        return source, params.replace(**{_LIMIT: _OUT_OF_REACH})
    source = copy.copy(source)
    setattr(source, _LIMIT, _OUT_OF_REACH)
    return source, params

"""Wrappers by name: environments that differ in what is observed, rewarded or done.

A wrapper is a function from an `MDP` to another, of either kind: one in JAX, or one that is open
and that Python steps. It takes encoded observations, and actions numbered from 0.
"""

import math
import numbers
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from rljax.envs import frames
from rljax.envs.frames import Frames
from rljax.envs.interface import MDP, Step, score
from rljax.envs.spaces import Discrete, Observation

_POSITIONS = {
    "CartPole": (1, 0, 1, 0),
    "MountainCar": (1, 0),
    "MountainCarContinuous": (1, 0),
    "Pendulum": (1, 1, 0),
    "Acrobot": (1, 1, 1, 1, 0, 0),
    "LunarLander": (1, 1, 0, 0, 1, 0, 1, 1),
    "LunarLanderContinuous": (1, 1, 0, 0, 1, 0, 1, 1),
}
"""Which numbers of an observation are no velocities, by id without its version."""


class Named(NamedTuple):
    """A wrapper with a name."""

    wrap: Callable[..., MDP]  # (MDP) or (MDP, value) -> MDP
    value: str = ""  # what its value must be; "" if it takes none
    is_allowed: Callable[[Any], bool] = lambda value: False
    example: str = ""
    is_optional: bool = False


def mask_velocity(env: MDP) -> MDP:
    """Classic control with positions alone: velocities are observed as 0, so that a policy needs a
    memory ("NoVel": Heess et al. 2015, arXiv 1512.04455; sb3-contrib's MaskVelocityWrapper).

    Raises:
        ValueError: it is not known which of an environment's observations are velocities.
    """
    name, shape = env.spec.name, env.spec.obs_shape
    kept = _POSITIONS.get(name.removeprefix("gymnasium/").removeprefix("gymnax/").split("-v")[0])
    if kept is None or shape != (len(kept),):
        known = ", ".join(_POSITIONS)
        seen = "" if kept is None else f" with observations of shape {list(shape)}"
        raise ValueError(f"wrappers: mask_velocity is for {known}, not for {name!r}{seen}")
    kept = np.float32(kept)
    return _observed(env, env.spec.observation, lambda obs: obs * kept)


def flatten(env: MDP) -> MDP:
    """Observations as one vector: images and other arrays, row by row. What encodes as a vector, a
    Dict or discrete values, stays as it is."""
    one = env.spec.observation
    if len(one.shape) == 1:
        return env
    return _observed(
        env, frames.numbers_like(one, (math.prod(one.shape),)), lambda x: x.reshape(-1)
    )


def _observed(env: MDP, kind: Observation, function: Callable[[Any], Any]) -> MDP:
    """The environment with a function of its observations, of this kind."""

    def reset(key, index=0):
        state, obs = env.reset(key, index)
        return state, function(obs)

    def step(key, state, action):
        state, answer = env.step(key, state, action)
        obs = final_obs = function(answer.obs)
        if answer.final_obs is not answer.obs:
            final_obs = function(answer.final_obs)
        return state, answer._replace(obs=obs, final_obs=final_obs)

    return env._replace(
        spec=env.spec._replace(observation=kind),
        reset=reset,
        step=step,
        observe=lambda obs: function(env.observe(obs)),
    )


class WithStack(NamedTuple):
    """A state with the last observations."""

    env_state: Any
    stack: Any


def frame_stack(env: MDP, number: int) -> MDP:
    """The last `number` observations as one, as `frames` says. What encodes as a vector, a Dict or
    discrete values, is a vector before.

    The true successor of a step that ends an episode belongs to the stack of that episode; the
    observation to act on next is a fresh stack of the new one.
    """
    if number == 1:
        return env
    stacked, ops = Frames(number, env.spec.observation), env.ops

    def reset(key, index=0):
        state, obs = env.reset(key, index)
        stack = frames.first(stacked, obs, ops.xp)
        return WithStack(state, stack), stack

    def step(key, state, action):
        env_state, answer = env.step(key, state.env_state, action)
        obs = final_obs = frames.push(stacked, state.stack, answer.final_obs, ops.xp)
        if env.resets_itself:
            obs = ops.where(_done(answer), frames.first(stacked, answer.obs, ops.xp), obs)
        return WithStack(env_state, obs), answer._replace(obs=obs, final_obs=final_obs)

    def observe(observations):
        return frames.join(stacked, [env.observe(obs) for obs in observations], ops.xp)

    return env._replace(
        spec=env.spec._replace(observation=stacked.joined),
        reset=reset,
        step=step,
        mask=_mask_of_inner(env),
        observe=observe,
        stacks=env.stacks + 1,
    )


def clip_reward(env: MDP, bound: float = 1.0) -> MDP:
    """Rewards clipped to [-bound, bound], to learn from (Mnih et al. 2015, DQN); returns, those of
    training and of evaluations, count what they were before, the score."""

    def step(key, state, action):
        state, answer = env.step(key, state, action)
        clipped = env.ops.xp.clip(answer.reward, -bound, bound)
        return state, answer._replace(reward=clipped, score=score(answer))

    return env._replace(spec=env.spec._replace(has_score=True), step=step)


class WithAction(NamedTuple):
    """A state with the action before."""

    env_state: Any
    action: Any
    is_one: Any  # bool: there is one, in this episode


def sticky_actions(env: MDP, probability: float) -> MDP:
    """In each step the environment takes, with this probability, the action that it took in the
    step before instead of the one given (Machado et al. 2018, arXiv 1709.06009).

    At an episode's first step there is none before, and the one given is taken, as in gymnasium's
    StickyAction; ALE and MinAtar then repeat their action 0, which elsewhere does something. An
    action before that is not valid now is not repeated.
    """
    ops, space = env.ops, env.spec.action_space

    def reset(key, index=0):
        state, obs = env.reset(key, index)
        kind = np.int32 if hasattr(space, "mask_shape") else np.float32
        return WithAction(state, ops.xp.zeros(space.shape, kind), ops.xp.bool_(False)), obs

    def step(key, state, action):
        key, key_repeat = ops.split(key, 2)
        repeats = (ops.uniform(key_repeat) < probability) & state.is_one
        repeats = repeats & _is_valid(env, state.env_state, state.action)
        action = ops.where(repeats, state.action, action)
        env_state, answer = env.step(key, state.env_state, action)
        is_one = ops.xp.logical_not(_done(answer)) if env.resets_itself else ops.xp.bool_(True)
        return WithAction(env_state, action, is_one), answer

    return env._replace(reset=reset, step=step, mask=_mask_of_inner(env))


class WithTime(NamedTuple):
    """A state with the steps of its episode so far."""

    env_state: Any
    time: Any


def time_limit(env: MDP, limit: int) -> MDP:
    """Episodes are truncated after `limit` steps.

    Raises:
        ValueError: the environment resets itself in its step, and cannot be told to.
    """
    _check_reset("time_limit", env)
    ops = env.ops

    def reset(key, index=0):
        state, obs = env.reset(key, index)
        return WithTime(state, ops.xp.int32(0)), obs

    def step(key, state, action):
        env_state, answer = env.step(key, state.env_state, action)
        time = state.time + 1
        changes = {"truncated": answer.truncated | (time >= limit)}
        if env.spec.has_over:
            changes["over"] = answer.over | (time >= limit)
        return WithTime(env_state, time), answer._replace(**changes)

    return env._replace(reset=reset, step=step, mask=_mask_of_inner(env))


def action_repeat(env: MDP, number: int) -> MDP:
    """Each action is taken `number` times, and rewards are summed; fewer times where the episode
    ends or the action is not valid any more. All else is of the last step taken.

    Raises:
        ValueError: the environment resets itself in its step, and would begin the next episode.
    """
    _check_reset("action_repeat", env)
    if number == 1:
        return env
    ops = env.ops

    def step(key, state, action):
        def goes_on(now):
            state, answer = now
            return ops.xp.logical_not(_done(answer)) & _is_valid(env, state, action)

        def again(key, now):
            before = now[1]
            state, answer = env.step(key, now[0], action)
            sums = {"reward": before.reward + answer.reward}
            if env.spec.has_score:
                sums["score"] = before.score + answer.score
            return state, answer._replace(**sums)

        keys = ops.split(key, number)
        return ops.repeat(goes_on, again, keys[1:], env.step(keys[0], state, action))

    return env._replace(step=step)


def _done(answer: Step):
    return answer.terminated | answer.truncated


def _is_valid(env, state, action):
    mask, space = env.mask(state), env.spec.action_space
    if mask is None:
        return True
    if isinstance(space, Discrete):
        return mask[action]
    return mask[np.arange(len(space.nvec)), env.ops.xp.reshape(action, -1)].all()


def _mask_of_inner(env):
    return lambda state: env.mask(state.env_state)


def _check_reset(name, env):
    if env.resets_itself:
        raise ValueError(f"wrappers: {name} is not for {env.spec.name!r}: it resets itself in step")


def _is_count(value):
    return type(value) is int and 1 <= value < 2**31


def _is_number(value):
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


_COUNT = dict(value="a whole number from 1 to 2**31 - 1", is_allowed=_is_count)
WRAPPERS = {
    "mask_velocity": Named(mask_velocity),
    "flatten": Named(flatten),
    "frame_stack": Named(frame_stack, **_COUNT, example="4"),
    "clip_reward": Named(
        clip_reward,
        "a number above 0",
        lambda bound: _is_number(bound) and 0 < bound < math.inf,
        is_optional=True,
    ),
    "sticky_actions": Named(
        sticky_actions,
        "a number in [0, 1)",
        lambda probability: _is_number(probability) and 0 <= probability < 1,
        "0.25",
    ),
    "time_limit": Named(time_limit, **_COUNT, example="500"),
    "action_repeat": Named(action_repeat, **_COUNT, example="4"),
}
"""By name, in the order in which an error lists them."""

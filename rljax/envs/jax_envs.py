"""Environments written in JAX, of gymnax's interface, as pure functions.

`reset` and `step` are of a single environment, to be `vmap`ped by who uses them. All that comes out
is cast here, once: observations to one float32 array, rewards to float32, flags to bool; and all
that an environment gives is looked at here, while it is traced.
"""

import contextlib
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rljax.config import reworded
from rljax.envs import spaces
from rljax.envs.interface import EnvSpec, Step
from rljax.envs.spaces import Box
from rljax.utils.errors import what_is_wrong
from rljax.utils.pytrees import named_leaves

_RESET = ("obs", "state")
_STEP_ENV = ("obs", "state", "reward", "terminated", "info")
_STEP = ("obs", "state", "reward", "terminated", "truncated", "info")
"""What an environment's methods return."""


class Env(NamedTuple):
    """One environment as pure functions."""

    spec: EnvSpec
    reset: Callable[[jax.Array], tuple[Any, jax.Array]]
    """key -> (state, obs): a new episode."""
    draw: Callable[..., Any]
    """(key, shape=()) -> all that steps [*shape] need of chance: for each its key, and the start of
    the next episode should this one end. It does not depend on the state, so a rollout draws it
    for all its steps at once, outside its loop."""
    step: Callable[[Any, Any, jax.Array], tuple[Any, Step]]
    """(draw, state, action) -> (state, Step), with auto-reset."""
    mask: Callable[[Any], jax.Array | None]
    """state -> bool [*mask_shape] the valid actions, or None where all are."""


def make(name: str, source: Any, params: Any) -> Env:
    """An `Env` of an environment with gymnax's interface.

    Args:
        source: has `reset`, `step` and `action_space`.
        params: what its methods are given as parameters.

    Raises:
        ValueError, TypeError: a space that is not supported; or the environment, when it is traced,
            does not keep to the interface: the message says what was expected and what came.
    """
    try:
        return _make(name, source, params)
    except (ValueError, TypeError) as error:
        raise reworded(error, f"env = {name!r}: {what_is_wrong(error)}") from error


def _make(name, source, params):
    space = _declared(source, "action_space", params)
    action_space = spaces.action_space(space)
    if isinstance(action_space, Box) and hasattr(source, "action_mask"):
        raise ValueError("continuous actions have no action_mask")
    kind = _observation(source, params)
    encode = partial(spaces.encode, kind, xp=jnp)
    first = np.asarray(getattr(space, "start", 0), np.int32)
    tell_mask = getattr(source, "action_mask", None)

    def own_action(action):
        return action + first if first.any() else action

    def mask(state):
        return tell_mask and spaces.mask(action_space, tell_mask(state, params), jnp)

    def reset(key):
        obs, state = _unpacked(source, "reset", source.reset(key, params), _RESET)
        return jax.tree.map(_strong, state), encode(obs)

    def draw(key, shape=()):
        key_step, key_reset = jax.random.split(key)
        resets = reset
        for _ in shape:
            resets = jax.vmap(resets)
        return jax.random.split(key_step, shape), resets(jax.random.split(key_reset, shape))

    def step(draw, state, action):
        key, (fresh_state, fresh_obs) = draw
        answer = source.step_env(key, state, own_action(action), params)
        answer = _unpacked(source, "step_env", answer, _STEP_ENV)
        obs, next_state, reward, terminated, info = answer
        _check_info(source, info)
        truncated = source.is_truncated(next_state, params)
        flags = _flags(terminated, truncated)
        done = jnp.logical_or(*flags)
        next_state = jax.tree.map(
            lambda fresh, stepped: jnp.where(done, fresh, stepped),
            fresh_state,
            _typed_as(fresh_state, next_state),
        )
        obs = encode(obs)
        next_obs = jnp.where(done, fresh_obs, obs)
        return next_state, Step(
            next_obs, _scalar("reward", reward, jnp.float32), *flags, obs, mask(next_state)
        )

    def step_with_own_reset(key, state, action):
        answer = source.step(key, state, own_action(action), params)
        answer = _unpacked(source, "step", answer, _STEP)
        obs, next_state, reward, terminated, truncated, info = answer
        _check_info(source, info)
        next_state = _typed_as(state, next_state)
        if "final_observation" not in info:
            raise TypeError(f"{type(source).__name__}.step gives no info['final_observation']")
        final_obs = encode(info["final_observation"])
        flags = _flags(terminated, truncated)
        step = Step(
            encode(obs), _scalar("reward", reward, jnp.float32), *flags, final_obs, mask(next_state)
        )
        return next_state, step

    if not _resets_as_gymnax_does(source):
        draw, step = (lambda key, shape=(): jax.random.split(key, shape)), step_with_own_reset
    spec = EnvSpec(name, kind, action_space, tell_mask is not None)
    env = Env(spec, reset, draw, step, mask)
    _try_step(env)
    return env


def _declared(source, method, params):
    """The space that a method gives."""
    try:
        return getattr(source, method)(params)
    except NotImplementedError:
        raise TypeError(f"{type(source).__name__} has no {method}(params)") from None
    except (AttributeError, TypeError) as error:
        raise TypeError(f"{method}(params) must give a space, and fails: {error}") from error


def _observation(source, params):
    """By tracing the environment: declared spaces can be wrong."""

    # Gymnax's own reset would take apart whatever reset_env gives.
    method = "reset_env" if _resets_as_gymnax_does(source) else "reset"

    def first_obs(key):
        return _unpacked(source, method, getattr(source, method)(key, params), _RESET)[0]

    obs = _traced("reset", first_obs, _key())
    space = None
    if hasattr(source, "observation_space"):
        with contextlib.suppress(NotImplementedError):  # gymnax's base class
            space = source.observation_space(params)
    return spaces.observed(space, obs)


def _try_step(env):
    """Traces a step, so that what goes wrong does so before training."""
    space = env.spec.action_space
    dtype = jnp.float32 if isinstance(space, Box) else jnp.int32

    action = jax.ShapeDtypeStruct(space.shape, dtype)
    # Apart, so that a step knows no values of its state, as in training.
    state, _ = _traced("reset", env.reset, _key())
    draw = _traced("reset", env.draw, _key())
    _traced("step", env.step, draw, state, action)


def _key():
    return jax.eval_shape(lambda: jax.random.key(0))


def _traced(method, function, *args):
    """`jax.eval_shape`, whose errors, and the environment's own, are told in one line."""
    try:
        return jax.eval_shape(function, *args)
    except (Exception, SystemExit) as error:
        is_told = type(error) in (ValueError, TypeError) and "\n" not in str(error)
        if is_told:
            raise
        line = (str(error).strip() or repr(error)).splitlines()[0]
        text = f"its {method} fails: {type(error).__name__}: {line}"
        raise reworded(error, text) from error


def _unpacked(source, method, answer, names):
    """What a method returned, if it is a tuple of these."""
    if isinstance(answer, tuple | list) and len(answer) == len(names):
        return answer
    came = type(answer).__name__
    if isinstance(answer, tuple | list):
        came = f"{len(answer)} values"
    elif hasattr(answer, "shape"):
        came = f"an array of shape {answer.shape}"
    before = ", as before gymnax 1.0" if method == "step" and came == "5 values" else ""
    wanted = ", ".join(names)
    raise TypeError(f"{type(source).__name__}.{method} must return ({wanted}), not {came}{before}")


def _typed_as(fresh, stepped):
    """A state after a step, of the types that it had when reset, as it is carried through a loop.
    Python's numbers, of weak types, take on those; another type would lose what it holds.

    Raises:
        TypeError: leaf and types are named.
    """
    before, after = (dict(named_leaves(state)) for state in (fresh, stepped))
    if jax.tree.structure(fresh) != jax.tree.structure(stepped):
        only = sorted(before.keys() ^ after.keys())
        differing = f" ({', '.join(only)} only in one of them)" if only else ""
        raise TypeError(f"its state has another structure after a step than when reset{differing}")
    typed = []
    for name, leaf in before.items():
        now = jnp.asarray(after[name])
        is_other = (now.dtype, now.shape) != (leaf.dtype, leaf.shape)
        if is_other and now.weak_type and jnp.result_type(leaf, now) == leaf.dtype:
            now = now.astype(leaf.dtype)
        if (now.dtype, now.shape) != (leaf.dtype, leaf.shape):
            kinds = (f"{x.dtype}{list(x.shape)}" for x in (leaf, now))
            which = f"'{name}' in its state" if name else "its state"
            raise TypeError("{} is {} when reset and {} after a step".format(which, *kinds))
        typed.append(now)
    return jax.tree.structure(fresh).unflatten(typed)


def _check_info(source, info):
    if not isinstance(info, Mapping):
        raise TypeError(f"info must be a dict, not {type(info).__name__}")
    if "action_mask" in info and not hasattr(source, "action_mask"):
        raise TypeError(
            f"{type(source).__name__}: info['action_mask'] comes after the first action; give the"
            " mask by a method action_mask(state, params)"
        )


def _flags(terminated, truncated):
    flags = {"terminated": terminated, "truncated": truncated}
    return tuple(_scalar(name, flag, jnp.bool_) for name, flag in flags.items())


def _scalar(name, x, dtype):
    x = jnp.asarray(x)
    if x.shape != ():
        raise ValueError(f"{name} must be a scalar, not of shape {x.shape}")
    if not jnp.isrealobj(x):
        raise TypeError(f"{name} must be a real number, not {x.dtype}")
    return jax.lax.convert_element_type(x, dtype)


def _resets_as_gymnax_does(source):
    """Whether `step` is gymnax's own, so that it can be taken apart into step and reset."""
    from gymnax.environments.environment import Environment

    kind = type(source)
    inherits = isinstance(source, Environment)
    return inherits and kind.step is Environment.step and kind.reset is Environment.reset


def _strong(x):
    return jax.lax.convert_element_type(x, jnp.result_type(x))

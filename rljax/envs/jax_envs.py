"""Environments in JAX, with the gymnax interface, as pure functions.

`reset` and `step` are of a single environment, for the caller to `vmap`. What it returns is checked
while it is traced, and cast: rewards to float32, flags to bool, observations to one float32 array.
An array of bools or of whole numbers of 8 or 16 bits keeps its dtype, for `networks.blocks`.
"""

import contextlib
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rljax.envs import encoding, spaces
from rljax.envs.interface import EnvSpec, Step
from rljax.envs.spaces import Box, Numbers
from rljax.utils.errors import reworded, what_is_wrong
from rljax.utils.pytrees import named_leaves

_RETURNS = {
    "reset": "obs, state",
    "reset_env": "obs, state",
    "step_env": "obs, state, reward, terminated, info",
    "step": "obs, state, reward, terminated, truncated, info",
}
"""What the methods of the gymnax interface return."""


class Env(NamedTuple):
    """One environment as pure functions."""

    spec: EnvSpec
    reset: Callable[[jax.Array], tuple[Any, jax.Array]]  # key -> (state, obs): a new episode
    draw: Callable[..., Any]
    """(key, shape=()) -> the random part of steps [*shape]: for each its key, and the first state
    of the next episode in case this one ends. They do not depend on the state, so that a rollout
    makes those of all its steps at once, outside its loop."""
    step: Callable[[Any, Any, jax.Array], tuple[Any, Step]]
    """(what `draw` gives for a step, state, action) -> (state, Step), with auto-reset."""
    mask: Callable[[Any], jax.Array | None]  # state -> bool [*mask_shape]; None if all are valid


def make(name: str, source: Any, params: Any) -> Env:
    """An `Env` of `source`, which has the methods of the gymnax interface, and their `params`.

    Raises:
        ValueError, TypeError: a space is not supported, or the environment, when traced, does not
            follow the interface; the message says what was expected and what came.
    """
    try:
        return _make(name, source, params)
    except (ValueError, TypeError) as error:
        raise reworded(error, f"env = {name!r}: {what_is_wrong(error)}") from error


def _make(name, source, params):
    space = _declared_action_space(source, params)
    action_space = spaces.action_space(space)
    if isinstance(action_space, Box) and hasattr(source, "action_mask"):
        raise ValueError("continuous actions have no action_mask")
    kind = _observation(source, params, action_space)
    encode = partial(encoding.encode, kind, xp=jnp)
    first = np.asarray(getattr(space, "start", 0), np.int32)
    own_mask = getattr(source, "action_mask", None)

    def call(method, key, state, action):
        action = action + first if first.any() else action
        *answer, info = _called(source, method, key, state, action, params)
        _check_info(source, info)
        return *answer, info

    def mask(state):
        return own_mask and spaces.mask(action_space, own_mask(state, params), jnp)

    def finish(state, obs, reward, flags, final_obs):
        reward = _scalar("reward", reward, jnp.float32)
        return state, Step(obs, reward, *flags, final_obs, mask(state))

    def reset(key):
        obs, state = _called(source, "reset", key, params)
        strong = jax.tree.map(lambda x: jax.lax.convert_element_type(x, jnp.result_type(x)), state)
        return strong, encode(obs)

    def draw(key, shape=()):
        key_step, key_reset = jax.random.split(key)
        resets = reset
        for _ in shape:
            resets = jax.vmap(resets)
        return jax.random.split(key_step, shape), resets(jax.random.split(key_reset, shape))

    def step(randomness, state, action):
        key, (fresh_state, fresh_obs) = randomness
        obs, state, reward, terminated, _ = call("step_env", key, state, action)
        flags = _flags(terminated, source.is_truncated(state, params))
        done = jnp.logical_or(*flags)
        either = partial(jax.tree.map, lambda fresh, stepped: jnp.where(done, fresh, stepped))
        state, obs = either(fresh_state, _typed_as(fresh_state, state)), encode(obs)
        return finish(state, either(fresh_obs, obs), reward, flags, obs)

    def step_with_own_reset(key, state, action):
        obs, stepped, reward, *flags, info = call("step", key, state, action)
        state = _typed_as(state, stepped)
        if "final_observation" not in info:
            raise TypeError(f"{type(source).__name__}.step gives no info['final_observation']")
        final_obs, flags = encode(info["final_observation"]), _flags(*flags)
        return finish(state, encode(obs), reward, flags, final_obs)

    if not _resets_as_gymnax_does(source):
        draw, step = (lambda key, shape=(): jax.random.split(key, shape)), step_with_own_reset
    spec = EnvSpec(name, kind, action_space, own_mask is not None)
    env = Env(spec, reset, draw, step, mask)
    _try_step(env)
    return env


def _declared_action_space(source, params):
    try:
        return source.action_space(params)
    except NotImplementedError:
        raise TypeError(f"{type(source).__name__} has no action_space(params)") from None
    except (AttributeError, TypeError) as error:
        raise TypeError(f"action_space(params) must give a space, and fails: {error}") from error


def _observation(source, params, action_space):
    """Found by tracing `reset`, as declared spaces can be wrong."""
    # Gymnax's own reset unpacks what reset_env returns, before it can be checked.
    methods = ("reset_env", "step_env") if _resets_as_gymnax_does(source) else ("reset", "step")
    reset, step = (partial(_called, source, method) for method in methods)
    key = jax.eval_shape(jax.random.key, 0)
    obs = _traced("reset", lambda key: reset(key, params)[0], key)
    space = None
    if hasattr(source, "observation_space"):
        with contextlib.suppress(NotImplementedError):  # gymnax's base class
            space = source.observation_space(params)
    kind = spaces.observed(space, obs)
    if not isinstance(kind, Numbers) or not _is_small(obs.dtype):
        return kind

    def after_a_step(key, action):
        obs, *_, info = step(key, reset(key, params)[1], action, params)
        _check_info(source, info)
        return obs, info.get("final_observation", obs)

    found = _traced("step", after_a_step, key, _abstract_action(action_space))
    is_same = all(leaf.dtype == obs.dtype for leaf in jax.tree.leaves(found))
    return kind._replace(dtype=obs.dtype.name) if is_same else kind


def _is_small(dtype):
    return dtype.kind in "biu" and dtype.itemsize < 4


def _abstract_action(space):
    return jax.ShapeDtypeStruct(space.shape, jnp.float32 if isinstance(space, Box) else jnp.int32)


def _try_step(env):
    """Traces a step, so that it fails before training if it does."""
    key, action = jax.eval_shape(jax.random.key, 0), _abstract_action(env.spec.action_space)
    # Traced apart, so that the state is abstract in a step, as in training.
    state, _ = _traced("reset", env.reset, key)
    randomness = _traced("reset", env.draw, key)
    _traced("step", env.step, randomness, state, action)


def _traced(method, function, *args):
    """`jax.eval_shape`, with its errors and the environment's own in one line."""
    try:
        return jax.eval_shape(function, *args)
    except (Exception, SystemExit) as error:
        if type(error) in (ValueError, TypeError) and "\n" not in str(error):
            raise
        line = (str(error).strip() or repr(error)).splitlines()[0]
        raise reworded(error, f"its {method} fails: {type(error).__name__}: {line}") from error


def _called(source, method, *args):
    """What a method returns, checked to be as many values as the interface says."""
    answer, wanted = getattr(source, method)(*args), _RETURNS[method]
    if isinstance(answer, tuple | list) and len(answer) == len(wanted.split()):
        return answer
    came = type(answer).__name__
    if isinstance(answer, tuple | list):
        came = f"{len(answer)} values"
    elif hasattr(answer, "shape"):
        came = f"an array of shape {answer.shape}"
    came += ", as before gymnax 1.0" if method == "step" and came == "5 values" else ""
    raise TypeError(f"{type(source).__name__}.{method} must return ({wanted}), not {came}")


def _typed_as(fresh, stepped):
    """A state after a step, with the types that it had when reset, as a loop carries it. Python's
    numbers, which are weakly typed, are cast; other types, which would lose their values, and
    another structure are refused by a TypeError that names the leaf and both types."""
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
        what = "comes after the first action; give the mask by a method action_mask(state, params)"
        raise TypeError(f"{type(source).__name__}: info['action_mask'] {what}")


def _flags(terminated, truncated):
    return _scalar("terminated", terminated, jnp.bool_), _scalar("truncated", truncated, jnp.bool_)


def _scalar(name, x, dtype):
    x = jnp.asarray(x)
    if x.shape != ():
        raise ValueError(f"{name} must be a scalar, not of shape {x.shape}")
    if not jnp.isrealobj(x):
        raise TypeError(f"{name} must be a real number, not {x.dtype}")
    return jax.lax.convert_element_type(x, dtype)


def _resets_as_gymnax_does(source):
    """Whether `step` is gymnax's own, which can be split into step and reset."""
    from gymnax.environments.environment import Environment

    kind = type(source)
    inherits = isinstance(source, Environment)
    return inherits and kind.step is Environment.step and kind.reset is Environment.reset

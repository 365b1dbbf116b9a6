"""Environments from ids and objects: those written in JAX, behind one small interface.

`make` turns an id or an object with gymnax's interface into an `Env`: an `EnvSpec` and pure
functions. `reset` and `step` are of a single environment, to be `vmap`ped by who uses them. All
that comes out is cast here, once: observations and rewards to float32, flags to bool.
Gymnasium's, which Python steps, become a `host.HostEnv`.
"""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np

from rljax import host
from rljax.config import KeyValues, load_attribute, unknown
from rljax.host import HostEnv
from rljax.types import Box, Discrete, EnvSpec, Step

_DOWNLOADS = "MNISTBandit-bsuite"


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


def make(env: Any, env_kwargs: KeyValues = (), env_params: KeyValues = ()) -> Env | HostEnv:
    """The environment that an id or an object stands for.

    Args:
        env: a gymnax id or, where gymnax has none of that name, a gymnasium id; the prefixes
            "gymnax/" and "gymnasium/" choose. "package.module:attribute", which names an
            environment, its class or a function that makes it; or such an object itself.
            Gymnasium's are made several times over, so that an object must be a class or function.
        env_kwargs: keyword arguments of the constructor.
        env_params: overrides of the environment's parameters; gymnasium's have none.

    Raises:
        ValueError: no such environment or parameter, or a space that is not supported.
        TypeError: no environment of either kind, or no such keyword argument.
    """
    with jax.ensure_compile_time_eval():  # constructors compute with values, also under `jax.jit`
        found = _find(env)
        source = _build(env, found, dict(env_kwargs))
        if isinstance(source, gymnasium.Env):
            return _host_env(env, found, source, dict(env_kwargs), dict(env_params))
        params = _override(getattr(source, "default_params", None), dict(env_params))
        name = env if isinstance(env, str) else getattr(source, "name", type(source).__name__)
        action_space = _action_space(name, source.action_space(params))
    reset, draw, step = _functions(source, params)
    obs_shape = _obs_shape(name, source, params, action_space, reset, draw, step)
    return Env(EnvSpec(name, obs_shape, action_space), reset, draw, step)


def _find(env):
    """An environment or what makes one."""
    if not isinstance(env, str):
        return env
    if ":" in env:
        return load_attribute(env)
    if env.startswith("gymnasium/"):
        return _gymnasium_factory(env.removeprefix("gymnasium/"))
    return _gymnax_factory(env)


def _build(env, found, kwargs):
    """An environment with gymnax's or gymnasium's interface."""
    if isinstance(found, type) or not hasattr(found, "step"):
        if not callable(found):
            raise TypeError(f"env = {env!r}: no environment with gymnax's interface")
        _check_kwargs(env, found, kwargs)
        found = found(**kwargs)
    elif kwargs:
        raise TypeError(f"env_kwargs = {kwargs}: {env!r} is already made and takes none")
    if isinstance(found, gymnasium.Env):
        return found
    missing = [name for name in ("reset", "step", "action_space") if not hasattr(found, name)]
    if missing:
        raise TypeError(f"env = {env!r}: lacks {', '.join(missing)} of gymnax's interface")
    return found


def _gymnax_factory(env):
    import gymnax  # takes seconds, and starts JAX's backend

    name = env.removeprefix("gymnax/")
    if name == _DOWNLOADS:
        raise ValueError(f"env = {name!r}: it downloads its data when made and is not supported")
    if name in gymnax.registered_envs:
        return lambda **kwargs: gymnax.make(name, **kwargs)[0]
    known = [known for known in gymnax.registered_envs if known != _DOWNLOADS]
    if env.startswith("gymnax/"):
        raise ValueError(unknown("environment", name, known))
    if name in gymnasium.registry:
        return _gymnasium_factory(name)
    raise ValueError(unknown("environment", name, [*known, *gymnasium.registry]))


def _gymnasium_factory(name):
    if name not in gymnasium.registry:
        raise ValueError(unknown("environment", name, list(gymnasium.registry)))

    def build(**kwargs):
        try:
            return gymnasium.make(name, disable_env_checker=True, **kwargs)
        except (gymnasium.error.DependencyNotInstalled, ModuleNotFoundError) as error:
            raise ValueError(f"env = {name!r}: {error}") from error

    return build


def _host_env(env, found, built, kwargs, params):
    if built is found:
        raise TypeError(f"env = {env!r}: give its class or a function, to make several")
    if params:
        built.close()
        raise ValueError(f"env_params = {params}: gymnasium's environments have none")
    name = env if isinstance(env, str) else built.spec.id if built.spec else type(built).__name__
    return host.make(name, built, lambda: found(**kwargs))


def _check_kwargs(env, factory, kwargs):
    try:
        inspect.signature(factory).bind(**kwargs)
    except TypeError as error:
        raise TypeError(f"env_kwargs = {kwargs}: {env!r} does not take them ({error})") from error


def _override(params, overrides):
    if not overrides:
        return params
    known = list(vars(params)) if params is not None else []
    for name in overrides:
        if name not in known:
            raise ValueError(unknown("environment parameter", name, known))
    return params.replace(**overrides)


def _functions(source, params):
    """reset, draw and step of an `Env`."""

    def reset(key):
        obs, state = source.reset(key, params)
        return jax.tree.map(_strong, state), _float32(obs)

    def draw(key, shape=()):
        key_step, key_reset = jax.random.split(key)
        resets = reset
        for _ in shape:
            resets = jax.vmap(resets)
        return jax.random.split(key_step, shape), resets(jax.random.split(key_reset, shape))

    def step(draw, state, action):
        key, (fresh_state, fresh_obs) = draw
        obs, next_state, reward, terminated, _ = source.step_env(key, state, action, params)
        truncated = source.is_truncated(next_state, params)
        done = jnp.logical_or(terminated, truncated)
        next_state = jax.tree.map(
            lambda fresh, stepped: jnp.where(done, fresh, stepped).astype(fresh.dtype),
            fresh_state,
            next_state,
        )
        obs = _float32(obs)
        next_obs = jnp.where(done, fresh_obs, obs)
        return next_state, Step(
            next_obs, _float32(reward), _bool(terminated), _bool(truncated), obs
        )

    def step_with_own_reset(key, state, action):
        obs, next_state, reward, terminated, truncated, info = source.step(
            key, state, action, params
        )
        next_state = jax.tree.map(lambda old, new: jnp.asarray(new, old.dtype), state, next_state)
        if "final_observation" not in info:
            raise TypeError(f"{type(source).__name__}.step gives no info['final_observation']")
        final_obs = _float32(info["final_observation"])
        step = Step(_float32(obs), _float32(reward), _bool(terminated), _bool(truncated), final_obs)
        return next_state, step

    if _resets_as_gymnax_does(source):
        return reset, draw, step
    return reset, lambda key, shape=(): jax.random.split(key, shape), step_with_own_reset


def _resets_as_gymnax_does(source):
    """Whether `step` is gymnax's own, so that it can be taken apart into step and reset."""
    from gymnax.environments.environment import Environment

    kind = type(source)
    inherits = isinstance(source, Environment)
    return inherits and kind.step is Environment.step and kind.reset is Environment.reset


def _obs_shape(name, source, params, action_space, reset, draw, step):
    """By tracing the environment: declared spaces can be wrong."""
    key = jax.eval_shape(lambda: jax.random.key(0))
    obs = jax.eval_shape(lambda key: source.reset(key, params)[0], key)
    if not hasattr(obs, "shape"):
        raise ValueError(
            f"env = {name!r}: observations must be one array, not {type(obs).__name__}"
        )
    discrete = isinstance(action_space, Discrete)
    action = jax.ShapeDtypeStruct(action_space.shape, jnp.int32 if discrete else jnp.float32)

    def reset_and_step(key, action):
        return step(draw(key), reset(key)[0], action)

    _, answer = jax.eval_shape(reset_and_step, key, action)
    if answer.reward.shape != ():
        raise ValueError(f"env = {name!r}: rewards must be scalars, not {answer.reward.shape}")
    return obs.shape


def _action_space(name, space):
    """By the attributes of the space, so that gymnax's and a user's own classes both serve."""
    if hasattr(space, "n") and getattr(space, "shape", ()) == ():
        return Discrete(int(space.n))
    if hasattr(space, "low") and hasattr(space, "high"):
        low = np.broadcast_to(np.asarray(space.low, np.float32), space.shape)
        high = np.broadcast_to(np.asarray(space.high, np.float32), space.shape)
        return Box(tuple(space.shape), tuple(low.ravel().tolist()), tuple(high.ravel().tolist()))
    raise ValueError(f"env = {name!r}: unsupported action space {space}; Discrete and Box are")


def _strong(x):
    return jax.lax.convert_element_type(x, jnp.result_type(x))


def _float32(x):
    return jax.lax.convert_element_type(x, jnp.float32)


def _bool(x):
    return jax.lax.convert_element_type(x, jnp.bool_)

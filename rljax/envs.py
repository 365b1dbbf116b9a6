"""Environments from ids and objects: those written in JAX, behind one small interface.

`make` turns an id or an object with gymnax's interface into an `Env`: an `EnvSpec` and pure
functions. `reset` and `step` are of a single environment, to be `vmap`ped by who uses them. All
that comes out is cast here, once: observations to one float32 array, rewards to float32, flags to
bool. Gymnasium's, which Python steps, become a `host.HostEnv`.
"""

import contextlib
import copy
import inspect
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np

from rljax import host, spaces, values
from rljax.config import KeyValues, load_attribute, load_module, unknown
from rljax.host import HostEnv
from rljax.spaces import Box
from rljax.types import EnvSpec, Step

_DOWNLOADS = "MNISTBandit-bsuite"
_EXTRAS = {
    "gymnasium.envs.box2d": "rljax[box2d]",
    "gymnasium.envs.mujoco": "gymnasium[mujoco]",
    "gymnasium.envs.phys2d": "gymnasium[classic-control]",
    "ale_py": "gymnasium[atari]",
}
"""What brings the packages of registered environments, by the module that has them."""
_SUITES = {
    "ALE/": "gymnasium[atari]",
    "MiniGrid-": "minigrid",
    "dm_control/": "shimmy[dm-control]",
}
"""What registers environments, by the beginning of their ids."""


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


def make(
    env: Any,
    env_kwargs: KeyValues = (),
    env_params: KeyValues = (),
    num_envs: int = 1,
    vectorization: str = "sync",
) -> Env | HostEnv:
    """The environment that an id or an object stands for.

    Args:
        env: a gymnax id or, where gymnax has none of that name, a gymnasium id; the prefixes
            "gymnax/" and "gymnasium/" choose. "package.module:attribute", which names an
            environment, its class or a function that makes it; or such an object itself.
            Gymnasium's are made several times over, so that an object must be a class or function.
        env_kwargs: keyword arguments of the constructor.
        env_params: overrides of the environment's parameters; gymnasium's have none.
        num_envs, vectorization: of gymnasium's, how many `HostEnv.open` opens, and whether "sync",
            one after another in this process, or "async", each in a process of its own. Those in
            JAX are single, to be `vmap`ped.

    Raises:
        ValueError: no such environment or parameter, a missing package, or a space that is not
            supported.
        TypeError: no environment of either kind, or no such keyword argument.
    """
    with jax.ensure_compile_time_eval():  # constructors compute with values, also under `jax.jit`
        found = _find(env)
        source = _build(env, found, values.thawed(env_kwargs))
        if isinstance(source, gymnasium.Env):
            kwargs, params = env_kwargs, dict(env_params)
            return _host_env(env, found, source, kwargs, params, num_envs, vectorization)
        params = _override(getattr(source, "default_params", None), dict(env_params))
        name = env if isinstance(env, str) else getattr(source, "name", type(source).__name__)
        if vectorization != "sync":
            raise ValueError(
                f"vectorization = {vectorization!r}: {name!r} is written in JAX and needs none"
                " (gymnasium/ID is gymnasium's)"
            )
        return _functions(name, source, params)


def _find(env):
    """An environment or what makes one."""
    if not isinstance(env, str):
        return env
    if env.startswith("gymnasium/"):
        return _gymnasium_factory(env.removeprefix("gymnasium/"))
    if ":" in env:
        return load_attribute(env)
    return _gymnax_factory(env)


def _build(env, found, kwargs):
    """An environment with gymnax's or gymnasium's interface."""
    if isinstance(found, type) or not hasattr(found, "step"):
        if not callable(found):
            raise TypeError(f"env = {env!r}: no environment of gymnax's or gymnasium's interface")
        _check_kwargs(env, found, kwargs)
        try:
            found = found(**kwargs)
        except (ValueError, TypeError):
            raise
        except Exception as error:
            raise ValueError(f"env = {env!r}: {type(error).__name__}: {error}") from error
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
    if name in gymnasium.registry or name.startswith("ALE/"):
        return _gymnasium_factory(name)
    raise _unknown(name, [*known, *gymnasium.registry])


def _gymnasium_factory(env):
    """Of an id, or of "module:id", where importing the module registers it."""
    module, _, name = env.rpartition(":")
    if module:
        load_module(env, module)
    elif name.startswith("ALE/"):
        with contextlib.suppress(ValueError):
            load_module(env, "ale_py")
    spec = gymnasium.registry.get(name)
    if spec is None:
        raise _unknown(name, list(gymnasium.registry))

    # Its specification instead of the id, which another process may not know; and without the
    # wrapper that checks whether it was reset, which it always is.
    quick = copy.deepcopy(spec)
    quick.order_enforce = False
    if str(spec.entry_point).startswith("__main__:"):  # which is another one there
        quick.entry_point = load_attribute(spec.entry_point)

    def build(**kwargs):
        try:
            return gymnasium.make(quick, disable_env_checker=True, **kwargs)
        except (gymnasium.error.DependencyNotInstalled, ImportError) as error:
            raise ValueError(f"env = {name!r}: {_missing(spec) or error}") from error

    return build


def _unknown(name, known):
    install = [package for start, package in _SUITES.items() if name.startswith(start)]
    hint = f" ({name} comes with pip install '{install[0]}')" if install else ""
    return ValueError(unknown("environment", name, known) + hint)


def _missing(spec):
    for start, package in _EXTRAS.items():
        if str(spec.entry_point).startswith(start):
            return f"a package is missing: pip install '{package}'"
    return None


def _host_env(env, found, built, kwargs, params, num_envs, vectorization):
    if built is found:
        raise TypeError(f"env = {env!r}: give its class or a function, to make several")
    if params:
        built.close()
        raise ValueError(f"env_params = {params}: gymnasium's environments have none")
    name = env if isinstance(env, str) else built.spec.id if built.spec else type(built).__name__
    return host.make(name, built, lambda: found(**values.thawed(kwargs)), num_envs, vectorization)


def _check_kwargs(env, factory, kwargs):
    try:
        inspect.signature(factory).bind(**kwargs)
    except TypeError as error:
        raise TypeError(f"env_kwargs = {kwargs}: {env!r} does not take them ({error})") from error


def _override(params, overrides):
    if not overrides:
        return params
    known = list(vars(params)) if params is not None else []
    for name, value in overrides.items():
        if name not in known:
            raise ValueError(unknown("environment parameter", name, known))
        is_text = isinstance(getattr(params, name), str)
        if isinstance(value, str) != is_text:
            kind = "text" if is_text else "a number"
            raise TypeError(f"environment parameter {name} = {value!r}: must be {kind}")
    return params.replace(**overrides)


def _functions(name, source, params):
    """An `Env` of an environment with gymnax's interface."""
    space = source.action_space(params)
    try:
        action_space = spaces.action_space(space)
    except ValueError as error:
        raise ValueError(f"env = {name!r}: {error}") from error
    if isinstance(action_space, Box) and hasattr(source, "action_mask"):
        raise ValueError(f"env = {name!r}: continuous actions have no action_mask")
    kind = _observation(source, params)
    encode = partial(spaces.encode, kind, xp=jnp)
    first = np.asarray(getattr(space, "start", 0), np.int32)
    tell_mask = getattr(source, "action_mask", None)

    def own_action(action):
        return action + first if first.any() else action

    def mask(state):
        return tell_mask and spaces.mask(action_space, tell_mask(state, params), jnp)

    def reset(key):
        obs, state = source.reset(key, params)
        return jax.tree.map(_strong, state), encode(obs)

    def draw(key, shape=()):
        key_step, key_reset = jax.random.split(key)
        resets = reset
        for _ in shape:
            resets = jax.vmap(resets)
        return jax.random.split(key_step, shape), resets(jax.random.split(key_reset, shape))

    def step(draw, state, action):
        key, (fresh_state, fresh_obs) = draw
        obs, next_state, reward, terminated, info = source.step_env(
            key, state, own_action(action), params
        )
        _check_info(source, info)
        truncated = source.is_truncated(next_state, params)
        done = jnp.logical_or(terminated, truncated)
        next_state = jax.tree.map(
            lambda fresh, stepped: jnp.where(done, fresh, stepped).astype(fresh.dtype),
            fresh_state,
            next_state,
        )
        obs = encode(obs)
        flags = _bool(terminated), _bool(truncated)
        next_obs = jnp.where(done, fresh_obs, obs)
        return next_state, Step(next_obs, _float32(reward), *flags, obs, mask(next_state))

    def step_with_own_reset(key, state, action):
        obs, next_state, reward, terminated, truncated, info = source.step(
            key, state, own_action(action), params
        )
        _check_info(source, info)
        next_state = jax.tree.map(lambda old, new: jnp.asarray(new, old.dtype), state, next_state)
        if "final_observation" not in info:
            raise TypeError(f"{type(source).__name__}.step gives no info['final_observation']")
        final_obs = encode(info["final_observation"])
        flags = _bool(terminated), _bool(truncated)
        step = Step(encode(obs), _float32(reward), *flags, final_obs, mask(next_state))
        return next_state, step

    if not _resets_as_gymnax_does(source):
        draw, step = (lambda key, shape=(): jax.random.split(key, shape)), step_with_own_reset
    spec = EnvSpec(name, kind, action_space, tell_mask is not None)
    env = Env(spec, reset, draw, step, mask)
    _check_reward(env)
    return env


def _observation(source, params):
    """By tracing the environment: declared spaces can be wrong."""
    key = jax.eval_shape(lambda: jax.random.key(0))
    obs = jax.eval_shape(lambda key: source.reset(key, params)[0], key)
    space = None
    if hasattr(source, "observation_space"):
        with contextlib.suppress(NotImplementedError):  # gymnax's base class
            space = source.observation_space(params)
    return spaces.observed(space, obs)


def _check_info(source, info):
    if "action_mask" in info and not hasattr(source, "action_mask"):
        raise TypeError(
            f"{type(source).__name__}: info['action_mask'] comes after the first action; give the"
            " mask by a method action_mask(state, params)"
        )


def _check_reward(env):
    key = jax.eval_shape(lambda: jax.random.key(0))
    space = env.spec.action_space
    dtype = jnp.float32 if isinstance(space, Box) else jnp.int32

    def reset_and_step(key, action):
        state, _ = env.reset(key)
        return env.step(env.draw(key), state, action)

    _, answer = jax.eval_shape(reset_and_step, key, jax.ShapeDtypeStruct(space.shape, dtype))
    if answer.reward.shape != ():
        shape = answer.reward.shape
        raise ValueError(f"env = {env.spec.name!r}: rewards must be scalars, not {shape}")


def _resets_as_gymnax_does(source):
    """Whether `step` is gymnax's own, so that it can be taken apart into step and reset."""
    from gymnax.environments.environment import Environment

    kind = type(source)
    inherits = isinstance(source, Environment)
    return inherits and kind.step is Environment.step and kind.reset is Environment.reset


def _strong(x):
    return jax.lax.convert_element_type(x, jnp.result_type(x))


def _float32(x):
    return jax.lax.convert_element_type(x, jnp.float32)


def _bool(x):
    return jax.lax.convert_element_type(x, jnp.bool_)

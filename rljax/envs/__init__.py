"""Environments from ids and objects.

`make` turns an id or an object with gymnax's interface into a `jax_envs.Env`, and what leads to one
of gymnasium's, which Python steps, into a `host.HostEnv`.
"""

import contextlib
import copy
import inspect
from typing import Any

import gymnasium
import jax

from rljax.config import KeyValues, load_attribute, load_module, unknown
from rljax.envs import host_envs, jax_envs
from rljax.envs.guarded import close
from rljax.envs.host_envs import HostEnv
from rljax.envs.jax_envs import Env
from rljax.utils import forkserver, values
from rljax.utils.errors import is_interrupt, what_is_wrong

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
        ValueError: JAX's default types have 64 bits: environments then give others than they were
            written for.
        TypeError: no environment of either kind, or no such keyword argument.
    """
    if jax.config.jax_enable_x64:
        raise ValueError(
            "jax_enable_x64 = True: must be off, as rljax computes in 32 bits (unset"
            " JAX_ENABLE_X64, or jax.config.update('jax_enable_x64', False))"
        )
    with jax.ensure_compile_time_eval():  # constructors compute with values, also under `jax.jit`
        found = _find(env)
        key = _key(env, found, env_kwargs)
        made = host_envs.known(key, _builder(found, env_kwargs), num_envs, vectorization)
        if made and not env_params:
            return made
        before = forkserver.children()
        source = _build(env, found, values.thawed(env_kwargs))
        if isinstance(source, gymnasium.Env):
            params = dict(env_params)
            with forkserver.children_ended(before):
                return _host_env(env, found, source, env_kwargs, params, num_envs, vectorization)
        params = _override(getattr(source, "default_params", None), dict(env_params))
        name = env if isinstance(env, str) else getattr(source, "name", type(source).__name__)
        if vectorization != "sync":
            raise ValueError(
                f"vectorization = {vectorization!r}: {name!r} is written in JAX and needs none"
                " (gymnasium/ID is gymnasium's)"
            )
        return jax_envs.make(name, source, params)


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
        found = _construct(env, found, kwargs)
    elif kwargs:
        raise TypeError(f"env_kwargs = {kwargs}: {env!r} is already made and takes none")
    if isinstance(found, gymnasium.Env):
        return found
    missing = [name for name in ("reset", "step", "action_space") if not hasattr(found, name)]
    if missing:
        raise TypeError(f"env = {env!r}: lacks {', '.join(missing)} of gymnax's interface")
    return found


def _construct(env, found, kwargs):
    try:
        return found(**kwargs)
    except BaseException as error:
        if is_interrupt(error):
            raise
        is_said = type(error) in (ValueError, TypeError)
        text = what_is_wrong(error)
        text = text if text.startswith("env = ") else f"env = {env!r}: {text}"
        raise (type(error) if is_said else ValueError)(text) from error


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

    build.__registration__ = spec
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
        close(built)
        raise ValueError(f"env_params = {params}: gymnasium's environments have none")
    name = env if isinstance(env, str) else built.spec.id if built.spec else type(built).__name__
    key = _key(env, found, kwargs)
    return host_envs.make(name, built, _builder(found, kwargs), num_envs, vectorization, key)


def _builder(found, kwargs):
    """What makes one, each with values of its own."""
    return lambda: found(**values.thawed(kwargs))


def _key(env, found, kwargs):
    """For `host.known`: a name, and that it stands for the very same class, function or
    registration. A class that is given itself may be changed by who has it, and has none."""
    if not isinstance(env, str):
        return None
    return env, id(getattr(found, "__registration__", found)), repr(kwargs)


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

"""Environments by id, by path or as objects.

Ids are gymnax's or, where gymnax has none of that name, gymnasium's; the prefixes "gymnax/" and
"gymnasium/" choose. "package.module:attribute" is the path of an environment, of its class or of a
function that makes it.
"""

import contextlib
import copy
import inspect
from typing import Any

import gymnasium
import jax

from rljax.config import KeyValues
from rljax.envs import host_envs, jax_envs
from rljax.envs.guarded import close
from rljax.envs.host_envs import HostEnv
from rljax.envs.jax_envs import Env
from rljax.utils import forkserver, values
from rljax.utils.errors import is_interrupt, reworded, what_is_wrong
from rljax.utils.lookup import load_attribute, load_module, unknown

_DOWNLOADS = "MNISTBandit-bsuite"
_PACKAGES = {
    "gymnasium.envs.box2d": "rljax[box2d]",
    "gymnasium.envs.mujoco": "gymnasium[mujoco]",
    "gymnasium.envs.phys2d": "gymnasium[classic-control]",
    "ale_py": "gymnasium[atari]",
    "ALE/": "gymnasium[atari]",
    "MiniGrid-": "minigrid",
    "dm_control/": "shimmy[dm-control]",
}
"""What to install, by the beginning of a registered environment's entry point or of an id."""


def make(
    env: Any,
    env_kwargs: KeyValues = (),
    env_params: KeyValues = (),
    num_envs: int = 1,
    vectorization: str = "sync",
) -> Env | HostEnv:
    """Makes an environment: an `Env` if it is in JAX, a `HostEnv` if it is gymnasium's.

    Args:
        env: an id or a path, as the module describes, or an object: an environment, its class or a
            function that makes it. As several gymnasium environments are made, it must not be one
            of them itself.
        env_kwargs: keyword arguments of the constructor.
        env_params: overrides of a gymnax environment's parameters.
        num_envs, vectorization: of the `HostEnv`. An `Env` is a single one, for `vmap`.

    Raises:
        ValueError: an unknown environment or parameter, a missing package, or a space that is not
            supported; or JAX's default types have 64 bits, which environments are not written for.
        TypeError: an object that is no environment, or an unknown keyword argument.
    """
    if jax.config.jax_enable_x64:
        how = "unset JAX_ENABLE_X64, or jax.config.update('jax_enable_x64', False)"
        what = f"must be off, as rljax computes in 32 bits ({how})"
        raise ValueError(f"jax_enable_x64 = True: {what}")
    with jax.ensure_compile_time_eval():  # constructors compute with values, also under `jax.jit`
        found = _find(env)
        # Each environment gets values of its own.
        options = (lambda: found(**values.thawed(env_kwargs))), num_envs, vectorization
        params, is_named = dict(env_params), isinstance(env, str)
        key = None  # an object may be changed by whoever has it
        if is_named:  # the id, and the very class, function or registration that it names
            key = env, id(getattr(found, "__registration__", found)), repr(env_kwargs)
        known = host_envs.known(key, *options)
        if known and not params:
            return known
        before = forkserver.children()
        source = _build(env, found, values.thawed(env_kwargs))
        if isinstance(source, gymnasium.Env):
            with forkserver.children_ended(before):
                name = _check_host_env(env, found, source, params)
                return host_envs.make(name, source, *options, key)
        params = _override(getattr(source, "default_params", None), params)
        name = env if is_named else getattr(source, "name", type(source).__name__)
        if vectorization != "sync":
            what = f"{name!r} is written in JAX and needs none (gymnasium/ID chooses gymnasium's)"
            raise ValueError(f"vectorization = {vectorization!r}: {what}")
        return jax_envs.make(name, source, params)


def has_vectors(env: Any) -> bool:
    """Whether observations are known, by the id alone, to be no images: making an environment may
    start JAX. Where gymnax and gymnasium share an id, it is the same environment."""
    name = env.removeprefix("gymnasium/").removeprefix("gymnax/") if isinstance(env, str) else ""
    entry = str(getattr(gymnasium.registry.get(name), "entry_point", ""))
    suites = ("classic_control", "box2d", "mujoco", "toy_text")
    return entry.startswith(tuple(f"gymnasium.envs.{suite}" for suite in suites)) and (
        "car_racing" not in entry
    )


def _find(env):
    """An environment or what makes one."""
    if not isinstance(env, str):
        return env
    if env.startswith("gymnasium/"):
        return _gymnasium_factory(env.removeprefix("gymnasium/"))
    return load_attribute(env) if ":" in env else _gymnax_factory(env)


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
    """For an id, or for "module:id", where importing the module registers the id."""
    module, _, name = env.rpartition(":")
    if module:
        load_module(env, module)
    elif name.startswith("ALE/"):
        with contextlib.suppress(ValueError):
            load_module(env, "ale_py")
    spec = gymnasium.registry.get(name)
    if spec is None:
        raise _unknown(name, list(gymnasium.registry))

    # The specification instead of the id, which another process may not know; without the wrapper
    # that checks that it was reset, which it always is.
    quick = copy.deepcopy(spec)
    quick.order_enforce = False
    if str(spec.entry_point).startswith("__main__:"):  # another module in another process
        quick.entry_point = load_attribute(spec.entry_point)

    def build(**kwargs):
        try:
            return gymnasium.make(quick, disable_env_checker=True, **kwargs)
        except (gymnasium.error.DependencyNotInstalled, ImportError) as error:
            package = _package(str(spec.entry_point))
            text = f"a package is missing: pip install '{package}'" if package else error
            raise ValueError(f"env = {name!r}: {text}") from error

    build.__registration__ = spec
    return build


def _unknown(name, known):
    package = _package(name)
    hint = f" ({name} comes with pip install '{package}')" if package else ""
    return ValueError(unknown("environment", name, known) + hint)


def _package(name):
    return next((_PACKAGES[start] for start in _PACKAGES if name.startswith(start)), None)


def _build(env, found, kwargs):
    if isinstance(found, type) or not hasattr(found, "step"):
        found = _construct(env, found, kwargs)
    elif kwargs:
        raise TypeError(f"env_kwargs = {kwargs}: {env!r} is already made and takes none")
    if isinstance(found, gymnasium.Env):
        return found
    missing = [name for name in ("reset", "step", "action_space") if not hasattr(found, name)]
    if missing:
        raise TypeError(f"env = {env!r}: lacks {', '.join(missing)} of the gymnax interface")
    return found


def _construct(env, factory, kwargs):
    if not callable(factory):
        raise TypeError(f"env = {env!r}: has neither gymnax's interface nor gymnasium's")
    try:
        inspect.signature(factory).bind(**kwargs)
    except TypeError as error:
        raise TypeError(f"env_kwargs = {kwargs}: {env!r} does not take them ({error})") from error
    try:
        return factory(**kwargs)
    except BaseException as error:
        if is_interrupt(error):
            raise
        text = what_is_wrong(error)
        text = text if text.startswith("env = ") else f"env = {env!r}: {text}"
        raise reworded(error, text) from error


def _check_host_env(env, found, built, params):
    """The name of a gymnasium environment, of which several can be made."""
    if built is found:
        raise TypeError(f"env = {env!r}: give its class or a function, to make several")
    if params:
        close(built)
        raise ValueError(f"env_params = {params}: gymnasium's environments have none")
    return env if isinstance(env, str) else built.spec.id if built.spec else type(built).__name__


def _override(params, overrides):
    if not overrides:
        return params
    known = list(vars(params)) if params is not None else []
    for name, value in overrides.items():
        if name not in known:
            raise ValueError(unknown("environment parameter", name, known))
        kind = "text" if isinstance(getattr(params, name), str) else "a number"
        if isinstance(value, str) != (kind == "text"):
            raise TypeError(f"environment parameter {name} = {value!r}: must be {kind}")
    return params.replace(**overrides)

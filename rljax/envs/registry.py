"""Environments made from an id, a path or an object."""

import inspect
from collections.abc import Sequence
from functools import partial
from typing import Any

import gymnasium
import jax

from rljax.config import KeyValues
from rljax.envs import (
    atari,
    autoreset,
    by_index,
    catalogue,
    host_envs,
    jax_envs,
    known,
    parameters,
    wrapping,
)
from rljax.envs.atari import Atari
from rljax.envs.autoreset import Env
from rljax.envs.guarded import close
from rljax.envs.host_envs import HostEnv
from rljax.utils import env_settings, forkserver
from rljax.utils.errors import is_interrupt, reworded, what_is_wrong


def make(
    env: Any,
    env_kwargs: KeyValues = (),
    env_params: Any = (),
    num_envs: int = 1,
    vectorization: str = "sync",
    wrappers: Sequence[Any] = (),
    frame_stack: int = 1,
    reset: str = "auto",
    log_info: tuple[str, ...] = (),
    reset_options: Any = (),
    env_processes: int | None = None,
) -> Env | HostEnv:
    """Makes an environment: an `Env` if it is in JAX, a `HostEnv` if it is gymnasium's.

    Args:
        env: an id or a path, as `catalogue` describes, or an object: an environment, its class or a
            function that makes it. As several gymnasium environments are made, it must not be one
            of them itself.
        env_kwargs: keyword arguments of the constructor; for a gymnasium environment, as
            `by_index.of_index` takes them.
        env_params: of an environment in JAX, as `parameters.override` takes them.
        num_envs, vectorization, env_processes: of the `HostEnv`, as `Config` has them. An `Env` is
            a single one, for `vmap`.
        wrappers, frame_stack: as `Config` has them.
        reset: of an `Env`, as `autoreset.make` takes it.
        log_info: the numbers of its info that `Step.info` has, as `infos.numbers` finds them.
        reset_options: of each reset of a gymnasium environment, as `by_index.of_index` takes them.

    Raises:
        ValueError: an unknown environment, parameter or wrapper, a wrapper that does not fit, a
            missing package, or a space that is not supported; or JAX's default types have 64 bits,
            which environments are not written for.
        TypeError: an object that is no environment, or an unknown keyword argument.
    """
    if jax.config.jax_enable_x64:
        how = "unset JAX_ENABLE_X64, or jax.config.update('jax_enable_x64', False)"
        what = f"must be off, as rljax computes in 32 bits ({how})"
        raise ValueError(f"jax_enable_x64 = True: {what}")
    with jax.ensure_compile_time_eval():  # modules compute values when imported
        found, chosen = catalogue.find(env), wrapping.chosen(wrappers)
    own = env_kwargs, reset_options  # functions, which the environment holds on to, by identity
    settings = [id(x) if callable(x) else x for x in own]
    settings += env_params, *wrappers, frame_stack, reset, log_info
    functions = [wrapper.function for wrapper in chosen]
    key = _key(env, found, settings, functions)
    made = known.get(key)
    if made is None:
        made = _make(env, found, *own, env_params, chosen, frame_stack, log_info)
        made = wrapping.wrap(made, chosen, frame_stack)
        made = made if isinstance(made, HostEnv) else autoreset.make(made, reset)
        known.keep(key, made, (found, functions))
    if isinstance(made, HostEnv):
        if reset == "cached":
            raise ValueError(f"reset = 'cached': Python steps {made.spec.name!r} and resets it")
        how = dict(vectorization=vectorization, processes=env_processes)
        return made._replace(num_envs=num_envs, **how)
    if vectorization != "sync":
        what = f"{made.spec.name!r} is written in JAX and needs none"
        what += " (gymnasium/ID chooses gymnasium's)"
        raise ValueError(f"vectorization = {vectorization!r}: {what}")
    return made


def _key(env, found, settings, functions):
    """The id or path, and the very class, function or registration that it names, and wrappers
    name; None for an object, which may be changed by whoever has it."""
    is_object = any(
        callable(x) or (isinstance(x, tuple) and any(map(callable, x))) for x in settings
    )
    if not isinstance(env, str) or not callable(found) or is_object:
        return None
    named = getattr(found, "__registration__", found), *functions
    return env, *map(id, named), repr(settings)


def _make(env, found, env_kwargs, reset_options, env_params, wrappers, frame_stack, log_info):
    before = forkserver.children()
    kwargs = by_index.of_index("env_kwargs", env_kwargs)
    options = by_index.of_index("reset_options", reset_options) if reset_options else None
    with jax.ensure_compile_time_eval():  # constructors compute with values, also under `jax.jit`
        source = _build(env, found, kwargs(0))
    if isinstance(source, gymnasium.Env):
        with forkserver.children_ended(before):
            name = _check_host_env(env, found, source, env_params)
            if isinstance(source, Atari):
                names = [wrapper.text for wrapper in wrappers if not wrapper.is_own]
                atari.check_wrappers(name, source.settings, names, frame_stack)

            def build(index):
                return wrapping.outside(found(**kwargs(index)), wrappers)

            try:
                source = wrapping.outside(source, wrappers)
            except BaseException:
                close(source)
                raise
            made = host_envs.make(name, source, build, options)
            differ = any(map(env_settings.is_function, (env_kwargs, reset_options)))
            together = getattr(found, "together", None)
            if together and not (differ or wrappers or frame_stack > 1 or log_info):
                made = made._replace(together=partial(together, kwargs(0)))
            return made._replace(log_info=log_info, differ=differ)
    _check_alike(env, env_kwargs, reset_options)
    with jax.ensure_compile_time_eval():
        default = getattr(source, "default_params", None)
        params, varied = parameters.override(default, env_params)
    name = env if isinstance(env, str) else getattr(source, "name", type(source).__name__)
    return jax_envs.make(name, source, params, varied, log_info)


def _check_alike(env, env_kwargs, reset_options):
    what = f"{env!r} is written in JAX, and gymnasium's environments alone"
    if env_settings.is_function(env_kwargs):
        raise ValueError(f"env_kwargs = {env_kwargs!r}: {what} differ by their index")
    if reset_options:
        raise ValueError(f"reset_options: {what} have them")


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
        shown = dict(params) if isinstance(params, tuple) else params
        raise ValueError(f"env_params = {shown}: gymnasium's environments have none")
    return env if isinstance(env, str) else built.spec.id if built.spec else type(built).__name__

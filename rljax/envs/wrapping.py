"""Environments in the wrappers of `Config.wrappers`, by name or a user's own.

Those by name (`wrappers`) are for every environment. One's own is a function or class, or its path
'package.module:attribute': of an environment in JAX it takes an `MDP` and gives another; of
gymnasium's it takes a `gymnasium.Env`, as gymnasium's own wrappers do, and comes before those by
name. What such a wrapper learns, as NormalizeObservation does, is in no checkpoint, and each
environment learns it for itself, in an evaluation anew.
"""

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import gymnasium
import jax
import jax.numpy as jnp

from rljax.envs import host_envs, jax_envs
from rljax.envs.host_envs import HostEnv
from rljax.envs.interface import MDP, Step, wrapped
from rljax.envs.wrappers import WRAPPERS, frame_stack
from rljax.utils import values
from rljax.utils.errors import is_interrupt, reworded, what_is_wrong
from rljax.utils.lookup import load_attribute, unknown


class Wrapper(NamedTuple):
    """A wrapper with its arguments."""

    text: str  # what it is called in errors
    function: Callable
    args: tuple = ()
    kwargs: Mapping[str, Any] = {}
    is_own: bool = False

    def __call__(self, env: Any) -> Any:
        return self.function(env, *self.args, **self.kwargs)


def chosen(items: Iterable[Any]) -> list[Wrapper]:
    """The wrappers of `Config.wrappers`, as a config holds them.

    Raises:
        ValueError: there is no such wrapper, or it has a wrong value or lacks one.
        TypeError: it is no function.
    """
    return [_chosen(item) for item in items]


def _chosen(item):
    if isinstance(item, str):
        function, equals, value = item.partition("=")
        written, text = [value] if equals else [], item
    else:
        function, *written = item if isinstance(item, tuple) else (item,)
        text = "=".join((getattr(function, "__qualname__", repr(function)), *written))
    try:
        given = tuple(map(values.read, written))
    except ValueError as error:
        raise ValueError(f"wrappers: {text}: {error}") from None
    if isinstance(item, str) and ":" not in function:
        return _named(text, function, given)
    return _own(text, _loaded(function) if isinstance(item, str) else function, given)


def _loaded(path):
    try:
        return load_attribute(path)
    except ValueError as error:
        raise ValueError(f"wrappers: {error}") from error


def _named(text, name, given):
    if name not in WRAPPERS:
        what = unknown("wrapper", name, list(WRAPPERS))
        raise ValueError(f"{what} (or package.module:attribute)")
    named = WRAPPERS[name]
    if not given:
        if named.value and not named.is_optional:
            how = f"{name}={named.example}"
            raise ValueError(f"wrappers: {name}: needs a value, as {how}: {named.value}")
    elif not named.value:
        raise ValueError(f"wrappers: {text}: {name} takes no value")
    elif not named.is_allowed(given[0]):
        raise ValueError(f"wrappers: {text}: must be {named.value}")
    return Wrapper(text, named.wrap, given)


def _own(text, function, given):
    if not callable(function):
        raise TypeError(f"wrappers: {text}: must be a function or a class")
    kwargs = given[0] if given and isinstance(given[0], dict) else {}
    args = () if kwargs or given == ({},) else given
    try:
        inspect.signature(function).bind(None, *args, **kwargs)
    except TypeError as error:
        what = f"does not take an environment and {given[0]!r}" if given else "needs a value"
        raise TypeError(f"wrappers: {text}: {what} ({error})") from error
    except ValueError:  # it has no signature
        pass
    return Wrapper(text, function, args, kwargs, is_own=True)


def outside(env: gymnasium.Env, wrappers: Sequence[Wrapper]) -> gymnasium.Env:
    """A gymnasium environment in the wrappers that are one's own.

    Raises:
        ValueError, TypeError: one fails, gives no environment, or follows one by name.
    """
    for before, wrapper in zip((None, *wrappers), wrappers):
        if wrapper.is_own and before is not None and not before.is_own:
            what = "wraps gymnasium's environment itself and must come before"
            raise ValueError(f"wrappers: {wrapper.text} {what} {before.text}")
        env = _called(wrapper, env, gymnasium.Env, "a gymnasium.Env") if wrapper.is_own else env
    return env


def wrap(env: MDP | HostEnv, wrappers: Sequence[Wrapper], stack: int = 1) -> MDP | HostEnv:
    """An environment in wrappers, the first one innermost, and with its last `stack` observations
    as one. Those of one's own are around a `HostEnv` already (`outside`).

    Raises:
        ValueError, TypeError: one does not fit, or one of one's own fails or gives no environment.
    """
    stacks = [Wrapper("frame_stack", frame_stack, (stack,))] if stack > 1 else []
    if isinstance(env, HostEnv):
        named = [wrapper for wrapper in wrappers if not wrapper.is_own]
        return host_envs.in_wrappers(env, (*named, *stacks))
    for wrapper in wrappers:
        env = _in_own(wrapper, env) if wrapper.is_own else wrapper(env)
    return wrapped(env, stacks)


def _in_own(wrapper, env):
    function = wrapper.function
    if isinstance(function, type) and issubclass(function, gymnasium.Wrapper):
        how = f"and {env.spec.name!r} is written in JAX (gymnasium/ID chooses gymnasium's)"
        raise ValueError(f"wrappers: {wrapper.text} wraps gymnasium's environments, {how}")
    made = _called(wrapper, env, MDP, "an MDP, as it is given")
    try:
        _check(made)
    except (ValueError, TypeError) as error:
        raise reworded(error, f"wrappers: {wrapper.text}: {what_is_wrong(error)}") from error
    return made


def _called(wrapper, env, kind, kind_name):
    try:
        with jax.ensure_compile_time_eval():  # it may compute values, also under `jax.jit`
            made = wrapper(env)
    except BaseException as error:
        if is_interrupt(error):
            raise
        raise reworded(error, f"wrappers: {wrapper.text}: {what_is_wrong(error)}") from error
    if not isinstance(made, kind):
        what = f"must give {kind_name}, not {type(made).__name__}"
        raise TypeError(f"wrappers: {wrapper.text}: {what}")
    return made


def _check(mdp):
    """That it follows the interface, when traced."""
    first, stepped = jax_envs.try_step(mdp)
    if not (_is_pair(first) and _is_pair(stepped) and isinstance(stepped[1], Step)):
        raise TypeError("its reset must return (state, obs), and its step (state, Step)")
    (state, obs), (after, answer) = first, stepped
    kind = mdp.spec.observation
    of_obs = jax.ShapeDtypeStruct(kind.shape, getattr(kind, "dtype", "float32"))
    number, flag = jax.ShapeDtypeStruct((), jnp.float32), jax.ShapeDtypeStruct((), jnp.bool_)
    wanted = {"obs": of_obs, "final_obs": of_obs, "reward": number}
    wanted |= {"terminated": flag, "truncated": flag}
    found = {"the first obs": obs, **answer._asdict()}
    for name, of in {"the first obs": of_obs, **wanted}.items():
        if _kind(found[name]) != _kind(of):
            raise TypeError(f"{name} must be {_kind(of)}, not {_kind(found[name])}")
    before, now = (jax.tree.map(_kind, one) for one in (state, after))
    if before != now:
        raise TypeError(f"its state is {before} when reset and {now} after a step")


def _is_pair(x):
    return isinstance(x, tuple) and len(x) == 2


def _kind(x):
    return f"{x.dtype}{list(x.shape)}" if hasattr(x, "dtype") else type(x).__name__

"""Gymnasium environments, which Python steps.

As in JAX, observations are encoded (`encoding`), actions are numbered from 0, the end of an episode
resets the environment within the step, and the true successor is kept.
"""

import contextlib
import traceback
from collections.abc import Callable, Iterable, Sequence
from multiprocessing.util import Finalize
from typing import Any, NamedTuple

import gymnasium
import jax
import numpy as np

from rljax.envs import encoding, known, spaces, vectorized
from rljax.envs.guarded import Failed, close, reset_answer, reset_settings
from rljax.envs.interface import MDP, EnvSpec, Step, wrapped
from rljax.envs.ops import IN_PYTHON
from rljax.envs.spaces import Box, Numbers
from rljax.utils import pytrees
from rljax.utils.errors import WRONG, in_a_line, is_interrupt, what_is_wrong
from rljax.utils.forkserver import EnvError, RefusedError

ACTION_NOT_FINITE = "action is not finite"  # says an error of the policy, not the environment
OBSERVATION_NOT_FINITE = "observation is not finite in float32"


class HostEnv(NamedTuple):
    """An environment that Python steps; `jax_envs.Env` is its counterpart in JAX."""

    spec: EnvSpec  # of the environment in its wrappers
    own_spec: EnvSpec  # without them
    declared: tuple[gymnasium.Space, gymnasium.Space]  # of its observations and of its actions
    build: Callable[[int], gymnasium.Env]  # from its index, as `by_index` counts
    encode: Callable[[Any], np.ndarray]  # an observation of its own -> one array [*obs_shape]
    decode: Callable[[np.ndarray], Any]  # an action from 0 [*action_shape] -> one of its own
    num_envs: int = 1
    vectorization: str = "sync"  # in this process, or "async", in processes of their own
    processes: int | None = None  # of "async" environments; as many as cores
    wrappers: tuple[Callable[[MDP], MDP], ...] = ()  # the first one innermost
    log_info: tuple[str, ...] = ()  # what its info must have where an episode ends
    options: Callable[[int], dict] | None = None  # of each reset, from its index
    differ: bool = False  # whether what is made of it depends on the index
    together: Callable[[int, int], Any] | None = None
    """(number, threads) -> as many of them, as one `vectorized.SyncEnvs`, if there is a faster one
    where nothing is around them."""
    first: int = 0  # index of the first of the `num_envs`

    @property
    def indices(self) -> range:
        """Of the environments that it opens."""
        return range(self.first, self.first + self.num_envs)

    def open(self, seeds: Sequence[int] | None = None) -> "HostVectorEnv":
        """Makes `num_envs` of them, to be stepped together. The seeds [B], by default 0 to B - 1,
        are for the global generators of "async" environments' processes, while they are made.

        Raises:
            RefusedError: one of them could not be made.
        """
        return HostVectorEnv(self, range(self.num_envs) if seeds is None else seeds)


def make(
    name: str,
    env: gymnasium.Env,
    build: Callable[[int], gymnasium.Env],
    options: Callable[[int], dict] | None = None,
) -> HostEnv:
    """Describes what `build` makes by the first such environment, which is reset once, with its
    options, and closed.

    Raises:
        ValueError: a space is missing or not supported, or the first observation outside of it.
        EnvError: the first reset failed.
    """
    try:
        spec, declared = _describe(name, env, options)
    except WRONG as error:
        raise ValueError(f"env = {name!r}: {what_is_wrong(error)}") from error
    finally:
        close(env)
    encode, decode = encoding.encoder(spec.observation), encoding.decoder(declared[1])
    return HostEnv(spec, spec, declared, build, encode, decode, options=options)


def in_wrappers(env: HostEnv, wrappers: Sequence[Callable[[MDP], MDP]]) -> HostEnv:
    """The environment in wrappers, the first one innermost.

    Raises:
        ValueError: a wrapper does not fit.
    """
    env = env._replace(wrappers=(*env.wrappers, *wrappers))
    return env._replace(spec=_in_wrappers(env).spec)


def given(env: HostEnv) -> tuple[Callable[[Any], np.ndarray], int | None]:
    """How a policy encodes what it is given of an environment outside of `HostEnv.open`: a function
    from an observation, or if observations are stacked from the last N as a sequence, the oldest
    first, to one array [*obs_shape]; and how many axes that has, or None if it is no array of
    numbers."""
    mdp, kind = _in_wrappers(env), env.own_spec.observation
    axes = len(kind.shape) + mdp.stacks if isinstance(kind, Numbers) else None

    def encode(obs, stacks=mdp.stacks):
        return [encode(one, stacks - 1) for one in obs] if stacks else env.encode(obs)

    return lambda obs: mdp.observe(encode(obs)), axes


def _in_wrappers(env):
    """The description of one that is not open."""
    return wrapped(MDP(env.own_spec, None, None, None, ops=IN_PYTHON), env.wrappers)


def _describe(name, env, options):
    declared = _space(env, "observation_space"), _space(env, "action_space")
    observation, action_space = spaces.observation(declared[0]), spaces.action_space(declared[1])
    obs, info = reset_answer(_reset(name, env, options))
    if isinstance(observation, Numbers) and spaces.is_kept(declared[0].dtype):
        observation = observation._replace(dtype=declared[0].dtype.name)
    encoding.encode(observation, obs)
    if "action_mask" in info:
        if isinstance(action_space, Box):
            raise ValueError("continuous actions have no action_mask")
        spaces.mask(action_space, info["action_mask"])
    own = env.unwrapped
    more = {what: bool(getattr(own, what, False)) for what in ("has_score", "has_over")}
    return EnvSpec(name, observation, action_space, "action_mask" in info, **more), declared


def _space(env, name):
    try:
        return getattr(env, name)
    except BaseException as error:
        if is_interrupt(error):
            raise
        raise ValueError(f"it has no {name} ({in_a_line(error)})") from error


def _reset(name, env, options):
    try:
        return env.reset(seed=0, **reset_settings(options, 0))
    except BaseException as error:
        if is_interrupt(error):
            raise
        text = f"env = {name!r}: its first reset failed:\n{traceback.format_exc().rstrip()}"
        raise EnvError(text) from None


class HostVectorEnv(contextlib.AbstractContextManager):
    """Open environments, stepped together with auto-reset; a context that closes them."""

    def __init__(self, env: HostEnv, seeds: Sequence[int]):
        self.spec, self.num_envs, self.steps = env.spec, env.num_envs, 0
        shape = env.num_envs, len(env.log_info)
        self.no_info = np.zeros(shape, np.float32) if env.log_info else None
        self._envs = vectorized.start(env, seeds)
        # If nobody closes it: before multiprocessing waits for its processes.
        self._end = Finalize(self, self._envs.close, exitpriority=10)
        try:
            check_made(self.spec, self._envs.errors)
        except RefusedError:
            self.close()
            raise

    def __exit__(self, *exception):
        self.close()

    def reset(self, seeds: Sequence[int]) -> tuple[np.ndarray, np.ndarray | None]:
        """Resets every environment with a seed of its own; returns (obs [B, *obs_shape], mask as in
        `Step`).

        The seeds of a process's "async" environments also seed its global generators of NumPy and
        Python. In this process they belong to the caller, and stay as they are.

        Raises:
            EnvError: an environment failed.
        """
        self.steps = 0
        obs, mask = self._call(self._envs.reset, [int(seed) for seed in seeds])
        check_finite(OBSERVATION_NOT_FINITE, obs, self._at)
        return obs, mask

    def step(self, actions: np.ndarray) -> Step:
        """Takes actions [B, *action_shape], resets environments whose episode ends, and returns a
        Step [B, ...] in NumPy.

        Raises:
            EnvError: an environment failed, or an action is not finite.
        """
        self.steps += 1
        check_finite(ACTION_NOT_FINITE, actions, self._at)
        answer = self._call(self._envs.step, actions)
        if answer.final_obs is not answer.obs:
            check_finite(OBSERVATION_NOT_FINITE, answer.final_obs, self._at)
        check_finite(OBSERVATION_NOT_FINITE, answer.obs, self._at)
        return answer  # its reward is finite, as `Guarded` makes sure

    def close(self) -> None:
        """Closes the environments and ends their processes."""
        try:
            self._envs.ask_to_close()
        finally:
            self._end()

    def _call(self, function, given):
        try:
            return function(given)
        except vectorized.Gone as gone:
            raise EnvError(gone.told(self._when())) from gone
        except Failed as one:
            i, error = one.args
            raise failed(self._at(i), error) from None

    def _at(self, i):
        return f"environment {i}{self._when()}"

    def _when(self):
        when = f"at step {self.steps:,}" if self.steps else "at its first reset"
        return f" of {self.spec.name} {when}"


def check_made(spec: EnvSpec, errors: Iterable[str]) -> None:
    """Raises a RefusedError if an environment could not be made, by each one's `Guarded.error`."""
    for i, error in enumerate(errors):
        if error:
            known.forget()
            raise RefusedError(f"env = {spec.name!r}: environment {i}: {error}")


def failed(where: str, error: str) -> EnvError:
    """The error of an environment, which may be a traceback."""
    return EnvError(f"{where}:" + ("\n" if "\n" in error else " ") + error)


def check_finite(error: str, x: np.ndarray, at: Callable[[int], str]) -> None:
    """Raises an EnvError if a row of observations or actions x [B, ...] is not finite; `at` says
    where and when, for the index of an environment."""
    if x.dtype.kind != "f" or pytrees.is_finite(x):
        return
    i = int(np.argmin(np.isfinite(x).reshape(len(x), -1).all(axis=1)))
    shown = " ".join(np.array2string(x[i], threshold=20, precision=3).split())
    raise EnvError(f"{at(i)}: {error}: {shown}")


def seeds(key: jax.Array, num_envs: int) -> np.ndarray:
    """[B] seeds for `HostVectorEnv.reset`, from a key."""
    return np.asarray(jax.random.bits(key, (num_envs,)) >> 1)

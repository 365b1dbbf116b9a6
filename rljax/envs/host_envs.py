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
from rljax.envs.guarded import close, reset_answer, reset_settings
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
    encode: Callable[[Any], np.ndarray]  # an observation of its own -> float32 [*obs_shape]
    decode: Callable[[np.ndarray], Any]  # an action from 0 [*action_shape] -> one of its own
    num_envs: int = 1
    vectorization: str = "sync"  # in this process, or "async", each in a process of its own
    wrappers: tuple[Callable[[MDP], MDP], ...] = ()  # the first one innermost
    log_info: tuple[str, ...] = ()  # what its info must have where an episode ends
    options: Callable[[int], dict] | None = None  # of each reset, from its index
    differ: bool = False  # whether what is made of it depends on the index
    first: int = 0  # index of the first of the `num_envs`

    @property
    def indices(self) -> range:
        """Of the environments that it opens."""
        return range(self.first, self.first + self.num_envs)

    def open(self, seeds: Sequence[int] | None = None) -> "HostVectorEnv":
        """Makes `num_envs` of them, to be stepped together. The seeds [B], by default 0 to B - 1,
        are for the global generators of each "async" environment's process, while it is made.

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
    first, to float32 [*obs_shape]; and how many axes that has, or None if it is no array of
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
    encoding.encode(observation, obs)
    if "action_mask" in info:
        if isinstance(action_space, Box):
            raise ValueError("continuous actions have no action_mask")
        spaces.mask(action_space, info["action_mask"])
    return EnvSpec(name, observation, action_space, "action_mask" in info), declared


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
        self._end = Finalize(self, vectorized.end, (self._envs,), exitpriority=10)
        try:
            check_made(self.spec, self._envs.get_attr("error"))
        except RefusedError:
            self.close()
            raise

    def __exit__(self, *exception):
        self.close()

    def reset(self, seeds: Sequence[int]) -> tuple[np.ndarray, np.ndarray | None]:
        """Resets every environment with a seed of its own; returns (obs [B, *obs_shape], mask as in
        `Step`).

        The seed of an "async" environment also seeds the global generators of NumPy and Python in
        its process. In this process they belong to the caller, and stay as they are.

        Raises:
            EnvError: an environment failed.
        """
        self.steps = 0
        obs, info = self._call(self._envs.reset, seed=[int(seed) for seed in seeds])
        check_finite(OBSERVATION_NOT_FINITE, obs, self._at)
        return obs, info.get("mask")

    def step(self, actions: np.ndarray) -> Step:
        """Takes actions [B, *action_shape], resets environments whose episode ends, and returns a
        Step [B, ...] in NumPy.

        Raises:
            EnvError: an environment failed, or an action is not finite.
        """
        self.steps += 1
        check_finite(ACTION_NOT_FINITE, actions, self._at)
        obs, reward, terminated, truncated, info = self._call(self._envs.step, actions)
        final_obs = obs
        if "final_obs" in info:
            final_obs = obs.copy()
            for i in np.flatnonzero(info["_final_obs"]):
                final_obs[i] = info["final_obs"][i]
            check_finite(OBSERVATION_NOT_FINITE, final_obs, self._at)
        check_finite(OBSERVATION_NOT_FINITE, obs, self._at)
        reward = reward.astype(np.float32, copy=False)  # finite, as `Guarded` makes sure
        logged = info.get("final_info", {}).get("logged", self.no_info)
        score = self._score(info) if self.spec.has_score else None
        return Step(obs, reward, terminated, truncated, final_obs, info.get("mask"), logged, score)

    def close(self) -> None:
        """Closes the environments and ends their processes."""
        try:
            if not self._envs.closed:  # at exit they are, and modules are gone
                vectorized.ask_to_close(self._envs)
        finally:
            self._end()

    def _score(self, info):
        """Those of episodes that ended are apart."""
        score, final = np.zeros(self.num_envs, np.float32), info.get("final_info", {})
        for told in (info, final):
            there = told.get("_score", False)
            score = np.where(there, told.get("score", score), score)
        return score.astype(np.float32)

    def _call(self, function, *args, **kwargs):
        try:
            *answer, info = function(*args, **kwargs)
        except (EOFError, OSError) as error:  # of the pipe to a process
            i, how = vectorized.gone(self._envs.processes)
            raise EnvError(f"{self._at(i)}: its process {how}") from error
        if "error" in info:
            i = int(np.argmax(info["_error"]))
            raise failed(self._at(i), info["error"][i])
        return *answer, info

    def _at(self, i):
        when = f"at step {self.steps:,}" if self.steps else "at its first reset"
        return f"environment {i} of {self.spec.name} {when}"


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
    if pytrees.is_finite(x):
        return
    i = int(np.argmin(np.isfinite(x).reshape(len(x), -1).all(axis=1)))
    shown = " ".join(np.array2string(x[i], threshold=20, precision=3).split())
    raise EnvError(f"{at(i)}: {error}: {shown}")


def seeds(key: jax.Array, num_envs: int) -> np.ndarray:
    """[B] seeds for `HostVectorEnv.reset`, from a key."""
    return np.asarray(jax.random.bits(key, (num_envs,)) >> 1)

"""Environments that Python steps: gymnasium's, vectorised by gymnasium.

What comes out is the same as of environments in JAX: observations encoded as `spaces` says, actions
numbered from 0, auto-reset within the step, the true successor kept.
"""

import contextlib
import os
import time
import traceback
from collections.abc import Callable, Hashable, Sequence
from functools import partial
from multiprocessing.connection import wait
from multiprocessing.util import Finalize
from typing import Any, NamedTuple

import cloudpickle
import gymnasium
import jax
import numpy as np
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, VectorEnv, async_vector_env

from rljax.envs import spaces
from rljax.envs.guarded import Guarded, InTurn, close, reset_answer
from rljax.envs.interface import EnvSpec, Step
from rljax.envs.spaces import Box
from rljax.utils import forkserver
from rljax.utils.errors import WRONG, in_a_line, is_interrupt, text_of, what_is_wrong
from rljax.utils.forkserver import EnvError, RefusedError

GRACE = 2.0
"""Seconds that processes have to close their environments."""


ACTION_NOT_FINITE = "action is not finite"
"""What an error says where not the environment but the policy is to blame."""
OBSERVATION_NOT_FINITE = "observation is not finite in float32"


class HostEnv(NamedTuple):
    """An environment that Python steps; `envs.Env` is its counterpart in JAX."""

    spec: EnvSpec
    declared: tuple[gymnasium.Space, gymnasium.Space]
    """Its own spaces, of observations and of actions."""
    build: Callable[[], gymnasium.Env]
    encode: Callable[[Any], np.ndarray]
    """One of its own observations -> float32 [*obs_shape]."""
    decode: Callable[[np.ndarray], Any]
    """An action numbered from 0 [*action_shape] -> what it takes itself."""
    num_envs: int = 1
    vectorization: str = "sync"
    """"sync": one after another in this process; "async": each in a process of its own."""

    def open(self, seeds: Sequence[int] | None = None) -> "Running":
        """`num_envs` of them, to be stepped together and closed.

        Args:
            seeds: [B] of those in processes, for what they draw from NumPy's and Python's global
                generators while they are made; by default 0, 1, 2 and so on.

        Raises:
            RefusedError: not all of them could be made.
        """
        return Running(self, range(self.num_envs) if seeds is None else seeds)


_known: dict[Hashable, HostEnv] = {}
_MOST_KNOWN = 32


def forget() -> None:
    """What is known may be so no longer: an environment turned out to be another one."""
    _known.clear()


def known(
    key: Hashable, build: Callable[[], gymnasium.Env], num_envs: int, vectorization: str
) -> HostEnv | None:
    """What `make` found out under this key before: an environment of which there can be but one,
    or that takes its time to start, is not made again only to be looked at."""
    found = _known.get(key)
    return found and found._replace(build=build, num_envs=num_envs, vectorization=vectorization)


def make(
    name: str,
    env: gymnasium.Env,
    build: Callable[[], gymnasium.Env],
    num_envs: int,
    vectorization: str,
    key: Hashable = None,
) -> HostEnv:
    """What `build` makes, described by one of them, which is reset once and closed.

    Args:
        key: for `known`; None is none.

    Raises:
        ValueError: a space that is missing or not supported, or a first observation outside of its
            space.
        EnvError: it cannot be reset.
    """
    try:
        described = _describe(name, env)
    except WRONG as error:
        raise ValueError(f"env = {name!r}: {what_is_wrong(error)}") from error
    finally:
        close(env)
    made = HostEnv(*described[:2], build, *described[2:], num_envs, vectorization)
    if key is not None:
        if len(_known) >= _MOST_KNOWN:
            _known.clear()
        _known[key] = made
    return made


def _describe(name, env):
    """What a `HostEnv` says of it: `spec`, `declared`, `encode`, `decode`."""
    declared = tuple(_space(env, of) for of in ("observation_space", "action_space"))
    observation = spaces.observation(declared[0])
    action_space = spaces.action_space(declared[1])
    obs, info = reset_answer(_reset(name, env))
    spaces.encode(observation, obs)
    if "action_mask" in info:
        if isinstance(action_space, Box):
            raise ValueError("continuous actions have no action_mask")
        spaces.mask(action_space, info["action_mask"])
    spec = EnvSpec(name, observation, action_space, "action_mask" in info)
    return spec, declared, spaces.encoder(observation), spaces.decoder(declared[1])


def _space(env, name):
    try:
        return getattr(env, name)
    except BaseException as error:
        if is_interrupt(error):
            raise
        raise ValueError(f"it has no {name} ({in_a_line(error)})") from error


def _reset(name, env):
    try:
        return env.reset(seed=0)
    except BaseException as error:
        if is_interrupt(error):
            raise
        text = f"env = {name!r}: its first reset failed:\n{traceback.format_exc().rstrip()}"
        raise EnvError(text) from None


class Running:
    """Environments at work, stepped together, with auto-reset; a context that closes them."""

    def __init__(self, env: HostEnv, seeds: Sequence[int]):
        self.spec, self.num_envs, self.steps = env.spec, env.num_envs, 0
        self._envs = _vectorize(env, seeds)
        # Should nobody close it: before multiprocessing waits for its processes.
        self._end = Finalize(self, _end, (self._envs,), exitpriority=10)
        for i, error in enumerate(self._envs.get_attr("error")):
            if error:
                self.close()
                forget()
                raise RefusedError(f"env = {self.spec.name!r}: environment {i}: {error}")

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()

    def reset(self, seeds: Sequence[int]) -> tuple[np.ndarray, np.ndarray | None]:
        """Fresh episodes, each environment's chance from a seed of its own.

        In a process of its own that goes for NumPy's and Python's global generators as well, should
        it draw from them. In this process they are the caller's, and left alone.

        Returns:
            (float32 [B, *obs_shape]; bool [B, *mask_shape] the valid actions, or None).

        Raises:
            EnvError: an environment failed.
        """
        self.steps = 0
        obs, info = self._call(self._envs.reset, seed=[int(seed) for seed in seeds])
        self._check_finite(obs, OBSERVATION_NOT_FINITE)
        return obs, info.get("mask")

    def step(self, actions: np.ndarray) -> Step:
        """Acts in every environment; one whose episode ends begins another.

        Args:
            actions: [B, *action_shape], discrete ones from 0.

        Returns:
            Step [B, ...], in NumPy.

        Raises:
            EnvError: an environment failed.
        """
        self.steps += 1
        if isinstance(self.spec.action_space, Box):
            self._check_finite(actions, ACTION_NOT_FINITE)
        obs, reward, terminated, truncated, info = self._call(self._envs.step, actions)
        final_obs = obs
        if "final_obs" in info:
            final_obs = obs.copy()
            for i in np.flatnonzero(info["_final_obs"]):
                final_obs[i] = info["final_obs"][i]
            self._check_finite(final_obs, OBSERVATION_NOT_FINITE)
        self._check_finite(obs, OBSERVATION_NOT_FINITE)
        reward = reward.astype(np.float32)  # finite, as `Guarded` makes sure
        return Step(obs, reward, terminated, truncated, final_obs, info.get("mask"))

    def close(self) -> None:
        """Closes the environments; no process is left."""
        try:
            if hasattr(self._envs, "processes") and not self._envs.closed:
                _ask_to_close(self._envs.parent_pipes)
        finally:
            self._end()

    def _call(self, function, *args, **kwargs):
        try:
            *answer, info = function(*args, **kwargs)
        except (EOFError, OSError) as error:  # of the pipe to a process
            raise EnvError(self._who_is_gone()) from error
        if "error" in info:
            i = int(np.argmax(info["_error"]))
            raise failed(self._at(i), info["error"][i])
        return *answer, info

    def _check_finite(self, x, error):
        if found := not_finite(x):
            i, values = found
            raise EnvError(f"{self._at(i)}: {error}: {values}")

    def _at(self, i):
        when = f"at step {self.steps:,}" if self.steps else "at its first reset"
        return f"environment {i} of {self.spec.name} {when}"

    def _who_is_gone(self):
        i, how = _gone(self._envs.processes)
        return f"{self._at(i)}: its process {how}"


def failed(where: str, error: str) -> EnvError:
    """The error of an environment, which may be a traceback."""
    return EnvError(f"{where}:" + ("\n" if "\n" in error else " ") + error)


def not_finite(x: np.ndarray) -> tuple[int, str] | None:
    """The first row of x [B, ...] that is not finite, and what it holds; None where all are."""
    if np.isfinite(x).all():
        return None
    i = int(np.argmin(np.isfinite(x).reshape(len(x), -1).all(axis=1)))
    return i, " ".join(np.array2string(x[i], threshold=20, precision=3).split())


def seeds(key: jax.Array, num_envs: int) -> np.ndarray:
    """[B] seeds for `Running.reset`, from a key."""
    return np.asarray(jax.random.bits(key, (num_envs,)) >> 1)


def _vectorize(env: HostEnv, seeds: Sequence[int]) -> VectorEnv:
    if env.vectorization == "sync":
        return InTurn(env, env.num_envs)
    forkserver.start_server()
    options = {
        "autoreset_mode": AutoresetMode.SAME_STEP,
        "shared_memory": True,
        "context": "forkserver",
        "worker": partial(_work, forkserver.jax_settings(), [int(seed) for seed in seeds]),
    }
    name = f"env = {env.spec.name!r}"
    try:
        packed = cloudpickle.dumps(env)
    except Exception as error:
        text = f"{name}: it cannot be sent to another process ({text_of(error)})"
        raise RefusedError(f"{text}; name it as 'package.module:attribute'") from error
    before = forkserver.children()
    try:
        with forkserver.main_module_left_out():
            return _InProcesses(env, packed, **options)
    except BaseException as error:
        for process in forkserver.children() - before:
            process.kill()
        if isinstance(error, EOFError | OSError):
            text = f"{name}: a process with an environment cannot be started, or died: {error!r}"
            raise RefusedError(text) from error
        raise


class _InProcesses(AsyncVectorEnv):
    """Guarded environments, each in a process of its own."""

    def __init__(self, env, packed, **options):
        self.name = env.spec.name
        super().__init__([partial(_guarded, packed, os.getpid())] * env.num_envs, **options)

    def _check_spaces(self):
        """The first answers of the processes."""
        try:
            super()._check_spaces()
        except (EOFError, OSError) as error:
            i, how = _gone(self.processes)
            text = f"env = {self.name!r}: environment {i}: its process {how} as it was made"
            raise RefusedError(text) from error


def _guarded(packed, asker):
    """In a process, when that is ready for what the environment imports, which may start JAX. None
    is made in the process that only asks for the spaces."""
    return Guarded(cloudpickle.loads(packed), builds=os.getpid() != asker)


def _gone(workers):
    """(index, how it ended) of the first process that is gone."""
    sentinels = [process.sentinel for process in workers]
    gone = wait(sentinels, timeout=GRACE)
    i = sentinels.index(gone[0]) if gone else 0
    workers[i].join(0)
    return i, forkserver.how_it_ended(workers[i].exitcode)


class _Seeding(gymnasium.Wrapper):
    """For a process of its own: the seed of an environment seeds the global generators too."""

    def reset(self, *, seed=None, options=None):
        if seed is not None:
            forkserver.seed_generators(seed)
        return self.env.reset(seed=seed, options=options)


def _work(settings, seeds, index, make_one, *args):
    """A process with an environment, from its first line on."""
    forkserver.begin()
    from rljax.utils import preload  # noqa: F401  if the server was started by others

    forkserver.take_over(settings)
    forkserver.seed_generators(seeds[index], 1)  # not what it will draw after the reset
    with contextlib.suppress(EOFError, OSError):  # the other end of its pipe is gone
        async_vector_env._async_worker(index, lambda: _Seeding(make_one()), *args)


def _ask_to_close(pipes):
    deadline = time.monotonic() + GRACE
    pipes = [pipe for pipe in pipes if pipe is not None]
    for pipe in pipes:
        with contextlib.suppress(OSError):
            pipe.send(("close", None))
    for pipe in pipes:
        with contextlib.suppress(OSError, EOFError):
            while pipe.poll(max(0.0, deadline - time.monotonic())):
                pipe.recv()  # until it is closed at the other end


def _end(envs):
    for process in getattr(envs, "processes", ()):
        process.kill()
        process.join()
        envs.closed = True  # so that it does not try as well
    envs.close()

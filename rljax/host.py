"""Environments that Python steps: gymnasium's, vectorised by gymnasium.

What comes out is the same as of environments in JAX: observations encoded as `spaces` says, actions
numbered from 0, auto-reset within the step, the true successor kept.
"""

import contextlib
import multiprocessing
import time
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from multiprocessing.connection import wait
from multiprocessing.util import Finalize
from typing import Any, NamedTuple

import cloudpickle
import gymnasium
import jax
import numpy as np
from gymnasium.envs.registration import EnvSpec as GymnasiumSpec
from gymnasium.vector import AutoresetMode, VectorEnv, async_vector_env

from rljax import processes, spaces
from rljax.guarded import Guarded, InTurn, close
from rljax.processes import EnvError, RefusedError
from rljax.spaces import Box
from rljax.types import EnvSpec, Step

GRACE = 2.0
"""Seconds that processes have to close their environments."""


ACTION_NOT_FINITE = "action is not finite"
"""What an error says where not the environment but the policy is to blame."""


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


def make(
    name: str,
    env: gymnasium.Env,
    build: Callable[[], gymnasium.Env],
    num_envs: int,
    vectorization: str,
) -> HostEnv:
    """What `build` makes, described by one of them, which is reset once and closed.

    Raises:
        ValueError: a space that is not supported, or a first observation outside of its space.
        EnvError: it cannot be reset.
    """
    try:
        declared = env.observation_space, env.action_space
        observation = spaces.observation(declared[0])
        action_space = spaces.action_space(declared[1])
        obs, info = _reset(name, env)
        spaces.encode(observation, obs)
        if "action_mask" in info:
            if isinstance(action_space, Box):
                raise ValueError("continuous actions have no action_mask")
            spaces.mask(action_space, info["action_mask"])
    except (ValueError, TypeError, KeyError, IndexError) as error:
        raise ValueError(f"env = {name!r}: {error}") from error
    finally:
        close(env)
    spec = EnvSpec(name, observation, action_space, "action_mask" in info)
    encode, decode = spaces.encoder(observation), spaces.decoder(declared[1])
    return HostEnv(spec, declared, build, encode, decode, num_envs, vectorization)


def _reset(name, env):
    try:
        return env.reset(seed=0)
    except Exception:
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
        self._check_finite(obs, "observation is not finite")
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
            self._check_finite(final_obs, "observation is not finite")
        self._check_finite(obs, "observation is not finite")
        self._check_finite(reward, "reward is not finite")
        reward = reward.astype(np.float32)
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
            error = info["error"][i]
            raise EnvError(f"{self._at(i)}:" + ("\n" if "\n" in error else " ") + error)
        return *answer, info

    def _check_finite(self, x, error):
        if not np.isfinite(x).all():
            i = int(np.argmin(np.isfinite(x).reshape(len(x), -1).all(axis=1)))
            values = np.array2string(x[i], threshold=20, precision=3)
            raise EnvError(f"{self._at(i)}: {error}: {values}")

    def _at(self, i):
        when = f"at step {self.steps:,}" if self.steps else "at its first reset"
        return f"environment {i} of {self.spec.name} {when}"

    def _who_is_gone(self):
        sentinels = [process.sentinel for process in self._envs.processes]
        gone = wait(sentinels, timeout=GRACE)
        i = sentinels.index(gone[0]) if gone else 0
        process = self._envs.processes[i]
        process.join(0)
        return f"{self._at(i)}: its process {processes.how_it_ended(process.exitcode)}"


def seeds(key: jax.Array, num_envs: int) -> np.ndarray:
    """[B] seeds for `Running.reset`, from a key."""
    return np.asarray(jax.random.bits(key, (num_envs,)) >> 1)


def _vectorize(env: HostEnv, seeds: Sequence[int]) -> VectorEnv:
    plain = {"order_enforce": False, "disable_env_checker": True}
    if env.vectorization == "sync":
        made = GymnasiumSpec(
            "rljax/Guarded-v0", vector_entry_point=lambda num_envs: InTurn(env, num_envs), **plain
        )
        return gymnasium.make_vec(made, env.num_envs, "vector_entry_point")
    processes.start_server()
    options = {
        "autoreset_mode": AutoresetMode.SAME_STEP,
        "shared_memory": True,
        "context": "forkserver",
        "worker": partial(_work, processes.jax_settings(), [int(seed) for seed in seeds]),
    }
    name = f"env = {env.spec.name!r}"
    try:
        made = GymnasiumSpec(
            "rljax/Guarded-v0", partial(_unpacked, cloudpickle.dumps(env)), **plain
        )
    except Exception as error:
        text = f"{name}: it cannot be sent to another process ({processes.text_of(error)})"
        raise RefusedError(f"{text}; name it as 'package.module:attribute'") from error
    before = multiprocessing.active_children()
    try:
        with processes.main_module_left_out():
            return gymnasium.make_vec(made, env.num_envs, "async", vector_kwargs=options)
    except BaseException as error:
        for process in set(multiprocessing.active_children()) - set(before):
            process.kill()
        if isinstance(error, EOFError | OSError):
            text = f"{name}: a process with an environment cannot be started, or died: {error!r}"
            raise RefusedError(text) from error
        raise


def _unpacked(packed):
    """In a process, when that is ready for what the environment imports, which may start JAX."""
    return Guarded(cloudpickle.loads(packed))


class _Seeding(gymnasium.Wrapper):
    """For a process of its own: the seed of an environment seeds the global generators too."""

    def reset(self, *, seed=None, options=None):
        if seed is not None:
            processes.seed_generators(seed)
        return self.env.reset(seed=seed, options=options)


def _work(settings, seeds, index, make_one, *args):
    """A process with an environment, from its first line on."""
    processes.begin()
    from rljax import preload  # noqa: F401  if the server was started by others

    processes.take_over(settings)
    processes.seed_generators(seeds[index], 1)  # not what it will draw after the reset
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

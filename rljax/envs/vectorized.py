"""Several guarded environments at once: in this process, or each in a process of its own."""

import contextlib
import os
import time
from collections.abc import Sequence
from functools import partial
from multiprocessing.connection import wait
from typing import Any

import cloudpickle
import gymnasium
import numpy as np
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, VectorEnv, async_vector_env

from rljax.envs.guarded import Guarded
from rljax.utils import forkserver
from rljax.utils.forkserver import RefusedError

GRACE = 2.0  # seconds that processes have to close their environments


def start(host: Any, seeds: Sequence[int]) -> VectorEnv:
    """Makes the environments of a `HostEnv`, with seeds as `HostEnv.open` takes them. Those that
    cannot be made have an `error`.

    Raises:
        RefusedError: a process cannot be started, or the environment cannot be sent to it.
    """
    if host.vectorization == "sync":
        return SyncEnvs(host)
    forkserver.start_server()
    name = f"env = {host.spec.name!r}"
    try:
        packed = forkserver.packed(host, cloudpickle.dumps)
    except TypeError as error:
        raise RefusedError(f"{name}: {error}") from error
    before = forkserver.children()
    try:
        with forkserver.main_module_left_out():
            return AsyncEnvs(host, packed, seeds)
    except BaseException as error:
        for process in forkserver.children() - before:
            process.kill()
        if isinstance(error, EOFError | OSError):
            text = f"{name}: a process with an environment cannot be started, or died: {error!r}"
            raise RefusedError(text) from error
        raise


class SyncEnvs(VectorEnv):
    """Guarded environments stepped one after another, with same-step auto-reset: gymnasium's
    SyncVectorEnv with less overhead."""

    def __init__(self, host: Any):
        self.num_envs, self.envs = host.num_envs, []
        try:
            for index in host.indices:
                self.envs.append(Guarded(host, index))
        except BaseException:  # a signal
            self.close_extras()
            raise

    def reset(self, *, seed=None, options=None):
        obs, infos = zip(*(env.reset(seed=one) for env, one in zip(self.envs, seed)))
        return np.array(obs), self._join(infos)

    def step(self, actions):
        # As Python's numbers they take half the time to decode.
        is_number = actions.ndim == 1 and actions.dtype.kind == "i"
        actions = actions.tolist() if is_number else actions
        answers = [env.step(action) for env, action in zip(self.envs, actions)]
        obs, reward, terminated, truncated, infos = zip(*answers)
        joined, obs = {}, np.array(obs)
        if True in terminated or True in truncated:
            ends, infos = np.logical_or(terminated, truncated), list(infos)
            joined = {"final_obs": list(obs.copy()), "_final_obs": ends}
            for i in np.flatnonzero(ends):
                obs[i], fresh = self.envs[i].reset()
                infos[i] = {**fresh, "final_info": infos[i]} if infos[i] else fresh
        if any(infos):
            joined.update(self._join(infos))
        flags = np.array(terminated, bool), np.array(truncated, bool)
        return obs, np.array(reward, np.float32), *flags, joined

    def get_attr(self, name):
        return tuple(getattr(env, name) for env in self.envs)

    def close_extras(self, **kwargs):
        for env in self.envs:
            env.close()

    def _join(self, infos):
        """The infos of all as one, as gymnasium's vector environments return it."""
        joined = {}
        for i, info in enumerate(infos):
            joined = self._add_info(joined, info, i) if info else joined
        return joined


class AsyncEnvs(AsyncVectorEnv):
    """Guarded environments, each in a process of its own, with same-step auto-reset."""

    def __init__(self, host: Any, packed: bytes, seeds: Sequence[int]):
        self.name = host.spec.name
        super().__init__(
            [partial(_guarded, packed, os.getpid(), index) for index in host.indices],
            autoreset_mode=AutoresetMode.SAME_STEP,
            shared_memory=True,
            context="forkserver",
            worker=partial(_work, forkserver.jax_settings(), [int(seed) for seed in seeds]),
        )

    def _check_spaces(self):
        """The first answers of the processes."""
        try:
            super()._check_spaces()
        except (EOFError, OSError) as error:
            i, how = gone(self.processes)
            where = f"env = {self.name!r}: environment {i}"
            raise RefusedError(f"{where}: its process {how} as it was made") from error


def _guarded(packed, asker, index):
    """Unpacks when the process is ready for what the environment imports, which may start JAX. The
    process that asks only for the spaces makes no environment."""
    return Guarded(cloudpickle.loads(packed), index, builds=os.getpid() != asker)


class _Seeding(gymnasium.Wrapper):
    """The seed of an environment seeds its process's global generators too."""

    def reset(self, *, seed=None, options=None):
        if seed is not None:
            forkserver.seed_generators(seed)
        return self.env.reset(seed=seed, options=options)


def _work(settings, seeds, index, make_one, *args):
    """The process of an environment."""
    forkserver.begin()
    from rljax.utils import preload  # noqa: F401  if the server was started by others

    forkserver.take_over(settings)
    forkserver.seed_generators(seeds[index], 1)  # other numbers than after the reset
    with contextlib.suppress(EOFError, OSError):  # the other end of its pipe is gone
        async_vector_env._async_worker(index, lambda: _Seeding(make_one()), *args)


def gone(processes: Sequence[Any]) -> tuple[int, str]:
    """(index, how it ended) of the first process that has ended."""
    sentinels = [process.sentinel for process in processes]
    ended = wait(sentinels, timeout=GRACE)
    i = sentinels.index(ended[0]) if ended else 0
    processes[i].join(0)
    return i, forkserver.how_it_ended(processes[i].exitcode)


def ask_to_close(envs: VectorEnv) -> None:
    """Lets processes close their environments, for `GRACE` seconds at most."""
    if not hasattr(envs, "processes"):
        return
    deadline = time.monotonic() + GRACE
    pipes = [pipe for pipe in envs.parent_pipes if pipe is not None]
    for pipe in pipes:
        with contextlib.suppress(OSError):
            pipe.send(("close", None))
    for pipe in pipes:
        with contextlib.suppress(OSError, EOFError):
            while pipe.poll(max(0.0, deadline - time.monotonic())):
                pipe.recv()  # until it is closed at the other end


def end(envs: VectorEnv) -> None:
    """Kills the processes and closes what is left."""
    for process in getattr(envs, "processes", ()):
        process.kill()
        process.join()
        envs.closed = True  # gymnasium need not try as well
    envs.close()

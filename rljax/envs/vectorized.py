"""Several guarded environments at once: in this process, or spread over processes of their own."""

import contextlib
import itertools
import pickle
import time
from collections.abc import Sequence
from multiprocessing.connection import wait
from typing import Any

import cloudpickle
import jax
import numpy as np

from rljax.envs.guarded import Failed, Guarded
from rljax.envs.interface import Step, over
from rljax.envs.spaces import Box
from rljax.utils import forkserver, platform
from rljax.utils.forkserver import RefusedError

GRACE = 2.0  # seconds that processes have to close their environments


class Gone(Exception):  # noqa: N818
    """(the range of the environments whose process has ended, how it did)."""

    def told(self, where: str = "") -> str:
        """In one line; `where` stands after the environments."""
        share, how = self.args
        several = len(share) > 1
        which = f"environments {share[0]} to {share[-1]}" if several else f"environment {share[0]}"
        return f"{which}{where}: {'their' if several else 'its'} process {how}"


def start(host: Any, seeds: Sequence[int]) -> "SyncEnvs | AsyncEnvs":
    """Makes the environments of a `HostEnv`, with seeds as `HostEnv.open` takes them. Those that
    cannot be made have one of the `errors`.

    Raises:
        RefusedError: a process cannot be started, or the environment cannot be sent to it.
    """
    if host.vectorization == "sync":
        return _in_this_process(host, platform.cores())
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
            process.join()
        if isinstance(error, Gone):
            raise RefusedError(f"{name}: {error.told()} as it started") from error
        if isinstance(error, OSError):
            text = f"{name}: a process with environments cannot be started: {error!r}"
            raise RefusedError(text) from error
        raise


def _in_this_process(host, threads):
    return host.together(host.num_envs, threads) if host.together else SyncEnvs(host)


class SyncEnvs:
    """Guarded environments, stepped one after another."""

    def __init__(self, host: Any):
        self.envs, self.spec = [], host.spec
        self.num_info = len(host.log_info)
        try:
            for index in host.indices:
                self.envs.append(Guarded(host, index))
        except BaseException:  # a signal
            self.close()
            raise

    @property
    def errors(self) -> list[str]:
        """As `Guarded.error`, of each environment."""
        return [env.error for env in self.envs]

    def reset(self, seeds: Sequence[int]) -> tuple[np.ndarray, np.ndarray | None]:
        """(obs [B, *obs_shape], mask as in `Step`); raises `Failed`."""
        obs, mask = zip(*(env.reset(seed) for env, seed in zip(self.envs, seeds)))
        return np.array(obs), np.array(mask) if self.spec.has_mask else None

    def step(self, actions: np.ndarray) -> Step:
        """Takes actions [B, *action_shape], and resets environments whose episode is over; raises
        `Failed`."""
        # As Python's numbers they take half the time to decode. Of an array a wrapper may keep its
        # row, and in a process the next actions come in the same memory.
        is_number = actions.ndim == 1 and actions.dtype.kind == "i"
        actions = actions.tolist() if is_number else actions.copy()
        answers = [env.step(action) for env, action in zip(self.envs, actions)]
        obs, reward, terminated, truncated, _, mask, info, score, is_over = zip(*answers)
        obs, spec = np.array(obs), self.spec
        final_obs = obs
        logged = np.zeros((len(obs), self.num_info), np.float32) if self.num_info else None
        if True in terminated or True in truncated:  # in a tenth of the time of NumPy's
            final_obs, mask = obs.copy(), list(mask)
            for i, answer in enumerate(answers):
                if over(answer):
                    if logged is not None:
                        logged[i] = info[i]
                    obs[i], mask[i] = self.envs[i].reset()
        return Step(
            obs,
            np.array(reward, np.float32),
            np.array(terminated, bool),
            np.array(truncated, bool),
            final_obs,
            np.array(mask) if spec.has_mask else None,
            logged,
            np.array(score, np.float32) if spec.has_score else None,
            np.array(is_over, bool) if spec.has_over else None,
        )

    def ask_to_close(self) -> None:
        """They close at once."""

    def close(self) -> None:
        """Closes the environments."""
        for env in self.envs:
            env.close()


class AsyncEnvs:
    """Guarded environments in processes, each of which steps its share one after another.

    What they take and give is in memory that all processes see. An empty message tells a process to
    step, and another one that it has; what else there is to say is pickled.
    """

    def __init__(self, host: Any, packed: bytes, seeds: Sequence[int]):
        number = min(host.processes or platform.cores(), host.num_envs)
        shares = np.array_split(np.arange(host.num_envs), number)
        self.shares = [range(share[0], share[-1] + 1) for share in shares]
        self.processes, self.pipes = [], []
        memory, self.actions, self.answer = _shared(host)
        for share in self.shares:
            ours, others = forkserver.context.Pipe()
            own = share, [int(seeds[i]) for i in share], others, memory
            args = (forkserver.jax_settings(), packed, *own)
            process = forkserver.context.Process(target=_work, args=args, daemon=True)
            process.start()
            others.close()
            self.processes.append(process)
            self.pipes.append(ours)
        self.errors = list(itertools.chain(*self._answers()))

    def reset(self, seeds: Sequence[int]) -> tuple[np.ndarray, np.ndarray | None]:
        """As `SyncEnvs.reset`. The seeds of a process's environments also seed its global
        generators. Raises `Gone`, too."""
        self._ask(*(pickle.dumps([seeds[i] for i in share]) for share in self.shares))
        mask = self.answer.mask
        return self.answer.obs.copy(), None if mask is None else mask.copy()

    def step(self, actions: np.ndarray) -> Step:
        """As `SyncEnvs.step`. Raises `Gone`, too."""
        self.actions[...] = actions
        self._ask(*[b""] * len(self.pipes))
        shared, ends = self.answer, over(self.answer)
        answer = Step(*(None if x is None else x.copy() for x in shared._replace(final_obs=None)))
        final_obs = answer.obs
        if ends.any():
            final_obs = final_obs.copy()
            final_obs[ends] = shared.final_obs[ends]
        return answer._replace(final_obs=final_obs)

    def ask_to_close(self) -> None:
        """Lets processes close their environments, for `GRACE` seconds at most."""
        for pipe in self.pipes:
            pipe.close()
        if self.processes:  # at exit there are none, and modules are gone
            deadline = time.monotonic() + GRACE
            for process in self.processes:
                process.join(max(0.0, deadline - time.monotonic()))

    def close(self) -> None:
        """Kills the processes."""
        for pipe, process in zip(self.pipes, self.processes):
            pipe.close()
            process.kill()
            process.join()
        self.pipes, self.processes = [], []

    def _ask(self, *messages):
        try:
            for pipe, message in zip(self.pipes, messages):
                pipe.send_bytes(message)
        except OSError as error:
            raise self._gone() from error
        for share, error in zip(self.shares, self._answers()):
            if error:
                raise Failed(share.start + error[0], error[1])

    def _answers(self):
        """What every process says; all are waited for, so that none is left in its step."""
        try:
            said = [pipe.recv_bytes() for pipe in self.pipes]
        except (EOFError, OSError) as error:
            raise self._gone() from error
        return [pickle.loads(one) if one else None for one in said]

    def _gone(self):
        sentinels = [process.sentinel for process in self.processes]
        ended = wait(sentinels, timeout=GRACE)
        i = sentinels.index(ended[0]) if ended else 0
        self.processes[i].join(0)
        how = forkserver.how_it_ended(self.processes[i].exitcode)
        return Gone(self.shares[i], how)


def _shared(host, memory=None):
    """(memory, in it actions [B, ...] and a `Step` [B, ...])."""
    spec, number = host.spec, host.num_envs
    kind = np.float32 if isinstance(spec.action_space, Box) else np.int32
    actions, zeros = np.zeros((number, *spec.action_space.shape), kind), np.zeros(number)
    flags, obs = zeros.astype(bool), spec.empty_obs(number)
    like = Step(
        *(obs, zeros.astype(np.float32), flags, flags, obs),
        mask=np.zeros((number, *spec.action_space.mask_shape), bool) if spec.has_mask else None,
        info=np.zeros((number, len(host.log_info)), np.float32) if host.log_info else None,
        score=zeros.astype(np.float32) if spec.has_score else None,
        over=flags if spec.has_over else None,
    )
    leaves, tree = jax.tree.flatten((actions, like))
    starts = [0, *itertools.accumulate(-(-leaf.nbytes // 64) * 64 for leaf in leaves)]
    memory = memory or forkserver.context.RawArray("b", starts[-1])
    views = [
        np.frombuffer(memory, leaf.dtype, leaf.size, start).reshape(leaf.shape)
        for leaf, start in zip(leaves, starts)
    ]
    return memory, *tree.unflatten(views)


def _work(settings, packed, share, seeds, pipe, memory):
    """The process of a share of the environments."""
    forkserver.begin()
    from rljax.utils import preload  # noqa: F401  if the server was started by others

    forkserver.take_over(settings)
    forkserver.seed_generators(*seeds, 1)  # other numbers than after the reset
    host = cloudpickle.loads(packed)  # now that it can import what it needs
    _, actions, answer = _shared(host, memory)
    actions, answer = jax.tree.map(lambda x: x[share.start : share.stop], (actions, answer))
    host = host._replace(first=host.first + share.start, num_envs=len(share))
    envs = _in_this_process(host, threads=1)
    with contextlib.suppress(EOFError, OSError):  # the other end of its pipe is gone
        pipe.send_bytes(pickle.dumps(list(envs.errors)))
        while True:
            message, error = pipe.recv_bytes(), b""
            try:
                if message:
                    seeds = pickle.loads(message)
                    forkserver.seed_generators(*seeds)
                    obs, mask = envs.reset(seeds)
                    _put(answer, answer._replace(obs=obs, mask=mask))
                else:
                    _put(answer, envs.step(actions))
            except Failed as failed:
                error = pickle.dumps(failed.args)
            pipe.send_bytes(error)
    envs.close()


def _put(into, answer):
    for to, x in zip(into, answer):
        if x is not None and x is not to:
            to[...] = x

"""What the holder's process knows of its workers, and does when one of them says something."""

from typing import NamedTuple

import jax
import numpy as np

from rljax.a3c import messages
from rljax.a3c.counts import Counts, whole
from rljax.a3c.worker_pool import Message, WorkerError, WorkerPool
from rljax.utils import forkserver, pytrees

RESTARTS_WITHIN = 1000
"""Gradients of a worker, within which it is started again `max_worker_restarts` times at most."""


class WorkerStatus(NamedTuple):
    """One worker, for a display."""

    state: str
    """"starting", "working" or "restarting"."""
    steps: int
    """Environment steps, since `chunks` began."""
    episodes: int
    last_return: float
    """Mean of the episodes in the last message that had any; NaN before."""
    staleness: int
    """Of its last gradient."""
    restarts: int
    seconds: np.ndarray
    """[len(PHASES)] where its time went."""


class Status(NamedTuple):
    """The workers and the holder, for a display."""

    workers: list[WorkerStatus]
    counts: Counts
    version: int
    queued: float
    """Messages that wait."""


class Supervisor:
    """The workers of a run, as far as the holder's process knows them."""

    def __init__(self, config, workers, layout, holder, parameters, actors, warn):
        self.config, self.workers, self.layout = config, workers, layout
        self.holder, self.parameters, self.warn = holder, parameters, warn
        split = range(workers.num_workers)
        self.actors = [jax.tree.map(lambda x, i=i: np.array(x[i]), actors) for i in split]
        self.packed: dict[int, np.ndarray] = {}
        nothing = WorkerStatus("starting", 0, 0, float("nan"), 0, 0, np.zeros(len(messages.PHASES)))
        self.statuses = [nothing] * workers.num_workers
        self.pushed = [0] * workers.num_workers
        self.restarted_at = [[] for _ in split]  # by gradients pushed until then

    def job(self, index):
        settings, lockstep = forkserver.jax_settings(), self.workers.lockstep
        return messages.Job(self.config, self.layout, self.actor(index), lockstep, settings)

    def start(self, index: int, crew: WorkerPool) -> Exception | None:
        """Starts a worker; the error that ends the run, if it does."""
        try:
            crew.start(index, self.job(index))
        except (OSError, EOFError) as error:
            return self._replace(index, f"could not be started ({error!r})", crew)
        return None

    def actor(self, index):
        """Where a worker was at its last push."""
        if index in self.packed:
            self.actors[index] = pytrees.unpack(self.packed.pop(index), self.layout.actor)
        return self.actors[index]

    def whole_actors(self):
        """[W, ...] of all workers."""
        actors = [self.actor(index) for index in range(self.workers.num_workers)]
        return jax.tree.map(lambda *x: np.stack(x), *actors)

    def take(self, message: Message, crew: WorkerPool) -> Exception | None:
        """Deals with what happened to a worker; the error that ends the run, if it does."""
        index, kind, content = message
        if kind is None:
            return self._replace(index, content, crew)
        if kind == messages.FAILED:
            text = bytes(content).decode(errors="replace")
            return WorkerError(f"worker {index} failed {self._where(index)}:\n{text}")
        if kind == messages.REFUSED:
            refusal = forkserver.RefusedError if self.holder.updates == 0 else WorkerError
            return refusal(f"worker {index}: {bytes(content).decode(errors='replace')}")
        self._push(index, content)
        return None

    def _push(self, index, content):
        holder = self.holder
        before, version = holder.counts.applied, holder.version
        pushed = holder.push(content, index)
        if pushed is None:
            self.warn(
                f"worker {index} sent {len(content):,} bytes that are no gradient of this run, of"
                f" its worker, of a version that there is, in {self.layout.record.itemsize:,}"
                " bytes; they are left out"
            )
            return
        if holder.counts.applied > before:
            self.parameters.publish(holder.version, holder.published())
        record, figures = pushed
        self.packed[index] = record["actor"].copy()
        self.pushed[index] += 1
        status = self.statuses[index]
        number, returns = figures[:2].tolist()
        self.statuses[index] = status._replace(
            state="working",
            steps=status.steps + self.config.batch_size,
            episodes=status.episodes + int(number),
            last_return=returns / number if number else status.last_return,
            staleness=version - int(record["version"]),
            seconds=status.seconds + record["seconds"],
        )

    def _replace(self, index, how, crew):
        pushed, allowed = self.pushed[index], self.workers.max_worker_restarts
        lately = [n for n in self.restarted_at[index] if n > pushed - RESTARTS_WITHIN]
        if len(lately) >= allowed:
            return WorkerError(
                f"worker {index} {how} {self._where(index)}; it was started again {allowed} times"
                f" within {RESTARTS_WITHIN:,} of its gradients, as often as max_worker_restarts"
                " allows"
            )
        self.restarted_at[index] = [*lately, pushed]
        self.warn(f"worker {index} {how}; started again where its last gradient left it")
        counts = self.holder.counts
        self.holder.counts = counts._replace(restarts=counts.restarts + 1)
        status = self.statuses[index]
        self.statuses[index] = status._replace(state="restarting", restarts=status.restarts + 1)
        return self.start(index, crew)

    def _where(self, index):
        """An environment that fails by itself says more; of others this is what is known."""
        env, steps = self.config.env, self.statuses[index].steps
        name = env if isinstance(env, str) else getattr(env, "__name__", type(env).__name__)
        return f"after {steps:,} steps in {name}"

    def status(self, queued):
        size = self.layout.record.itemsize
        counts = whole(self.holder.counts)
        return Status(list(self.statuses), counts, self.holder.version, queued / size)

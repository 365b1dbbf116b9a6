"""The holder's bookkeeping of its workers, and what it does with their messages."""

import time
import warnings
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from rljax.a3c import messages, timing
from rljax.a3c.counts import Counts, as_arrays
from rljax.a3c.worker_pool import Message, WorkerError, WorkerPool
from rljax.utils import forkserver, pytrees

RESTARTS_WITHIN = 1000
"""Gradients of a worker, within which it is started again `max_worker_restarts` times at most."""


class WorkerStatus(NamedTuple):
    """One worker, for a display."""

    state: str  # "starting", "working" or "restarting"
    steps: int  # environment steps, since `chunks` began
    episodes: int
    last_return: float  # mean of the episodes in the last message that had any; NaN before
    staleness: int  # of its last gradient
    restarts: int
    seconds: np.ndarray  # [len(PHASES)] where its time went


class Status(NamedTuple):
    """The workers and the holder, for a display."""

    workers: list[WorkerStatus]
    counts: Counts
    queued: float  # messages that wait
    index: int = 0  # of the seed among those of the run

    def table(self, before: "Status", seconds: float) -> tuple[Sequence, Sequence, str]:
        """(columns, rows, a line below them) to display, by the status `seconds` before."""
        columns = ("", "steps/s", "episodes", "last return", "staleness", "state")
        rows = [
            (
                f"worker {i}",
                f"{(now.steps - then.steps) / seconds:,.0f}",
                f"{now.episodes:,}",
                "" if np.isnan(now.last_return) else f"{now.last_return:,.1f}",
                f"{now.staleness}" if now.steps else "",
                now.state
                + f", {now.restarts:,} restart{'s' * (now.restarts > 1)}" * bool(now.restarts),
            )
            for i, (then, now) in enumerate(zip(before.workers, self.workers))
        ]
        counts = self.counts
        rejected = int(counts.stale + counts.not_finite + counts.malformed)
        speed = (int(counts.applied) - int(before.counts.applied)) / seconds
        holder = (
            f"  holder      {speed:,.0f} gradients/s · queue {self.queued:.1f}"
            f" · version {counts.applied:,}" + f" · {rejected:,} rejected" * bool(rejected)
        )
        return columns, rows, holder


class Supervisor:
    """The workers of a run, as far as the holder's process knows them."""

    def __init__(self, holder, parameters, actors, log=()):
        self.config, self.workers, self.layout = holder.config, holder.workers, holder.layout
        self.holder, self.parameters = holder, parameters
        self.timing = log and timing.Timing(*map(np.array, log))
        self.ready = 0.0  # since when the holder does nothing else
        split = range(self.workers.num_workers)
        self.actors = [jax.tree.map(lambda x, i=i: np.array(x[i]), actors) for i in split]
        self.packed: dict[int, np.ndarray] = {}
        nothing = WorkerStatus("starting", 0, 0, float("nan"), 0, 0, np.zeros(len(messages.PHASES)))
        self.statuses = [nothing for _ in split]
        self.restarted_at = [[] for _ in split]  # by gradients pushed until then

    def start(self, index: int, pool: WorkerPool) -> Exception | None:
        """Starts a worker; the error that ends the run, if it does."""
        rest = self.workers.lockstep, forkserver.jax_settings()
        try:
            pool.start(index, messages.Job(self.config, self.layout, self.actor(index), *rest))
        except (OSError, EOFError) as error:
            return self._replace(index, f"could not be started ({error!r})", pool)
        if not self.workers.lockstep:
            for _ in range(pool.room):
                pool.grant(index)
        return None

    def actor(self, index):
        """Where a worker was at its last push."""
        if index in self.packed:
            self.actors[index] = pytrees.unpack(self.packed.pop(index), self.layout.actor)
        return self.actors[index]

    def take(self, message: Message, pool: WorkerPool) -> Exception | None:
        """Deals with what happened to a worker; the error that ends the run, if it does."""
        index, kind, content = message
        if kind is None:
            return self._replace(index, content, pool)
        if kind == messages.FAILED:
            text = bytes(content).decode(errors="replace")
            return WorkerError(f"worker {index} failed {self._where(index)}:\n{text}")
        if kind == messages.REFUSED:
            refusal = forkserver.RefusedError if self.holder.updates == 0 else WorkerError
            return refusal(f"worker {index}: {bytes(content).decode(errors='replace')}")
        if not self.workers.lockstep:
            pool.grant(index)  # room for the next gradient
        self._push(index, content)
        return None

    def _push(self, index, content):
        taken = time.perf_counter()
        holder, version = self.holder, self.holder.version
        pushed = holder.push(content, index)
        if pushed is None:
            warnings.warn(
                f"worker {index} sent a malformed message ({len(content):,} bytes; a gradient has"
                f" {self.layout.record.itemsize:,}); it is ignored",
                stacklevel=2,
            )
            return
        if holder.version > version:
            self.parameters.publish(holder.version, holder.published())
        record, metrics = pushed
        staleness = version - int(record["version"])
        if self.timing:
            waited, now = record["seconds"][messages.PHASES.index("wait")], time.perf_counter()
            begun = record["pushed"], waited, record["pulled"]
            timing.add(self.timing, (index, *begun, self.ready, taken, now, staleness))
        self.ready = time.perf_counter()
        self.packed[index] = record["actor"].copy()
        status = self.statuses[index]
        number, returns = metrics[:2].tolist()
        self.statuses[index] = status._replace(
            state="working",
            steps=status.steps + self.config.batch_size,
            episodes=status.episodes + int(number),
            last_return=returns / number if number else status.last_return,
            staleness=staleness,
            seconds=status.seconds + record["seconds"],
        )

    def _replace(self, index, how, pool):
        status, allowed = self.statuses[index], self.workers.max_worker_restarts
        pushed = status.steps // self.config.batch_size
        lately = [n for n in self.restarted_at[index] if n > pushed - RESTARTS_WITHIN]
        if len(lately) >= allowed:
            return WorkerError(
                f"worker {index} {how} {self._where(index)}; it was started again {allowed} times"
                f" within {RESTARTS_WITHIN:,} of its gradients, as often as max_worker_restarts"
                " allows"
            )
        self.restarted_at[index] = [*lately, pushed]
        text = f"worker {index} {how}; started again where its last gradient left it"
        warnings.warn(text, stacklevel=2)
        counts = self.holder.counts
        self.holder.counts = counts._replace(restarts=counts.restarts + 1)
        self.statuses[index] = status._replace(state="restarting", restarts=status.restarts + 1)
        return self.start(index, pool)

    def _where(self, index):
        env, steps = self.config.env, self.statuses[index].steps
        name = env if isinstance(env, str) else getattr(env, "__name__", type(env).__name__)
        return f"after {steps:,} steps in {name}"

    def status(self, queued):
        counts, queued = as_arrays(self.holder.counts), queued / self.layout.record.itemsize
        return Status(list(self.statuses), counts, queued)

"""A3C seen from the holder's process: the whole of a run."""

import os
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import jax
import numpy as np

from rljax import learner, optimizers, rollout
from rljax.a3c import messages, transport
from rljax.a3c.counts import Counts, Row, empty_row, no_counts, row_metrics, whole
from rljax.a3c.holder import ParameterHolder
from rljax.a3c.supervisor import Status, Supervisor
from rljax.a3c.worker_pool import WorkerPool
from rljax.config import Config, WorkerConfig, at_row_end, default_log_interval
from rljax.types import ActorState, Metrics, TrainState
from rljax.utils import forkserver, pytrees, seeds

CHUNK_SECONDS = 0.25
"""Between two looks at a run: short enough for a display and Ctrl-C."""


class State(NamedTuple):
    """The whole state of a run, in NumPy."""

    learner: TrainState
    """`updates` counts the gradients that arrived; the optimiser's state is of their vector."""
    actors: ActorState
    """[W, ...] of each worker at its last push; random keys as raw data."""
    counts: Counts
    row: Row


def init(config: Config, workers: WorkerConfig, key: jax.Array) -> State:
    """A fresh learner and fresh episodes of each worker.

    Raises:
        ValueError, TypeError: as `WorkerConfig.validate`, `WorkerConfig.settle`, `Config.validate`,
            `rollout.make_env_and_network` and `losses.make` do.
    """
    config = workers.settle(config)
    with jax.default_device(jax.devices("cpu")[0]):
        fresh = jax.device_get(_fresh(config, key, workers.num_workers))
    state, actors, no_metrics = fresh
    return State(state, actors, no_counts(), empty_row(no_metrics))


@partial(jax.jit, static_argnames="num_workers")
def _fresh(config, key, num_workers):
    env, network = rollout.make_env_and_network(config)
    key_learner, key_actors = jax.random.split(key)
    keys = jax.random.split(key_actors, num_workers)
    actors = jax.vmap(lambda key: rollout.init(env, config.num_envs, key))(keys)
    state = learner.init(config, network, env.spec, key_learner)
    opt_state = optimizers.make(config).init(pytrees.ravel(state.params))
    no_metrics = messages.no_metrics(config, network, env.spec, state.params)
    return state._replace(opt_state=opt_state), pytrees.plain(actors), no_metrics


def init_seeds(config: Config, workers: WorkerConfig, keys: jax.Array) -> State:
    """`init` [S], one for each key [S]."""
    return seeds.stack([init(config, workers, key) for key in keys])


def in_one_program(config: Config) -> bool:
    """Whether all seeds are trained in one program: no, one after another, each in processes."""
    return False


def chunks(
    config: Config,
    workers: WorkerConfig,
    keys: jax.Array | None,
    states: State | None = None,
    *,
    log_interval: int | None = None,
    watch: Callable[[Status], None] | None = None,
) -> Iterator[tuple[State, Metrics]]:
    """A whole run of S seeds one after another, in chunks of a quarter of a second or so.

    A chunk ends where a row of metrics does at the latest. While workers start there are chunks
    without a gradient. Closing the generator stops the workers. A worker that is restarted, or
    sends what is no message, is a warning.

    Args:
        keys: [S] one key per seed; not used where there are states.
        states: [S] runs to continue.
        log_interval: gradients in a row of metrics; by default a hundredth of the run.
        watch: called before every chunk is given.

    Yields:
        (State, Metrics) with leading axis [S], in NumPy; metrics are of the gradients since the
        last row ended, and of the seed whose `updates` have advanced.

    Raises:
        ValueError, TypeError: as `init` does.
        forkserver.RefusedError: a worker cannot make the environment or the network.
        WorkerError: an environment or a network raised an exception in a worker, which may be
            SystemExit, or a worker died more often within 1,000 of its gradients than
            `max_worker_restarts`. A last chunk was given before.
    """
    config = workers.settle(config)
    states = init_seeds(config, workers, keys) if states is None else states
    log_interval = log_interval or default_log_interval(config)
    if workers.num_workers > (cores := len(os.sched_getaffinity(0))):
        warnings.warn(f"{workers.num_workers} workers share {cores} cores", stacklevel=2)
    index = int(np.sum(states.learner.updates >= config.num_updates)) - 1

    def chunks_of_one(state):
        nonlocal index
        index += 1
        see = (lambda status: watch(status._replace(index=index))) if watch else None
        return _chunks(config, workers, state, log_interval, see)

    yield from seeds.one_after_another(states, config.num_updates, chunks_of_one)


def _chunks(config, workers, state, log_interval, watch):
    """The chunks of one seed."""
    layout = messages.layout(config)
    holder = ParameterHolder(config, workers, layout, state.learner, state.counts, state.row)
    parameters = transport.SharedParameters(forkserver.context, pytrees.size(layout.published))
    parameters.publish(holder.version, holder.published())
    supervisor = Supervisor(config, workers, layout, holder, parameters, state.actors)
    usual = layout.record.itemsize

    def row_ended():
        return holder.row.gradients > 0 and at_row_end(config, holder.updates, log_interval)

    with WorkerPool(parameters, usual, max(usual, messages.LONGEST_TEXT)) as pool:
        for index in range(workers.num_workers):
            if failure := supervisor.start(index, pool):
                raise failure
        follow = _in_turn if workers.lockstep else _as_they_come
        for failure in follow(supervisor, pool, row_ended):
            if watch:
                watch(supervisor.status(pool.waiting()))
            row = whole(holder.row)
            metrics = row_metrics(config, holder.updates, row, layout.metrics, log_interval)
            if row_ended():
                holder.begin_row()
            counts, row = whole(holder.counts), whole(holder.row)
            yield State(holder.state(), supervisor.whole_actors(), counts, row), metrics
            if failure is not None:
                raise failure


def train(
    config: Config, workers: WorkerConfig, key: jax.Array, log_interval: int | None = None
) -> tuple[State, Metrics]:
    """A whole run of one seed.

    Returns:
        (State, Metrics [R]): one row for every `log_interval` gradients.

    Raises:
        As `chunks` does.
    """
    rows, states, done = [], None, 0
    config = workers.settle(config)
    log_interval = log_interval or default_log_interval(config)
    steps = chunks(config, workers, key[None], log_interval=log_interval)
    for states, metrics in steps:  # noqa: B007  the last states are returned
        updates = int(metrics.updates[0])
        if updates > done and at_row_end(config, updates, log_interval):
            rows.append(seeds.take(metrics, 0))
        done = updates
    return seeds.take(states, 0), seeds.stack(rows)


def _as_they_come(supervisor, pool, row_ended):
    """Applies gradients in the order in which they come. Yields whenever it is time to look: None,
    or the error that ends the run."""
    holder, looked = supervisor.holder, time.perf_counter()
    while not holder.done:
        for message in pool.messages(CHUNK_SECONDS):
            failure = supervisor.take(message, pool)
            now = time.perf_counter()
            if failure or row_ended() or now - looked > CHUNK_SECONDS:
                yield failure
                looked = time.perf_counter()
            if holder.done:
                return
        if time.perf_counter() - looked > CHUNK_SECONDS:
            yield None
            looked = time.perf_counter()


def _in_turn(supervisor, pool, row_ended):
    """As `_as_they_come`, but one worker at a time, in the order of their numbers."""
    holder, looked = supervisor.holder, time.perf_counter()
    while not holder.done:
        index, arrived = holder.updates % supervisor.workers.num_workers, holder.updates
        pool.grant(index)
        while holder.updates == arrived:
            failure = None
            for message in pool.messages(CHUNK_SECONDS):
                failure = failure or supervisor.take(message, pool)
                if message.worker == index and holder.updates == arrived and not failure:
                    pool.grant(index)  # its message was none, or another worker took its place
            if failure or row_ended() or time.perf_counter() - looked > CHUNK_SECONDS:
                yield failure
                looked = time.perf_counter()


def summary(states: State) -> dict:
    """What A3C adds to the summary of a run: of all seeds together."""
    counts = states.counts
    histogram = counts.staleness.sum(axis=0)
    reached, applied = np.flatnonzero(histogram), histogram.sum()
    at_95 = int(np.searchsorted(histogram.cumsum(), 0.95 * applied))
    rejected = {x: int(getattr(counts, x).sum()) for x in ("stale", "not_finite", "malformed")}
    return {
        "gradients_applied": int(counts.applied.sum()),
        "gradients_rejected": sum(rejected.values()),
        "rejected": rejected,
        "worker_restarts": int(counts.restarts.sum()),
        "staleness": {
            "mean": float(counts.staleness_sum.sum() / applied) if applied else None,
            "p95": at_95 if applied else None,
            "max": int(counts.staleness_max.max()) if applied else None,
            "histogram": histogram[: reached[-1] + 1].tolist() if applied else [],
        },
    }

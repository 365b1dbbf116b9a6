"""A3C seen from the holder's process: the whole of a run."""

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
from rljax.config import Config, WorkerConfig
from rljax.types import ActorState, Metrics, TrainState
from rljax.utils import forkserver, pytrees

CHUNK_SECONDS = 0.25
"""Between two looks at what a run has come to: short enough for a display and Ctrl-C."""


class State(NamedTuple):
    """All that a run needs to go on, in NumPy."""

    learner: TrainState
    """`updates` counts the gradients that arrived; the optimiser's state is of their vector."""
    actors: ActorState
    """[W, ...] of each worker at its last push; random keys as raw data."""
    counts: Counts
    row: Row


def init(config: Config, workers: WorkerConfig, key: jax.Array) -> State:
    """A fresh learner and fresh episodes of each worker.

    Raises:
        ValueError, TypeError: as `Config.validate`, `Workers.validate` and `rollout.make_agent` do.
    """
    check(config, workers)
    with jax.default_device(jax.devices("cpu")[0]):
        state, actors = jax.device_get(_fresh(config, key, workers.num_workers))
    return State(state, actors, no_counts(), empty_row())


@partial(jax.jit, static_argnames="num_workers")
def _fresh(config, key, num_workers):
    env, network = rollout.make_env_and_network(config)
    key_learner, key_actors = jax.random.split(key)
    keys = jax.random.split(key_actors, num_workers)
    actors = jax.vmap(lambda key: rollout.init(env, config.num_envs, key))(keys)
    state = learner.init(config, network, env.spec, key_learner)
    opt_state = optimizers.make(config).init(pytrees.ravel(state.params))
    return state._replace(opt_state=opt_state), pytrees.plain(actors)


def chunks(
    config: Config,
    workers: WorkerConfig,
    key: jax.Array | None,
    state: State | None = None,
    watch: Callable[[Status], None] = lambda status: None,
    warn: Callable[[str], None] = warnings.warn,
) -> Iterator[tuple[State, Metrics]]:
    """A whole run with one seed, in chunks of a quarter of a second or so.

    A chunk ends where a row of metrics does at the latest. While workers start there are chunks
    without a gradient. Closing the generator stops the workers.

    Args:
        config: `num_envs` must be `workers.envs_per_worker`.
        key: not used where there is a state.
        state: a run to go on with.
        watch: called before every chunk is given.
        warn: called with one line on what went wrong and was put right.

    Yields:
        (State, Metrics); metrics are of the gradients since the last row ended, in NumPy.

    Raises:
        ValueError, TypeError: as `init` does.
        processes.RefusedError: a worker cannot make the environment or the network.
        WorkerError: an environment or a network raised an exception in a worker, which may be
            SystemExit, or a worker died more often within 1,000 of its gradients than
            `max_worker_restarts`. A last chunk was given before.
    """
    check(config, workers)
    state = init(config, workers, key) if state is None else state
    if state.learner.updates >= config.num_updates:
        return
    layout = messages.layout(config)
    holder = ParameterHolder(config, workers, layout, state.learner, state.counts, state.row)
    parameters = transport.SharedParameters(forkserver.context, pytrees.size(layout.published))
    parameters.publish(holder.version, holder.published())
    roster = Supervisor(config, workers, layout, holder, parameters, state.actors, warn)
    usual = layout.record.itemsize
    with WorkerPool(parameters, usual, max(usual, messages.LONGEST_TEXT)) as crew:
        for index in range(workers.num_workers):
            if failure := roster.start(index, crew):
                raise failure
        if holder.row_ended:  # the run goes on from the end of a row
            holder.begin_row()
        follow = _in_turn if workers.lockstep else _as_they_come
        for failure in follow(roster, crew):
            watch(roster.status(crew.waiting()))
            counts, row = whole(holder.counts), whole(holder.row)
            state = State(holder.state(), roster.whole_actors(), counts, row)
            yield state, row_metrics(config, holder.updates, row)
            if failure is not None:
                raise failure
            if holder.row_ended:
                holder.begin_row()


def train(config: Config, workers: WorkerConfig, key: jax.Array) -> tuple[State, Metrics]:
    """A whole run.

    Returns:
        (State, Metrics [R]): one row for every `config.log_interval` gradients.

    Raises:
        As `chunks` does.
    """
    rows = []
    for state, metrics in chunks(config, workers, key):  # noqa: B007  the last one is returned
        if is_row(config, metrics):
            rows.append(metrics)
    return state, jax.tree.map(lambda *x: np.stack(x), *rows)


def is_row(config: Config, metrics: Metrics) -> bool:
    """Whether metrics from `chunks` are a whole row. Where none of a row's gradients have come yet,
    they are NaN and no row."""
    return bool(np.isfinite(metrics.learning_rate)) and config.ends_row(int(metrics.updates))


def check(config: Config, workers: WorkerConfig) -> None:
    """That the settings are good, and fit each other.

    Raises:
        ValueError, TypeError: as `Config.validate` and `Workers.validate` do; they do not fit.
    """
    workers.validate()
    config.validate()
    if config.vectorization != "sync":
        raise ValueError(f"vectorization = {config.vectorization!r}: A3C's workers are processes")
    if config.num_envs != workers.envs_per_worker:
        raise ValueError(
            f"num_envs = {config.num_envs}: must be envs_per_worker = {workers.envs_per_worker}"
        )


def _as_they_come(roster, crew):
    """Applies gradients in the order in which they come. Yields whenever it is time to look: None,
    or the error that ends the run."""
    holder, looked = roster.holder, time.perf_counter()
    while not holder.done:
        for message in crew.messages(CHUNK_SECONDS):
            failure = roster.take(message, crew)
            now = time.perf_counter()
            if failure or holder.row_ended or now - looked > CHUNK_SECONDS:
                yield failure
                looked = time.perf_counter()
            if holder.done:
                return
        if time.perf_counter() - looked > CHUNK_SECONDS:
            yield None
            looked = time.perf_counter()


def _in_turn(roster, crew):
    """As `_as_they_come`, but one worker at a time, in the order of their numbers."""
    holder, looked = roster.holder, time.perf_counter()
    while not holder.done:
        index, arrived = holder.updates % roster.workers.num_workers, holder.updates
        crew.grant(index)
        while holder.updates == arrived:
            failure = None
            for message in crew.messages(CHUNK_SECONDS):
                failure = failure or roster.take(message, crew)
                if message.worker == index and holder.updates == arrived and not failure:
                    crew.grant(index)  # its message was none, or another worker took its place
            if failure or holder.row_ended or time.perf_counter() - looked > CHUNK_SECONDS:
                yield failure
                looked = time.perf_counter()


def begin_row(config: Config, state: State) -> tuple[State, Metrics]:
    """Ends a row of metrics here and begins another: for a run that goes on with another
    `config.log_interval`.

    Returns:
        (state, Metrics of the row so far).
    """
    row = row_metrics(config, int(state.learner.updates), state.row)
    return state._replace(row=empty_row()), row

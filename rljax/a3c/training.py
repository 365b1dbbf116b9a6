"""A3C seen from the holder's process: the whole of a run."""

import contextlib
import itertools
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rljax import learner, optimizers, rollout
from rljax.a3c import messages, timing, transport
from rljax.a3c.counts import as_arrays, as_summary, empty_row, no_counts, row_metrics
from rljax.a3c.holder import ParameterHolder, State
from rljax.a3c.supervisor import Status, Supervisor
from rljax.a3c.worker_pool import WorkerPool
from rljax.config import Config, WorkerConfig, at_row_end, default_log_interval
from rljax.types import Metrics
from rljax.utils import forkserver, platform, pytrees, seeds
from rljax.utils.compilation import jit_once

CHUNK_SECONDS = 0.25  # short enough for a display and Ctrl-C


def init(config: Config, workers: WorkerConfig, key: jax.Array) -> State:
    """A fresh learner and fresh episodes of each worker; raises a ValueError or a TypeError as
    `WorkerConfig.settle`, `rollout.make_env_and_network` and `losses.make` do."""
    config = workers.settle(config)
    with jax.default_device(platform.first_device("cpu")):
        state, actors, row = jax.device_get(_fresh(config, key, workers.num_workers))
    log = timing.empty() if workers.log_timing else ()
    squares = ()
    if workers.delay_compensation == "dc_asgd_a":
        squares = np.zeros(pytrees.size(state.params), np.float32)
    return State(state, actors, no_counts(), empty_row(row), log, squares)


@partial(jit_once, static_argnames=("num_workers",))
def _fresh(config, key, num_workers):
    env, network = rollout.make_env_and_network(config)
    key_learner, key_actors = jax.random.split(key)
    keys = jax.random.split(key_actors, num_workers)
    first = jnp.arange(num_workers, dtype=jnp.int32) * config.num_envs
    begin = partial(rollout.init, env, network, config.num_envs)
    actors = jax.vmap(begin)(keys, first)
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
    engine: str = "local",
    ray_address: str | None = None,
) -> Iterator[tuple[State, Metrics]]:
    """A whole run of S seeds one after another, in chunks of a quarter of a second or so, which end
    where a row of metrics does at the latest.

    While workers start there are chunks without a gradient. Closing the generator stops the
    workers. A worker that is restarted or sends a malformed message is a warning.

    Args:
        keys: [S] one key per seed; not used where there are states.
        states: [S] runs to continue.
        log_interval: gradients in a row of metrics; by default a hundredth of the run.
        watch: called before every chunk.
        engine: "local", whose workers are processes of this machine, or "ray", whose are actors of
            a cluster.
        ray_address: of the cluster, as `runs.options.RunOptions` has it.

    Yields:
        (State, Metrics) with leading axis [S], in NumPy; metrics are of the gradients since the
        last row ended, and of the seed whose `updates` have advanced.

    Raises:
        ValueError, TypeError: as `init` does.
        forkserver.RefusedError: a worker cannot make the environment or the network, or there is
            no such cluster.
        WorkerError: an environment or a network raised an exception in a worker, SystemExit
            included, or a worker died more often within 1,000 of its gradients than
            `max_worker_restarts`. A last chunk was given before.
    """
    config = workers.settle(config)
    states = init_seeds(config, workers, keys) if states is None else states
    log_interval = log_interval or default_log_interval(config)
    number, cores = workers.num_workers, platform.cores()
    if engine == "local" and number > cores:
        warnings.warn(f"{number} workers share {cores} cores", stacklevel=2)
    indices = itertools.count(int(np.sum(states.learner.updates >= config.num_updates)))

    with _pools(engine, ray_address, number) as pool_of:

        def chunks_of_one(state):
            return _chunks(config, workers, state, log_interval, watch, next(indices), pool_of)

        yield from seeds.one_after_another(states, config.num_updates, chunks_of_one)


@contextlib.contextmanager
def _pools(engine, ray_address, number):
    """(floats of the parameters, usual and longest bytes of a message) -> a pool of workers."""
    if engine == "local":
        yield lambda size, *lengths: WorkerPool(
            transport.SharedParameters(forkserver.context, size), *lengths
        )
        return
    from rljax.a3c import ray_pool
    from rljax.utils import cluster

    try:
        found = contextlib.ExitStack()
        ray = found.enter_context(cluster.connected(ray_address, number, f"num_workers = {number}"))
    except ValueError as error:
        raise forkserver.RefusedError(str(error)) from error
    with found:
        yield partial(ray_pool.RayPool, ray)


def _chunks(config, workers, state, log_interval, watch, index, pool_of):
    """The chunks of one seed."""
    layout = messages.layout(config)
    holder, usual = ParameterHolder(config, workers, layout, state), layout.record.itemsize
    size = pytrees.size(layout.published)
    pool = pool_of(size, usual, max(usual, messages.LONGEST_TEXT))
    pool.parameters.publish(holder.version, holder.published())
    supervisor = Supervisor(holder, pool.parameters, state.actors, state.timing)

    def row_ended():
        return holder.row.gradients > 0 and at_row_end(config, holder.updates, log_interval)

    with pool:
        for worker in range(workers.num_workers):
            if failure := supervisor.start(worker, pool):
                raise failure
        for failure in _follow(supervisor, pool, row_ended):
            if watch:
                watch(supervisor.status(pool.waiting())._replace(index=index))
            row = as_arrays(holder.row)
            metrics = row_metrics(config, holder.updates, row, layout.metrics, log_interval)
            if row_ended():
                holder.begin_row()
            actors = seeds.stack([supervisor.actor(i) for i in range(workers.num_workers)])
            sums = as_arrays(holder.counts), as_arrays(holder.row)
            log = supervisor.timing and timing.Timing(*map(np.array, supervisor.timing))
            squares = jax.device_get(holder.squares)
            yield State(holder.state(), actors, *sums, log, squares), metrics
            if failure is not None:
                raise failure


def train(
    config: Config,
    workers: WorkerConfig,
    key: jax.Array,
    log_interval: int | None = None,
    **where: Any,
) -> tuple[State, Metrics]:
    """A whole run of one seed: (State, Metrics [R]), a row for every `log_interval` gradients.
    `where` is the engine of `chunks`, as which it raises."""
    rows, states, config = {}, None, workers.settle(config)
    log_interval = log_interval or default_log_interval(config)
    steps = chunks(config, workers, key[None], log_interval=log_interval, **where)
    for states, metrics in steps:  # noqa: B007  the last states are returned
        updates = int(metrics.updates[0])
        if updates and at_row_end(config, updates, log_interval):  # later chunks may have no more
            rows.setdefault(updates, seeds.take(metrics, 0))
    return seeds.take(states, 0), seeds.stack(list(rows.values()))


def _follow(supervisor, pool, row_ended):
    """Applies gradients as they come or, in lockstep, one worker's at a time, in the order of their
    numbers. Yields whenever it is time to look: None, or the error that ends the run."""
    holder, workers = supervisor.holder, supervisor.workers
    looked, granted = time.perf_counter(), None
    while holder.updates < holder.config.num_updates:
        supervisor.ready = time.perf_counter()
        turn = holder.updates % workers.num_workers
        if workers.lockstep and granted != holder.updates:
            granted = holder.updates
            pool.grant(turn, holder.version)
        for message in pool.messages(CHUNK_SECONDS):
            failure = supervisor.take(message, pool)
            if message.worker == turn and holder.updates == granted and not failure:
                # The message was malformed, or a new worker took its place.
                pool.grant(turn, holder.version)
            if failure or row_ended() or time.perf_counter() - looked > CHUNK_SECONDS:
                yield failure
                supervisor.ready = looked = time.perf_counter()
            if holder.updates >= holder.config.num_updates:
                return
        if time.perf_counter() - looked > CHUNK_SECONDS:
            yield None
            looked = time.perf_counter()


def summary(states: State) -> dict:
    """What A3C adds to the summary of a run, of all seeds together."""
    told = as_summary(states.counts)
    if states.timing:  # of the first seed: they do not differ but by chance
        told["timing"] = timing.summary(seeds.take(states.timing, 0))
    return told

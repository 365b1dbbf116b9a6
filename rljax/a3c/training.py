"""A3C seen from the holder's process: workers are started, watched and replaced."""

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import jax
import numpy as np

from rljax import learner, optimizers, rollout
from rljax.a3c import messages, transport
from rljax.a3c.crew import Crew, Message, RefusedError, WorkerError, context
from rljax.a3c.holder import Counts, ParameterHolder, Row, empty_row, no_counts, whole
from rljax.config import Config, Workers
from rljax.types import ActorState, Figures, LearnerState, Metrics

CHUNK_SECONDS = 0.25
"""Between two looks at what a run has come to: short enough for a display and Ctrl-C."""

DIVERGED = 20
"""A row of so many gradients or more, none of them finite, ends a run."""

_JAX_SETTINGS = (
    "jax_compilation_cache_dir",
    "jax_default_prng_impl",
    "jax_enable_compilation_cache",
    "jax_persistent_cache_min_compile_time_secs",
    "jax_numpy_rank_promotion",
)
"""What workers take over of this process's."""


class State(NamedTuple):
    """All that a run needs to go on, in NumPy."""

    learner: LearnerState
    """`updates` counts the gradients that arrived; the optimiser's state is of their vector."""
    actors: ActorState
    """[W, ...] of each worker at its last push; random keys as raw data."""
    counts: Counts
    row: Row


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


def init(config: Config, workers: Workers, key: jax.Array) -> State:
    """A fresh learner and fresh episodes of each worker.

    Raises:
        ValueError, TypeError: as `Config.validate`, `Workers.validate` and `rollout.make_agent` do.
    """
    _check(config, workers)
    with jax.default_device(jax.devices("cpu")[0]):
        state, actors = jax.device_get(_fresh(config, key, workers.num_workers))
    return State(state, actors, no_counts(), empty_row())


@partial(jax.jit, static_argnames="num_workers")
def _fresh(config, key, num_workers):
    env, network = rollout.make_agent(config)
    key_learner, key_actors = jax.random.split(key)
    keys = jax.random.split(key_actors, num_workers)
    actors = jax.vmap(lambda key: messages.init_actor(config, env, key))(keys)
    state = learner.init(config, network, env.spec, key_learner)
    opt_state = optimizers.make(config).init(messages.ravel(state.params))
    return state._replace(opt_state=opt_state), messages.plain(actors)


def chunks(
    config: Config,
    workers: Workers,
    key: jax.Array | None,
    state: State | None = None,
    watch: Callable[[Status], None] = lambda status: None,
    warn: Callable[[str], None] = lambda text: None,
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
        RefusedError: a worker cannot make the environment or the network.
        WorkerError: an environment raised an exception in a worker, or a worker died more often
            in a row than `max_worker_restarts`. A last chunk was given before.
    """
    _check(config, workers)
    state = init(config, workers, key) if state is None else state
    if state.learner.updates >= config.num_updates:
        return
    layout = messages.layout(config)
    holder = ParameterHolder(config, workers, layout, state.learner, state.counts, state.row)
    parameters = transport.SharedParameters(context, messages.size(layout.published))
    parameters.publish(holder.version, holder.published())
    run = _Run(config, workers, layout, holder, parameters, state.actors, warn)
    usual = layout.record.itemsize
    with Crew(parameters, usual, max(usual, messages.LONGEST_TEXT)) as crew:
        for index in range(workers.num_workers):
            if failure := run.start(index, crew):
                raise failure
        if run.row_ended:  # the run goes on from the end of a row
            holder.begin_row()
        follow = _in_turn if workers.lockstep else _as_they_come
        for failure in follow(run, crew):
            watch(run.status(crew.waiting()))
            yield run.state(), run.metrics()
            if failure is not None:
                raise failure
            if run.row_ended:
                holder.begin_row()


def train(config: Config, workers: Workers, key: jax.Array) -> tuple[State, Metrics]:
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


def _check(config, workers):
    workers.validate()
    config.validate()
    if config.num_envs != workers.envs_per_worker:
        raise ValueError(
            f"num_envs = {config.num_envs}: must be envs_per_worker = {workers.envs_per_worker}"
        )


def _as_they_come(run, crew):
    """Applies gradients in the order in which they come. Yields whenever it is time to look: None,
    or the error that ends the run."""
    looked = time.perf_counter()
    while not run.done:
        for message in crew.messages(CHUNK_SECONDS):
            failure = run.take(message, crew)
            now = time.perf_counter()
            if failure or run.row_ended or now - looked > CHUNK_SECONDS:
                yield failure
                looked = time.perf_counter()
            if run.done:
                return
        if time.perf_counter() - looked > CHUNK_SECONDS:
            yield None
            looked = time.perf_counter()


def _in_turn(run, crew):
    """As `_as_they_come`, but one worker at a time, in the order of their numbers."""
    looked = time.perf_counter()
    while not run.done:
        index, arrived = run.holder.updates % run.workers.num_workers, run.holder.updates
        crew.grant(index)
        while run.holder.updates == arrived:
            failure = None
            for message in crew.messages(CHUNK_SECONDS):
                failure = failure or run.take(message, crew)
                if message.worker == index and run.holder.updates == arrived and not failure:
                    crew.grant(index)  # its message was none, or another worker took its place
            if failure or run.row_ended or time.perf_counter() - looked > CHUNK_SECONDS:
                yield failure
                looked = time.perf_counter()


class _Run:
    """What the holder's process knows of its workers."""

    def __init__(self, config, workers, layout, holder, parameters, actors, warn):
        self.config, self.workers, self.layout = config, workers, layout
        self.holder, self.parameters, self.warn = holder, parameters, warn
        split = range(workers.num_workers)
        self.actors = [jax.tree.map(lambda x, i=i: np.array(x[i]), actors) for i in split]
        self.packed: dict[int, np.ndarray] = {}
        nothing = WorkerStatus("starting", 0, 0, float("nan"), 0, 0, np.zeros(len(messages.PHASES)))
        self.statuses = [nothing] * workers.num_workers
        self.in_a_row = [0] * workers.num_workers

    @property
    def done(self):
        return self.holder.updates >= self.config.num_updates

    @property
    def row_ended(self):
        return self.holder.row.gradients > 0 and self.config.ends_row(self.holder.updates)

    def job(self, index):
        settings = {name: getattr(jax.config, name) for name in _JAX_SETTINGS}
        lockstep = self.workers.lockstep
        return messages.Job(self.config, self.layout, self.actor(index), lockstep, settings)

    def start(self, index: int, crew: Crew) -> Exception | None:
        """Starts a worker; the error that ends the run, if it does."""
        try:
            crew.start(index, self.job(index))
        except (OSError, EOFError) as error:
            return self._replace(index, f"could not be started ({error!r})", crew)
        return None

    def actor(self, index):
        """Where a worker was at its last push."""
        if index in self.packed:
            self.actors[index] = messages.unpack(self.packed.pop(index), self.layout.actor)
        return self.actors[index]

    def take(self, message: Message, crew: Crew) -> Exception | None:
        """Deals with what happened to a worker; the error that ends the run, if it does."""
        index, kind, content = message
        if kind is None:
            return self._replace(index, content, crew)
        if kind == messages.FAILED:
            return WorkerError(f"worker {index} failed:\n{bytes(content).decode(errors='replace')}")
        if kind == messages.REFUSED:
            refusal = RefusedError if self.holder.updates == 0 else WorkerError
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
        self.packed[index], self.in_a_row[index] = record["actor"].copy(), 0
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
        self.in_a_row[index] += 1
        allowed = self.workers.max_worker_restarts
        if self.in_a_row[index] > allowed:
            return WorkerError(
                f"worker {index} {how}; it was started again {allowed} times in a row without"
                " pushing a gradient, as often as max_worker_restarts allows"
            )
        self.warn(f"worker {index} {how}; started again where its last gradient left it")
        counts = self.holder.counts
        self.holder.counts = counts._replace(restarts=counts.restarts + 1)
        status = self.statuses[index]
        self.statuses[index] = status._replace(state="restarting", restarts=status.restarts + 1)
        return self.start(index, crew)

    def status(self, queued):
        size = self.layout.record.itemsize
        counts = whole(self.holder.counts)
        return Status(list(self.statuses), counts, self.holder.version, queued / size)

    def state(self):
        holder = self.holder
        actors = [self.actor(index) for index in range(self.workers.num_workers)]
        stacked = jax.tree.map(lambda *x: np.stack(x), *actors)
        return State(holder.state(), stacked, whole(holder.counts), whole(holder.row))

    def metrics(self):
        return metrics(self.config, self.holder.updates, whole(self.holder.row))


def metrics(config: Config, updates: int, row: Row) -> Metrics:
    """Metrics of a row from its sums, after so many gradients of the run."""
    figures = Figures(*row.figures)
    rate = optimizers.learning_rate(config, updates - (row.gradients + 1) / 2)  # the mean: linear
    with np.errstate(invalid="ignore", divide="ignore"):  # 0 / 0 is the NaN that says none
        means = Figures(*(row.figures / row.finite))
        returns, lengths = row.figures[1:3] / figures.episodes
        mean = Metrics(
            updates=np.int32(updates),
            **means._asdict(),
            learning_rate=float(rate) if row.gradients else np.nan,
            diverged_at=np.int32(updates if _has_diverged(config, updates, row) else 0),
            staleness_mean=row.staleness / row.applied,
            staleness_max=row.staleness_max,
        )
    return mean._replace(
        episodes=figures.episodes, episodic_return=returns, episodic_length=lengths
    )


def _has_diverged(config, updates, row):
    """Single gradients that are not finite are rejected, and workers pull finite parameters; where
    a whole row has no other, these parameters give no other."""
    return config.ends_row(updates) and row.gradients >= DIVERGED and row.finite == 0


def begin_row(config: Config, state: State) -> tuple[State, Metrics]:
    """Ends a row of metrics here and begins another: for a run that goes on with another
    `config.log_interval`.

    Returns:
        (state, Metrics of the row so far).
    """
    row = metrics(config, int(state.learner.updates), state.row)
    return state._replace(row=empty_row()), row

"""A3C simulated in one program: asynchrony that is exact, repeats to the bit, and is vmapped over
seeds, learning rates and delays.

    state, metrics = jax.jit(simulated.train)(config, SimulationConfig(num_workers=16), key)

Each of W simulated workers has environments of its own. `events` finds whose gradient comes next,
and with which version of the parameters it acted; `rollout.collect`, `learner.compute_gradients`
and `learner.apply_gradients` are those of A3C; `corrections` is what can be done about staleness.
Nothing is computed before it is needed: a worker acts when its gradient is applied, with the
parameters that it had pulled, which are kept once per version in flight.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from rljax import learner, optimizers, rollout, rows, types
from rljax.a3c import events, messages, stale_steps
from rljax.a3c.counts import DIVERGED, STALENESS_BINS, Counts, as_summary, counted
from rljax.a3c.simulation import SimulationConfig
from rljax.config import Config, default_log_interval
from rljax.envs.host_envs import HostEnv
from rljax.types import BatchMetrics, Metrics, TrainState
from rljax.utils import pytrees, seeds, sharding
from rljax.utils.compilation import jit_once
from rljax.utils.seeds import Steps

types.register(SimulationConfig)
MEMORY_SHARE = 0.5  # of a device's, for one agent's versions in flight
DIAGNOSTICS = ("cosine", "effective_sample_size")


class Row(NamedTuple):
    """Sums since the last row of metrics, float32."""

    gradients: Any  # applied or not
    applied: Any
    finite: Any
    metrics: BatchMetrics  # of the finite ones
    measured: dict[str, Any]  # the diagnostics, of the finite ones
    learning_rate: Any
    staleness: Any  # of the applied ones
    time: Any  # simulated


class State(NamedTuple):
    """The whole state of a run."""

    learner: TrainState
    actors: Any
    """uint32 [W, ...] each worker's `types.ActorState`, by `pytrees.pack`."""
    versions: Any
    """`messages.Published` [V, ...]: those in flight."""
    clock: Any
    """`events.Clock`; () where the staleness is given."""
    squares: Any
    """Running mean of squared gradients, like the parameters, for dc_asgd_a; () without."""
    key: Any
    counts: Counts
    row: Row
    row_error: Row
    """The rounding errors of the row's sums so far."""
    staleness_max: Any
    """Of the row, of the gradients applied."""
    time: Any
    """Simulated, until the row."""
    diverged_at: Any
    """int32 gradients until a row without a finite one; 0 if there was none."""


def init(config: Config, options: SimulationConfig, key: jax.Array) -> State:
    """A fresh learner, and fresh episodes of each worker.

    Raises:
        ValueError, TypeError: as `Config.validate`, `SimulationConfig.validate`,
            `rollout.make_env_and_network` and `losses.make` do; `num_envs` are not those of a
            worker, Python steps the environment, or the versions of the parameters in flight take
            more than `MEMORY_SHARE` of memory.
    """
    env, network = _made(config)
    if config.num_envs != options.envs_per_worker:
        what = f"must be envs_per_worker = {options.envs_per_worker} (options.settle makes it so)"
        raise ValueError(f"num_envs = {config.num_envs}: {what}")
    key_learner, key_actors, key_clock, key = jax.random.split(key, 4)
    state = learner.init(config, network, env.spec, key_learner)
    published = messages.published(state)
    _check_memory(options, published)
    first = jnp.arange(options.num_workers, dtype=jnp.int32) * config.num_envs
    begin = partial(rollout.init, env, network, config.num_envs)
    actors = jax.vmap(begin)(jax.random.split(key_actors, options.num_workers), first)
    zero, none = jnp.float32(0), jnp.int32(0)
    metrics = messages.no_metrics(config, network, env.spec, state.params)
    measured = dict.fromkeys(DIAGNOSTICS * options.diagnostics, zero)
    row = Row(zero, zero, zero, jax.tree.map(jnp.float32, metrics), measured, zero, zero, zero)
    return State(
        learner=state,
        actors=jax.vmap(lambda actor: pytrees.pack(pytrees.plain(actor)))(actors),
        versions=jax.tree.map(
            lambda x: jnp.zeros((options.versions, *x.shape), x.dtype).at[0].set(x), published
        ),
        clock=() if events.is_given(options) else events.start(options, key_clock),
        squares=optax.tree.zeros_like(state.params) if options.correction == "dc_asgd_a" else (),
        key=key,
        counts=Counts(*[none] * 7, staleness=jnp.zeros(STALENESS_BINS, jnp.int32)),
        row=row,
        row_error=row,
        staleness_max=zero,
        time=zero,
        diverged_at=none,
    )


def update(
    config: Config, options: SimulationConfig, state: State, axis: str | None = None
) -> State:
    """The next gradient, applied or rejected. Environments are not sharded: `axis` is None."""
    del axis
    env, network = _made(config)
    key, key_now = jax.random.split(state.key)
    version, turn = state.counts.applied, state.learner.updates
    is_given = events.is_given(options)
    now = (
        events.given(options, key_now, turn, version)
        if is_given
        else events.find(state.clock, version)
    )
    # Else a CPU would find the place anew for each parameter.
    now = jax.lax.optimization_barrier(now)
    pulled = jax.tree.map(lambda kept: kept[now.place], state.versions)
    staleness = version - now.version
    acting = TrainState(pulled.params, (), 0, pulled.obs_moments, pulled.return_moments)

    like = jax.eval_shape(partial(rollout.init, env, network, config.num_envs), key)
    packed = pytrees.unpack(state.actors[now.worker], jax.eval_shape(pytrees.plain, like))
    experience = rollout.collect(config, env, network, acting, pytrees.typed(packed, like))
    take_step = {"gradients": stale_steps.on_gradients, "data": stale_steps.on_data}[options.stale]
    of_learner = state.learner, state.squares
    step = take_step(config, options, network, *of_learner, acting, experience, staleness)

    moved, is_finite, is_applied = step.learner, step.is_finite, step.is_applied
    counts = counted(state.counts, staleness, is_finite, is_applied)
    if is_given:
        clock, place, passed = (), events.place_of(options, counts.applied), jnp.float32(0)
    else:
        served = now, key_now, version, turn, is_applied
        clock, passed = events.serve(options, state.clock, *served)
        place = clock.newest
    place = jax.lax.optimization_barrier(place)
    newest = messages.published(moved)
    one = Row(
        gradients=jnp.float32(1),
        applied=is_applied.astype(jnp.float32),
        finite=is_finite.astype(jnp.float32),
        metrics=pytrees.where(is_finite, step.metrics, optax.tree.zeros_like(step.metrics)),
        measured=pytrees.where(is_finite, step.measured, optax.tree.zeros_like(step.measured)),
        learning_rate=optimizers.learning_rate(config, turn),
        staleness=jnp.where(is_applied, staleness, 0).astype(jnp.float32),
        time=passed,
    )
    row, error = rows.summed(state, one)
    packed = pytrees.pack(pytrees.plain(step.actor))
    return state._replace(
        learner=moved,
        actors=state.actors.at[now.worker].set(packed),
        versions=jax.tree.map(lambda kept, x: kept.at[place].set(x), state.versions, newest),
        clock=clock,
        squares=step.squares,
        key=key,
        counts=counts,
        row=row,
        row_error=error,
        staleness_max=jnp.maximum(state.staleness_max, one.staleness),
    )


def row(state: State) -> Metrics:
    """Metrics of the row in progress."""
    sums, metrics = state.row, state.row.metrics
    of_episodes, of_finite = (lambda x: x / metrics.episodes), (lambda x: x / sums.finite)
    return Metrics(
        updates=state.learner.updates,
        episodes=metrics.episodes,
        episodic_return=of_episodes(metrics.episodic_return),  # 0 / 0 says that none ended
        episodic_length=of_episodes(metrics.episodic_length),
        losses=jax.tree.map(of_finite, metrics.losses),
        grad_norm=of_finite(metrics.grad_norm),
        learning_rate=sums.learning_rate / sums.gradients,
        diverged_at=_diverged_at(state),
        extra={
            "staleness_mean": sums.staleness / sums.applied,
            "staleness_max": state.staleness_max,
            **jax.tree.map(of_finite, sums.measured),
            "simulated_time": state.time + sums.time,
        },
        info=jax.tree.map(of_episodes, metrics.info),
    )


def _diverged_at(state):
    sums = state.row
    has_diverged = jnp.logical_and(sums.gradients >= DIVERGED, sums.finite == 0)
    now = jnp.where(has_diverged, state.learner.updates, 0)
    return jnp.where(state.diverged_at > 0, state.diverged_at, now)


def begin_row(state: State, ended: Any = True) -> State:
    """The state with a new row of metrics, if the row has `ended`, which may be traced."""
    sums = state.row, state.row_error, state.staleness_max
    row, error, oldest = pytrees.where(ended, optax.tree.zeros_like(sums), sums)
    return state._replace(
        row=row,
        row_error=error,
        staleness_max=oldest,
        time=state.time + jnp.where(ended, state.row.time, 0),
        diverged_at=jnp.where(ended, _diverged_at(state), state.diverged_at),
    )


def train(
    config: Config, options: SimulationConfig, key: jax.Array, log_interval: int | None = None
) -> tuple[State, Metrics]:
    """A whole run, a pure function: (state, Metrics [R]), a row for every `log_interval` gradients;
    by default a hundredth of the run. Raises as `init` does."""
    log_interval = log_interval or default_log_interval(config)
    state, one = init(config, options, key), partial(update, config, options)
    return rows.train(one, state, config.num_updates, log_interval, row, begin_row)


def in_one_program(config: Config) -> bool:
    """Whether all seeds are trained in one program: yes."""
    return True


@jit_once
def init_seeds(config: Config, options: SimulationConfig, keys: jax.Array) -> State:
    """Fresh states [S], one for each key [S]."""
    return jax.vmap(init, in_axes=(None, None, 0))(config, options, keys)


def chunks(
    config: Config,
    options: SimulationConfig,
    keys: jax.Array | None,
    states: State | None = None,
    *,
    log_interval: int | None = None,
    watch: Callable | None = None,
) -> Iterator[tuple[State, Metrics]]:
    """A whole run of S seeds, as `a2c.chunks`."""
    config = options.settle(config)
    log_interval = log_interval or default_log_interval(config)
    states = init_seeds(config, options, keys) if states is None else states
    steps = Steps(update, row, begin_row)
    yield from seeds.in_one_program(steps, (config, options), states, log_interval)


def summary(states: State) -> dict:
    """What it adds to the summary of a run, of all seeds together."""
    return as_summary(jax.device_get(states.counts))


def _made(config):
    env, network = rollout.make_env_and_network(config)
    if isinstance(env, HostEnv):
        what = "Python steps it: simulated A3C needs an environment in JAX"
        raise ValueError(f"env = {config.env!r}: {what}")
    return env, network


def _check_memory(options, published):
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(published))
    needed, limit = size * options.versions, MEMORY_SHARE * sharding.memory(sharding.mesh(1))
    if needed > limit:
        gib = f"{needed / 2**30:,.1f} GiB for each agent, of which {limit / 2**30:,.1f} are allowed"
        which = "staleness"
        if not events.is_given(options):
            which = f"num_workers = {options.num_workers}, in_flight = {options.in_flight}"
        raise ValueError(f"{which}: {options.versions:,} versions of the parameters take {gib}")

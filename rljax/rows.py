"""Rows of metrics of an algorithm in one program, whose states have `learner`, `row` and
`row_error`, as an `AgentState` has: sums over the updates since the last row, and their rounding
errors."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from rljax import normalization, optimizers
from rljax.config import Config
from rljax.types import BatchMetrics, Metrics, TrainState
from rljax.utils import pytrees


def empty(zero_losses: dict[str, jax.Array], no_info: jax.Array | None) -> Metrics:
    """Sums of no updates."""
    zero, none = jnp.float32(0), jnp.int32(0)
    return Metrics(none, zero, zero, zero, zero_losses, zero, zero, none, info=no_info)


def add(config: Config, state: Any, moved: TrainState, metrics: BatchMetrics) -> tuple:
    """(row, row_error) with an update from `state.learner` to `moved`."""
    # One sum is enough: an infinity or a NaN stays in it.
    total = metrics.grad_norm + metrics.losses["loss"] + pytrees.total(moved.params)
    one = Metrics(
        updates=jnp.int32(1),
        **metrics._asdict(),
        learning_rate=optimizers.learning_rate(config, state.learner.updates),
        diverged_at=jnp.where(jnp.isfinite(total), 0, moved.updates),
    )
    sums, error = summed(state, one)
    first = jnp.where(state.row.diverged_at > 0, state.row.diverged_at, one.diverged_at)
    return sums._replace(diverged_at=first), error


def summed(state: Any, one: Any) -> tuple[Any, Any]:
    """(row, row_error) of a state with one more, a pytree like them."""
    # A row can have millions of updates. As vectors the sums are few launches on a GPU.
    vectors = normalization.add(*map(pytrees.ravel, (state.row, state.row_error, one)))
    sums, error = (pytrees.unravel(vector, one) for vector in vectors)
    return jax.tree.map(lambda x, like: x.astype(like.dtype), (sums, error), (one, one))


def row(state: Any) -> Metrics:
    """Metrics of the row in progress."""
    sums, episodes = state.row, state.row.episodes
    means = jax.tree.map(lambda x: x / sums.updates, sums)
    return means._replace(
        updates=state.learner.updates,
        episodes=episodes,
        episodic_return=sums.episodic_return / episodes,  # 0 / 0 is the NaN that says none ended
        episodic_length=sums.episodic_length / episodes,
        diverged_at=sums.diverged_at,
        info=jax.tree.map(lambda x: x / episodes, sums.info),
    )


def begin_row(state: Any, ended: Any = True) -> Any:
    """The state with a new row of metrics, if the row has `ended`, which may be traced. That a run
    has diverged stays."""
    sums, error = jax.tree.map(
        lambda x: jnp.where(ended, jnp.zeros_like(x), x), (state.row, state.row_error)
    )
    return state._replace(row=sums._replace(diverged_at=state.row.diverged_at), row_error=error)


def train(
    update: Callable[[Any], Any],
    state: Any,
    num_updates: int,
    log_interval: int,
    row: Callable[[Any], Metrics] = row,
    begin_row: Callable[[Any], Any] = begin_row,
) -> tuple[Any, Metrics]:
    """A whole run from a fresh state, (state, Metrics [R]): the last row may be of fewer than
    `log_interval` updates. States that keep their rows otherwise have a `row` and a `begin_row` of
    their own."""
    whole, rest = divmod(num_updates, log_interval)
    lengths = jnp.array([log_interval] * whole + [rest] * (rest > 0), jnp.int32)

    def next_row(state, length):
        state = jax.lax.fori_loop(0, length, lambda _, x: update(x), state)
        return begin_row(state), row(state)

    return jax.lax.scan(next_row, state, lengths)

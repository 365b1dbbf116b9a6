"""The axis of seeds: all trained in one program, or one after another."""

import contextlib
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from rljax.config import Config
from rljax.utils import sharding

CHUNK_SECONDS = 0.5  # of a chunk: short enough for a display and Ctrl-C


def keys(seeds: Iterable[int]) -> jax.Array:
    """[S] the keys that runs of these seeds start from."""
    return jax.vmap(jax.random.key)(np.array(list(seeds), np.uint32))


class Steps(NamedTuple):
    """Pure functions that train one agent."""

    update: Callable  # (config, state) -> state: one update
    row: Callable  # state -> Metrics of the row in progress
    begin_row: Callable  # (state, whether the row has ended) -> state: then with a new row


def in_one_program(
    steps: Steps, config: Config, states: Any, log_interval: int
) -> Iterator[tuple[Any, Any]]:
    """Trains all seeds at once, in chunks of (states [S], metrics [S] in NumPy) by one jitted
    program. `learner.updates` of all states are the same.

    The length of a chunk is an argument of the program, so it changes no bit of training: the first
    chunk is one update, which takes the compilation; later ones follow the clock, and end where a
    row of metrics does at the latest. Raises an EnvError if the program fails.
    """
    done, length = int(np.asarray(states.learner.updates)[0]), 1
    while done < config.num_updates:
        to_row = min(log_interval - done % log_interval, config.num_updates - done)
        length = min(length, to_row)
        start = time.perf_counter()
        with sharding.failures_named(f"env = {config.env!r}, in the updates after {done:,}"):
            states, metrics = _advance(steps, config, states, np.int32(length), length == to_row)
            metrics = jax.device_get(metrics)
        seconds = time.perf_counter() - start
        done += length
        yield states, metrics
        length = max(1, int(CHUNK_SECONDS * length / seconds))


@partial(jax.jit, static_argnums=0)
def _advance(steps, config, states, num_updates, ends_row):
    def advance(state):
        state = jax.lax.fori_loop(0, num_updates, lambda _, x: steps.update(config, x), state)
        return steps.begin_row(state, ends_row), steps.row(state)

    return jax.vmap(advance)(states)


def one_after_another(
    states: Any, num_updates: int, chunks: Callable[[Any], Generator]
) -> Iterator[tuple[Any, Any]]:
    """Trains each seed to its end, after `num_updates`, before the next, by its chunks of (state,
    metrics): state -> generator. Yields (states [S], metrics [S]); the metrics of other seeds than
    the one in training are NaN or 0, but for their `updates`."""
    updates = np.array(states.learner.updates)
    for index in np.flatnonzero(updates < num_updates):
        with contextlib.closing(chunks(take(states, int(index)))) as own:
            for state, metrics in own:
                states = put(states, int(index), state)
                updates[index] = metrics.updates
                everyone = jax.tree.map(lambda x, i=index: _spread(x, len(updates), i), metrics)
                yield states, everyone._replace(updates=updates.astype(np.int32))


def take(states: Any, index: Any) -> Any:
    """The state of one seed, or the states of several by an array of indices."""
    return jax.tree.map(lambda x: x[index], states)


def put(states: Any, index: int, state: Any) -> Any:
    """The states with another state of one seed."""

    def replaced(everyone, one):
        if jax.dtypes.issubdtype(everyone.dtype, jax.dtypes.prng_key):
            return everyone.at[index].set(one)
        changed = np.array(everyone)
        changed[index] = one
        return changed

    return jax.tree.map(replaced, states, state)


def stack(trees: list) -> Any:
    """Pytrees of one seed each as one with a leading axis [S]."""
    return jax.tree.map(lambda *x: np.stack(x), *trees)


def _spread(x, number, index):
    x = np.asarray(x)
    others = x.dtype.type(np.nan if x.dtype.kind == "f" else 0)
    return np.where(np.arange(number) == index, x, others)

"""A group of trials as one program: vmapped over the trials of a batch, which are spread over the
local devices. The devices exchange nothing.
"""

import dataclasses
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import lru_cache
from types import ModuleType
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from rljax import algorithms
from rljax.config import FLOAT_FIELDS, Config, default_log_interval
from rljax.sweep.options import SweepOptions
from rljax.sweep.results import Failure, Progress, Result, evaluated
from rljax.sweep.trials import Trial
from rljax.utils import seeds, sharding
from rljax.utils.forkserver import EnvError
from rljax.utils.sharding import SHARDED, WHOLE

CPU_BYTES = 4 * 2**20  # of the learners that a CPU device trains at once: more leave its cache
MOST_CPU_TRIALS = 32  # on each device: more gain nothing
GPU_TRIALS = 2048  # trials at once on an accelerator, if memory holds them: more are faster
MEMORY_SHARE = 0.5  # of a device's memory, for a batch


def usual_parallel(module: ModuleType, config: Config) -> int:
    """The number of trials to train at once for the highest speed, over all local devices."""
    number = len(sharding.devices())
    if not sharding.on_cpu():
        return GPU_TRIALS * number
    learner = jax.eval_shape(module.init, config, jax.random.key(0)).learner
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(learner))
    each = min(seeds.CPU_ENVS // config.num_envs, CPU_BYTES // size, MOST_CPU_TRIALS)
    return max(1, each) * number


def train(
    trials: Sequence[Trial], how: SweepOptions, done: Collection[int] = ()
) -> Iterator[Progress]:
    """Trains the trials of a group, batch after batch, and evaluates them.

    All batches have one size, rounded up to whole devices, and are filled up with copies: one
    compiled program serves all. Where it fails, all trials of the batch do.
    """
    mesh = sharding.mesh(len(trials))
    module = algorithms.module(trials[0].algorithm)
    wanted = how.max_parallel or usual_parallel(module, trials[0].config)
    each = -(-min(wanted, len(trials)) // mesh.size)
    without_floats = dataclasses.replace(trials[0].config, **dict.fromkeys(FLOAT_FIELDS, 0.0))
    programs = _programs(module, without_floats, each, mesh)
    while each > 1 and programs.bytes > (limit := MEMORY_SHARE * sharding.memory(mesh)):
        each = max(1, int(each * limit / programs.bytes))
        programs = _programs(module, without_floats, each, mesh)
    size, pace = each * mesh.size, 1
    for start in range(0, len(trials), size):
        batch = [trial for trial in trials[start : start + size] if trial.number not in done]
        if not batch:
            continue
        try:
            pace = yield from _train_batch(programs, batch, size, pace, how)
        except EnvError as error:
            for trial in batch:
                yield Progress(failure=Failure(trial, str(error)))


def _train_batch(programs, trials, size, pace, how):
    """Returns the next batch's `pace`: the updates that fit the seconds of a chunk."""
    config = trials[0].config
    filled = [*trials, *[trials[-1]] * (size - len(trials))]
    configs = seeds.stack([trial.config for trial in filled])
    keys = seeds.keys(trial.seed for trial in filled)
    states, rows = programs.init(configs, keys)
    done = 0
    while done < config.num_updates:
        length = min(pace, config.num_updates - done)
        begun = time.perf_counter()
        span = np.array([done, done + length], np.int32)
        with sharding.failures_named(f"in the updates after {done:,}"):
            states, rows = jax.block_until_ready(programs.advance(configs, states, rows, span))
        seconds = time.perf_counter() - begun
        pace = max(1, min(int(seeds.CHUNK_SECONDS * length / seconds), 20 * length))
        done += length
        yield Progress(length * config.batch_size * len(trials), seconds)
    returns = evaluated(config, states.learner, keys, how)
    returns = None if returns is None else returns[: len(trials)]
    metrics = jax.tree.map(lambda x: x[:, : len(trials)], jax.device_get(rows))
    yield Progress(result=Result(trials, metrics, returns))
    return pace


class _Programs(NamedTuple):
    init: Callable  # (configs [A], keys [A]) -> (states [A], rows [R, A])
    advance: Callable  # (configs, states, rows, (first update, last)) -> (states, rows): trains
    bytes: int  # of memory that a batch takes, on each device


@lru_cache(maxsize=32)
def _programs(module: ModuleType, config: Config, each: int, mesh: Mesh) -> _Programs:
    """Compiled for a config without its floats and `each` trials on each device."""
    log_interval = default_log_interval(config)
    num_rows = -(-config.num_updates // log_interval)

    def init(configs, keys):
        states = jax.vmap(module.init)(configs, keys)
        row = jax.vmap(module.row)(states)
        return states, jax.tree.map(lambda x: jnp.zeros((num_rows, *x.shape), x.dtype), row)

    def advance(configs, states, rows, span):
        def update(i, carry):
            states, rows = carry
            states = jax.vmap(module.update)(configs, states)
            row, at = jax.vmap(module.row)(states), i // log_interval
            rows = jax.tree.map(lambda all, one: all.at[at].set(one), rows, row)
            ended = (i + 1) % log_interval == 0
            return jax.vmap(module.begin_row, in_axes=(0, None))(states, ended), rows

        return jax.lax.fori_loop(span[0], span[1], update, (states, rows))

    by_trial = PartitionSpec(None, "agents")
    init = sharding.spread(init, mesh, (SHARDED, SHARDED), (SHARDED, by_trial))
    advance = sharding.spread(
        advance, mesh, (SHARDED, SHARDED, by_trial, WHOLE), (SHARDED, by_trial), donate=(1, 2)
    )
    size = each * mesh.size
    configs = jax.tree.map(lambda x: np.full(size, x), config)
    keys = jax.eval_shape(lambda: seeds.keys([0] * size))
    fresh = jax.eval_shape(init, configs, keys)
    init = init.lower(configs, keys).compile()
    advance = advance.lower(configs, *fresh, np.zeros(2, np.int32)).compile()
    memory = advance.memory_analysis()
    taken = memory.argument_size_in_bytes + memory.temp_size_in_bytes
    return _Programs(init, advance, taken)

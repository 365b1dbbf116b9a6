"""The axis of seeds: all trained in one program, or one after another."""

import contextlib
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding

from rljax.config import Config
from rljax.utils import compilation, hosts, pytrees, sharding
from rljax.utils.sharding import SHARDED, SHARDED_ENVS, WHOLE

CHUNK_SECONDS = 0.5  # of a chunk: short enough for a display and Ctrl-C
COPIED = 5e7
"""Bytes of states, such as of replay buffers, for which a chunk may take a second more: each copies
them, and would be of one update for ever if that took as long as a chunk may."""
FREE = 3e7  # bytes that are copied in no time
LARGE = 5e6  # products of a batch with the parameters: from here on two CPU devices beat one
CPU_ENVS = 128
"""Environments that a CPU device steps at once where it is fastest, over all its agents
(`experiments/benchmarks/sweep.py` measures it)."""


def keys(seeds: Iterable[int]) -> jax.Array:
    """[S] the keys that runs of these seeds start from."""
    return jax.vmap(jax.random.key)(np.array(list(seeds), np.uint32))


class Steps(NamedTuple):
    """Pure functions that train one agent."""

    update: Callable
    """(*settings, state, axis) -> state: one update. The environments are sharded over the devices
    along the mesh's axis; if it is None, they are not."""
    row: Callable  # state -> Metrics of the row in progress
    begin_row: Callable  # (state, whether the row has ended) -> state: then with a new row
    parts: Callable | None = None
    """(of_agent, of_env) -> a prefix of the state, which tells what is of each environment from
    what is of the agent; None where environments cannot be sharded."""


def in_one_program(
    steps: Steps, settings: tuple, states: Any, log_interval: int
) -> Iterator[tuple[Any, Any]]:
    """Trains all seeds at once, in chunks of (states [S], metrics [S] in NumPy) by one jitted
    program. Settings are a config and the algorithm's own options; `learner.updates` of all states
    are the same.

    The seeds are spread over the local devices, which exchange nothing; the environments of a large
    run of few seeds as well, whose gradients are averaged. On an accelerator the states are
    donated: those that were passed, or yielded before, are deleted. Several processes, and a number
    of devices that is asked for, use all devices, as `layout` says; of several processes the states
    that are yielded are in NumPy.

    The length of a chunk is an argument of the program, so it changes no bit of training: the first
    chunk is one update, which takes the compilation; later ones follow the clock, and end where a
    row of metrics does at the latest. Raises an EnvError if the program fails.
    """
    size = sum(x.nbytes for x in jax.tree.leaves(states))
    wanted = CHUNK_SECONDS + max(0.0, size - FREE) / COPIED
    config, done, length = settings[0], int(np.asarray(states.learner.updates)[0]), 1
    number = len(states.learner.updates)
    mesh = _mesh(steps, config, states)
    group = at_once(config, states, mesh)
    # Of several agents at once, or on several devices, the usual order is as fast.
    is_short = group == mesh.size == 1 and _products(config, states) < LARGE
    advance, first = _programs(steps, mesh, number, group, is_short)
    states = sharding.placed(states, mesh, _specs(steps), group)
    while done < config.num_updates:
        to_row = min(log_interval - done % log_interval, config.num_updates - done)
        length = min(length, to_row)
        start = time.perf_counter()
        where = f"env = {config.env!r}, in the updates after {done:,}"
        with sharding.failures_shared(), sharding.failures_named(where):
            flags = np.int32(length), np.bool_(length == to_row)
            states, metrics = advance(settings, states, *flags)
            metrics = take(sharding.fetched(metrics, mesh), slice(number))
            given = sharding.fetched(first(states), mesh) if mesh.is_multi_process else None
        seconds = hosts.gathered(np.float32(time.perf_counter() - start)).max()
        done += length
        yield first(states) if given is None else given, metrics
        length = max(1, int(wanted * length / seconds))


def _mesh(steps, config, states):
    number = len(states.learner.updates)
    if hosts.count() == 1 and not sharding.is_asked():
        return sharding.mesh(number, devices_of_each(config, states) if steps.parts else 1)
    return sharding.mesh(*layout(config, number, bool(steps.parts)), sharding.everywhere())


def layout(config: Config, number: int, shards_envs: bool) -> tuple[int, int]:
    """(agents at once, devices of each) that use all devices of all processes for this number of
    agents, whose environments can be sharded or not. Raises ValueError if there is none."""
    total = len(sharding.everywhere())
    rows = max(n for n in range(1, min(total, number) + 1) if total % n == 0)
    each = total // rows
    of = sharding.described()
    if each > 1 and not shards_envs:
        raise ValueError(f"num_seeds = {number}: must be at least {total} here, for {of}")
    if config.num_envs % each:
        why = f"those that share the environments of a seed, of {of}"
        raise ValueError(f"num_envs = {config.num_envs}: must be a multiple of {each}, {why}")
    return rows, each


def devices_of_each(config: Config, states: Any) -> int:
    """The number of devices over which the environments of each of the agents [S] are sharded."""
    number, products = len(states.learner.updates), _products(config, states)
    if not sharding.on_cpu() or products < LARGE:
        return 1
    spare = min(len(sharding.devices()) // number, int(products / (LARGE / 2)))
    return max((n for n in range(1, spare + 1) if config.num_envs % n == 0), default=1)


def at_once(config: Config, states: Any, mesh: Mesh) -> int:
    """The number of the agents [S] that a device of the mesh trains at once; it trains such groups
    one after another.

    A GPU is fastest with all at once. A CPU's caches do not hold many: on two cores, eight agents
    of CartPole make 0.73 times the steps/s one after another at 16x5, 1.0 at 32x8, 1.15 at 64x16
    and 1.95 at 256x32. XLA orders some sums by how many there are at once: on one device there are
    as many as on two, to give the same bits.
    """
    number = len(states.learner.updates)
    each = -(-number // mesh.shape["agents"])
    if not sharding.on_cpu():
        return each
    if _products(config, states) >= LARGE:
        return 1
    return min(each, -(-number // 2), max(1, CPU_ENVS // config.num_envs))


def _products(config, states):
    """Of a batch with the parameters, of each of the agents [S]."""
    return config.batch_size * pytrees.size(states.learner.params) / len(states.learner.updates)


def _specs(steps):
    return steps.parts(of_agent=SHARDED, of_env=SHARDED_ENVS) if steps.parts else SHARDED


@lru_cache(maxsize=8)
def _programs(steps, mesh, number, group, is_short):
    """Jitted (settings, states, number of updates, whether the row ends) -> (states, metrics), that
    trains a device's agents in groups, and a function that leaves out copies of an agent. Short
    updates are compiled `in_order`."""
    axis = sharding.ENVS if mesh.shape[sharding.ENVS] > 1 else None

    def advance(settings, states, num_updates, ends_row):
        def advance(state):
            update = partial(steps.update, *settings, axis=axis)
            state = jax.lax.fori_loop(0, num_updates, lambda _, x: update(x), state)
            return steps.begin_row(state, ends_row), steps.row(state)

        # A `vmap` over one agent takes 2% longer.
        return jax.lax.map(advance, states, batch_size=group if group > 1 else None)

    specs = _specs(steps)
    taken, given = (WHOLE, specs, WHOLE, WHOLE), (specs, SHARDED)
    donate = (1,) if sharding.donates() else ()
    options = compilation.in_order() if is_short else None
    advance = sharding.spread(advance, mesh, taken, given, donate, options)
    if number % (mesh.shape["agents"] * group) == 0:
        return advance, lambda states: states
    whole = NamedSharding(mesh, WHOLE)
    return advance, jax.jit(lambda states: take(states, slice(number)), out_shardings=whole)


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
    if len(states.learner.updates) == 1:
        return jax.tree.map(lambda x: x[None] if pytrees.is_key(x) else np.asarray(x)[None], state)

    def replaced(everyone, one):
        if pytrees.is_key(everyone):
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
    return np.where((np.arange(number) == index).reshape(-1, *[1] * x.ndim), x, others)

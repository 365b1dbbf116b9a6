"""The compiled programs of a group of trials: vmapped over the trials of a batch, which are spread
over the devices, of several processes those of all. The devices exchange nothing.
"""

import dataclasses
from collections.abc import Callable
from functools import lru_cache
from types import ModuleType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from rljax import algorithms
from rljax.config import FLOAT_FIELDS, Config, default_log_interval
from rljax.sweep.options import SweepOptions
from rljax.sweep.results import num_rows
from rljax.sweep.trials import Trial
from rljax.utils import compilation, hosts, pytrees, seeds, sharding, traced
from rljax.utils.sharding import SHARDED, WHOLE

CPU_BYTES = 4 * 2**20  # of the learners that a CPU device trains at once: more leave its cache
MOST_CPU_TRIALS = 32  # on each device: more gain nothing
GPU_TRIALS = 2048  # trials at once on an accelerator, if memory holds them: more are faster
MEMORY_SHARE = 0.5  # of a device's memory, for a batch
_BY_TRIAL = PartitionSpec(None, "agents")


class Program(NamedTuple):
    """What trains batches of one size. What it compiles is kept, and compiled when it is used."""

    module: ModuleType
    settings: tuple  # a config and the algorithm's own options, without their floats
    each: int  # trials on each device
    mesh: Mesh
    is_packed: bool = False
    """Whether the states between its calls are two arrays [A, ...], by `pytrees.by_kind`: what is
    passed often takes longer to pass, leaf by leaf, than a short stretch takes to train."""

    @property
    def size(self) -> int:
        return self.each * self.mesh.size

    def resized(self, each: int) -> "Program":
        return self._replace(each=each)

    @property
    def init(self) -> Callable:
        """(settings [A], keys [A]) -> (states [A], rows [R, A])."""
        return _init(self)

    @property
    def advance(self) -> Callable:
        """(settings, states, rows, (first update, last)) -> (states, rows): trains."""
        return _advancing(self)[0]

    @property
    def bytes(self) -> int:
        """Of memory that a batch takes, on each device."""
        return _advancing(self)[1]

    @property
    def agents(self) -> Any:
        """The shapes of (states, rows)."""
        return _agents(self)


def fitting(trial: Trial, how: SweepOptions, most: int, is_packed: bool = False) -> Program:
    """The program for as many trials at once as are fastest and fit memory, and at most `most`."""
    compilation.make_room()
    found = sharding.everywhere()
    mesh = sharding.mesh(len(found) if hosts.count() > 1 else most, found=found)
    module = algorithms.module(trial.algorithm)
    wanted = how.max_parallel or usual_parallel(module, *trial.in_parts)
    each = -(-min(wanted, most) // mesh.size)
    program = Program(module, _without_floats(trial.in_parts), each, mesh, is_packed)
    limit = MEMORY_SHARE * sharding.memory(mesh)
    while program.each > 1 and (needed := hosts.gathered(np.int64(program.bytes)).max()) > limit:
        program = program.resized(max(1, int(program.each * limit / needed)))
    return program


def usual_parallel(module: ModuleType, config: Config, *own: Any) -> int:
    """The number of trials to train at once for the highest speed, over all devices."""
    number = len(sharding.everywhere())
    if not sharding.on_cpu():
        return GPU_TRIALS * number
    return usual_cpu_parallel(module, config, *own) * number


def usual_cpu_parallel(module: ModuleType, config: Config, *own: Any) -> int:
    """The same on each device of a CPU."""
    size = _learner_bytes(module, _without_floats((config, *own)))
    each = min(seeds.CPU_ENVS // config.num_envs, CPU_BYTES // size, MOST_CPU_TRIALS)
    return max(1, each)


@lru_cache(maxsize=256)
def _learner_bytes(module, settings):
    learner = jax.eval_shape(module.init, *settings, jax.random.key(0)).learner
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(learner))


def _without_floats(settings):
    config, *own = settings
    config = dataclasses.replace(config, **dict.fromkeys(FLOAT_FIELDS, 0.0))
    return (config, *map(_own_without_floats, own))


def _own_without_floats(options):
    """Hashable, as arrays are not: of these the shapes stay."""
    floats, others = traced.split(options)
    shapes = [jax.ShapeDtypeStruct(np.shape(x), "float32") if np.ndim(x) else 0.0 for x in floats]
    return traced.joined(type(options), shapes, others)


def _shapes(program):
    """Those of (settings, keys)."""
    settings = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((program.size, *np.shape(x)), np.float32), program.settings
    )
    return settings, jax.eval_shape(lambda: seeds.keys([0] * program.size))


@compilation.kept
def _begin(program):
    """Not compiled yet."""
    (config, *_), module = program.settings, program.module

    def init(settings, keys):
        states = jax.vmap(module.init)(*settings, keys)
        row = jax.vmap(module.row)(states)
        states = jax.vmap(packed)(states) if program.is_packed else states
        return states, jax.tree.map(lambda x: jnp.zeros((num_rows(config), *x.shape), x.dtype), row)

    return sharding.spread(init, program.mesh, (SHARDED, SHARDED), (SHARDED, _BY_TRIAL))


def packed(state: Any) -> tuple[jax.Array, jax.Array]:
    """A state as two vectors."""
    return pytrees.by_kind(pytrees.plain(state))


@lru_cache(maxsize=256)
def unpacking(module: ModuleType, settings: tuple) -> Callable:
    """The inverse of `packed` for an algorithm, a config and its own options, of which the floats
    do not matter."""
    like = jax.eval_shape(module.init, *settings, jax.random.key(0))
    plain = jax.eval_shape(pytrees.plain, like)
    return lambda vectors: pytrees.typed(pytrees.of_kinds(vectors, plain), like)


@lru_cache(maxsize=256)
def _agents(program):
    return jax.eval_shape(_begin(program), *_shapes(program))


@compilation.kept
def _init(program):
    return _begin(program).lower(*_shapes(program)).compile()


@compilation.kept
def _advancing(program):
    """(compiled, bytes)."""
    log_interval, module = default_log_interval(program.settings[0]), program.module
    unpacked = unpacking(module, program.settings)

    def advance(settings, states, rows, span):
        def update(i, carry):
            states, rows = carry
            states = jax.vmap(module.update)(*settings, states)
            row, at = jax.vmap(module.row)(states), i // log_interval
            rows = jax.tree.map(lambda all, one: all.at[at].set(one), rows, row)
            ended = (i + 1) % log_interval == 0
            return jax.vmap(module.begin_row, in_axes=(0, None))(states, ended), rows

        if program.is_packed:
            states = jax.vmap(unpacked)(states)
        states, rows = jax.lax.fori_loop(span[0], span[1], update, (states, rows))
        return jax.vmap(packed)(states) if program.is_packed else states, rows

    agents = SHARDED, _BY_TRIAL
    advance = sharding.spread(
        advance, program.mesh, (SHARDED, *agents, WHOLE), agents, donate=(1, 2)
    )
    settings, _ = _shapes(program)
    advance = advance.lower(settings, *program.agents, np.zeros(2, np.int32)).compile()
    memory = advance.memory_analysis()
    return advance, memory.argument_size_in_bytes + memory.temp_size_in_bytes

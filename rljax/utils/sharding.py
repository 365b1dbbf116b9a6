"""Programs sharded over the devices of this process, or of several."""

import contextlib
import os
import re
from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from rljax.utils import hosts, pytrees
from rljax.utils.forkserver import EnvError

SHARDED = PartitionSpec("agents")  # an array whose leading axis is sharded
WHOLE = PartitionSpec()  # an array of which each device has a copy
ENVS = "envs"  # the mesh's axis of the environments of one agent
SHARDED_ENVS = PartitionSpec("agents", ENVS)  # an array [A, B, ...] whose second axis is, as well
_STATUS = re.compile("[A-Z_]{4,}: ")  # the start of XLA's messages


_asked = None  # the number of devices of a process that `using` names


@contextlib.contextmanager
def using(number: int | None) -> Iterator[None]:
    """In the block programs are spread over this number of local devices, all of which agents and
    their environments share; None leaves it to each program. Raises ValueError if there are
    fewer."""
    global _asked
    before, there = _asked, len(devices())
    if number is not None and number > there:
        kind = devices()[0].platform
        raise ValueError(f"devices = {number}: must be at most {there}, those of kind {kind!r}")
    _asked = number
    try:
        yield
    finally:
        _asked = before


def is_asked() -> bool:
    """Whether a number of devices is asked for."""
    return _asked is not None


def devices() -> list:
    """The local devices that compute by default: all of a kind, the first that `using` names, or
    the one that `jax.default_device` names. A CPU is one, unless `jax_num_cpu_devices` was set
    before JAX started."""
    default = jax.config.jax_default_device
    if isinstance(default, jax.Device):
        return [default]
    return jax.local_devices(backend=default)[:_asked]


def everywhere() -> list:
    """The same of all processes."""
    if hosts.count() == 1:
        return devices()
    kind = devices()[0].platform
    of_each = (jax.local_devices(i, kind)[:_asked] for i in range(hosts.count()))
    return [device for found in of_each for device in found]


def check_even() -> None:
    """Raises ValueError if processes have different numbers of devices."""
    if len(set(hosts.gathered(np.array(len(devices()))).tolist())) > 1:
        raise ValueError("devices: must be as many in each process")


def described() -> str:
    """The devices of all processes, in words."""
    processes, each = hosts.count(), len(devices())
    return f"{processes} process{'es' * (processes > 1)} x {each} device{'s' * (each > 1)}"


def mesh(agents: int, envs: int = 1, found: list | None = None) -> Mesh:
    """A mesh of `envs` devices for each agent, and of as many agents at once as there are devices
    for, [agents, envs]; by default of the local ones."""
    found = devices() if found is None else found
    rows = max(1, min(agents, len(found) // envs))
    return Mesh(np.array(found[: rows * envs]).reshape(rows, envs), ("agents", ENVS))


def on_cpu() -> bool:
    """Whether the devices that compute by default are of a CPU."""
    return devices()[0].platform == "cpu"


def donates() -> bool:
    """Whether programs that train write the next states over the ones before. On a CPU memory is
    not what is short, and what was trained can be saved if the program fails."""
    return not on_cpu()


def is_deleted(tree: Any) -> bool:
    """Whether a program has written over arrays of a pytree."""
    return any(isinstance(x, jax.Array) and x.is_deleted() for x in jax.tree.leaves(tree))


def placed(tree: Any, mesh: Mesh, specs: Any = SHARDED, group: int = 1) -> Any:
    """A pytree [A, ...] on the devices of a mesh, filled up with copies of the last agent to whole
    rows of them, in groups; `specs` is a prefix of the pytree. Arrays that are there already are
    not copied."""
    number, row = len(jax.tree.leaves(tree)[0]), mesh.shape["agents"] * group
    size = -(-number // row) * row
    if size > number:
        tree = jax.tree.map(lambda x: x[np.minimum(np.arange(size), number - 1)], tree)
    shardings = jax.tree.map(partial(NamedSharding, mesh), specs)
    if mesh.is_multi_process:
        return _placed_everywhere(tree, shardings)
    tree = jax.tree.map(partial(_from_host, mesh), tree)
    return jax.device_put(tree, shardings)


def _placed_everywhere(tree, shardings):
    """Arrays that all processes have alike, each of which places its part."""

    def place(sharding, part):
        whole = jax.device_get(pytrees.plain(part))
        make = lambda x: jax.make_array_from_callback(x.shape, sharding, lambda at: x[at])  # noqa: E731
        typed = jax.jit(partial(pytrees.typed, like=part), out_shardings=sharding)
        return typed(jax.tree.map(make, whole))

    return jax.tree.map(place, shardings, tree)


def fetched(tree: Any, mesh: Mesh) -> Any:
    """What a program of this mesh gave, in NumPy: of several processes, for all of them."""
    if not mesh.is_multi_process:
        return jax.device_get(tree)
    plain = _shared_by_all(mesh)(tree)
    return pytrees.typed(jax.tree.map(lambda x: np.asarray(x.addressable_data(0)), plain), tree)


def of_this_process(tree: Any) -> Any:
    """The agents, in NumPy, that this process's devices hold of a sharded pytree [A, ...], without
    random keys."""

    def part(x):
        shards = sorted(x.addressable_shards, key=lambda shard: shard.index[0].start or 0)
        return np.concatenate([np.asarray(shard.data) for shard in shards])

    return jax.tree.map(part, tree)


@lru_cache(maxsize=8)
def _shared_by_all(mesh):
    """Jitted: a pytree as every device has it, with random keys as raw data."""
    return jax.jit(pytrees.plain, out_shardings=NamedSharding(mesh, WHOLE))


def _from_host(mesh, x):
    """An array that is to be spread, in NumPy: JAX would compile a program for each shape."""
    is_there = isinstance(x, np.ndarray) or len(x.devices()) == mesh.size
    return x if pytrees.is_key(x) or is_there else np.asarray(x)


def own(tree: Any, number: int, axis: str | None, at: int) -> Any:
    """This device's share of arrays that hold the environments of all devices along a mesh's axis:
    `number` of them, along the arrays' axis `at`. All of it without a mesh's axis."""
    if axis is None:
        return tree
    first = jax.lax.axis_index(axis) * number
    return jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, first, number, at), tree)


def gathered(tree: Any, axis: str | None) -> Any:
    """Arrays [N, ...] of 32 bits a number, of all devices along a mesh's axis as one, for what all
    of them compute alike: its gradient is passed to the rows of the device alone. One array is
    sent, as sending takes longer than what is sent."""
    if axis is None:
        return tree
    leaves, structure = jax.tree.flatten(tree)
    columns = [leaf.reshape(len(leaf), -1) for leaf in leaves]
    whole = _all_rows(jnp.concatenate([x.view(jnp.float32) for x in columns], axis=1), axis)
    ends = np.cumsum([x.shape[1] for x in columns])[:-1]
    parts = zip(jnp.split(whole, ends, axis=1), leaves)
    return structure.unflatten([x.view(y.dtype).reshape(-1, *y.shape[1:]) for x, y in parts])


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def _all_rows(x, axis):
    return jax.lax.all_gather(x, axis, tiled=True)


def _all_rows_forward(x, axis):
    return _all_rows(x, axis), None


def _all_rows_backward(axis, _, gradient):
    return (own(gradient, len(gradient) // jax.lax.axis_size(axis), axis, at=0),)


_all_rows.defvjp(_all_rows_forward, _all_rows_backward)


def total(tree: Any, axis: str | None) -> Any:
    """Sums of float32 arrays over the devices along a mesh's axis, sent as one vector."""
    if axis is None:
        return tree
    # A CPU would compute what is summed anew for each number of the vector.
    tree = jax.lax.optimization_barrier(tree)
    return pytrees.unravel(jax.lax.psum(pytrees.ravel(tree), axis), tree)


def spread(
    f: Callable, mesh: Mesh, taken: Any, given: Any, donate: tuple = (), options: dict | None = None
) -> Callable:
    """Jits a function that each device runs on its own shard of the arrays, without waiting for
    others. `taken` and `given` have a `PartitionSpec` for each argument, and for what is returned;
    arguments to `donate` are not used again; `options` are the compiler's."""
    placed = jax.tree.map(lambda spec: NamedSharding(mesh, spec), taken)
    own = jax.shard_map(f, mesh=mesh, in_specs=taken, out_specs=given, check_vma=False)
    return jax.jit(own, in_shardings=placed, donate_argnums=donate, compiler_options=options)


@contextlib.contextmanager
def failures_named(where: str) -> Iterator[None]:
    """Turns failures of a compiled program, such as those of an environment's callback or of device
    memory, into an EnvError that says where. Errors of tracing are left as they are."""
    try:
        yield
    except (jax.errors.JaxRuntimeError, ValueError) as error:  # JAX gives either
        if not _STATUS.match(str(error)):
            raise
        hosts.raise_if_ended(error)
        raise EnvError(f"{where}: {error}") from error


@contextlib.contextmanager
def failures_shared() -> Iterator[None]:
    """An EnvError in the block in one process is one in all of them, which wait for it."""
    failure = None
    try:
        yield
    except EnvError as error:
        failure = error
    failed = hosts.gathered(np.array(failure is not None))
    if failure:
        raise failure
    if failed.any():
        raise EnvError(f"process {failed.argmax()} of {len(failed)} failed")


def memory(mesh: Mesh) -> float:
    """Bytes of memory of each device; of several processes the least."""
    own = mesh.local_devices
    total = (own[0].memory_stats() or {}).get("bytes_limit")
    if total is None:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / len(own)
    return float(hosts.gathered(np.float32(total)).min())

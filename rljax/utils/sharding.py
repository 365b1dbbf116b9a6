"""Programs sharded over the devices of this process."""

import contextlib
import os
import re
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from rljax.utils.forkserver import EnvError

SHARDED = PartitionSpec("agents")  # an array whose leading axis is sharded
WHOLE = PartitionSpec()  # an array of which each device has a copy
_STATUS = re.compile("[A-Z_]{4,}: ")  # the start of XLA's messages


def mesh() -> Mesh:
    """All local devices; a CPU is one, unless `jax_num_cpu_devices` was set before JAX started."""
    return Mesh(np.array(jax.local_devices()), ("agents",))


def spread(f: Callable, mesh: Mesh, taken: Any, given: Any, donate: tuple = ()) -> Callable:
    """Jits a function that each device runs on its own shard of the arrays, without waiting for
    others. `taken` and `given` have a `PartitionSpec` for each argument, and for what is returned;
    arguments to `donate` are not used again."""
    placed = jax.tree.map(lambda spec: NamedSharding(mesh, spec), taken)
    own = jax.shard_map(f, mesh=mesh, in_specs=taken, out_specs=given, check_vma=False)
    return jax.jit(own, in_shardings=placed, donate_argnums=donate)


@contextlib.contextmanager
def failures_named(where: str) -> Iterator[None]:
    """Turns failures of a compiled program, such as those of an environment's callback or of device
    memory, into an EnvError that says where. Errors of tracing are left as they are."""
    try:
        yield
    except (jax.errors.JaxRuntimeError, ValueError) as error:  # JAX gives either
        if not _STATUS.match(str(error)):
            raise
        raise EnvError(f"{where}: {error}") from error


def memory(mesh: Mesh) -> float:
    """Bytes of memory of each device."""
    stats = mesh.devices.flat[0].memory_stats() or {}
    if "bytes_limit" in stats:
        return stats["bytes_limit"]
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / mesh.size

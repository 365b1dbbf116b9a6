"""Programs spread over this process's devices."""

import contextlib
import os
import re
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from rljax.utils.forkserver import EnvError

AGENTS = PartitionSpec("agents")
"""An array whose leading axis is spread."""
WHOLE = PartitionSpec()
"""An array that each device has."""


def mesh() -> Mesh:
    """All local devices. A CPU is one, unless `jax_num_cpu_devices` says otherwise before JAX
    starts."""
    return Mesh(np.array(jax.local_devices()), ("agents",))


def spread(
    f: Callable, mesh: Mesh, taken: Any, given: Any, donate: tuple[int, ...] = ()
) -> Callable:
    """A function jitted so that each device runs it on its own part of the arrays, and none waits
    for another.

    Args:
        taken, given: a `PartitionSpec` for each argument, and for what is returned.
        donate: arguments that are not used again.
    """
    placed = jax.tree.map(lambda spec: NamedSharding(mesh, spec), taken)
    own = jax.shard_map(f, mesh=mesh, in_specs=taken, out_specs=given, check_vma=False)
    return jax.jit(own, in_shardings=placed, donate_argnums=donate)


@contextlib.contextmanager
def failures_named(where: str) -> Iterator[None]:
    """Around a call of a compiled program: what fails in it, such as a callback of an environment
    or a device's memory, becomes an EnvError that says where. Errors of tracing pass."""
    try:
        yield
    except (jax.errors.JaxRuntimeError, ValueError) as error:  # JAX gives either
        if not _STATUS.match(str(error)):
            raise
        raise EnvError(f"{where}: {error}") from error


_STATUS = re.compile("[A-Z_]{4,}: ")
"""How messages of XLA begin."""


def memory(mesh: Mesh) -> float:
    """Bytes of memory of each device."""
    stats = mesh.devices.flat[0].memory_stats() or {}
    if "bytes_limit" in stats:
        return stats["bytes_limit"]
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / mesh.size

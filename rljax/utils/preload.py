"""What the server that processes are forked from imports, once for all of them.

It is slow to import and starts nothing: the server stays a process of a single thread, which is
what makes forking it safe. Gymnax is not here: it makes JAX arrays when imported, which starts
JAX's threads. Everything here is set before JAX is imported: one thread per process, on CPU.
"""

import contextlib
import os

_XLA_FLAGS = "--xla_cpu_multi_thread_eigen=false"
os.environ.update(
    JAX_PLATFORMS="cpu",
    MKL_NUM_THREADS="1",
    NPROC="1",  # of XLA's thread pools
    OMP_NUM_THREADS="1",
    OPENBLAS_NUM_THREADS="1",
    XLA_FLAGS=f"{os.environ.get('XLA_FLAGS', '')} {_XLA_FLAGS}".strip(),
)

import chex  # noqa: F401
import flax.linen  # noqa: F401
import gymnasium  # noqa: F401
import jax
import optax  # noqa: F401

# Programs are small: handing each to another thread costs more than it gains.
jax.config.update("jax_cpu_enable_async_dispatch", False)
jax.config.update("jax_platforms", "cpu")  # also where JAX was imported before this


def threads(pid: int) -> int:
    """Threads of a process, those of libraries included; 1 where the system does not tell."""
    tasks = f"/proc/{pid}/task"
    return len(os.listdir(tasks)) if os.path.isdir(tasks) else 1


with contextlib.suppress(ImportError):
    import seaborn  # noqa: F401  the greater part of what importing gymnax takes

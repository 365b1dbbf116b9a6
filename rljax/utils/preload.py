"""What the server of `forkserver` imports, once for all processes that are forked from it.

These modules are slow to import and start no thread, which makes forking safe. Gymnax is not among
them: it makes JAX arrays when imported, which starts JAX's threads. All settings here, of one
thread per process on CPU, are made before JAX is imported.
"""

import os

os.environ.update(
    JAX_PLATFORMS="cpu",
    JE_ARROW_MALLOC_CONF="background_thread:false",  # of pyarrow, which pandas imports where it is
    MKL_NUM_THREADS="1",
    NPROC="1",  # of XLA's thread pools
    OMP_NUM_THREADS="1",
    OPENBLAS_NUM_THREADS="1",
    XLA_FLAGS=f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_multi_thread_eigen=false".strip(),
)

import chex  # noqa: F401
import flax.linen  # noqa: F401
import gymnasium  # noqa: F401
import jax
import optax  # noqa: F401

# Programs are small: passing each to another thread costs more than it gains.
jax.config.update("jax_cpu_enable_async_dispatch", False)
jax.config.update("jax_platforms", "cpu")  # also where JAX was imported before this


def threads(pid: int) -> int:
    """Threads of a process, including those of libraries; 1 if the system does not say."""
    tasks = f"/proc/{pid}/task"
    return len(os.listdir(tasks)) if os.path.isdir(tasks) else 1

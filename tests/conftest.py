"""Settings of the tests; they hold from before JAX starts."""

import os
from importlib.metadata import entry_points

if not entry_points(group="jax_plugins"):  # no accelerator: programs compile several times faster
    flags = os.environ.get("XLA_FLAGS", "")
    os.environ["XLA_FLAGS"] = f"--xla_backend_optimization_level=1 {flags}"

# Tests neither fill nor trust the user's cache of compiled programs.
os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "false"

# Processes that share a GPU must not each take most of its memory.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

import jax

jax.config.update("jax_num_cpu_devices", 2)  # sweeps are spread over them
jax.config.update("jax_numpy_rank_promotion", "raise")

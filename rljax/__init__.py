"""Actor-critic agents in JAX: A2C jitted end to end, and A3C in processes.

The submodules load on first use, so that reading a configuration or printing a help text
does not wait for JAX.
"""

import sys
from importlib import import_module

_SUBMODULES = (
    "a2c",
    "a3c",
    "analysis",
    "checkpoints",
    "config",
    "devices",
    "distributions",
    "envs",
    "evaluate",
    "failures",
    "files",
    "guarded",
    "host",
    "host_evaluation",
    "jax_envs",
    "layers",
    "learner",
    "losses",
    "networks",
    "normalization",
    "optimizers",
    "presets",
    "processes",
    "render",
    "returns",
    "rollout",
    "runs",
    "spaces",
    "sweep",
    "tables",
    "types",
    "vectors",
)

__all__ = ["Config", "preset", *_SUBMODULES]


def __getattr__(name):
    if name == "preset":
        return import_module("rljax.presets").preset
    if name == "Config":
        if "jax" in sys.modules:
            import_module("rljax.types")  # makes Config a pytree
        return import_module("rljax.config").Config
    if name in _SUBMODULES:
        return import_module(f"rljax.{name}")
    raise AttributeError(f"module 'rljax' has no attribute {name!r}")


def __dir__():
    return __all__

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
    "config",
    "envs",
    "evaluation",
    "host_evaluation",
    "learner",
    "loggers",
    "losses",
    "networks",
    "normalization",
    "optimizers",
    "presets",
    "returns",
    "rollout",
    "runs",
    "sweep",
    "types",
    "utils",
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

"""Actor-critic agents in JAX: A2C jitted end to end, and A3C in processes.

    run = rljax.train("a2c", env="CartPole-v1", num_seeds=4)
    run.plot()

Submodules load on first use, so that reading a configuration or printing a help text does not
wait for JAX.
"""

import sys
from importlib import import_module

_HOMES = dict(Config="config", WorkerConfig="config", DQNConfig="dqn_config", preset="presets")
_HOMES |= dict.fromkeys(("load", "resume", "train"), "runs")
_SUBMODULES = (
    *(
        "a2c",
        "a3c",
        "analysis",
        "config",
        "dqn",
        "envs",
        "evaluation",
        "learner",
        "loggers",
        "losses",
    ),
    *("networks", "normalization", "optimizers", "presets", "report", "returns", "rollout", "runs"),
    *("sweep", "types", "utils"),
)

__all__ = [*_HOMES, *_SUBMODULES]


def __getattr__(name):
    if name == "Config" and "jax" in sys.modules:
        import_module("rljax.types")  # makes Config a pytree
    if name in _HOMES:
        return getattr(import_module(f"rljax.{_HOMES[name]}"), name)
    if name in _SUBMODULES:
        return import_module(f"rljax.{name}")
    raise AttributeError(f"module 'rljax' has no attribute {name!r}")


def __dir__():
    return __all__

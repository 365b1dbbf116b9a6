"""The algorithms, by name. Needs no JAX.

The module of an algorithm gives the following; `own` are its own options, () or one dataclass:

    init_seeds(config, *own, keys) -> states
        Fresh states [S] for keys [S]: a NamedTuple with a field `learner`, a `types.TrainState`
        [S], from which policies are made.
    chunks(config, *own, keys, states=None, *, log_interval=None, watch=None)
        Trains; yields (states [S], Metrics [S]) every second or so, and at the end of each row.
        Metrics are of the seeds whose `updates` have advanced.
    in_one_program(config) -> bool
        Whether all seeds are trained in one program; else one after another.

and, as far as it has them:

    init(config, *own, key), update(config, *own, state, axis=None), row(state),
    begin_row(state, ended)
        Pure functions of one agent, where it trains in one program; sweeps vmap them. With
        `parts` they are what `utils.seeds.Steps` takes.
    summary(states) -> dict
        What it adds to summary.json.

Own options are a frozen dataclass with `validate()` and `settle(config)`, as `WorkerConfig`. Where
an algorithm trains in one program its module makes a pytree of them, by `types.register`, so that
sweeps vmap their floats as well.
"""

import dataclasses
import importlib
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from rljax.a3c.simulation import SimulationConfig
from rljax.config import Config, WorkerConfig
from rljax.dqn_config import DQNConfig
from rljax.utils.lookup import unknown


@dataclasses.dataclass(frozen=True)
class Algorithm:
    """What is known of an algorithm before JAX is imported."""

    module: str
    options: type | None = None  # of its own
    options_name: str = ""  # their name in config.json
    num_seeds: int = 8  # of a run, by default
    in_processes: bool = False  # it computes in processes that it starts, on the CPU
    engines: tuple[str, ...] = ("local",)  # where those may be; `chunks` takes them if several

    @property
    def own(self) -> tuple[Any, ...]:
        """Its own options by default: () or one dataclass."""
        return (self.options(),) if self.options else ()

    def own_with(self, record: Mapping) -> tuple[Any, ...]:
        """Its own options as recorded in config.json's "run"; raises ValueError or TypeError."""
        changes = record.get(self.options_name) or {}
        return tuple(dataclasses.replace(part, **changes).validate() for part in self.own)


ALGORITHMS = {
    "a2c": Algorithm("rljax.a2c"),
    "a3c": Algorithm(
        *("rljax.a3c", WorkerConfig, "workers"),
        num_seeds=1,
        in_processes=True,
        engines=("local", "ray"),
    ),
    "a3c_simulated": Algorithm("rljax.a3c.simulated", SimulationConfig, "simulation"),
    "dqn": Algorithm("rljax.dqn", DQNConfig, "dqn"),
}


def find(name: str) -> Algorithm:
    """An algorithm by name; raises ValueError if there is none."""
    if name not in ALGORITHMS:
        raise ValueError(unknown("algorithm", str(name), list(ALGORITHMS)))
    return ALGORITHMS[name]


def module(name: str) -> ModuleType:
    """The module of an algorithm; this imports JAX."""
    return importlib.import_module(find(name).module)


def check_one_program(name: str, config: Config, option: str) -> None:
    """Raises ValueError if an algorithm does not train this config in one program, which an option
    needs."""
    if not module(name).in_one_program(config):
        why = f"{name} in env = {config.env!r} is not one program that can be spread over devices"
        raise ValueError(f"{option}: {why}")


def settle(config: Config, own: tuple[Any, ...]) -> Config:
    """The checked config of a run with these own options; raises ValueError or TypeError if a
    setting or an option is out of its range, or they do not fit."""
    for options in own:
        config = options.settle(config)
    return config.validate()

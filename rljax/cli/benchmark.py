"""What the scripts in experiments/benchmarks share: their command line, tables and loops."""

import contextlib
import dataclasses
import os
import re
import statistics
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from time import perf_counter
from typing import Any, Literal
from unittest import mock

import jax
import numpy as np

from rljax import a2c, rollout
from rljax.cli import fail, flags
from rljax.config import Config
from rljax.envs.spaces import Discrete
from rljax.networks import distributions
from rljax.runs import directory
from rljax.runs.options import DEVICES
from rljax.utils import atomic_io


@dataclasses.dataclass(frozen=True)
class Speeds:
    """What is measured, for each environment and size."""

    envs: tuple[str, ...]
    """Environment ids."""
    sizes: tuple[str, ...]
    """Environments x steps of a rollout, such as 16x5."""
    repeats: int
    """Runs of each figure; the median is given."""
    seconds: float
    """Length of a run, about."""

    def configs(self, base: Config) -> list[Config]:
        """Settings of runs that do not end."""
        return [config_for(base, env, size) for env in self.envs for size in self.sizes]


@dataclasses.dataclass(frozen=True)
class Device:
    device: Literal[DEVICES] = "auto"
    """Where to compute; auto takes an accelerator if there is one."""


@dataclasses.dataclass(frozen=True)
class Output:
    json: Path = Path("runs/benchmarks.jsonl")
    """A line of JSON with all figures is added to this file."""


def main(
    doc: str, measure: Callable[..., tuple[str, Any]], *parts: Any, argv: list[str] | None = None
) -> int:
    """Measures, and writes all figures with what they depend on; returns the exit status.

    Args:
        measure: parts -> (device, figures); prints the tables.
        parts: dataclasses of options, with their defaults.
    """
    argv = sys.argv[1:] if argv is None else argv
    try:
        *parts, output = flags.parse((*parts, Output()), doc, argv)
        device, figures = measure(*parts)
        options = {name: value for part in parts for name, value in vars(part).items()}
        machine = {**directory.provenance(device), "cores": len(os.sched_getaffinity(0))}
        line = atomic_io.json_bytes({**machine, "options": options, "figures": figures})
        with atomic_io.writing(output.json):
            output.json.parent.mkdir(parents=True, exist_ok=True)
        atomic_io.append(output.json, line.decode())
    except (ValueError, TypeError, atomic_io.WriteError) as error:
        return fail(error)
    print(f"figures: {output.json}")
    return 0


def table(formats: Mapping[str, str], rows: Iterable[Mapping]) -> list[Mapping]:
    """Prints rows as they come, by the formats of the columns, and gives them."""
    shown = []
    _print_line(formats)
    for row in rows:
        _print_line(format(row[name], form) for name, form in formats.items())
        shown.append(row)
    return shown


def _print_line(cells):
    first, *others = cells
    print(f"{first:21}", *(f"{cell:>11}" for cell in others), flush=True)


def speed(counts: Iterator[float], seconds: float) -> float:
    """How much a count grows in a second."""
    first, begun = next(counts), perf_counter()
    while perf_counter() < begun + seconds:
        last = next(counts)
    return (last - first) / (perf_counter() - begun)


@contextlib.contextmanager
def timed(owner: Any, name: str) -> Iterator[list[float]]:
    """The seconds of each call of a function, which gives nothing, in a list that grows."""
    function, seconds = getattr(owner, name), []

    def run(*arguments):
        begun = perf_counter()
        function(*arguments)
        seconds.append(perf_counter() - begun)

    with mock.patch.object(owner, name, run):
        yield seconds


def config_for(base: Config, env: str, size: str) -> Config:
    """Settings of a run that does not end; on MinAtar with 128 relu units above its convolution."""
    found = re.fullmatch(r"(\d+)x(\d+)", size)
    if not found:
        raise ValueError(f"size {size!r}: must be environments x steps, such as 16x5")
    sizes = {"num_envs": int(found[1]), "num_steps": int(found[2]), "total_timesteps": 2**30}
    minatar = dict(hidden_sizes=(128,), activation="relu") if env.endswith("-MinAtar") else {}
    return dataclasses.replace(base, env=env, **sizes, **minatar).validate()


def labels(config: Config) -> dict[str, str]:
    """The first columns of a table."""
    return {"env": config.env, "size": f"{config.num_envs}x{config.num_steps}"}


def compiled(one_rollout: Callable, carry: Any) -> Callable[[int], float]:
    """A program that does a number of rollouts, each (index, carry) -> carry; gives its seconds."""
    loop = jax.jit(lambda carry, length: jax.lax.fori_loop(0, length, one_rollout, carry))
    program = loop.lower(carry, np.int32(1)).compile()

    def run(length):
        begun = perf_counter()
        jax.block_until_ready(program(carry, np.int32(length)))
        return perf_counter() - begun

    return run


def in_turn(programs: Mapping[str, Callable], batch_size: int, how: Speeds) -> dict[str, float]:
    """Environment steps per second of programs that `compiled` gave, run in turn so that all see
    the same machine."""
    lengths = dict.fromkeys(programs, 1)
    for name, program in programs.items():
        while (taken := program(lengths[name])) < how.seconds / 2:
            lengths[name] *= 2
        lengths[name] = max(1, round(lengths[name] * how.seconds / taken))
    rounds = [
        {name: programs[name](lengths[name]) for name in programs} for _ in range(how.repeats)
    ]
    seconds = {name: statistics.median(taken[name] for taken in rounds) for name in programs}
    return {name: lengths[name] * batch_size / seconds[name] for name in programs}


def environment_program(config: Config, state: Any) -> Callable:
    """Random actions, with all chance of a rollout drawn before it."""
    env, _ = rollout.make_env_and_network(config)
    space, shape = env.spec.action_space, (config.num_steps, config.num_envs)

    def one_rollout(_, carry):
        key, env_state, total = carry
        key, key_action, key_env = jax.random.split(key, 3)
        chance = distributions.noise(space, key_action, shape)
        is_discrete = isinstance(space, Discrete)
        actions = (chance * space.n).astype("int32") if is_discrete else chance.clip(-1, 1)

        def step(carry, action_and_draw):
            env_state, total = carry
            action, draw = action_and_draw
            action = action.reshape(config.num_envs, *space.shape)
            env_state, answer = jax.vmap(env.step)(draw, env_state, action)
            return (env_state, total + answer.reward.sum() + answer.obs.sum()), None

        draws = env.draw(key_env, shape)
        (env_state, total), _ = jax.lax.scan(step, (env_state, total), (actions, draws))
        return key, env_state, total

    return compiled(one_rollout, (state.actor.key, state.actor.env_state, 0.0))


def rollout_program(config: Config, state: Any, with_values: bool = False) -> Callable:
    """Acting; and where they are wanted the critic's values of each whole batch."""
    env, network = rollout.make_env_and_network(config)

    def one_rollout(_, carry):
        state, total = carry
        actor, batch = rollout.collect(config, env, network, state.learner, state.actor)
        if with_values:
            obs = batch.obs.reshape(-1, *env.spec.obs_shape)
            total += network.apply(state.learner.params, obs, method="critic").sum()
        total = sum((leaf.sum() for leaf in jax.tree.leaves(batch)), start=total)
        return state._replace(actor=actor), total

    return compiled(one_rollout, (state, 0.0))


def training_program(config: Config, state: Any) -> Callable:
    """Updates."""
    return compiled(lambda _, state: a2c.update(config, state), state)

"""What the scripts in experiments/benchmarks share: their command line, tables and loops."""

import contextlib
import dataclasses
import itertools
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from time import perf_counter
from typing import Any, Literal
from unittest import mock

import jax
import numpy as np

from rljax import rollout
from rljax.cli import fail, flags
from rljax.config import Config
from rljax.envs.spaces import ActionSpace, Box, Discrete
from rljax.networks import blocks, distributions
from rljax.runs import directory
from rljax.runs.options import DEVICES
from rljax.utils import atomic_io


@dataclasses.dataclass(frozen=True)
class Speeds:
    """What is measured, for each environment and size."""

    envs: tuple[str, ...]  # Environment ids.
    sizes: tuple[str, ...]  # Environments x steps of a rollout, such as 16x5.
    repeats: int  # Runs of each measurement; the median is given.
    seconds: float  # Length of a run, about.

    def rows(self, base: Config, measure: Callable[[Config], Iterable[Mapping]]) -> Iterator[dict]:
        """The rows that `measure` gives for settings of runs that do not end."""
        pairs = itertools.product(self.envs, self.sizes)
        configs = [(pair, config_for(base, *pair)) for pair in pairs]  # all checked before
        each = ((pair, row) for pair, config in configs for row in measure(config))
        return ({"env": env, "size": size, **row} for (env, size), row in each)


@dataclasses.dataclass(frozen=True)
class Device:
    device: Literal[DEVICES] = "auto"  # Where to compute; auto: on an accelerator if there is one.


@dataclasses.dataclass(frozen=True)
class Output:
    json: Path = Path("runs/benchmarks.jsonl")  # A line with all results is added to this file.


def main(
    doc: str, measure: Callable[..., tuple[str, Any]], *parts: Any, argv: list[str] | None = None
) -> int:
    """Measures, and writes all results with what they depend on; returns the exit status. `measure`
    takes the parts, which are dataclasses of options, prints tables and gives (device, results)."""
    argv = sys.argv[1:] if argv is None else argv
    try:
        *parts, output = flags.parse((*parts, Output()), doc, argv)
        device, results = measure(*parts)
        options = {name: value for part in parts for name, value in vars(part).items()}
        figures = {"options": options, "figures": results}
        add_line(output.json, {**directory.machine(device), **figures})
    except (ValueError, TypeError, atomic_io.WriteError) as error:
        return fail(error)
    print(f"results: {output.json}")
    return 0


def add_line(path: Path, results: Mapping) -> None:
    """Adds results to a file, as a line of JSON; raises WriteError if that fails."""
    with atomic_io.writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    atomic_io.append(path, atomic_io.json_bytes(results).decode())


def table(formats: Mapping[str, str], rows: Iterable[Mapping], width: int = 21) -> list[Mapping]:
    """Prints rows as they come, by the formats of the columns, and gives them. `width` is the first
    column's."""

    def show(first, *others):
        print(f"{first:{width}}", *(f"{cell:>11}" for cell in others), flush=True)

    shown = []
    show(*formats)
    for row in rows:
        show(*(format(row[name], form) for name, form in formats.items()))
        shown.append(row)
    return shown


def config_for(base: Config, env: str, size: str) -> Config:
    """Settings of a run that does not end; on MinAtar with 128 relu units above its convolution."""
    found = re.fullmatch(r"(\d+)x(\d+)", size)
    if not found:
        raise ValueError(f"size {size!r}: must be environments x steps, such as 16x5")
    sizes = {"num_envs": int(found[1]), "num_steps": int(found[2]), "total_timesteps": 2**30}
    minatar = dict(hidden_sizes=(128,), activation="relu") if env.endswith("-MinAtar") else {}
    return dataclasses.replace(base, env=env, **sizes, **minatar).validate()


def parsed_case(case: str) -> tuple[Config, int]:
    """(settings, agents trained in one program) of a case, such as 'CartPole-v1 4096x16 1'."""
    parts = case.split()
    if len(parts) != 3 or not parts[2].isdigit() or int(parts[2]) < 1:
        raise ValueError(f"case {case!r}: must be such as 'CartPole-v1 4096x16 1'")
    return config_for(Config(), *parts[:2]), int(parts[2])


def speed(counts: Iterator[float], seconds: float) -> float:
    """How much a count grows in a second."""
    first, begun = next(counts), perf_counter()
    while perf_counter() < begun + seconds:
        last = next(counts)
    return (last - first) / (perf_counter() - begun)


def speeds(counts: Mapping[str, Iterator[float]], repeats: int, seconds: float) -> dict[str, float]:
    """Medians of `speed`, in turn so that all see the same machine."""
    rounds = [[speed(each, seconds) for each in counts.values()] for _ in range(repeats)]
    return dict(zip(counts, np.median(rounds, axis=0).tolist()))


@contextlib.contextmanager
def timed(owner: Any, name: str) -> Iterator[list[float]]:
    """Yields a list that collects the seconds of each call of a function that returns nothing."""
    function, seconds = getattr(owner, name), []

    def run(*arguments):
        begun = perf_counter()
        function(*arguments)
        seconds.append(perf_counter() - begun)

    with mock.patch.object(owner, name, run):
        yield seconds


def repeated(one_rollout: Callable, config: Config, carry: Any) -> Iterator[int]:
    """Compiles a rollout (config, carry) -> carry. The iterator repeats it for ever, a tenth of a
    second or so at a time, and gives the environment steps so far."""

    def many(carry, number):
        return jax.lax.fori_loop(0, number, lambda _, carry: one_rollout(config, carry), carry)

    def steps(program, carry, number=1, done=0):
        while True:
            yield done
            begun = perf_counter()
            carry = jax.block_until_ready(program(carry, np.int32(number)))
            done += number * config.batch_size
            number *= 1 + (perf_counter() - begun < 0.1)

    return steps(jax.jit(many).lower(carry, np.int32(1)).compile(), carry)


def stepping(config: Config, state: Any) -> Iterator[int]:
    """`repeated` random actions, with all random numbers of a rollout drawn before it."""
    env, _ = rollout.make_env_and_network(config)
    shape = config.num_steps, config.num_envs

    def step(carry, inputs):
        (env_state, total), (action, randomness) = carry, inputs
        env_state, answer = jax.vmap(env.step)(randomness, env_state, action)
        return (env_state, total + answer.reward.sum() + answer.obs.sum()), None

    def one_rollout(_, carry):
        key, *carry = carry
        key, key_action, key_env = jax.random.split(key, 3)
        actions = random_actions(env.spec.action_space, key_action, shape)
        env_state, randomness = env.draw(key_env, carry[0], shape)
        carry, _ = jax.lax.scan(step, (env_state, carry[1]), (actions, randomness))
        return key, *carry

    return repeated(one_rollout, config, (state.actor.key, state.actor.env_state, 0.0))


def random_actions(space: ActionSpace, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """[*shape, *space.shape]"""
    noise = distributions.noise(space, key, shape)
    if isinstance(space, Box):
        return noise.clip(-1, 1).reshape(*shape, *space.shape)
    numbers = space.n if isinstance(space, Discrete) else np.array(space.nvec)
    return (noise * numbers).astype("int32").reshape(*shape, *space.shape)


def acting(config: Config, state: Any, with_values: bool = False) -> Iterator[int]:
    """`repeated` acting; and where they are wanted the critic's values of each whole batch."""
    env, network = rollout.make_env_and_network(config)

    def one_rollout(_, carry):
        state, total = carry
        actor, batch = rollout.collect(config, env, network, state.learner, state.actor)
        if with_values:
            obs = blocks.inputs(network, None, batch.obs.reshape(-1, *env.spec.obs_shape))
            total += network.apply(state.learner.params, obs, method="critic").sum()
        total = sum((leaf.sum() for leaf in jax.tree.leaves(batch)), start=total)
        return state._replace(actor=actor), total

    return repeated(one_rollout, config, (state, 0.0))

"""The whole of a sweep: groups one after another."""

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax

from rljax import a2c, a3c, rollout
from rljax.config import MAX_EPISODE_STEPS, Config, WorkerConfig, reworded
from rljax.envs.host_envs import HostEnv
from rljax.sweep import population, results, trial_pool
from rljax.sweep.points import Point, Range, grid
from rljax.sweep.results import Progress
from rljax.sweep.trials import Execution, Group, Trial, plan


class FailedError(RuntimeError):
    """An agent could not be trained to its end; which one and why is in the message."""


def run(
    base: Config,
    axes: Mapping[str, Sequence | Range] | Sequence[Point],
    seeds: Iterable[int],
    *,
    workers: WorkerConfig | None = None,
    parallel: int | None = None,
    eval_episodes: int = 20,
    greedy: bool = True,
    eval_envs: int | None = None,
    eval_max_steps: int = MAX_EPISODE_STEPS,
) -> Any:
    """Trains every point with every seed.

    A diverging agent goes on to its end, marked in the table, and touches no other.

    Args:
        base: the settings that no axis changes.
        axes: a grid of values; or points, as `random` and `latin_hypercube` give them, or listed.
        workers: for A3C; A2C has none.
        parallel: agents at once; by default what is fastest.
        eval_episodes: full episodes of each agent after training; 0 is no evaluation.
        greedy: whether these take the policy's mode or sample from it.
        eval_envs: environments that Python steps, open at once in an evaluation; by default as many
            as in training, at most 16.
        eval_max_steps: an evaluation's episode that has not ended by itself by then is cut.

    Returns:
        A `pandas.DataFrame` of `results.columns`: a row for each agent and log point.

    Raises:
        ValueError, TypeError: as `plan` and `check` do.
        FailedError: an agent in a process could not be trained to its end.
    """
    points = grid(axes) if isinstance(axes, Mapping) else list(axes)
    groups = plan(base, points, seeds, workers)
    check(groups)
    tables, how = [], Execution(parallel, eval_episodes, greedy, eval_envs, eval_max_steps)
    with contextlib.closing(chunks(groups, how)) as steps:
        for step in steps:
            if step.failure:
                raise FailedError(f"{step.failure.agent}: {step.failure.why}")
            if step.result:
                tables.append(results.columns(step.result))
    return results.frame(tables)


def check(groups: Sequence[Group]) -> None:
    """That the environment and the network of every group can be made.

    Raises:
        ValueError, TypeError: one cannot; the message names the point.
    """
    for group in groups:
        agent = group.agents[0]
        try:
            if agent.workers:
                a3c.check(agent.config, agent.workers)
            jax.eval_shape(a2c.init, agent.config, jax.random.key(0))
        except (ValueError, TypeError) as error:
            raise reworded(error, f"{agent}: {error}") from error


def chunks(groups: Sequence[Group], how: Execution) -> Iterator[Progress]:
    """Trains all groups, in steps of half a second or so.

    Raises:
        ValueError: `how.parallel` is below 1.
        TypeError: as `crowd.train` does.
    """
    if how.parallel is not None and how.parallel < 1:
        raise ValueError(f"parallel = {how.parallel}: must be at least 1")
    for group in groups:
        if any(agent.number not in how.done for agent in group.agents):
            yield from train_group(group.agents, how)


def train_group(agents: Sequence[Trial], how: Execution) -> Iterator[Progress]:
    """Trains the agents of one group: the one place that knows how a group is executed."""
    env, _ = rollout.make_env_and_network(agents[0].config)
    in_processes = agents[0].workers is not None or isinstance(env, HostEnv)
    yield from (trial_pool if in_processes else population).train(agents, how)

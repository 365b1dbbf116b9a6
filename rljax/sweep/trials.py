"""Points and seeds as agents, in groups of one compiled program each. Needs no JAX."""

from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

from rljax.config import MAX_EPISODE_STEPS, STATIC_FIELDS, Config, WorkerConfig, reworded
from rljax.sweep import points as spaces
from rljax.sweep.points import Point


class Trial(NamedTuple):
    """A point with a seed."""

    number: int
    """Among all agents of the sweep: point * seeds + which seed."""
    point: int
    """Index of its point."""
    settings: Point
    """The point itself."""
    seed: int
    config: Config
    workers: WorkerConfig | None
    """Of A3C."""

    def __str__(self):
        return f"point {self.point} ({spaces.describe(self.settings)}), seed {self.seed}"


class Execution(NamedTuple):
    """How agents are trained, which changes nothing of what they learn but rounding."""

    parallel: int | None = None
    """Agents at once, or processes; by default what is fastest and memory holds."""
    eval_episodes: int = 20
    """Full episodes of each agent after training; 0 is no evaluation."""
    greedy: bool = True
    """Whether these take the policy's mode or sample from it."""
    eval_envs: int | None = None
    """Environments that Python steps, open at once in an evaluation; by default as many as in
    training, at most 16."""
    eval_max_steps: int = MAX_EPISODE_STEPS
    """An evaluation's episode that has not ended by itself after so many steps is cut."""
    done: Collection[int] = ()
    """Numbers of agents that are finished already, and left out. In environments in JAX the others
    come to the same bits as without it."""


class Group(NamedTuple):
    """Agents that differ in floats and seeds alone."""

    static: Point
    """What they have in common of their points."""
    agents: list[Trial]


def plan(
    base: Config, points: Sequence[Point], seeds: Iterable[int], workers: WorkerConfig | None = None
) -> list[Group]:
    """All agents, every point with every seed, in groups.

    Args:
        workers: for A3C; A2C has none.

    Raises:
        ValueError, TypeError: a point has no such settings, which are named; there is no point, or
            no seed.
    """
    seeds = list(seeds)
    if not points:
        raise ValueError("a sweep must have at least one point")
    if not seeds:
        raise ValueError("a sweep must have at least one seed")
    for seed in seeds:
        if not 0 <= seed < 2**32:
            raise ValueError(f"seed = {seed}: must be at least 0 and below 2**32")
    groups: dict[tuple, list[Trial]] = {}
    for index, point in enumerate(points):
        if set(point) != set(points[0]):
            raise ValueError(f"point {index}: must be of the same settings as the first one")
        point = {name: point[name] for name in points[0]}
        try:
            for name in point:
                spaces.check_name(name, "a2c" if workers is None else "a3c")
            config, own_workers = spaces.apply(base, workers, point)
        except (ValueError, TypeError) as error:
            text = f"point {index} ({spaces.describe(point)}): {error}"
            raise reworded(error, text) from error
        static = (getattr(config, name) for name in STATIC_FIELDS)
        key = (*static, config.typed_kwargs, own_workers)
        groups.setdefault(key, []).extend(
            Trial(index * len(seeds) + i, index, point, seed, config, own_workers)
            for i, seed in enumerate(seeds)
        )
    return [Group(_shared(agents), agents) for agents in groups.values()]


def _shared(agents):
    first = agents[0].settings
    return {
        name: value
        for name, value in first.items()
        if all(agent.settings[name] == value for agent in agents)
    }

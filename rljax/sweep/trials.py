"""Points and seeds as trials, in groups of one compiled program each. Needs no JAX."""

from collections.abc import Collection, Iterable, Sequence
from typing import Any, NamedTuple

from rljax.algorithms import find
from rljax.config import MAX_EPISODE_STEPS, STATIC_FIELDS, Config
from rljax.sweep import points as spaces
from rljax.sweep.points import Point
from rljax.utils.errors import reworded


class Trial(NamedTuple):
    """A point with a seed."""

    number: int
    """Among all trials of the sweep: point * seeds + which seed."""
    point: int
    """Index of its point."""
    settings: Point
    """The point itself."""
    seed: int
    config: Config
    algorithm: str
    own: tuple[Any, ...] = ()
    """The algorithm's own options: () or one dataclass."""

    def __str__(self):
        return f"point {self.point} ({spaces.describe(self.settings)}), seed {self.seed}"


class Execution(NamedTuple):
    """How trials are trained, which changes nothing of what they learn but rounding."""

    parallel: int | None = None
    """Trials at once, or processes; by default what is fastest and memory holds."""
    eval_episodes: int = 20
    """Full episodes of each trial after training; 0 is no evaluation."""
    greedy: bool = True
    """Whether these take the policy's mode or sample from it."""
    eval_envs: int | None = None
    """Environments that Python steps, open at once in an evaluation; by default as many as in
    training, at most 16."""
    eval_max_steps: int = MAX_EPISODE_STEPS
    """An evaluation's episode that has not ended after this number of steps is cut."""
    done: Collection[int] = ()
    """Numbers of trials that are finished already, and left out. In environments in JAX the others
    have the same bits as without it."""


class Group(NamedTuple):
    """Trials that differ in floats and seeds alone."""

    static: Point
    """What they have in common of their points."""
    trials: list[Trial]


def plan(
    base: Config,
    points: Sequence[Point],
    seeds: Iterable[int],
    algorithm: str = "a2c",
    own: tuple[Any, ...] | None = None,
) -> list[Group]:
    """All trials, every point with every seed, in groups.

    Args:
        own: the algorithm's own options, () or one dataclass; by default its defaults.

    Raises:
        ValueError, TypeError: a point has no such settings, which are named; there is no such
            algorithm, no point, or no seed.
    """
    seeds = list(seeds)
    own = find(algorithm).own if own is None else own
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
                spaces.check_name(name, own)
            config, own_here = spaces.apply(base, own, point)
        except (ValueError, TypeError) as error:
            text = f"point {index} ({spaces.describe(point)}): {error}"
            raise reworded(error, text) from error
        static = (getattr(config, name) for name in STATIC_FIELDS)
        key = (*static, config.typed_kwargs, own_here)
        groups.setdefault(key, []).extend(
            Trial(index * len(seeds) + i, index, point, seed, config, algorithm, own_here)
            for i, seed in enumerate(seeds)
        )
    return [Group(_shared(trials), trials) for trials in groups.values()]


def _shared(trials):
    first = trials[0].settings
    return {
        name: value
        for name, value in first.items()
        if all(trial.settings[name] == value for trial in trials)
    }

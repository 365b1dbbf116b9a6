"""Points and seeds as trials, in groups of one compiled program each. Needs no JAX."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from rljax.algorithms import find
from rljax.config import STATIC_FIELDS, Config
from rljax.sweep import points as spaces
from rljax.sweep.points import Point
from rljax.utils import traced
from rljax.utils.errors import reworded
from rljax.utils.lookup import differing


class Trial(NamedTuple):
    """A point with a seed."""

    number: int  # among all trials of the sweep: point * seeds + index of the seed
    point: int  # index of its point
    settings: Point  # the point itself
    seed: int
    config: Config
    algorithm: str
    own: tuple[Any, ...] = ()  # the algorithm's own options: () or one dataclass

    @property
    def in_parts(self) -> tuple[Any, ...]:
        """Its config and its own options."""
        return (self.config, *self.own)

    def __str__(self):
        return f"point {self.point} ({spaces.describe(self.settings)}), seed {self.seed}"


class Group(NamedTuple):
    """Trials that differ in floats and seeds alone."""

    static: Point  # the settings that their points share
    trials: list[Trial]


def plan(
    base: Config,
    points: Sequence[Point],
    seeds: Iterable[int],
    algorithm: str = "a2c",
    own: tuple[Any, ...] | None = None,
) -> list[Group]:
    """All trials, every point with every seed, in groups. By default the algorithm's own options
    are its defaults.

    Raises:
        ValueError, TypeError: a point has unknown or wrong settings, which are named; there is no
            such algorithm, no point, or no seed.
    """
    seeds = list(seeds)
    own = find(algorithm).own if own is None else own
    for what, given in (("point", points), ("seed", seeds)):
        if not given:
            raise ValueError(f"a sweep must have at least one {what}")
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
            where = f"point {index} ({spaces.describe(point)}): " if point else ""
            raise reworded(error, f"{where}{error}") from error
        static = (getattr(config, name) for name in STATIC_FIELDS)
        key = (*static, config.typed_kwargs, *(traced.split(x)[1] for x in own_here))
        groups.setdefault(key, []).extend(
            Trial(index * len(seeds) + i, index, point, seed, config, algorithm, own_here)
            for i, seed in enumerate(seeds)
        )
    return [Group(_shared(trials), trials) for trials in groups.values()]


def _shared(trials):
    varied = differing([trial.settings for trial in trials])
    return {name: value for name, value in trials[0].settings.items() if name not in varied}

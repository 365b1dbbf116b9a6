"""What chooses the points of a search. Needs no JAX.

A sampler has

    ask(number) -> points
    ids         what points are called elsewhere, or None, in the order in which they were asked for
    restore(points, ids)
                takes the place of asking, when a search is resumed
    tell(index, score, share, is_whole)
                the score, finite, of the point in this place, after this share of a run, and
                whether it was trained to the end or ended early
    forget_others()
                after the last `restore`
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from rljax.search.axes import Axes, places_of, point_at
from rljax.sweep.points import Point, Range, latin_places
from rljax.utils.lookup import unknown

PARENTS = 4  # of this number of points one has offspring
RESAMPLED = 0.25  # the share of a child's settings that are drawn anew
STEP = 0.15  # of an axis's length: the standard deviation of other changes


class Told(NamedTuple):
    """What is known of a point."""

    point: Point
    score: float
    share: float  # of a run that it was trained for


def random(axes: Axes, number: int, key: tuple[int, ...], told: list[Told]) -> list[Point]:
    """Points by themselves, each axis uniform."""
    del told
    rows = np.random.default_rng(key).uniform(size=(number, len(axes)))
    return [point_at(axes, dict(zip(axes, row))) for row in rows]


def latin_hypercube(axes: Axes, number: int, key: tuple[int, ...], told: list[Told]) -> list[Point]:
    """Points with one in each of `number` equal parts of every axis (McKay, Beckman and Conover
    1979)."""
    del told
    rows = latin_places(axes, number, np.random.default_rng(key))
    return [point_at(axes, row) for row in rows]


def evolution(axes: Axes, number: int, key: tuple[int, ...], told: list[Told]) -> list[Point]:
    """Children of the best quarter of the points so far, the first ones a Latin hypercube.

    As in population-based training (Jaderberg et al. 2017, arXiv 1711.09846), a child is a copy of
    which every setting is drawn anew, with probability 1/4, or perturbed, each with a random key of
    its own; unlike there, it is trained from the start.
    """
    if not told:
        return latin_hypercube(axes, number, key, told)
    ranked = sorted(told, key=lambda x: (x.share, x.score), reverse=True)
    parents = ranked[: -(-len(ranked) // PARENTS)]
    return [_child(axes, parents, (*key, i)) for i in range(number)]


def _child(axes, parents, key):
    choice, *others = np.random.SeedSequence(key).spawn(1 + len(axes))
    parent = parents[int(np.random.default_rng(choice).integers(len(parents)))]
    places = places_of(axes, parent.point)
    moved = {
        name: _moved(axis.values, places[name], np.random.default_rng(own))
        for (name, axis), own in zip(axes.items(), others)
    }
    return point_at(axes, moved)


def _moved(values, place, generator):
    """A place near another, or anywhere. Between values that have no order there is no near."""
    is_ordered = isinstance(values, Range) or all(isinstance(x, int | float) for x in values)
    if place is None or generator.uniform() < RESAMPLED:
        return generator.uniform()
    if not is_ordered:
        return place
    width = STEP if isinstance(values, Range) else max(STEP, 1 / len(values))
    moved = abs(place + width * generator.normal()) % 2  # reflected at both ends
    return min(moved if moved < 1 else 2 - moved, 1 - 1e-9)


OWN: Mapping[str, Callable] = {
    "random": random,
    "latin-hypercube": latin_hypercube,
    "evolution": evolution,
}
OF_OPTUNA = ("tpe", "cma", "qmc")


class Sampler:
    """One of our own. The same seed, and the same that it is told, give the same points."""

    def __init__(self, axes: Axes, name: str, seed: int):
        self.axes, self.draw, self.seed = axes, OWN[name], seed
        self.points: list[Point] = []
        self.ids: list[None] = []
        self.told: dict[int, Told] = {}

    def ask(self, number: int) -> list[Point]:
        key, told = (self.seed, len(self.points)), [self.told[i] for i in sorted(self.told)]
        made = self.draw(self.axes, number, key, told)
        self.restore(made, [None] * number)
        return made

    def restore(self, points: list[Point], ids: list[None]) -> None:
        self.points += points
        self.ids += ids

    def forget_others(self) -> None:
        """There are none."""

    def tell(self, index: int, score: float, share: float, is_whole: bool) -> None:
        del is_whole
        self.told[index] = Told(self.points[index], score, share)


def is_adaptive(name: str) -> bool:
    """Whether points depend on what was found with those before."""
    return name not in ("random", "latin-hypercube", "qmc")


def check(name: str, storage: str | None = None, study: str | None = None) -> None:
    """Raises ValueError if there is no such sampler, or a package is missing; or if a storage is
    given to one that has none."""
    known = [*OWN, *OF_OPTUNA]
    if name not in known and ":" not in name:
        raise ValueError(unknown("sampler", name, known))
    if name not in OWN:
        from rljax.search import optuna_study

        optuna_study.check(name)
        return
    for what, given in (("storage", storage), ("study", study)):
        if given is not None:
            raise ValueError(f"{what} = {given!r}: is of Optuna's samplers, and not of {name}")


def make(name: str, axes: Axes, seed: int, run_dir: Path, storage: str | None, study: str | None):
    """A sampler by its name; raises ValueError as `check` and `optuna_study.Study` do."""
    check(name, storage, study)
    if name in OWN:
        return Sampler(axes, name, seed)
    from rljax.search.optuna_study import Study

    return Study(axes, name, seed, run_dir, storage, study)

"""A search as a state: points, brackets, scores, and what of its budget is left. Its changes are
events, JSON objects, from which it is made again.
"""

import dataclasses
import itertools
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from rljax.config import Config, default_log_interval
from rljax.search import halving, objectives, samplers
from rljax.search.axes import Axes
from rljax.search.options import FEWEST_SEEDS, SearchOptions
from rljax.sweep import points as spaces
from rljax.sweep.options import SweepOptions
from rljax.sweep.points import Point
from rljax.sweep.trials import Group, plan

MOST_POINTS = 10_000  # of a bracket
ADAPTIVE = 16  # points of a bracket where points depend on what was found before


class Asked(NamedTuple):
    """The settings of a search."""

    base: Config
    options: SweepOptions
    search: SearchOptions
    own: tuple[Any, ...]  # the algorithm's own options: () or one dataclass
    axes: Axes

    @property
    def envs(self) -> list[Any]:
        return [*self.search.envs] or [self.base.env]

    @property
    def last(self) -> float:
        """The share of a run after which trials end."""
        return (self.search.trial_steps or self.base.total_timesteps) / self.base.total_timesteps

    @property
    def run_steps(self) -> int:
        """Environment steps of a point that is trained for a whole run, on all environments and
        with all seeds."""
        return self.base.total_timesteps * len(self.envs) * len(self.options.seeds)

    def ends(self, bracket: int) -> list[float]:
        """The shares at which the rungs of a bracket end, by its number."""
        rungs = self.search.rungs
        number = {"none": 1, "halving": rungs, "hyperband": rungs - bracket % rungs}
        return halving.shares(number[self.search.scheduler], self.search.eta, self.last)

    def groups(self, points: Mapping[int, Point]) -> list[Group]:
        """The trials of points, by their places among all: a trial's number is of its point, its
        environment and its seed."""
        envs, seeds = self.envs, self.options.seeds
        pairs = [*itertools.product(points, range(len(envs)))]
        made = [points[p] for p, _ in pairs]
        if len(envs) > 1:
            made = [{"env": envs[e], **points[p]} for p, e in pairs]
        groups = plan(self.base, made, seeds, self.options.algorithm, self.own)

        def renumbered(trial):
            point, env = pairs[trial.point]
            index = (point * len(envs) + env) * len(seeds) + trial.seed - seeds[0]
            return trial._replace(point=point, number=index)

        return [group._replace(trials=[*map(renumbered, group.trials)]) for group in groups]

    def place(self, number: int) -> tuple[int, int, int]:
        """(point, environment, seed), each by its index, of a trial's number."""
        rest, seed = divmod(number, len(self.options.seeds))
        return (*divmod(rest, len(self.envs)), seed)


def check(asked: Asked) -> None:
    """Raises ValueError or TypeError if options do not fit, or the budget is too small."""
    search, options = asked.search, asked.options
    search.validate()
    options.validate()
    samplers.check(search.sampler, search.storage, search.study)
    if search.trial_steps and search.trial_steps > asked.base.total_timesteps:
        most = f"must be at most total_timesteps, {asked.base.total_timesteps}"
        raise ValueError(f"trial_steps = {search.trial_steps}: {most}")
    is_halved = search.scheduler != "none" and search.rungs > 1
    if is_halved and options.num_seeds < FEWEST_SEEDS:
        why = f"must be at least {FEWEST_SEEDS} for an interval that decides which points end"
        raise ValueError(f"num_seeds = {options.num_seeds}: {why}")
    rows = -(-asked.base.num_updates // default_log_interval(asked.base))
    if is_halved and round(rows * asked.ends(0)[0]) < 1:
        why = f"the first of {search.rungs} rungs would have no row of metrics"
        raise ValueError(f"total_timesteps = {asked.base.total_timesteps}: {why}; take fewer rungs")
    least = _least(asked, asked.ends(0))
    if search.steps < least:
        points = halving.fewest(asked.ends(0), search.eta)
        bracket = f"a bracket of {points} points with {options.num_seeds} seeds"
        raise ValueError(f"budget = {search.budget}: must be at least {least:,} for {bracket}")


def _least(asked, ends):
    slack = asked.search.slack if len(ends) > 1 else 0.0
    number = halving.fewest(ends, asked.search.eta)
    cost = halving.cost(number, ends, asked.search.eta)
    return int(np.ceil(cost * (1 + slack) * asked.run_steps))


@dataclasses.dataclass
class Bracket:
    """Points that are trained together, rung after rung."""

    number: int
    points: list[int]  # their places among all points of the search
    ends: list[float]  # the share of a run at which each rung ends
    slack: float  # runs of one point that the interval may still add
    live: list[int]  # of the points
    rungs: list[dict] = dataclasses.field(default_factory=list)  # events of those that have ended

    @property
    def is_done(self) -> bool:
        return len(self.rungs) == len(self.ends)


class State:
    """A search in progress."""

    def __init__(self, asked: Asked, sampler: Any):
        self.asked, self.sampler = asked, sampler
        self.points: list[Point] = []
        self.brackets: list[Bracket] = []
        self.reached: dict[int, tuple[float, np.ndarray]] = {}
        """Of each point: the share of a run that it was trained for, and returns [E, S] there."""
        self.is_hopeless = False  # all trials of a bracket failed

    def next_bracket(self) -> dict | None:
        """The event that begins another bracket; None if the budget does not allow one."""
        asked, search = self.asked, self.asked.search
        number, ends = len(self.brackets), self.asked.ends(len(self.brackets))
        left = search.steps - sum(map(self._taken, self.brackets))
        most, allowed = search.bracket or MOST_POINTS, left
        is_adaptive = samplers.is_adaptive(search.sampler)
        if is_adaptive:
            most = search.bracket or ADAPTIVE
        if search.scheduler == "hyperband":  # each of the same size
            whole = search.steps / search.rungs
            if is_adaptive:
                most, ends_of_all = MOST_POINTS, asked.ends(0)
                size = halving.cost(search.bracket or ADAPTIVE, ends_of_all, search.eta)
                whole = size * (1 + search.slack) * asked.run_steps
            allowed = min(left, whole)
        fits = halving.points_for(allowed / asked.run_steps, ends, search.eta, search.slack)
        if fits < halving.fewest(ends, search.eta):
            return None
        made = self.sampler.ask(min(fits, most))
        ids = self.sampler.ids[len(self.points) :]
        return {"event": "bracket", "number": number, "points": made, "ids": ids, "ends": ends}

    def _taken(self, bracket):
        """Steps of a bracket that has ended, or that one may take which has not."""
        if bracket.is_done:
            return sum(rung["env_steps"] for rung in bracket.rungs)
        slack = self.asked.search.slack if len(bracket.ends) > 1 else 0.0
        runs = halving.cost(len(bracket.points), bracket.ends, self.asked.search.eta)
        return runs * (1 + slack) * self.asked.run_steps

    def next_rung(self, bracket: Bracket, returns: Mapping[int, np.ndarray], steps: int) -> dict:
        """The event that ends a rung.

        Args:
            returns: [E, S] of each live point, NaN where there is none.
            steps: environment steps that the rung took.
        """
        search, rung = self.asked.search, len(bracket.rungs)
        scores = self.scores({point: returns[point] for point in bracket.live})
        is_last = rung + 1 == len(bracket.ends)
        one = np.inf if is_last else halving.cost_of_one_more(rung, bracket.ends, search.eta)
        more = int(bracket.slack / one + 1e-9)
        found = halving.decide(scores, search.eta, search.confidence, more)
        return {
            "event": "rung",
            "bracket": bracket.number,
            "share": bracket.ends[rung],
            "returns": {point: returns[point] for point in bracket.live},
            "scores": dict(zip(bracket.live, scores.mean(axis=1))),
            "kept": [] if is_last else [bracket.live[i] for i in found.kept],
            "by_interval": 0 if is_last else found.by_interval,
            "in_doubt": 0 if is_last else found.in_doubt,
            "env_steps": steps,
        }

    def scores(self, returns: Mapping[int, np.ndarray]) -> np.ndarray:
        """[P, S] of points with returns [E, S], as `objectives.scores`."""
        raw, search = np.stack([*returns.values()]), self.asked.search
        return objectives.scores(raw, self.asked.envs, search.limits())

    def take(self, event: Mapping) -> None:
        """The state after an event, new or recorded."""
        if event["event"] == "bracket":
            first = len(self.points)
            self.points += event["points"]
            places = [*range(first, len(self.points))]
            runs = halving.cost(len(places), event["ends"], self.asked.search.eta)
            slack = self.asked.search.slack * runs
            bracket = Bracket(event["number"], places, event["ends"], slack, places)
            self.brackets.append(bracket)
            return
        bracket = self.brackets[event["bracket"]]
        is_last = len(bracket.rungs) + 1 == len(bracket.ends)
        for point, returns in event["returns"].items():
            self.reached[point] = event["share"], np.asarray(returns, float)
            if is_last or point not in event["kept"]:
                self.sampler.tell(point, event["scores"][point], event["share"], is_last)
        if not is_last:
            one = halving.cost_of_one_more(len(bracket.rungs), bracket.ends, self.asked.search.eta)
            bracket.slack -= one * event["by_interval"]
        bracket.live = [*event["kept"]]
        bracket.rungs.append(dict(event))

    def replay(self, event: Mapping) -> None:
        """`take` for what JSON made of an event."""
        event = dict(event)
        if event["event"] == "bracket":
            event["points"] = [spaces.restored(point) for point in event["points"]]
            self.sampler.restore(event["points"], event["ids"])
        else:
            for name in ("returns", "scores"):
                event[name] = {int(point): x for point, x in event[name].items()}
        self.take(event)

    def best(self) -> list[int]:
        """The points, those first that were trained for longest, and of these the ones with the
        highest scores; last those without any return."""
        places = {}
        for share in {share for share, _ in self.reached.values()}:
            same = {p: x for p, (reached, x) in self.reached.items() if reached == share}
            for (point, returns), score in zip(same.items(), self.scores(same).mean(axis=1)):
                places[point] = (share, score) if np.isfinite(returns).any() else (0.0, 0.0)
        return sorted(places, key=lambda point: places[point], reverse=True)

    @property
    def most_trials(self) -> int:
        """Of the first bracket: none has more."""
        return len(self.brackets[0].points) * len(self.asked.envs) * len(self.asked.options.seeds)

    @property
    def env_steps(self) -> int:
        return sum(rung["env_steps"] for bracket in self.brackets for rung in bracket.rungs)


def recorded(event: Mapping) -> dict:
    """An event for JSON, in which every digit of a number is kept."""
    if event["event"] != "bracket":
        return dict(event)
    return {**event, "points": [*map(spaces.recorded, event["points"])]}

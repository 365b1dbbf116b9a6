"""A search as a state: points, brackets, scores, and what of its budget is left. Its changes are
events, JSON objects, from which it is made again.
"""

import dataclasses
import itertools
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from rljax.config import Config
from rljax.search import halving, objectives, samplers
from rljax.search.axes import Axes, corners
from rljax.search.options import FEWEST_SEEDS, SearchOptions
from rljax.sweep import points as spaces
from rljax.sweep.options import SweepOptions
from rljax.sweep.points import Point
from rljax.sweep.results import num_rows
from rljax.sweep.trials import Group, plan

MOST_POINTS = 1_000  # of a bracket, whose states are kept in memory
ADAPTIVE = 16  # points of a bracket where points depend on what was found before


class Asked(NamedTuple):
    """The settings of a search."""

    base: Config
    options: SweepOptions
    search: SearchOptions
    own: tuple[Any, ...]  # the algorithm's own options: () or one dataclass
    axes: Axes
    trial_length: int = 0  # environment steps of the longest trial, in whole batches: by `settled`

    @property
    def envs(self) -> list[Any]:
        return [*self.search.envs] or [self.base.env]

    @property
    def last_share(self) -> float:
        """Of a run, after which trials end."""
        return (self.search.trial_steps or self.base.total_timesteps) / self.base.total_timesteps

    @property
    def run_steps(self) -> int:
        """Environment steps of a point that is trained for a whole run, on all environments and
        with all seeds."""
        return self.trial_length * len(self.envs) * len(self.options.seeds)

    def ends(self, bracket: int) -> list[float]:
        """The shares at which the rungs of a bracket end, by its number."""
        rungs = self.search.rungs
        number = {"none": 1, "halving": rungs, "hyperband": rungs - bracket % rungs}
        return halving.shares(number[self.search.scheduler], self.search.eta, self.last_share)

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


def settled(asked: Asked) -> Asked:
    """The search with the length of its trials; raises ValueError or TypeError if options do not
    fit, a setting is wrong at an end of an axis, or the budget is too small."""
    search, options = asked.search, asked.options
    search.validate()
    options.validate()
    for name, usual in (("engine", "local"), ("coordinator", None)):
        if (value := getattr(options, name)) != usual:
            raise ValueError(f"{name} = {value!r}: a search is trained by this machine alone")
    samplers.check(search.sampler, search.storage, search.study)
    if options.seed + options.num_seeds + search.fresh_seeds > 2**32:
        raise ValueError(f"seed = {options.seed}: the last fresh seed must be below 2**32")
    if samplers.is_adaptive(search.sampler) and len(asked.envs) > 1 and not search.references:
        why = f"{search.sampler} needs them with several environments, as NAME=LOW:HIGH for each"
        raise ValueError(f"references: {why}: ranks within a bracket are not those within another")
    if search.trial_steps and search.trial_steps > asked.base.total_timesteps:
        most = f"must be at most total_timesteps, {asked.base.total_timesteps}"
        raise ValueError(f"trial_steps = {search.trial_steps}: {most}")
    is_halved = search.scheduler != "none" and search.rungs > 1
    if is_halved and options.num_seeds < FEWEST_SEEDS:
        why = f"must be at least {FEWEST_SEEDS} for an interval that decides which points end"
        raise ValueError(f"num_seeds = {options.num_seeds}: {why}")
    groups = asked.groups(dict(enumerate(corners(asked.axes))))
    configs = [group.trials[0].config for group in groups]
    for group in groups:
        if int(num_rows(group.trials[0].config) * asked.ends(0)[0]) < 1:
            why = "the first rung would have no row of metrics: take fewer rungs, or longer trials"
            raise ValueError(f"rungs = {search.rungs}: at {group.trials[0]}, {why}")
    asked = asked._replace(trial_length=max(x.num_updates * x.batch_size for x in configs))
    _check_budget(asked)
    return asked


def _check_budget(asked):
    """Of each bracket of a cycle the smallest must fit; Hyperband gives each the same share."""
    search, needed = asked.search, []
    cycle = search.rungs if search.scheduler == "hyperband" else 1
    for ends in map(asked.ends, range(cycle)):
        number = halving.fewest(ends, search.eta)
        runs = halving.cost(number, ends, search.eta)
        needed.append((int(np.ceil(runs * asked.run_steps * (1 + 1e-6))), number))
    least, points = max(needed)
    share = cycle if not samplers.is_adaptive(search.sampler) else 1
    if search.steps < least * share:
        seeds = f"{points} points with {asked.options.num_seeds} seeds each"
        what = f"for a bracket of {seeds}" if share == 1 else f"for {share} brackets like {seeds}"
        raise ValueError(f"budget = {search.budget}: must be at least {least * share:,} {what}")


@dataclasses.dataclass
class Bracket:
    """Points that are trained together, rung after rung."""

    number: int
    points: list[int]  # their places among all points of the search
    ends: list[float]  # the share of a run at which each rung ends
    allowed: float  # runs of a point that it may take, with its slack
    runs: float  # of these, those that are left
    live: list[int]  # of the points
    rungs: list[dict] = dataclasses.field(default_factory=list)  # events of those that have ended

    def taken_by(self, rung: int) -> float:
        """The runs that the live points take in a rung."""
        return len(self.live) * (self.ends[rung] - (self.ends[rung - 1] if rung else 0.0))

    @property
    def is_done(self) -> bool:
        return len(self.rungs) == len(self.ends)


class State:
    """A search in progress."""

    def __init__(self, asked: Asked, sampler: Any, reuses_slack: bool = True):
        """Where several brackets are open at once, `reuses_slack` is False: else the size of one
        would depend on when another ends."""
        self.asked, self.sampler, self.reuses_slack = asked, sampler, reuses_slack
        self.points: list[Point] = []
        self.brackets: list[Bracket] = []
        self.reached: dict[int, tuple[float, np.ndarray]] = {}
        """Of each point: the share of a run that it was trained for, and returns [E, S] there."""
        self.lowest = np.full(len(asked.envs), np.nan)
        """[E] the lowest return so far, NaN where there is none."""
        self.is_hopeless = False  # all trials of a bracket failed

    def next_bracket(self) -> dict | None:
        """The event that begins another bracket; None if the budget does not allow one."""
        search, number = self.asked.search, len(self.brackets)
        ends, (runs, most) = self.asked.ends(number), self._allowed()
        fits = halving.points_for(runs, ends, search.eta, search.slack)
        if fits < (fewest := halving.fewest(ends, search.eta)):
            # The last one does with the slack that there is.
            fits = min(fewest, halving.points_for(runs, ends, search.eta, 0.0))
        if fits < fewest:
            return None
        made = self.sampler.ask(min(fits, most))
        cost = halving.cost(len(made), ends, search.eta)
        told = {"points": made, "ids": self.sampler.ids[len(self.points) :], "ends": ends}
        runs = min(runs, cost * (1 + search.slack))
        return {"event": "bracket", "number": number, **told, "runs": runs}

    def _allowed(self):
        """(runs of a point that the next bracket may take, the most points that it may have)."""
        asked, search = self.asked, self.asked.search
        is_adaptive = samplers.is_adaptive(search.sampler)
        left = (search.steps - sum(map(self._taken, self.brackets))) / asked.run_steps
        usual = search.bracket or (ADAPTIVE if is_adaptive else MOST_POINTS)
        if search.scheduler != "hyperband":
            return left, usual
        whole = search.steps / asked.run_steps / search.rungs  # each has the same
        if is_adaptive:
            whole = halving.cost(usual, asked.ends(0), search.eta) * (1 + search.slack)
        return min(left, whole), MOST_POINTS

    def _taken(self, bracket):
        """Steps of a bracket that has ended, or that one may take which has not."""
        if bracket.is_done and self.reuses_slack:
            return sum(rung["env_steps"] for rung in bracket.rungs)
        return bracket.allowed * self.asked.run_steps

    def next_rung(self, bracket: Bracket, returns: Mapping[int, np.ndarray], steps: int) -> dict:
        """The event that ends a rung.

        Args:
            returns: [E, S] of each live point, NaN where there is none.
            steps: environment steps that the rung took.
        """
        search, rung = self.asked.search, len(bracket.rungs)
        scores = self.scores({point: returns[point] for point in bracket.live})
        is_last = rung + 1 == len(bracket.ends)
        most, live = 0, len(bracket.live)
        if not is_last:
            left = bracket.runs - bracket.taken_by(rung)
            most = halving.most_that_go_on(left, rung, bracket.ends, search.eta, live)
        found = halving.decide(scores, search.eta, search.confidence, most)
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
        return objectives.scores(raw, self.asked.envs, search.limits(), self.lowest)

    def take(self, event: Mapping) -> None:
        """The state after an event, new or recorded."""
        if event["event"] == "bracket":
            first = len(self.points)
            self.points += event["points"]
            places = [*range(first, len(self.points))]
            allowed, ends = event["runs"], event["ends"]
            bracket = Bracket(event["number"], places, ends, allowed, allowed, places)
            self.brackets.append(bracket)
            return
        bracket = self.brackets[event["bracket"]]
        is_last = len(bracket.rungs) + 1 == len(bracket.ends)
        every = np.stack([np.asarray(x, float) for x in event["returns"].values()])
        self.lowest = np.fmin(self.lowest, np.nanmin(_or_inf(every), axis=(0, 2)))
        self.lowest[np.isinf(self.lowest)] = np.nan
        for point, returns in event["returns"].items():
            self.reached[point] = event["share"], np.asarray(returns, float)
            if is_last or point not in event["kept"]:
                self.sampler.tell(point, event["scores"][point], event["share"], is_last)
        bracket.runs -= bracket.taken_by(len(bracket.rungs))
        bracket.live = [*event["kept"]]
        bracket.rungs.append(dict(event))

    def replay(self, event: Mapping) -> None:
        """`take` for what JSON made of an event."""
        event = dict(event)
        if event["event"] == "bracket":
            if event["number"] != len(self.brackets):
                raise ValueError(f"bracket {event['number']!r} is not the next one")
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
    def has_found(self) -> bool:
        """Whether there is any return."""
        return bool(np.isfinite(self.lowest).any())

    @property
    def env_steps(self) -> int:
        return sum(rung["env_steps"] for bracket in self.brackets for rung in bracket.rungs)


def _or_inf(returns):
    return np.where(np.isfinite(returns), returns, np.inf)


def recorded(event: Mapping) -> dict:
    """An event for JSON, in which every digit of a number is kept."""
    if event["event"] != "bracket":
        return dict(event)
    return {**event, "points": [*map(spaces.recorded, event["points"])]}

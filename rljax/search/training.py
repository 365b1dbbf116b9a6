"""The training of a search: brackets, rung after rung, in one program or in processes."""

from collections.abc import Collection, Iterator, Sequence
from typing import Any

import numpy as np

from rljax import algorithms
from rljax.config import Config, default_log_interval
from rljax.search import axes, objectives
from rljax.search.brackets import Asked, Bracket, State
from rljax.sweep import population, results, running, trial_pool
from rljax.sweep.results import Held, Progress, Result, Stretch
from rljax.sweep.trials import Group, Trial
from rljax.utils import pytrees, seeds


def run(state: State, store: Any) -> Iterator[Progress]:
    """Trains what is left of a search. Yields what is done, with the rows of trials that have ended
    as `Result`s.

    Args:
        store: has `event(event)`, `save(bracket, held)` and `load(bracket, groups)`.
    """
    in_one_program = is_in_one_program(state.asked)
    yield from (_in_one_program if in_one_program else _in_processes)(state, store)


def is_in_one_program(asked: Asked) -> bool:
    """Whether trials of a group are trained in one program, else each in a process."""
    module = algorithms.module(asked.options.algorithm)
    return all(module.in_one_program(x.trials[0].config) for x in asked.groups(_any_point(asked)))


def _any_point(asked):
    return {0: axes.point_at(asked.axes, dict.fromkeys(asked.axes, 0.5))}


def to_the_end(
    asked: Asked, groups: Sequence[Group], done: Collection[int], most: int
) -> Iterator[Progress]:
    """Trains other trials as whole runs of the search, in programs that it has compiled, and
    evaluates them."""
    if not is_in_one_program(asked):
        yield from running.chunks(groups, asked.options, done)
        return
    for group in groups:
        config = group.trials[0].config
        rows = max(1, round(num_rows(config) * asked.last))
        stretch = Stretch(rows, None, most, asked.search.exact)
        if all(trial.number in done for trial in group.trials):
            continue
        parts = []
        for step in population.train_stretch(group.trials, asked.options, done, stretch):
            parts += [step.held] * bool(step.held)
            yield step._replace(held=None)
        if parts:
            held = results.joined(parts)
            states = pytrees.with_keys(held.states, held.keys)
            keys = seeds.keys(trial.seed for trial in held.trials)
            returns = results.evaluated(config, states.learner, keys, asked.options)
            yield Progress(result=Result(held.trials, held.metrics, returns))


def _in_one_program(state, store):
    while (rungs := _next(state, store)) is not None:
        asked, bracket = state.asked, rungs.bracket
        while not bracket.is_done:
            for i, group in enumerate(rungs.groups):
                live, held = rungs.live(i), rungs.held[i]
                if not live:
                    continue
                done = {x.number for x in group.trials} - set(live)
                stretch = Stretch(rungs.rows(i), held, rungs.most, asked.search.exact)
                for step in population.train_stretch(group.trials, asked.options, done, stretch):
                    rungs.note(step)
                    yield step._replace(held=None)
            yield from rungs.end()


def _in_processes(state, store):
    """No process waits for another: while the last trials of a rung are trained, those that are
    free begin the next bracket."""
    open_ones: list[_Rungs] = []

    def next_job():
        for rungs in open_ones:
            if rungs.jobs:
                return rungs.jobs.pop(0)
        if (rungs := _next(state, store, open_ones)) is None:
            return None
        rungs.list_jobs()
        open_ones.append(rungs)
        return rungs.jobs.pop(0)

    trial = state.asked.groups(_any_point(state.asked))[0].trials[0]
    number = state.asked.options.max_parallel or trial_pool.usual_parallel(trial)
    for step in trial_pool.serve(next_job, state.asked.options, number):
        yield step._replace(held=None)
        told = step.held or step.failure
        if not told:
            continue
        which = step.held.trials[0] if step.held else step.failure.trial
        rungs = next(x for x in open_ones if which.point in x.bracket.points)
        rungs.note(step)
        while rungs.waiting == 0 and not rungs.bracket.is_done:
            yield from rungs.end()
            if not rungs.bracket.is_done:
                rungs.list_jobs()
        if rungs.bracket.is_done:
            open_ones.remove(rungs)


def _next(state, store, open_ones=()):
    """The rungs of a bracket that was begun and not ended, or of a new one; None if there is
    none."""
    for bracket in _bracket_left(state, [rungs.bracket for rungs in open_ones]):
        rungs = _Rungs(state, store, bracket)
        rungs.held = store.load(bracket, rungs.groups)
        return rungs
    event = None if state.is_hopeless else state.next_bracket()
    if event is None:
        return None
    store.event(event)
    state.take(event)
    return _Rungs(state, store, state.brackets[-1])


def _bracket_left(state, busy=()):
    """The brackets that were begun, not ended, and not taken up."""
    return (x for x in state.brackets if not x.is_done and x not in busy)


class _Rungs:
    """A bracket in training."""

    def __init__(self, state: State, store: Any, bracket: Bracket):
        self.state, self.store, self.bracket = state, store, bracket
        self.groups = state.asked.groups({point: state.points[point] for point in bracket.points})
        self.group_of = {x.number: i for i, group in enumerate(self.groups) for x in group.trials}
        self.held: list[Held | None] = [None] * len(self.groups)
        self.found: list[list[Held]] = [[] for _ in self.groups]
        self.lost: dict[
            int, Trial
        ] = {}  # that failed, by number; they take their steps all the same
        self.jobs: list[trial_pool.Job] = []
        self.waiting = 0  # for this number of jobs
        self.most = state.most_trials

    def live(self, i: int) -> list[int]:
        """Numbers of the trials of a group that are to be trained."""
        points, held = set(self.bracket.live), self.held[i]
        trials = self.groups[i].trials if held is None else held.trials
        if held is None and self.bracket.rungs:
            return []
        return [x.number for x in trials if x.point in points and x.number not in self.lost]

    def rows(self, i: int) -> int:
        """Of metrics of a group, at the end of the rung."""
        total, held = num_rows(self.groups[i].trials[0].config), self.held[i]
        before = 0 if held is None else len(held.metrics.updates)
        share = self.bracket.ends[len(self.bracket.rungs)]
        return min(total, max(before + 1, round(total * share)))

    def list_jobs(self) -> None:
        """Makes the jobs of the rung that begins, if one does."""
        for i, group in enumerate(self.groups):
            live, held, rows = set(self.live(i)), self.held[i], self.rows(i)
            for trial in group.trials:
                one = held.take([trial.number]) if held and trial.number in live else None
                if one and len(one.metrics.updates) == rows:  # its few rows are all there
                    self.found[i].append(one)
                elif trial.number in live:
                    self.jobs.append(trial_pool.Job(trial, rows, one))
        self.waiting = len(self.jobs)

    def note(self, step: Progress) -> None:
        """Takes what a step found."""
        if step.held:
            self.found[self.group_of[step.held.trials[0].number]].append(step.held)
            self.waiting -= 1
        if step.failure:
            self.lost[step.failure.trial.number] = step.failure.trial
            self.waiting -= 1

    def end(self) -> Iterator[Progress]:
        """Ends the rung: yields the rows of trials that end with it."""
        state, search = self.state, self.state.asked.search
        steps, before = 0, self.held
        returns = self._no_returns()
        self.held = [results.joined(parts) if parts else None for parts in self.found]
        self.found = [[] for _ in self.groups]
        for i, held in enumerate(self.held):
            if held is None:
                continue
            config = held.trials[0].config
            found = objectives.of_trials(held.metrics, search.objective, num_rows(config))
            for trial, value in zip(held.trials, found):
                point, env, seed = state.asked.place(trial.number)
                returns[point][env, seed] = value
            rows = [0 if x is None else len(x.metrics.updates) for x in (before[i], held)]
            then, now = (results.updates_at(config, number) for number in rows)
            steps += (now - then) * config.batch_size * len(held.trials)
        now, before = self.bracket.ends[len(self.bracket.rungs)], self._share_before()
        lost = sum(trial.point in self.bracket.live for trial in self.lost.values())
        steps += round(lost * (now - before) * state.asked.base.total_timesteps)
        event = state.next_rung(self.bracket, returns, steps)
        kept = set(event["kept"])
        for held in self.held:
            ended = [] if held is None else [x.number for x in held.trials if x.point not in kept]
            if ended:
                part = held.take(sorted(ended))
                yield Progress(result=Result(part.trials, part.metrics, None))
        state.is_hopeless = len(self.lost) == len(self.group_of)
        self.held = [held and _only(held, kept) for held in self.held]
        if kept:
            self.store.save(self.bracket, self.held)
        self.store.event(event)
        state.take(event)

    def _share_before(self):
        rungs = self.bracket.rungs
        return rungs[-1]["share"] if rungs else 0.0

    def _no_returns(self):
        shape = len(self.state.asked.envs), len(self.state.asked.options.seeds)
        return {point: np.full(shape, np.nan) for point in self.bracket.live}


def num_rows(config: Config) -> int:
    """Of metrics, of a whole run."""
    return -(-config.num_updates // default_log_interval(config))


def _only(held, points):
    """Those of some points; None if there are none."""
    numbers = [trial.number for trial in held.trials if trial.point in points]
    return held.take(numbers) if numbers else None

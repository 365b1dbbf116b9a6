"""The training of a search: brackets, rung after rung, in one program or in processes."""

from collections.abc import Collection, Iterator, Sequence
from typing import Any

import numpy as np

from rljax import algorithms
from rljax.search import axes, objectives
from rljax.search.brackets import Asked, Bracket, State
from rljax.sweep import population, results, trial_pool
from rljax.sweep.results import Held, Progress, Result, Stretch, num_rows
from rljax.sweep.trials import Group
from rljax.utils import seeds


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


def to_the_end(asked: Asked, groups: Sequence[Group], done: Collection[int]) -> Iterator[Progress]:
    """Trains other trials as far as a search does, in programs that it has compiled, and evaluates
    them."""
    in_one_program = is_in_one_program(asked)
    for group in groups:
        config, left = group.trials[0].config, [x for x in group.trials if x.number not in done]
        rows = max(1, int(num_rows(config) * asked.last_share + 1e-9))
        parts = []
        steps = iter(())
        if left and in_one_program:
            stretch = Stretch(rows, None, asked.search.exact)
            steps = population.train_stretch(group.trials, asked.options, done, stretch)
        elif left:
            jobs = [trial_pool.Job(trial, rows) for trial in left]
            steps = trial_pool.serve(lambda jobs=jobs: jobs.pop(0) if jobs else None, *_how(asked))
        for step in steps:
            parts += [step.held] * bool(step.held)
            yield step._replace(held=None)
        if parts:
            held = results.joined(parts)
            held = held.take(sorted(trial.number for trial in held.trials))
            whole = population.states_of if in_one_program else trial_pool.states_of
            states = whole(held)
            keys = seeds.keys(trial.seed for trial in held.trials)
            returns = results.evaluated(config, states.learner, keys, asked.options)
            yield Progress(result=Result(held.trials, held.metrics, returns))


def _how(asked):
    """(options, the number of processes)."""
    trial = asked.groups(_any_point(asked))[0].trials[0]
    return asked.options, asked.options.max_parallel or trial_pool.usual_parallel(trial)


def _in_one_program(state, store):
    resumed = _resumed(state, store)
    while rungs := next(resumed, None) or _new(state, store):
        asked, bracket = state.asked, rungs.bracket
        while not bracket.is_done:
            for i, group in enumerate(rungs.groups):
                live, held = rungs.live(i), rungs.held[i]
                if not live:
                    continue
                done = {x.number for x in group.trials} - set(live)
                stretch = Stretch(rungs.rows(i), held, asked.search.exact)
                for step in population.train_stretch(group.trials, asked.options, done, stretch):
                    rungs.note(step)
                    yield step._replace(held=None)
            yield from rungs.end()


def _in_processes(state, store):
    """No process waits for another: while the last trials of a rung are trained, those that are
    free begin the next bracket."""
    state.reuses_slack = False
    open_ones = list(_resumed(state, store))
    for rungs in open_ones:
        rungs.list_jobs()
        yield from _without_jobs(rungs)

    def next_job():
        for rungs in open_ones:
            if rungs.jobs:
                return rungs.jobs.pop(0)
        rungs = _new(state, store)
        if rungs is None:
            return None
        rungs.list_jobs()
        open_ones.append(rungs)
        return rungs.jobs.pop(0)  # of the first rung, which has some

    for step in trial_pool.serve(next_job, *_how(state.asked)):
        yield step._replace(held=None)
        if step.held or step.failure:
            which = step.held.trials[0] if step.held else step.failure.trial
            rungs = next(x for x in open_ones if which.point in x.bracket.points)
            rungs.note(step)
            yield from _without_jobs(rungs)
            open_ones[:] = [x for x in open_ones if not x.bracket.is_done]


def _without_jobs(rungs):
    """Ends rungs as long as there is nothing to wait for."""
    while rungs.waiting == 0 and not rungs.bracket.is_done:
        yield from rungs.end()
        if not rungs.bracket.is_done:
            rungs.list_jobs()


def _resumed(state, store):
    """The brackets that were begun and not ended, one after another."""
    for bracket in state.brackets:
        if not bracket.is_done:
            groups = state.asked.groups({point: state.points[point] for point in bracket.points})
            rungs = _Rungs(state, store, bracket, groups)
            rungs.continues_with(store.load(bracket, rungs.groups))
            yield rungs


def _new(state, store):
    """A new bracket; None if there is none. Raises ValueError or TypeError if a point is wrong,
    before anything is written of it."""
    event = None if state.is_hopeless else state.next_bracket()
    if event is None:
        return None
    first = len(state.points)
    groups = state.asked.groups(dict(enumerate(event["points"], first)))
    store.event(event)
    state.take(event)
    return _Rungs(state, store, state.brackets[-1], groups)


class _Rungs:
    """A bracket in training."""

    def __init__(self, state: State, store: Any, bracket: Bracket, groups: Sequence[Group]):
        self.state, self.store, self.bracket, self.groups = state, store, bracket, groups
        self.group_of = {x.number: i for i, group in enumerate(groups) for x in group.trials}
        self.held: list[Held | None] = [None] * len(groups)
        self.found: list[list[Held]] = [[] for _ in groups]
        self.lost: dict[int, int] = {}  # the points of trials that failed, by number
        self.jobs: list[trial_pool.Job] = []
        self.waiting = 0  # for this number of jobs
        self.failed = 0  # trials in this rung: they count as if they had been trained

    def continues_with(self, held: Sequence[Held | None]) -> None:
        """Takes what was saved after a rung; what is not there had failed before."""
        self.held = list(held)
        if self.bracket.rungs:
            there = {trial.number for one in self.held if one for trial in one.trials}
            trials = (trial for group in self.groups for trial in group.trials)
            live = (trial for trial in trials if trial.point in self.bracket.live)
            self.lost = {x.number: x.point for x in live if x.number not in there}

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
        return min(total, max(before + 1, int(total * share + 1e-9)))

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
            self.lost[step.failure.trial.number] = step.failure.trial.point
            self.failed += 1
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
            first, last = (results.updates_at(config, number) for number in rows)
            steps += (last - first) * config.batch_size * len(held.trials)
        begun = self.bracket.rungs[-1]["share"] if self.bracket.rungs else 0.0
        share = self.bracket.ends[len(self.bracket.rungs)] - begun
        steps += round(self.failed * share * state.asked.trial_length)
        event = state.next_rung(self.bracket, returns, steps)
        # Rows of a process that was killed before its event: where training does not repeat to the
        # bit, another decision must not continue what has ended.
        ended = {state.asked.place(number)[0] for number in self.store.journal.trials}
        event["kept"] = [point for point in event["kept"] if point not in ended]
        kept = set(event["kept"])
        for held in self.held:
            ended = [] if held is None else [x.number for x in held.trials if x.point not in kept]
            if ended:
                part = held.take(sorted(ended))
                yield Progress(result=Result(part.trials, part.metrics, None))
        self.failed = 0
        state.is_hopeless = len(self.lost) == len(self.group_of)
        self.held = [held and _only(held, kept) for held in self.held]
        if kept:
            self.store.save(self.bracket, self.held)
        self.store.event(event)
        state.take(event)

    def _no_returns(self):
        shape = len(self.state.asked.envs), len(self.state.asked.options.seeds)
        return {point: np.full(shape, np.nan) for point in self.bracket.live}


def _only(held, points):
    """Those of some points; None if there are none."""
    numbers = [trial.number for trial in held.trials if trial.point in points]
    return held.take(numbers) if numbers else None

"""The files of a search: its events, its table, and what it needs to continue.

    search.jsonl      the events of `brackets.State`, one JSON object a line
    results.csv, finished.jsonl
                      the rows of the trials that have ended, as a sweep's
    rungs/BRACKET-RUNG/
                      a checkpoint of the trials that go on after a rung

An event is written after the rows and the checkpoint that belong to it. What is beyond the last
whole event is from a process that was killed, and is made again, to the same bits.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
import numpy as np

from rljax import algorithms
from rljax.runs import checkpoints
from rljax.search.brackets import Bracket, State, recorded
from rljax.sweep import programs, results
from rljax.sweep.journal import Journal
from rljax.sweep.results import Held, Result
from rljax.sweep.trials import Group
from rljax.types import Metrics
from rljax.utils import atomic_io, errors, pytrees, seeds

EVENTS, RUNGS = "search.jsonl", "rungs"


class Store:
    """The files of a search in progress."""

    def __init__(self, folder: Path, metrics: Sequence[str] = (), saves: bool = True):
        """Begins them, or continues with those that are there; without checkpoints if it never is
        resumed. Raises ValueError if they are damaged, WriteError if they cannot be written."""
        self.folder, self.saves = folder, saves
        self.journal = Journal(folder, metrics)
        self.path = folder / EVENTS
        self.events = _events(self.path)

    def replayed(self, state: State) -> None:
        """Takes the events that are there to a state; raises ValueError if they are damaged."""
        try:
            for event in self.events:
                state.replay(event)
            state.sampler.forget_others()
            for bracket in state.brackets:  # of a process that was killed after its last event
                if bracket.is_done:
                    self._tidy(bracket.number, False)
        except errors.WRONG as error:
            why = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            raise ValueError(f"{self.path} is damaged ({why})") from error

    def event(self, event: Mapping) -> None:
        """Writes an event."""
        atomic_io.append(self.path, atomic_io.json_bytes(recorded(event)).decode())
        if event["event"] == "rung":
            self._tidy(event["bracket"], bool(event["kept"]))

    def _tidy(self, bracket, continues):
        """Removes the checkpoints of a bracket, but for the newest of one that continues."""
        found = sorted((self.folder / RUNGS).glob(f"{bracket}-*"), key=lambda x: _rung(x.name))
        for path in found[:-1] if continues else found:
            atomic_io.remove_folder(path)

    def add(self, result: Result, train_seconds: float, wall_seconds: float) -> None:
        """Adds rows, but for those of trials that were added before a process was killed."""
        there = set(self.journal.trials)
        new = [i for i, trial in enumerate(result.trials) if trial.number not in there]
        if new:
            metrics = results.of_trials(result.metrics, np.array(new))
            part = result._replace(trials=[result.trials[i] for i in new], metrics=metrics)
            self.journal.add(part, train_seconds, wall_seconds)

    def save(self, bracket: Bracket, held: Sequence[Held | None]) -> None:
        """Saves what goes on after the rung that ends now."""
        if not self.saves:
            return
        trees, numbers = {}, {}
        for i, one in enumerate(held):
            if one is not None:
                metrics = {n: x for n, x in one.metrics._asdict().items() if x is not None}
                trees[f"group{i}"] = {"states": one.states, "metrics": metrics}
                numbers[f"group{i}"] = [trial.number for trial in one.trials]
        path = self.folder / RUNGS / f"{bracket.number}-{len(bracket.rungs) + 1}"
        if path.exists():  # of a process that was killed
            atomic_io.remove_folder(path)
        with atomic_io.writing(path.parent):
            path.parent.mkdir(exist_ok=True)
        checkpoints.save(path, trees, {"trials": numbers})

    def load(self, bracket: Bracket, groups: Sequence[Group]) -> list[Held | None]:
        """What a bracket continues with; raises ValueError if it is not there, or damaged."""
        if not bracket.rungs:
            return [None] * len(groups)
        path = self.folder / RUNGS / f"{bracket.number}-{len(bracket.rungs)}"
        facts, trees = checkpoints.load(path)
        try:
            of_group = (f"group{i}" for i in range(len(groups)))
            return [
                _held(group, facts["trials"][name], trees[name]) if name in trees else None
                for group, name in zip(groups, of_group)
            ]
        except errors.WRONG as error:
            raise ValueError(f"{path} is damaged ({errors.in_a_line(error)[:200]})") from error


def _held(group, numbers, arrays):
    by_number = {trial.number: trial for trial in group.trials}
    trials = [by_number[number] for number in numbers]
    first, keys = trials[0], seeds.keys(trial.seed for trial in trials)
    module, start = algorithms.module(first.algorithm), "states/"
    states = {n.removeprefix(start): x for n, x in arrays.items() if n.startswith(start)}
    fresh = module.init_seeds(*first.in_parts, keys)
    if set(states) == {"0", "1"}:  # of one program
        fresh = jax.vmap(programs.packed)(fresh)
    like, is_key = pytrees.without_keys(fresh)
    metrics = checkpoints.nest({n: x for n, x in arrays.items() if not n.startswith(start)})
    return Held(trials, checkpoints.restore(states, like), is_key, Metrics(**metrics["metrics"]))


def _rung(name):
    return int(name.rpartition("-")[2]) if name.rpartition("-")[2].isdecimal() else -1


def _events(path) -> list[dict]:
    """The whole lines of the file, of which what follows them is cut off."""
    try:
        data = atomic_io.read(path, atomic_io.LARGEST)
    except FileNotFoundError:
        atomic_io.write(path, b"")
        return []
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror})") from error
    whole = data[: data.rfind(b"\n") + 1]
    try:
        found = [atomic_io.parse_json(line) for line in whole.splitlines()]
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    if not all(isinstance(event, dict) for event in found):
        raise ValueError(f"{path} is damaged: a line is no object")
    if len(whole) < len(data):
        atomic_io.write(path, whole)
    return found

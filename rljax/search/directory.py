"""A search with a directory: trains what is left of it, and says what it found."""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rljax import envs
from rljax.loggers.display import Display
from rljax.runs import directory, interrupts, records, settings
from rljax.search import axes as spaces
from rljax.search import brackets, report, samplers, training, verdict
from rljax.search.brackets import Asked
from rljax.search.store import Store
from rljax.sweep import points, running
from rljax.utils import atomic_io, platform

WRITE_EVERY = 5.0  # seconds between two summaries of a search in progress in search.json


class Done(NamedTuple):
    """A search that has ended, in order."""

    summary: dict
    failures: list
    exit_status: int  # of a program that does this search


@contextlib.contextmanager
def prepared(asked: Asked) -> Iterator[Callable[[], Done]]:
    """A search, checked as far as possible, in a locked directory: yields a function, to be called
    once, that trains what is left and reports.

    Raises:
        ValueError, TypeError: a setting is wrong, or the directory is of another search.
        KeyboardInterrupt: a signal came before training.
        WriteError: something could not be written; what was saved before is whole.
    """
    begun = time.perf_counter()
    with interrupts.noted() as signals, contextlib.ExitStack() as stack:
        brackets.check(asked)
        factorizes = any(map(envs.factorizes, asked.envs))
        devices = platform.cpu_devices(factorizes)
        on_device = platform.computing_on(asked.options.device, devices, factorizes=factorizes)
        device = stack.enter_context(on_device)
        signals.check()
        metrics = _checked(asked)
        search, folder = asked.search, asked.options.run_dir
        made = search.sampler, asked.axes, search.sampling_seed, folder
        sampler = None
        if search.storage:  # else it is in the folder
            sampler = samplers.make(*made, search.storage, search.study)
        stack.enter_context(_opened(asked, device))
        sampler = sampler or samplers.make(*made, None, search.study)
        store = Store(folder, metrics)
        state = brackets.State(asked, sampler)
        store.replayed(state)
        if _is_done(folder):
            yield lambda: _complete(folder, asked.options.quiet)
        else:
            yield lambda: _train(state, store, signals, device, begun)


def _checked(asked):
    """The metrics of the trials. The ends of each axis are tried, as far as it is so cheap."""
    places = [dict.fromkeys(asked.axes, x) for x in (0.0, 0.5, 1 - 1e-9)]
    made = {i: spaces.point_at(asked.axes, place) for i, place in enumerate(places)}
    for name, axis in asked.axes.items():
        if not isinstance(axis.values, points.Range):
            for value in axis.values:
                made[len(made)] = {**made[1], name: value}
    return running.check(asked.groups(made))


@contextlib.contextmanager
def _opened(asked, device):
    """The search's directory, made if it is new, and locked."""
    folder = asked.options.run_dir
    if (folder / "config.json").exists():
        saved = directory.read_record(folder)
        _check_same(asked, saved)
        now = directory.provenance(device)
        with directory.lock(folder):
            atomic_io.tidy(folder)
            atomic_io.tidy(folder / "rungs")
            if not _is_done(folder):
                directory.warn_of_changes(saved, now)
                again = [*saved.get("resumed", []), now]
                atomic_io.write_json(folder / "config.json", {**saved, "resumed": again})
            yield
        return
    directory.create(folder, {**_record(asked), **directory.provenance(device)})
    with directory.lock(folder):
        yield


def _record(asked):
    told = settings.Settings(asked.options.algorithm, asked.base, asked.options, asked.own)
    record = settings.record(told)
    search = {**dataclasses.asdict(asked.search), "budget": asked.search.steps}
    search["sampler"] = str(asked.search.sampler)
    axes = spaces.recorded(asked.axes)
    return {**record, "algorithm": "search", "run": {**record["run"], **search}, "axes": axes}


_MAY_CHANGE = ("device", "quiet", "resume", "log_format", "run_dir", "max_parallel", "storage")


def _check_same(asked, saved):
    where = f"run_dir = {str(asked.options.run_dir)!r}"
    if saved.get("algorithm") != "search":
        raise ValueError(f"{where}: is a run of {saved.get('algorithm')}, not a search")
    now = atomic_io.parse_json(atomic_io.json_bytes(_record(asked)))
    for part in ("run", "axes"):
        there, here = (
            {n: x for n, x in record[part].items() if n not in _MAY_CHANGE}
            for record in (saved, now)
        )
        if changes := settings.others(there, here):
            raise ValueError(f"{where}: the search has {changes}")
    if changes := settings.others(saved["config"], now["config"]):
        raise ValueError(f"{where}: the search has {changes}")


def _is_done(folder):
    try:
        return atomic_io.read_json(folder / "search.json")["status"] == "completed"
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _complete(folder, quiet):
    if not quiet:
        print(f"{folder} is complete: there is nothing left to do")
    return Done(atomic_io.read_json(folder / "search.json"), [], 0)


def _train(state, store, signals, device, begun):
    asked = state.asked
    total = asked.search.steps
    seeds = len(asked.options.seeds)
    title = f"Search · {asked.options.algorithm.upper()} · {', '.join(map(str, asked.envs))}"
    title += f" · {total:,} env steps, {seeds} seeds of each point"
    how = asked.options.quiet, asked.options.log_format
    done = state.env_steps
    with Display(f"{title} · {device}", min(done, total), total, *how) as display:
        follower = Follower(state, store, display, begun)
        status, exit_status = "completed", 0
        try:
            with contextlib.closing(training.run(state, store)) as steps:
                for step in steps:
                    follower.take(step)
                    signals.check()
            follower.searched()
            has_found = any(np.isfinite(returns).any() for _, returns in state.reached.values())
            if follower.failures and not has_found:
                status, exit_status, fresh = "failed", 1, None
            else:
                display.phase("fresh seeds")
                fresh = verdict.fresh_runs(state, store.folder, follower.take_fresh, signals)
        except KeyboardInterrupt:
            status, exit_status, fresh = "interrupted", signals.exit_status, None
        display.phase("writing")
        summary = follower.summary(status)
        if status == "completed":
            summary |= verdict.of(state, fresh)
        report.finish(state, summary, store.folder, display)
    return Done(summary, follower.failures, exit_status)


class Follower:
    """A search in progress: its rows go to its table, and its numbers to its display."""

    def __init__(self, state: Any, store: Store, display: Display, begun: float):
        self.state, self.store, self.display = state, store, display
        journal = store.journal
        self.env_steps, self.train_seconds = state.env_steps, journal.train_seconds
        self.trained_before = journal.train_seconds
        self.begun, self.wrote = begun - journal.wall_seconds, -np.inf
        self.compile_seconds = self.fresh_seconds = 0.0
        self.loop_begun, self.loop_seconds = time.perf_counter(), 0.0
        self.fresh_steps, self.failures = 0, []

    def take(self, step: Any) -> None:
        """Records a `results.Progress`."""
        self.env_steps += step.env_steps
        self.train_seconds += step.seconds
        self.compile_seconds += step.compile_seconds
        now = time.perf_counter()
        if step.failure:
            self.failures.append(step.failure)
        if step.result:
            self.store.add(step.result, self.train_seconds, now - self.begun)
        if now - self.wrote > WRITE_EVERY:
            atomic_io.write_json(self.store.folder / "search.json", self.summary("running"))
            self.wrote = now
        if step.compile_seconds:
            self.display.phase("compiling")
        self.display.update(self.env_steps, self.speed(), below=self._below())

    def searched(self) -> None:
        """All but the fresh seeds is done."""
        self.loop_seconds = time.perf_counter() - self.loop_begun

    def take_fresh(self, step: Any) -> None:
        self.fresh_steps += step.env_steps
        self.fresh_seconds += step.seconds
        self.failures += [step.failure] * bool(step.failure)

    def speed(self) -> float:
        """Environment steps per second, without compilations."""
        return self.env_steps / self.train_seconds if self.train_seconds else 0.0

    def _below(self):
        state = self.state
        if not state.brackets:
            return ""
        bracket = state.brackets[-1]
        rung = min(len(bracket.rungs) + 1, len(bracket.ends))
        text = f"bracket {len(state.brackets)} · rung {rung}/{len(bracket.ends)}"
        text += f" · {len(bracket.live) or len(bracket.points):,} of {len(bracket.points):,} points"
        return text + self._best(sum(len(bracket.rungs) for bracket in state.brackets))

    @lru_cache(maxsize=1)  # noqa: B019  of one object
    def _best(self, num_rungs):
        """The best point after this number of rungs, in words."""
        state = self.state
        if not num_rungs:
            return ""
        best = state.best()[0]
        score = float(state.scores({best: state.reached[best][1]}).mean())
        known = f" {score:,.2f}" * (len(state.asked.envs) == 1)
        return f" · best so far{known} at {points.describe(state.points[best])}"

    def summary(self, status: str) -> dict:
        """The content of search.json, without what was found."""
        state, asked = self.state, self.state.asked
        wall = time.perf_counter() - self.begun
        known = self.train_seconds - self.trained_before + self.compile_seconds
        return {
            "algorithm": asked.options.algorithm,
            "env": ", ".join(map(str, asked.envs)),
            "status": status,
            "axes": list(asked.axes),
            "budget": asked.search.steps,
            "env_steps": state.env_steps,
            "points": len(state.points),
            "seeds": asked.options.seeds,
            "brackets": [_told(bracket) for bracket in state.brackets],
            "trials_finished": len(self.store.journal.trials),
            "trials_failed": len(self.failures),
            "trials_without_return": _without(state),
            "steps_per_second": self.speed(),
            "seconds": {
                "training": self.train_seconds,
                "compiling": self.compile_seconds,
                "fresh seeds": self.fresh_seconds,
                "wall": wall,
            },
            "share_not_training": _share(self.loop_seconds, known),
            "fresh_env_steps": self.fresh_steps,
        }


def _share(wall, known):
    return max(0.0, 1 - known / wall) if wall > 0 else 0.0


def _without(state):
    return int(sum(np.isnan(returns).sum() for _, returns in state.reached.values()))


def _told(bracket):
    names = ("share", "by_interval", "in_doubt", "env_steps")
    rungs = [
        {**{n: rung[n] for n in names}, "points": len(rung["scores"]), "kept": len(rung["kept"])}
        for rung in bracket.rungs
    ]
    return {"points": len(bracket.points), "rungs": rungs}


def search_of(run_dir: Path) -> Asked:
    """The settings of a saved search; raises ValueError or TypeError if it is none, or damaged."""
    from rljax import algorithms
    from rljax.search.options import SearchOptions
    from rljax.sweep.options import SweepOptions

    saved = directory.read_record(run_dir)
    if saved.get("algorithm") != "search" or "axes" not in saved:
        raise ValueError(f"{str(run_dir)!r} is a run of {saved.get('algorithm')}, not a search")
    told = saved["run"]
    try:
        options = _part(SweepOptions, told, run_dir=Path(run_dir), resume=None).validate()
        lists = {name: tuple(told[name]) for name in ("envs", "references")}
        search = _part(SearchOptions, told, **lists).validate()
        own = algorithms.find(options.algorithm).own_with(told)
        base = records.read_config(saved)
        axes = spaces.checked(spaces.restored(saved["axes"]), base, own)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"its config.json is of no search: {error}") from error
    return Asked(base, options, search, own, axes)


def _part(kind, told, **others):
    kept = {name: told[name] for name in kind.__dataclass_fields__ if name in told}
    return kind(**{**kept, **others})

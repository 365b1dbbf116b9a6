"""A search with a directory: trains what is left of it, and says what it found."""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from rljax import envs
from rljax.loggers.display import Display
from rljax.runs import directory, interrupts, records, settings
from rljax.search import axes as spaces
from rljax.search import brackets, report, samplers, training, verdict
from rljax.search.brackets import Asked
from rljax.search.follower import Follower
from rljax.search.store import Store
from rljax.sweep import running
from rljax.sweep.directory import Done, complete, is_done
from rljax.utils import atomic_io, errors, platform

SUMMARY = "search.json"


@contextlib.contextmanager
def prepared(asked: Asked, is_kept: bool = True) -> Iterator[Callable[[], Done]]:
    """A search, checked as far as possible, in a locked directory: yields a function, to be called
    once, that trains what is left and reports.

    Args:
        is_kept: whether the directory is there afterwards, and the search may be resumed.

    Raises:
        ValueError, TypeError: a setting is wrong, or the directory is of another search.
        KeyboardInterrupt: a signal came before training.
        WriteError: something could not be written; what was saved before is whole.
    """
    begun = time.perf_counter()
    with interrupts.noted() as signals, contextlib.ExitStack() as stack:
        asked = brackets.settled(asked)
        factorizes = any(map(envs.factorizes, asked.envs))
        devices = platform.cpu_devices(factorizes)
        on_device = platform.computing_on(asked.options.device, devices, factorizes=factorizes)
        device = stack.enter_context(on_device)
        signals.check()
        metrics = running.check(asked.groups(dict(enumerate(spaces.corners(asked.axes)))))
        search, folder = asked.search, asked.options.run_dir
        made = search.sampler, asked.axes, search.sampling_seed, folder
        sampler = None
        if search.storage:  # else it is in the folder
            sampler = samplers.make(*made, search.storage, search.study)
        stack.enter_context(_opened(asked, device))
        sampler = sampler or samplers.make(*made, None, search.study)
        store = Store(folder, metrics, is_kept)
        state = brackets.State(asked, sampler)
        store.replayed(state)
        if is_done(folder / SUMMARY):
            yield lambda: complete(folder / SUMMARY, asked.options.quiet)
        else:
            yield lambda: _train(state, store, signals, device, begun)


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
            if not is_done(folder / SUMMARY):
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
    if saved.get("algorithm") != "search" or "axes" not in saved:
        raise ValueError(f"{where}: holds no search, or its config.json is damaged")
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


def _train(state, store, signals, device, begun):
    asked, total = state.asked, state.asked.search.steps
    title = f"Search · {asked.options.algorithm.upper()} · {', '.join(map(str, asked.envs))}"
    title += f" · {total:,} env steps, {len(asked.options.seeds)} seeds of each point"
    how = asked.options.quiet, asked.options.log_format
    done = min(state.env_steps, total)
    with Display(f"{title} · {device}", done, total, *how) as display:
        follower = Follower(state, store, display, begun)
        status, exit_status, fresh = "completed", 0, None
        try:
            with contextlib.closing(training.run(state, store)) as steps:
                for step in steps:
                    follower.take(step)
                    signals.check()
            follower.searched()
            if state.has_found:
                display.phase("fresh seeds")
                fresh = verdict.fresh_runs(state, store.folder, follower.take_fresh, signals)
            else:
                status, exit_status = "failed", 1
        except KeyboardInterrupt:
            status, exit_status = "interrupted", signals.exit_status
        display.phase("writing")
        summary = follower.summary(status)
        if status == "completed":
            summary |= verdict.of(state, fresh) | {
                "fresh_env_steps": fresh.env_steps if fresh else 0
            }
        report.finish(state, summary, store.folder, display)
    return Done(summary, follower.failures, exit_status)


def search_of(run_dir: Path) -> Asked:
    """The settings of a saved search; raises ValueError or TypeError if it is none, or damaged."""
    from rljax import algorithms
    from rljax.search.options import SearchOptions
    from rljax.sweep.options import SweepOptions

    saved = directory.read_record(run_dir)
    if saved.get("algorithm") != "search" or "axes" not in saved:
        raise ValueError(f"{str(run_dir)!r} holds no search, or its config.json is damaged")
    told = saved["run"]
    try:
        options = settings.part(SweepOptions, told, run_dir=Path(run_dir), resume=None).validate()
        lists = {name: tuple(told[name]) for name in ("envs", "references")}
        search = settings.part(SearchOptions, told, **lists).validate()
        own = algorithms.find(options.algorithm).own_with(told)
        base = records.read_config(saved)
        axes = spaces.checked(spaces.restored(saved["axes"]), base, own)
    except errors.WRONG as error:
        raise ValueError(f"its config.json is of no search: {error}") from error
    return Asked(base, options, search, own, axes)

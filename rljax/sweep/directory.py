"""A sweep with a directory: trains the trials that it lacks, and writes tables and figures."""

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from rljax import algorithms, analysis, envs
from rljax.config import Config
from rljax.runs import directory, interrupts, records, settings
from rljax.sweep import parts, report, results, running, trials
from rljax.sweep import points as spaces
from rljax.sweep.follower import Follower, displayed
from rljax.sweep.journal import Journal
from rljax.sweep.options import SweepOptions
from rljax.utils import atomic_io, errors, hosts, platform, sharding
from rljax.utils.verified import DamagedError

SUMMARY = "sweep.json"
_SAME = ("algorithm", "seed", "num_seeds", "eval_episodes", "eval_mode", "eval_max_steps")


class Asked(NamedTuple):
    """The settings of a sweep."""

    base: Config
    options: SweepOptions
    own: tuple[Any, ...]  # the algorithm's own options: () or one dataclass
    points: list[dict]
    space: dict | None = None  # how the points were made, for config.json
    saved: dict | None = None  # config.json of a sweep that is resumed
    heat_map: bool = True  # the points are a grid
    is_joined: bool = False  # other processes, also on other machines, work on it as well

    @property
    def all_envs(self) -> list[Any]:
        """The environment, or all of them where they are an axis."""
        return [*dict.fromkeys(point.get("env", self.base.env) for point in self.points)]

    @property
    def envs(self) -> str:
        """Their names."""
        return ", ".join(map(str, self.all_envs))


class Checked(NamedTuple):
    """What a sweep trains, and where."""

    groups: list[trials.Group]
    metrics: list[str]  # columns of its table
    device: str  # which computes

    @property
    def trials(self) -> list[trials.Trial]:
        """All, in the order in which they are trained."""
        return [trial for group in self.groups for trial in group.trials]

    @property
    def env_steps(self) -> dict[int, int]:
        """Those that each trial takes, by its number."""
        return {x.number: x.config.num_updates * x.config.batch_size for x in self.trials}


class Done(NamedTuple):
    """A sweep, or a search, that has ended, in order."""

    summary: dict
    failures: list
    exit_status: int  # of a program that does this sweep


def resumed(asked: Asked) -> Asked:
    """The same sweep, resumed if its directory holds it.

    Raises:
        ValueError: the directory holds another sweep, or one that cannot be read.
    """
    options = asked.options
    if not (options.run_dir / "config.json").exists():
        return asked
    saved = directory.read_record(options.run_dir)
    points = [spaces.restored(point) for point in saved.get("points", [])]
    own = algorithms.find(options.algorithm).own_with(saved["run"])
    is_same = points == asked.points and own == asked.own
    is_same &= all(saved["run"].get(name) == getattr(options, name) for name in _SAME)
    if not is_same or records.read_config(saved) != asked.base:
        where = f"run_dir = {str(options.run_dir)!r}"
        raise ValueError(f"{where}: is of other settings than asked for")
    return asked._replace(saved=saved)


@contextlib.contextmanager
def prepared(asked: Asked) -> Iterator[Callable[[], Done]]:
    """A sweep, checked as far as possible, in a locked directory: yields a function, to be called
    once, that trains the missing trials, ranks the points and draws the figures.

    Raises:
        ValueError, TypeError: a setting is wrong, or the directory is of another sweep.
        KeyboardInterrupt: a signal came before training.
        WriteError: something could not be written; what was saved before is whole.
    """
    begun, options, opened = time.perf_counter(), asked.options, []
    with interrupts.noted() as signals, contextlib.ExitStack() as stack:
        processes = options.coordinator, options.num_processes, options.process_id
        stack.enter_context(hosts.connected(*processes))
        signals.is_shared = hosts.count() > 1
        checked = _spread(asked, stack.enter_context(computing(asked, signals)))
        train = stack.enter_context(running.engine(checked.groups, options))

        def begin():  # by process 0 alone
            opened.append(stack.enter_context(_opened(asked, checked)))
            _, journal, _ = opened[0]
            is_complete = len(journal.trials) == len(checked.trials)
            return is_complete and is_done(options.run_dir / SUMMARY), set(journal.trials)

        is_complete, done = hosts.from_first(begin)
        if is_complete:
            hosts.finished()
        if not hosts.is_first():
            done = {x.number for x in checked.trials} if is_complete else done
            yield lambda: _train_along(checked, options, done, train, signals)
        elif is_complete:
            yield lambda: complete(options.run_dir / SUMMARY, options.quiet)
        else:
            yield lambda: _train(asked, checked, *opened[0], train, signals, begun)


def _spread(asked, checked):
    """What several processes train as one; raises ValueError where they cannot."""
    if hosts.count() == 1:
        return checked
    for group in checked.groups:
        algorithms.check_one_program(asked.options.algorithm, group.trials[0].config, "coordinator")
    sharding.check_even()
    told = settings.in_common(asked.options.algorithm, asked.base, asked.options, asked.own)
    hosts.check_same({**told, "points": [*map(spaces.recorded, asked.points)]})
    return checked._replace(device=f"{checked.device}, {sharding.described()}")


@contextlib.contextmanager
def computing(asked: Asked, signals: interrupts.Interrupts) -> Iterator[Checked]:
    """Makes JAX compute on the sweep's device in the block, in which its trials are checked; raises
    as `prepared` does."""
    options = asked.options.validate()
    factorizes = any(map(envs.factorizes, asked.all_envs))
    devices = platform.cpu_devices(factorizes)
    with platform.computing_on(options.device, devices, factorizes=factorizes) as device:
        signals.check()
        groups = trials.plan(asked.base, asked.points, options.seeds, options.algorithm, asked.own)
        yield Checked(groups, running.check(groups), device)


@contextlib.contextmanager
def _opened(asked, checked):
    """(the sweep's directory, made if it is new, and locked, its journal, `finished`)."""
    if asked.saved is None:
        create(asked, checked)
    folder = asked.options.run_dir
    with directory.lock(folder):
        atomic_io.tidy(folder)
        journal = Journal(folder, checked.metrics)
        parts.merge(folder, journal, {x.number: i for i, x in enumerate(checked.trials)})
        parts.remove(folder, parts.names(folder))
        yield folder, journal, finished(folder, journal, checked.groups)


def create(asked: Asked, checked: Checked) -> None:
    """Makes the sweep's directory with its config.json; raises as `directory.create` does."""
    from rljax import networks, rollout

    configs = [group.trials[0].config for group in checked.groups]
    chosen = [networks.describe(x, rollout.make_env_and_network(x)[0].spec) for x in configs]
    told = settings.Settings(asked.options.algorithm, asked.base, asked.options, asked.own)
    record = settings.record(told)
    record |= {
        "algorithm": "sweep",
        "run": {**record["run"], **(asked.space or {})},
        **directory.provenance(checked.device),
        "points": [*map(spaces.recorded, asked.points)],
        "networks": chosen,
    }
    directory.create(asked.options.run_dir, record, needs_locks=not asked.is_joined)


def finished(folder: Path, journal: Journal, groups: list) -> Any:
    """`analysis.final_returns` of the finished trials, None if there are none; raises DamagedError
    if the table is damaged, or of other trials."""
    if not journal.trials:
        return None
    finals = analysis.final_returns(results.read(folder))
    points = {trial.number: trial.point for group in groups for trial in group.trials}
    found = dict(zip(finals["trial"], finals["point"]))
    is_same = found == {number: points.get(number) for number in journal.trials}
    first, *names = journal.columns[: 4 + len(groups[0].trials[0].settings)]
    is_same &= names == ["point", "seed", *groups[0].trials[0].settings, "env_steps"]
    if not is_same or first not in ("trial", results.OLD_TRIAL):
        raise DamagedError(f"{journal.table} is of other trials than {folder}'s")
    return finals


def is_done(summary: Path) -> bool:
    """Whether a sweep, or a search, is completed by its sweep.json or search.json."""
    try:
        return atomic_io.read_json(summary)["status"] == "completed"
    except (OSError, *errors.WRONG):
        return False


def complete(summary: Path, quiet: bool) -> Done:
    """One that is completed already, from this file."""
    if not quiet:
        print(f"{summary.parent} is complete: there is nothing left to do")
    return Done(atomic_io.read_json(summary), [], 0)


def _train_along(checked, options, done, train, signals):
    """Another process's part in a sweep that process 0 writes."""
    failed = False
    try:
        with contextlib.closing(train(checked.groups, options, done)) as steps:
            for step in steps:
                failed |= step.failure is not None
                signals.agree()
                signals.check()
        status = int(failed)
    except KeyboardInterrupt:
        status = signals.exit_status
    _finish_together(signals, status)
    return Done({"agents_finished": 0}, [], status)


def _finish_together(signals, status):
    """Nobody is waited for after the last trial, or after a signal that all have had."""
    if status in (0, 1) or signals.received:
        hosts.finished()


def _train(asked, checked, folder, journal, finals, train, signals, begun):
    if asked.saved:
        again = directory.provenance(checked.device)
        directory.warn_of_changes(asked.saved, again)
        saved = directory.read_record(folder)
        resumed = [*saved.get("resumed", []), again]
        atomic_io.write_json(folder / "config.json", {**saved, "resumed": resumed})
    with displayed(asked, checked, journal.trials) as display:
        follower = Follower(asked, checked, folder, journal, display, begun)
        if finals is not None:
            follower.note(finals)
        status, exit_status = "completed", 0
        try:
            follower.follow(signals, set(journal.trials), train)
        except KeyboardInterrupt:
            status, exit_status = "interrupted", signals.exit_status
        if status == "completed" and follower.failures:
            status, exit_status = "failed", 1
        _finish_together(signals, exit_status)
        display.phase("writing")
        summary = follower.summary(status)
        report.finish(asked, summary, folder, display)
    return Done(summary, follower.failures, exit_status)

"""A sweep with a directory: trains the trials that it lacks, and writes tables and figures."""

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rljax import analysis, envs
from rljax.config import Config
from rljax.loggers.display import Display
from rljax.runs import directory, interrupts, records, settings
from rljax.sweep import points as spaces
from rljax.sweep import report, results, running, trials
from rljax.sweep.journal import Journal
from rljax.sweep.options import SweepOptions
from rljax.utils import atomic_io, errors, platform

SUMMARY = "sweep.json"
WRITE_EVERY = 5.0  # seconds between two summaries of a sweep in progress in sweep.json


class Asked(NamedTuple):
    """The settings of a sweep."""

    base: Config
    options: SweepOptions
    own: tuple[Any, ...]  # the algorithm's own options: () or one dataclass
    points: list[dict]
    space: dict | None = None  # how the points were made, for config.json
    saved: dict | None = None  # config.json of a sweep that is resumed
    heat_map: bool = True  # the points are a grid

    @property
    def all_envs(self) -> list[Any]:
        """The environment, or all of them where they are an axis."""
        return [*dict.fromkeys(point.get("env", self.base.env) for point in self.points)]

    @property
    def envs(self) -> str:
        """Their names."""
        return ", ".join(map(str, self.all_envs))


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
    seeds = [saved["run"].get(name) for name in ("seed", "num_seeds")]
    is_same = points == asked.points and seeds == [options.seed, options.num_seeds]
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
    begun, options = time.perf_counter(), asked.options
    with interrupts.noted() as signals, contextlib.ExitStack() as stack:
        options.validate()
        factorizes = any(map(envs.factorizes, asked.all_envs))
        devices = platform.cpu_devices(factorizes)
        on_device = platform.computing_on(options.device, devices, factorizes=factorizes)
        device = stack.enter_context(on_device)
        signals.check()
        groups = trials.plan(asked.base, asked.points, options.seeds, options.algorithm, asked.own)
        metrics = running.check(groups)
        train = stack.enter_context(running.engine(groups, options))
        folder = stack.enter_context(_opened(asked, groups, device))
        journal = Journal(folder, metrics)
        finals = _finished(folder, journal, groups)
        if len(journal.trials) == sum(len(group.trials) for group in groups) and is_done(
            folder / SUMMARY
        ):
            yield lambda: complete(folder / SUMMARY, options.quiet)
        else:
            plan = asked, groups, folder, journal
            yield lambda: _train(*plan, train, finals, signals, device, begun)


@contextlib.contextmanager
def _opened(asked, groups, device):
    """The sweep's directory, made if it is new, and locked."""
    if asked.saved is None:
        _create(asked, groups, device)
    folder = asked.options.run_dir
    with directory.lock(folder):
        atomic_io.tidy(folder)
        yield folder


def _create(asked, groups, device):
    from rljax import networks, rollout

    configs = [group.trials[0].config for group in groups]
    chosen = [networks.describe(x, rollout.make_env_and_network(x)[0].spec) for x in configs]
    told = settings.Settings(asked.options.algorithm, asked.base, asked.options, asked.own)
    record = settings.record(told)
    record |= {
        "algorithm": "sweep",
        "run": {**record["run"], **(asked.space or {})},
        **directory.provenance(device),
        "points": [*map(spaces.recorded, asked.points)],
        "networks": chosen,
    }
    directory.create(asked.options.run_dir, record)


def _finished(folder, journal, groups):
    """`analysis.final_returns` of the finished trials, None if there are none; raises ValueError if
    the table is damaged, or of other trials."""
    if not journal.trials:
        return None
    finals = analysis.final_returns(results.read(folder))
    points = {trial.number: trial.point for group in groups for trial in group.trials}
    found = dict(zip(finals["trial"], finals["point"]))
    is_same = found == {number: points.get(number) for number in journal.trials}
    first, *names = journal.columns[: 4 + len(groups[0].trials[0].settings)]
    is_same &= names == ["point", "seed", *groups[0].trials[0].settings, "env_steps"]
    if not is_same or first not in ("trial", results.OLD_TRIAL):
        raise ValueError(f"{journal.table} is of other trials than {folder}'s")
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


def _train(asked, groups, folder, journal, train, finals, signals, device, begun):
    options = asked.options
    if asked.saved:
        again = directory.provenance(device)
        directory.warn_of_changes(asked.saved, again)
        resumed = [*asked.saved.get("resumed", []), again]
        atomic_io.write_json(folder / "config.json", {**asked.saved, "resumed": resumed})
    all_trials = [trial for group in groups for trial in group.trials]
    steps = {x.number: x.config.num_updates * x.config.batch_size for x in all_trials}
    before, total = sum(steps[number] for number in journal.trials), sum(steps.values())
    numbers = {"point": len(asked.points), "seed": len(options.seeds)}
    size = " x ".join(report.plural(number, what) for what, number in numbers.items())
    title = f"Sweep · {options.algorithm.upper()} · {asked.envs} · {size}"
    title += f" · from {len(journal.trials):,} trials" * bool(before)
    how = options.quiet, options.log_format
    with Display(f"{title} · {device}", before, total, *how) as display:
        follower = Follower(asked, groups, folder, journal, display, before, begun)
        if finals is not None:
            follower.note(finals)
        status, exit_status = "completed", 0
        try:
            follower.follow(train, signals)
        except KeyboardInterrupt:
            status, exit_status = "interrupted", signals.exit_status
        if status == "completed" and follower.failures:
            status, exit_status = "failed", 1
        display.phase("writing")
        summary = follower.summary(status)
        report.finish(asked, summary, folder, display)
    return Done(summary, follower.failures, exit_status)


class Follower:
    """A sweep in progress: its results go to its files and its display."""

    def __init__(self, asked, groups, folder, journal, display, env_steps, begun):
        self.asked, self.groups, self.folder = asked, groups, folder
        self.journal, self.display = journal, display
        self.env_steps, self.train_seconds = env_steps, journal.train_seconds
        self.begun, self.wrote = begun - journal.wall_seconds, -np.inf
        self.failures, self.diverged, self.best = [], 0, (-np.inf, "")
        self.group_of = {x.number: i for i, group in enumerate(groups) for x in group.trials}
        self.left = [len(group.trials) for group in groups]
        self.returns = {index: [] for index in range(len(asked.points))}

    def follow(self, train, signals) -> None:
        """Trains all trials that are left; raises KeyboardInterrupt if a signal came."""
        steps = train(self.groups, self.asked.options, set(self.journal.trials))
        with contextlib.closing(steps):
            for step in steps:
                self.take(step)
                signals.check()

    def take(self, step) -> None:
        """Records a `results.Progress`."""
        self.env_steps += step.env_steps
        self.train_seconds += step.seconds
        if step.failure:
            self.failures.append(step.failure)
        if step.result:
            now = time.perf_counter()
            self.journal.add(step.result, self.train_seconds, now - self.begun)
            self.note(analysis.final_returns(results.columns(step.result)))
            if now - self.wrote > WRITE_EVERY:
                atomic_io.write_json(self.folder / "sweep.json", self.summary("running"))
                self.wrote = now
        self.display.update(self.env_steps, self.speed(), below=self._counts())
        if step.result and any(self.left) and not self.left[self._group(step.result)]:
            self.display.phase("compiling")  # the next group

    def _group(self, result):
        return self.group_of[result.trials[0].number]

    def speed(self) -> float:
        """Environment steps per second over all trials, without compilations and evaluations."""
        return self.env_steps / self.train_seconds if self.train_seconds else 0.0

    def note(self, finals) -> None:
        """Notes final returns of finished trials; the best point is one with all its seeds."""
        self.diverged += int(finals["diverged"].sum())
        for number in finals["trial"]:
            self.left[self.group_of[number]] -= 1
        for point, value in zip(finals["point"], finals["final_return"]):
            returns = self.returns[point]
            returns.append(-np.inf if np.isnan(value) else value)
            if len(returns) == len(self.asked.options.seeds):
                score = float(analysis.iqm(returns))
                if score > self.best[0]:
                    self.best = score, spaces.describe(self.asked.points[point])

    def _counts(self):
        text = f"{len(self.journal.trials):,}/{len(self.group_of):,} trials"
        if len(self.groups) > 1:
            group = min(self.left.count(0) + 1, len(self.groups))
            text = f"group {group}/{len(self.groups)} · {text}"
        score, best = self.best
        return f"{text} · best so far {score:,.2f} at {best}" if best else text

    def summary(self, status: str) -> dict:
        """The content of sweep.json, without the ranking."""
        asked, (score, best) = self.asked, self.best
        return {
            "algorithm": asked.options.algorithm,
            "env": asked.envs,
            "status": status,
            "axes": list(asked.points[0]),
            "points": len(asked.points),
            "seeds": asked.options.seeds,
            "groups": [{"settings": x.static, "agents": len(x.trials)} for x in self.groups],
            "agents": len(self.group_of),
            "agents_finished": len(self.journal.trials),
            "agents_diverged": self.diverged,
            "agents_failed": len(self.failures),
            "env_steps": self.env_steps,
            "steps_per_second": self.speed(),
            "train_seconds": self.train_seconds,
            "wall_seconds": time.perf_counter() - self.begun,
            "best": {"settings": best, "iqm": score} if best else None,
        }

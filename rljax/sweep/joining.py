"""A sweep that several processes work on, also on machines that share its folder.

Each claims the trials of a batch before it trains them (`ownership`), and writes what it finishes
into a part of its own (`parts`). What an ended process had claimed is claimed again. When all
trials are finished, one of the processes merges the parts, ranks the points and draws the figures.
"""

import contextlib
import shlex
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from rljax.runs import directory, interrupts
from rljax.sweep import parts, report, running
from rljax.sweep.directory import (
    SUMMARY,
    Asked,
    Checked,
    Done,
    complete,
    computing,
    create,
    finished,
    is_done,
    resumed,
)
from rljax.sweep.follower import Follower, displayed
from rljax.sweep.journal import Journal
from rljax.sweep.ownership import Claimant, claimant
from rljax.sweep.results import Failure
from rljax.utils import atomic_io, errors
from rljax.utils.errors import TrainingError
from rljax.utils.verified import DamagedError

MAKING = 5.0  # seconds that another process may take to make the directory
LOOK_EVERY = 1.0  # seconds between two looks at what others do, where there is nothing to train
MERGE = "merge"  # the claim of the one that merges


@contextlib.contextmanager
def prepared(asked: Asked) -> Iterator[Callable[[], Done]]:
    """A sweep, checked as far as possible, in a directory that is made if there is none: yields a
    function, to be called once, that trains the trials that nobody else trains, until all are
    finished.

    Raises:
        ValueError, TypeError: a setting is wrong, the directory is of another sweep, or a process
            works on it alone.
        KeyboardInterrupt: a signal came before training.
        WriteError: something could not be written; what was saved before is whole.
    """
    begun = time.perf_counter()
    if (engine := asked.options.engine) != "local":
        raise ValueError(f"engine = {engine!r}: cannot be joined; Ray spreads a sweep itself")
    with interrupts.noted() as signals, contextlib.ExitStack() as stack:
        checked = stack.enter_context(computing(asked, signals))
        asked = _made(asked, checked)
        folder = asked.options.run_dir
        stack.enter_context(directory.lock(folder, is_shared=True, needs_locks=False))
        is_whole = len(parts.Reader(folder).merged()) == len(checked.trials)
        if is_whole and is_done(folder / SUMMARY):
            yield lambda: complete(folder / SUMMARY, asked.options.quiet)
        else:
            yield lambda: _train(asked, checked, folder, signals, begun)


def _made(asked, checked):
    """The sweep with its directory, which other processes may be making at the same moment."""
    folder, end = asked.options.run_dir, time.monotonic() + MAKING
    while asked.saved is None:
        try:
            create(asked, checked)
            return asked
        except ValueError:
            is_there, is_begun = (folder / "config.json").exists(), (folder / ".lock").exists()
            if is_there:
                return resumed(asked)
            if not is_begun or time.monotonic() > end:
                raise
        time.sleep(0.1)
    directory.warn_of_changes(asked.saved, directory.provenance(checked.device))
    return asked


class _Joiner(NamedTuple):
    """This process, and what it works on."""

    asked: Asked
    checked: Checked
    folder: Path
    me: Claimant
    reader: parts.Reader
    past: frozenset[str]  # the parts whose failures are from before: their trials are tried again
    follower: Follower
    signals: interrupts.Interrupts

    def settled(self) -> set[int]:
        """The trials that are finished, or that failed."""
        return self.reader.finished().union(self.reader.failures(self.past))

    def wait(self) -> None:
        """A second; raises KeyboardInterrupt if a signal came."""
        end = time.monotonic() + LOOK_EVERY
        while time.monotonic() < end:
            self.signals.check()
            time.sleep(0.05)


def _train(asked, checked, folder, signals, begun):
    reader = parts.Reader(folder)
    with claimant(folder / parts.FOLDER) as me:
        past = frozenset(x for x in parts.names(folder) if not me.is_alive(x))
        part = parts.begin(folder, me.name, directory.provenance(checked.device))
        journal = Journal(part, checked.metrics)
        title = f" · joined as {me.name}"
        with displayed(asked, checked, reader.finished(), title) as display:
            follower = Follower(asked, checked, folder, journal, display, begun)
            joiner = _Joiner(asked, checked, folder, me, reader, past, follower, signals)
            try:
                _train_all(joiner)
                return _merged(joiner)
            except DamagedError as error:  # a part of another process
                raise TrainingError(str(error)) from error
            except KeyboardInterrupt:
                display.stop()
                summary = follower.summary("interrupted")
                text = f"continue with: --join {shlex.quote(str(folder))}"
                display.result(summary, lambda console: console.print(text, soft_wrap=True))
                return Done(summary, follower.failures, signals.exit_status)


def _train_all(joiner):
    """Trains what nobody else does, until all trials are finished or have failed."""
    follower, numbers = joiner.follower, {trial.number for trial in joiner.checked.trials}
    steps, is_waiting = joiner.checked.env_steps, False
    while left := numbers - joiner.settled():
        elsewhere = numbers - left - set(follower.journal.trials)
        follower.elsewhere = len(elsewhere)
        follower.steps_elsewhere = sum(steps[number] for number in elsewhere)
        free = left - set(map(int, joiner.me.owned() - {MERGE}))
        if free:
            is_waiting = False
            _train_free(joiner, numbers - free)
            continue
        if not is_waiting:
            follower.display.phase(f"waiting for {len(left):,} trials of others")
            is_waiting = True
        joiner.wait()


def _train_free(joiner, others):
    """Trains the trials that are not among the others, unless these are claimed meanwhile."""
    me, follower = joiner.me, joiner.follower

    def take(trials):
        taken = set(me.claim([str(trial.number) for trial in trials]))
        settled = set(map(str, joiner.settled()))  # by now: claims end after that
        me.release(taken & settled)
        return [trial for trial in trials if str(trial.number) in taken - settled]

    groups, options = joiner.checked.groups, joiner.asked.options
    with contextlib.closing(running.chunks(groups, options, others, take)) as steps:
        for step in steps:
            if step.failure:
                part = follower.journal.table.parent
                parts.note_failure(part, step.failure.trial.number, step.failure.why)
            follower.take(step)
            if step.result:
                me.release([str(trial.number) for trial in step.result.trials])
            joiner.signals.check()


def _merged(joiner):
    """The sweep's end: merged by this process, or before by another one."""
    asked, checked, folder, me = joiner.asked, joiner.checked, joiner.folder, joiner.me
    display = joiner.follower.display
    while not me.claim([MERGE]):
        joiner.wait()
    trials = {trial.number: trial for trial in checked.trials}
    failures, merged = joiner.reader.failures(joiner.past), joiner.reader.merged()
    left = sorted(failures.keys() - joiner.reader.finished())
    failures = [Failure(trials[number], failures[number]) for number in left]
    if joiner.reader.finished() == merged and (summary := _summary(folder, merged)):
        parts.remove(folder, [] if joiner.follower.failures else [me.name])
        display.stop()
        files = [], folder, summary["status"]
        display.result(summary, lambda console: report.print_files(console, *files))
        return Done(summary, failures, int(summary["status"] != "completed"))
    display.phase("writing")
    journal = Journal(folder, checked.metrics)
    parts.merge(folder, journal, {number: i for i, number in enumerate(trials)})
    whole = Follower(asked, checked, folder, journal, display, time.perf_counter())
    if (finals := finished(folder, journal, checked.groups)) is not None:
        whole.note(finals)
    whole.failures = failures
    summary = whole.summary("failed" if failures else "completed")
    report.finish(asked, summary, folder, display)
    gone = [name for name in parts.names(folder) if not me.is_alive(name) or name == me.name]
    parts.remove(folder, [] if failures else gone)
    return Done(summary, failures, int(bool(failures)))


def _summary(folder, numbers):
    """sweep.json if it is of all trials of these numbers, and at the sweep's end; else None."""
    try:
        summary = atomic_io.read_json(folder / SUMMARY)
        is_right = summary["agents_finished"] == len(numbers)
        return summary if is_right and summary["status"] in ("completed", "failed") else None
    except (OSError, *errors.WRONG):
        return None

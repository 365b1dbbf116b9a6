"""A sweep in progress, as its files and its display show it."""

import contextlib
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np

from rljax import analysis
from rljax.loggers.display import Display
from rljax.sweep import points as spaces
from rljax.sweep import report, results
from rljax.sweep.journal import Journal
from rljax.utils import atomic_io

WRITE_EVERY = 5.0  # seconds between two summaries of a sweep in progress in sweep.json


def displayed(asked: Any, checked: Any, done: Collection[int], more: str = "") -> Display:
    """The display of a `directory.Asked`, of which the trials of these numbers are finished."""
    numbers = {"point": len(asked.points), "seed": len(asked.options.seeds)}
    size = " x ".join(report.plural(number, what) for what, number in numbers.items())
    title = f"Sweep · {asked.options.algorithm.upper()} · {asked.envs} · {size}"
    title += f" · from {len(done):,} trials" * bool(done)
    steps = checked.env_steps
    before = sum(steps[number] for number in done)
    how = asked.options.quiet, asked.options.log_format
    title = f"{title} · {checked.device}{more}"
    return Display(title, before, sum(steps.values()), *how)


class Follower:
    """A sweep in progress: its results go to its files and its display. Where others work on it as
    well, it is this process's share of it, and writes no summary."""

    def __init__(
        self,
        asked: Any,
        checked: Any,
        folder: Path,
        journal: Journal,
        display: Display,
        begun: float,
    ):
        groups = checked.groups
        self.asked, self.groups, self.folder = asked, groups, folder
        self.journal, self.display = journal, display
        steps = checked.env_steps
        self.env_steps = sum(steps[number] for number in journal.trials)
        self.train_seconds = journal.train_seconds
        self.elsewhere = self.steps_elsewhere = 0  # trials that others finished, and their steps
        self.begun, self.wrote = begun - journal.wall_seconds, -np.inf
        self.failures, self.diverged, self.best = [], 0, (-np.inf, "")
        self.group_of = {x.number: i for i, group in enumerate(groups) for x in group.trials}
        self.left = [len(group.trials) for group in groups]
        self.returns = {index: [] for index in range(len(asked.points))}

    def follow(self, signals: Any, done: Collection[int], train: Callable) -> None:
        """Trains the trials that are not in `done`, by `running.chunks` or the like; raises
        KeyboardInterrupt if a signal came."""
        steps = train(self.groups, self.asked.options, done)
        with contextlib.closing(steps):
            for step in steps:
                self.take(step)
                signals.agree()
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
            if now - self.wrote > WRITE_EVERY and not self.asked.is_joined:
                atomic_io.write_json(self.folder / "sweep.json", self.summary("running"))
                self.wrote = now
        steps = self.env_steps + self.steps_elsewhere
        self.display.update(steps, self.speed(), below=self._counts())
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
        number = len(self.journal.trials) + self.elsewhere
        text = f"{number:,}/{len(self.group_of):,} trials"
        text += f", {self.elsewhere:,} elsewhere" * bool(self.elsewhere)
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

"""A search in progress, as its files and its display show it."""

import time
from functools import lru_cache
from typing import Any

import numpy as np

from rljax.loggers.display import Display
from rljax.search.store import Store
from rljax.sweep import points
from rljax.utils import atomic_io

WRITE_EVERY = 5.0  # seconds between two summaries of a search in progress in search.json


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
        self.failures = []

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
        self.fresh_seconds += step.seconds
        if self.display.live:
            self.display.phase("fresh seeds")
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
        if not np.isfinite(state.reached[best][1]).any():
            return ""
        score = float(state.scores({best: state.reached[best][1]}).mean())
        known = f" {score:,.2f}" * (len(state.asked.envs) == 1)
        return f" · best so far{known} at {points.describe(state.points[best])}"

    def summary(self, status: str) -> dict:
        """The content of search.json, without what was found."""
        state, asked = self.state, self.state.asked
        wall = time.perf_counter() - self.begun
        trained = self.train_seconds - self.trained_before
        others = self.loop_seconds - trained - self.compile_seconds
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
            "share_not_training": _share(others, trained),
            "fresh_env_steps": 0,
        }


def _share(others, known):
    return max(0.0, others) / (others + known) if others + known > 0 else 0.0


def _without(state):
    return int(sum(np.isnan(returns).sum() for _, returns in state.reached.values()))


def _told(bracket):
    names = ("share", "by_interval", "in_doubt", "env_steps")
    rungs = [
        {**{n: rung[n] for n in names}, "points": len(rung["scores"]), "kept": len(rung["kept"])}
        for rung in bracket.rungs
    ]
    return {"points": len(bracket.points), "rungs": rungs}

"""Trains many settings with many seeds, and writes one table and what it says.

python experiments/sweep.py --axis learning_rate=log:1e-4:1e-2:16 --axis num_steps=5,16
python experiments/sweep.py --sampling random --num-points 24 --axis learning_rate=log:5e-3:4e-2
python experiments/sweep.py --algorithm a3c --axis num_workers=1,2,4
python experiments/sweep.py --resume RUN_DIR
"""

import contextlib
import dataclasses
import os
import shlex
import sys
import time
from pathlib import Path

import common
import flags
import numpy as np
import start
from display import Display, print_sweep
from sweep_options import ask

from rljax import analysis, runs, sweep
from rljax.sweep import points as spaces
from rljax.utils import atomic_io

SHOWN = 10
"""Points in the ending table, at most."""
SHOWN_FAILURES = 3
"""Agents of which it is said why they failed, at most."""
CURVES = 5
"""Points in the figure of learning curves, at most."""
WRITE_EVERY = 5.0
"""Seconds between two looks that sweep.json gives at a sweep under way."""


def main(argv: list[str]) -> int:
    """Runs; returns the exit status."""
    begun = time.perf_counter()

    def run(signals, stack):
        try:
            asked = ask(__doc__.splitlines()[0], argv)
            cores = len(os.sched_getaffinity(0))
            device = flags.set_device(asked.options.device, cpu_devices=cores)
            signals.check()
            groups = sweep.plan(asked.base, asked.points, asked.seeds, asked.workers)
            sweep.check(groups)
            folder, journal = stack.enter_context(_opened(asked, groups, device))
            finals = _finished(folder, journal, groups)
        except (ValueError, TypeError) as error:
            return flags.fail(error)
        return train(asked, groups, folder, journal, finals, signals, device, begun)

    return common.ended_in_order(run)


@contextlib.contextmanager
def _opened(asked, groups, device):
    """The sweep's directory, locked, and its `sweep.Journal`."""
    from rljax import networks, rollout

    options = asked.options
    own = () if asked.workers is None else (asked.workers,)
    if asked.saved is None:
        name = f"sweep-{options.algorithm}"
        folder = options.run_dir or start.default_run_dir(asked.base, name, options.seed)
        record = start.record(
            "sweep", asked.base, device, dataclasses.replace(options, run_dir=folder), *own
        )
        configs = [group.agents[0].config for group in groups]
        chosen = [networks.describe(x, rollout.make_env_and_network(x)[0].spec) for x in configs]
        listed = [*map(spaces.recorded, asked.points)]
        runs.create(folder, {**record, "points": listed, "networks": chosen})
    else:
        folder = options.resume
    with runs.lock(folder):
        atomic_io.tidy(folder)
        header = sweep.header(asked.points[0], options.algorithm == "a3c")
        yield folder, sweep.Journal(folder, header)


def _finished(folder, journal, groups):
    """What `analysis.final_returns` gives of the agents that are finished; None where none is.

    Raises:
        ValueError: the table is damaged, or of other agents.
    """
    if not journal.agents:
        return None
    finals = analysis.final_returns(sweep.read(folder))
    points = {agent.number: agent.point for group in groups for agent in group.agents}
    found = dict(zip(finals["agent"], finals["point"]))
    if set(found) != set(journal.agents) or any(points.get(n) != x for n, x in found.items()):
        raise ValueError(f"{journal.table} is of other agents than {folder}'s")
    return finals


def train(asked, groups, folder, journal, finals, signals, device, begun) -> int:
    """Trains what is not finished yet, and writes and shows it; returns the exit status."""
    options = asked.options
    if _is_complete(folder, groups, journal):
        print(f"{folder} is complete: there is nothing left to do")
        return 0
    if asked.saved:
        again = start.compared(asked.saved, device)
        resumed = [*asked.saved.get("resumed", []), again]
        atomic_io.write_json(folder / "config.json", {**asked.saved, "resumed": resumed})
    size = f"{_many(len(asked.points), 'point')} x {_many(len(asked.seeds), 'seed')}"
    title = f"Sweep · {options.algorithm.upper()} · {asked.envs} · {size}"
    steps = {agent.number: _steps(agent) for group in groups for agent in group.agents}
    before, total = sum(steps[number] for number in journal.agents), sum(steps.values())
    if before:
        title += f" · from {len(journal.agents):,} agents"
    with Display(f"{title} · {device}", before, total, options.quiet) as display:
        follower = Follower(asked, groups, folder, journal, display, before, begun)
        if finals is not None:
            follower.note(finals)
        status, exit_status = "completed", 0
        try:
            follower.follow(signals)
        except KeyboardInterrupt:
            status, exit_status = "interrupted", signals.exit_status
        if status == "completed" and follower.failures:
            status, exit_status = "failed", 1
        display.phase("writing")
        finish(asked, follower.summary(status), folder, display)
    for failure in follower.failures[:SHOWN_FAILURES]:
        print(f"error: {failure.agent}: {failure.why}", file=sys.stderr)
    if more := follower.failures[SHOWN_FAILURES:]:
        print(f"error: {_many(len(more), 'other agent')} failed too", file=sys.stderr)
    return exit_status


def _is_complete(folder, groups, journal):
    if len(journal.agents) < sum(len(group.agents) for group in groups):
        return False
    try:
        return atomic_io.read_json(folder / "sweep.json")["status"] == "completed"
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _steps(agent):
    return agent.config.num_updates * agent.config.batch_size


def _many(number, what):
    return f"{number:,} {what}{'s' * (number > 1)}"


class Follower:
    """A sweep under way: what its steps bring goes to its files and its display."""

    def __init__(self, asked, groups, folder, journal, display, env_steps, begun):
        self.asked, self.groups, self.folder = asked, groups, folder
        self.journal, self.display = journal, display
        self.env_steps, self.train_seconds = env_steps, journal.train_seconds
        self.begun, self.wrote = begun - journal.wall_seconds, -np.inf
        self.failures = []
        self.group_of = {a.number: i for i, group in enumerate(groups) for a in group.agents}
        self.left = [len(group.agents) for group in groups]
        self.returns = {index: [] for index in range(len(asked.points))}
        self.best = (-np.inf, "")
        self.diverged = 0

    def follow(self, signals) -> None:
        """Trains all that is left.

        Raises:
            KeyboardInterrupt: a signal came.
            WriteError: something could not be written.
        """
        options = self.asked.options
        how = sweep.Execution(
            parallel=options.max_parallel,
            eval_episodes=options.eval_episodes,
            greedy=options.eval_mode == "greedy",
            eval_envs=options.eval_envs,
            eval_max_steps=options.eval_max_steps,
            done=set(self.journal.agents),
        )
        with contextlib.closing(sweep.chunks(self.groups, how)) as steps:
            for step in steps:
                self.take(step)
                signals.check()

    def take(self, step) -> None:
        """A `sweep.Progress`."""
        self.env_steps += step.env_steps
        self.train_seconds += step.seconds
        if step.failure:
            self.failures.append(step.failure)
        if step.result:
            now = time.perf_counter()
            self.journal.add(step.result, self.train_seconds, now - self.begun)
            self.note(analysis.final_returns(sweep.columns(step.result)))
            if now - self.wrote > WRITE_EVERY:
                atomic_io.write_json(self.folder / "sweep.json", self.summary("running"))
                self.wrote = now
        self.display.update(self.env_steps, self.speed(), below=self._counts())

    def speed(self) -> float:
        """Environment steps a second over all agents; compilations and evaluations left out."""
        return self.env_steps / self.train_seconds if self.train_seconds else 0.0

    def note(self, finals) -> None:
        """Final returns of agents that are finished; the best point is one with all its seeds."""
        self.diverged += int(finals["diverged"].sum())
        for number in finals["agent"]:
            self.left[self.group_of[number]] -= 1
        for point, value in zip(finals["point"], finals["final_return"]):
            returns = self.returns[point]
            returns.append(-np.inf if np.isnan(value) else value)
            if len(returns) == len(self.asked.seeds):
                score = float(analysis.iqm(returns))
                if score > self.best[0]:
                    self.best = score, sweep.describe(self.asked.points[point])

    def _counts(self):
        text = f"{len(self.journal.agents):,}/{len(self.group_of):,} agents"
        if len(self.groups) > 1:
            group = min(self.left.count(0) + 1, len(self.groups))
            text = f"group {group}/{len(self.groups)} · {text}"
        score, best = self.best
        return f"{text} · best so far {score:,.2f} at {best}" if best else text

    def summary(self, status: str) -> dict:
        """What sweep.json says of the whole."""
        asked, (score, best) = self.asked, self.best
        return {
            "algorithm": asked.options.algorithm,
            "env": asked.envs,
            "status": status,
            "axes": list(asked.points[0]),
            "points": len(asked.points),
            "seeds": asked.seeds,
            "groups": [
                {"settings": group.static, "agents": len(group.agents)} for group in self.groups
            ],
            "agents": len(self.group_of),
            "agents_finished": len(self.journal.agents),
            "agents_diverged": self.diverged,
            "agents_failed": len(self.failures),
            "env_steps": self.env_steps,
            "steps_per_second": self.speed(),
            "train_seconds": self.train_seconds,
            "wall_seconds": time.perf_counter() - self.begun,
            "best": {"settings": best, "iqm": score} if best else None,
        }


def finish(asked, summary, folder, display) -> None:
    """Ranks the points, draws the figures, writes sweep.json and shows the ending table."""
    table = sweep.read(folder)
    ranking = analysis.rank(table) if len(table) else None
    figures = draw(table, ranking, asked, folder) if len(table) else []
    if ranking is not None:
        summary["ranking"] = _records(ranking)
    atomic_io.write_json(folder / "sweep.json", summary)
    display.stop()
    print_sweep(display.console, summary, ranking, SHOWN)
    console = display.console
    for path in figures:
        console.print(f"figure: {path}", soft_wrap=True)
    console.print(f"run directory: {folder}", soft_wrap=True)
    if summary["status"] != "completed":
        console.print(f"to go on: --resume {shlex.quote(str(folder))}", soft_wrap=True)


def _records(ranking):
    """For JSON: None where there is no return, or no interval."""
    figures = ("iqm", "low", "high", "lowest")
    return [
        {n: None if n in figures and np.isnan(x) else x for n, x in row.items()}
        for row in ranking.to_dict("records")
    ]


def draw(table, ranking, asked, folder) -> list[Path]:
    """Writes the figures, PNG and SVG; gives the former."""
    varied = [name for name in analysis.axes(table) if table[name].nunique() > 1]
    drawn = []

    def paths(name):
        drawn.append(folder / f"{name}.png")
        return drawn[-1], folder / f"{name}.svg"

    title = f"{asked.options.algorithm.upper()} on {asked.envs}"
    for name in varied:
        analysis.plot_sensitivity(table, name, *paths(f"sensitivity_{name}"), title=title)
    if len(varied) >= 2 and asked.options.axis and asked.options.sampling == "grid":
        x, y = sorted(varied, key=lambda name: -table[name].nunique())[:2]
        analysis.plot_heat_map(table, x, y, *paths("heat_map"), title=title)
    best = ranking["point"][:CURVES]
    curves = {sweep.describe(asked.points[i]): table[table["point"] == i] for i in best}
    title += f", the best {len(curves)} of {len(ranking)} points" if len(ranking) > CURVES else ""
    analysis.plot_learning_curves(curves, title, *paths("learning_curves"))
    return drawn


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

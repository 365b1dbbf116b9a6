"""Trains many settings with many seeds, and writes one table and what it says.

python experiments/sweep.py --axis learning_rate=log:1e-4:1e-2:16 --axis num_steps=5,16
python experiments/sweep.py --sampling random --num-points 24 --axis learning_rate=log:5e-3:4e-2
python experiments/sweep.py --algorithm a3c --axis num_workers=1,2,4
python experiments/sweep.py --resume RUN_DIR
"""

import contextlib
import dataclasses
import json
import os
import shlex
import sys
import time
from pathlib import Path
from typing import Literal

import common
import flags
import numpy as np
import space
import start
import tyro
from display import Display, print_sweep

from rljax import analysis, files, runs, sweep
from rljax.config import Config, Workers, differing, unknown

ALGORITHMS = ("a2c", "a3c")
MAY_CHANGE = ("max_parallel", "device", "quiet", "resume")
"""On resume; all else stays as it is."""
SHOWN = 10
"""Points in the ending table, at most."""
CURVES = 5
"""Points in the figure of learning curves, at most."""
WRITE_EVERY = 5.0
"""Seconds between two looks that sweep.json gives at a sweep under way."""


@dataclasses.dataclass(frozen=True)
class SweepOptions:
    """What to sweep, and how."""

    axis: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """A setting and its values, as NAME=VALUE,VALUE,... or NAME=log:LOW:HIGH:NUMBER or
    NAME=linear:LOW:HIGH:NUMBER; once for each axis. Random and latin-hypercube draw from
    NAME=log:LOW:HIGH. Of hidden_sizes a value is such as 64x64; env_params.NAME is one entry."""
    algorithm: Literal[ALGORITHMS] = "a2c"
    """A3C's agents are trained in processes, as are those in environments that Python steps."""
    sampling: Literal[space.SAMPLINGS] = "grid"
    """Every combination of values, or points drawn from the axes."""
    num_points: int = 32
    """Points that random and latin-hypercube draw."""
    sampling_seed: int = 0
    """For the draw."""
    points: Path | None = None
    """Instead of axes: a JSON file with a list of points, each an object of settings."""
    max_points: int = 1000
    """More points are refused."""
    preset: str | None = None
    """Settings to start from: an environment id, or 'none'. By default those of --env."""
    seed: int = 0
    """The first seed; every point has the same ones."""
    num_seeds: int = 8
    """Seeds of each point: --seed and the following ones."""
    run_dir: Path | None = None
    """Where the sweep is written. By default runs/{env}__sweep-{algorithm}__{seed}__{time}."""
    eval_episodes: int = 20
    """Full episodes of each agent after training; 0 takes the last tenth of training instead."""
    eval_mode: Literal[flags.EVAL_MODES] = "greedy"
    """Whether they take the policy's mode or sample from it."""
    max_parallel: int | None = None
    """Agents at once, or processes; by default what is fastest and memory holds."""
    device: Literal[flags.DEVICES] = "auto"
    """Where to compute; auto takes an accelerator if there is one."""
    resume: Path | None = None
    """Go on with the sweep in this directory: agents that are finished stay as they are."""
    quiet: bool = False
    """Print nothing but errors and warnings."""

    def validate(self) -> "SweepOptions":
        """Checks what can be checked of each by itself.

        Raises:
            ValueError: an option is out of its range.
        """
        for name in ("num_points", "max_points", "num_seeds", "max_parallel"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} = {value}: must be at least 1")
        for name in ("seed", "sampling_seed", "eval_episodes"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} = {getattr(self, name)}: must be at least 0")
        if self.seed + self.num_seeds > 2**32:
            raise ValueError(f"seed = {self.seed}: the last seed must be below 2**32")
        if self.axis and self.points:
            raise ValueError("points: must not be given together with axis")
        if not self.axis and not self.points:
            raise ValueError("axis: must be given at least once, as NAME=VALUE,VALUE,...")
        return self


@dataclasses.dataclass(frozen=True)
class Asked:
    """A sweep that is asked for, checked."""

    base: Config
    options: SweepOptions
    workers: Workers | None
    """Of A3C."""
    points: list[dict]
    saved: dict | None
    """config.json of a sweep that is gone on with."""

    @property
    def seeds(self) -> list[int]:
        return list(range(self.options.seed, self.options.seed + self.options.num_seeds))


def main(argv: list[str]) -> int:
    """Runs; returns the exit status."""
    begun = time.perf_counter()

    def run(signals, stack):
        try:
            asked = ask(argv)
            cores = len(os.sched_getaffinity(0))
            device = flags.set_device(asked.options.device, cpu_devices=cores)
            signals.check()
            groups = sweep.plan(asked.base, asked.points, asked.seeds, asked.workers)
            sweep.check(groups)
            folder, journal = stack.enter_context(_opened(asked, device))
        except (ValueError, TypeError) as error:
            return flags.fail(error)
        return train(asked, groups, folder, journal, signals, device, begun)

    return common.ended_in_order(run)


def ask(argv: list[str]) -> Asked:
    """What the flags ask for, on top of a preset, or of the sweep that is to be resumed.

    Raises:
        SystemExit: with 0 after --help.
        ValueError: a flag, an axis or a value is wrong; in one line.
    """
    saved = None
    if folder := flags.given("resume", argv):
        saved = _saved(folder)
        before = _restored(saved)
        algorithm, base, options, workers = before
        options = dataclasses.replace(options, axis=())  # tyro would add to them
    else:
        algorithm = flags.given("algorithm", argv) or "a2c"
        if algorithm not in ALGORITHMS:
            raise ValueError(unknown("algorithm", algorithm, list(ALGORITHMS)))
        base, options, workers = flags.start_from(algorithm, argv), SweepOptions(), Workers()
    parts = (base, options, workers) if algorithm == "a3c" else (base, options)
    base, options, *own = flags.parse_config(parts, __doc__.splitlines()[0], argv)
    workers = own[0] if own else None
    if saved:
        if not options.axis:
            options = dataclasses.replace(options, axis=before[2].axis)
        _check_unchanged(before, (algorithm, base, options, workers))
        return Asked(base, options.validate(), workers, space.restored(saved["points"]), saved)
    options.validate()
    if options.points:
        points = space.listed(options.points, options.max_points)
    else:
        drawn = (options.num_points, options.sampling_seed, options.max_points)
        points = space.points(options.axis, options.sampling, *drawn)
    return Asked(base, options, workers, points, saved)


def _saved(folder):
    """config.json of a sweep."""
    saved = runs.read_record(Path(folder))
    if saved.get("algorithm") != "sweep" or "points" not in saved:
        raise ValueError(f"{folder!r} is a run of {saved.get('algorithm')}, not a sweep")
    return saved


def _restored(saved):
    """(algorithm, base, options, workers) of a saved sweep."""
    known = SweepOptions.__dataclass_fields__
    kept = {name: value for name, value in saved["run"].items() if name in known}
    for name in ("points", "run_dir", "resume"):
        kept[name] = Path(kept[name]) if kept[name] else None
    options = SweepOptions(**{**kept, "axis": tuple(kept["axis"]), "quiet": False})
    algorithm, workers = options.algorithm, saved["run"].get("workers")
    return algorithm, runs.read_config(saved), options, Workers(**workers) if workers else None


def _check_unchanged(before, asked):
    def settings(algorithm, base, options, workers):
        own = dataclasses.asdict(workers) if workers else {}
        given = {n: x for n, x in vars(options).items() if n not in (*MAY_CHANGE, "run_dir")}
        return {"algorithm": algorithm, **runs.config_record(base), **given, **own}

    there, here = settings(*before), settings(*asked)
    if names := differing([there, here]):
        changes = ", ".join(f"{name} = {there[name]!r}, not {here[name]!r}" for name in names)
        raise ValueError(
            "on resume only --max-parallel, --device and --quiet may be given anew: the sweep has"
            f" {changes}"
        )


@contextlib.contextmanager
def _opened(asked, device):
    """The sweep's directory, locked, and its `sweep.Journal`."""
    options = asked.options
    own = () if asked.workers is None else (asked.workers,)
    if asked.saved is None:
        name = f"sweep-{options.algorithm}"
        folder = options.run_dir or start.default_run_dir(asked.base, name, options.seed)
        record = start.record(
            "sweep", asked.base, device, dataclasses.replace(options, run_dir=folder), *own
        )
        record["points"] = asked.points
        header = sweep.header(asked.points[0], options.algorithm == "a3c")
        runs.create(folder, record, {"finished.jsonl": b"", "results.csv": header.encode()})
    else:
        folder = options.resume
    with runs.lock(folder):
        if asked.saved:
            files.tidy(folder)
            again = start.compared(asked.saved, device)
            resumed = [*asked.saved.get("resumed", []), again]
            files.write_json(folder / "config.json", {**asked.saved, "resumed": resumed})
        yield folder, sweep.Journal(folder)


def train(asked, groups, folder, journal, signals, device, begun) -> int:
    """Trains what is not finished yet, and writes and shows it; returns the exit status."""
    options = asked.options
    size = f"{_many(len(asked.points), 'point')} x {_many(len(asked.seeds), 'seed')}"
    title = f"Sweep · {options.algorithm.upper()} · {asked.base.env} · {size}"
    before = sum(_steps(a) for g in groups for a in g.agents if a.number in set(journal.agents))
    total = sum(_steps(agent) for group in groups for agent in group.agents)
    if before:
        title += f" · from {len(journal.agents):,} agents"
    with Display(f"{title} · {device}", before, total, options.quiet) as display:
        follower = Follower(asked, groups, folder, journal, display, before)
        status, exit_status, failure = "completed", 0, None
        try:
            follower.follow(signals)
        except KeyboardInterrupt:
            status, exit_status = "interrupted", signals.exit_status
        except sweep.FailedError as error:
            status, exit_status, failure = "failed", 1, str(error)
        display.phase("writing")
        summary = {**follower.summary(status), "wall_seconds": time.perf_counter() - begun}
        finish(asked, summary, folder, display)
    if failure:
        print(f"error: {failure}", file=sys.stderr)
    return exit_status


def _steps(agent):
    return agent.config.num_updates * agent.config.batch_size


def _many(number, what):
    return f"{number:,} {what}{'s' * (number > 1)}"


class Follower:
    """A sweep under way: what its steps bring goes to its files and its display."""

    def __init__(self, asked, groups, folder, journal, display, env_steps):
        self.asked, self.groups, self.folder = asked, groups, folder
        self.journal, self.display = journal, display
        self.env_steps, self.before = env_steps, journal.seconds
        self.begun, self.wrote = time.perf_counter(), -np.inf
        self.counted, self.seconds = 0, 0.0
        self.group_of = {a.number: i for i, group in enumerate(groups) for a in group.agents}
        self.left = [len(group.agents) for group in groups]
        self.returns = {index: [] for index in range(len(asked.points))}
        self.best = (-np.inf, "")
        self.diverged = 0
        if journal.agents:
            self.note(analysis.final_returns(sweep.read(folder)))

    def follow(self, signals) -> None:
        """Trains all that is left.

        Raises:
            KeyboardInterrupt: a signal came.
            FailedError: as `sweep.chunks` does.
            WriteError: something could not be written.
        """
        options = self.asked.options
        steps = sweep.chunks(
            self.groups,
            parallel=options.max_parallel,
            eval_episodes=options.eval_episodes,
            greedy=options.eval_mode == "greedy",
            done=set(self.journal.agents),
        )
        with contextlib.closing(steps):
            for step in steps:
                self.take(step)
                signals.check()

    def take(self, step) -> None:
        """A `sweep.Progress`."""
        self.env_steps += step.env_steps
        self.counted, self.seconds = self.counted + step.env_steps, self.seconds + step.seconds
        if step.result:
            now = time.perf_counter()
            self.journal.add(step.result, self.before + now - self.begun)
            self.note(analysis.final_returns(sweep.columns(step.result)))
            if now - self.wrote > WRITE_EVERY:
                files.write_json(self.folder / "sweep.json", self.summary("running"))
                self.wrote = now
        self.display.update(self.env_steps, self.speed(), below=self._counts())

    def speed(self) -> float:
        """Environment steps a second over all agents, since this process began; compilations and
        evaluations left out."""
        return self.counted / self.seconds if self.seconds else 0.0

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
            "env": asked.base.env,
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
            "env_steps": self.env_steps,
            "steps_per_second": self.speed(),
            "train_seconds": self.journal.seconds,
            "best": {"settings": best, "iqm": score} if best else None,
        }


def finish(asked, summary, folder, display) -> None:
    """Ranks the points, draws the figures, writes sweep.json and shows the ending table."""
    table = sweep.read(folder)
    ranking = analysis.rank(table) if len(table) else None
    figures = draw(table, ranking, asked, folder) if len(table) else []
    if ranking is not None:
        summary["ranking"] = json.loads(ranking.to_json(orient="records"))
    files.write_json(folder / "sweep.json", summary)
    display.stop()
    print_sweep(display.console, summary, ranking, SHOWN)
    console = display.console
    for path in figures:
        console.print(f"figure: {path}", soft_wrap=True)
    console.print(f"run directory: {folder}", soft_wrap=True)
    if summary["status"] != "completed":
        console.print(f"to go on: --resume {shlex.quote(str(folder))}", soft_wrap=True)


def draw(table, ranking, asked, folder) -> list[Path]:
    """Writes the figures, PNG and SVG; gives the former."""
    varied = [name for name in analysis.axes(table) if table[name].nunique() > 1]
    drawn = []

    def paths(name):
        drawn.append(folder / f"{name}.png")
        return drawn[-1], folder / f"{name}.svg"

    title = f"{asked.options.algorithm.upper()} on {asked.base.env}"
    for name in varied:
        analysis.plot_sensitivity(table, name, *paths(f"sensitivity_{name}"), title=title)
    if len(varied) >= 2 and asked.options.sampling == "grid":
        x, y = sorted(varied, key=lambda name: -table[name].nunique())[:2]
        analysis.plot_heat_map(table, x, y, *paths("heat_map"), title=title)
    best = ranking["point"][:CURVES]
    curves = {sweep.describe(asked.points[i]): table[table["point"] == i] for i in best}
    title += f", the best {len(curves)} of {len(ranking)} points" if len(ranking) > CURVES else ""
    analysis.plot_learning_curves(curves, title, *paths("learning_curves"))
    return drawn


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

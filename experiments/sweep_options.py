"""What `sweep.py` is told: flags on top of a preset, or of a sweep that is gone on with."""

import dataclasses
import sys
from pathlib import Path
from typing import Literal

import flags
import space
import tyro

from rljax import runs
from rljax.config import MAX_EPISODE_STEPS, Config, WorkerConfig, differing, unknown

ALGORITHMS = ("a2c", "a3c")
_CHOICES = {
    "algorithm": ALGORITHMS,
    "sampling": space.SAMPLINGS,
    "eval_mode": flags.EVAL_MODES,
    "device": flags.DEVICES,
}
MAY_CHANGE = ("max_parallel", "device", "quiet", "resume")
"""On resume; all else stays as it is."""


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
    eval_envs: int | None = None
    """Environments that Python steps, in which an agent's evaluation plays at once; by default
    --num-envs, at most 16."""
    eval_max_steps: int = MAX_EPISODE_STEPS
    """An evaluation's episode that has not ended by itself after so many steps is cut."""
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
            ValueError, TypeError: an option is out of its range or of another type.
        """
        from_one = (
            *("num_points", "max_points", "num_seeds", "max_parallel"),
            *("eval_envs", "eval_max_steps"),
        )
        flags.check_shared(self, from_one, ("seed", "sampling_seed", "eval_episodes"), _CHOICES)
        if not all(isinstance(axis, str) for axis in self.axis):
            raise TypeError(f"axis = {self.axis!r}: must be text")
        if self.points and (self.axis or self.sampling != "grid"):
            other = "axis" if self.axis else "sampling"
            raise ValueError(f"points: must not be given together with {other}")
        if not self.axis and not self.points:
            raise ValueError("axis: must be given at least once, as NAME=VALUE,VALUE,...")
        return self


@dataclasses.dataclass(frozen=True)
class Asked:
    """A sweep that is asked for, checked."""

    base: Config
    options: SweepOptions
    workers: WorkerConfig | None
    """Of A3C."""
    points: list[dict]
    saved: dict | None
    """config.json of a sweep that is gone on with."""

    @property
    def envs(self) -> str:
        """All environments, where they are an axis."""
        found = dict.fromkeys(point.get("env", self.base.env) for point in self.points)
        return ", ".join(map(str, found))

    @property
    def seeds(self) -> list[int]:
        return list(range(self.options.seed, self.options.seed + self.options.num_seeds))


def ask(description: str, argv: list[str]) -> Asked:
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
        base, options, workers = flags.start_from(algorithm, argv), SweepOptions(), WorkerConfig()
    parts = (base, options, workers) if algorithm == "a3c" else (base, options)
    base, options, *own = flags.parse_config(parts, description, argv)
    workers = own[0] if own else None
    if saved and not options.axis:
        options = dataclasses.replace(options, axis=before[2].axis)
    options.validate()
    if saved:
        _check_unchanged(before, (algorithm, base, options, workers))
        points = space.restored(saved["points"], "points of its config.json")
    elif options.points:
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
    try:
        for name in ("points", "run_dir"):
            kept[name] = Path(kept[name]) if kept[name] else None
        kept |= {"axis": tuple(kept["axis"]), "resume": None, "quiet": False}
        options, workers = SweepOptions(**kept).validate(), saved["run"].get("workers")
        workers = WorkerConfig(**workers).validate() if options.algorithm == "a3c" else None
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"its config.json is of no sweep: {error}") from error
    return options.algorithm, runs.read_config(saved), options, workers


def _check_unchanged(before, asked):
    def settings(algorithm, base, options, workers):
        own = dataclasses.asdict(workers) if workers else {}
        given = {n: x for n, x in vars(options).items() if n not in MAY_CHANGE}
        given |= {name: given[name] and str(given[name]) for name in ("points", "run_dir")}
        return {"algorithm": algorithm, **runs.config_record(base), **given, **own}

    there, here = settings(*before), settings(*asked)
    if names := differing([there, here]):
        changes = ", ".join(f"{name} = {there[name]!r}, not {here[name]!r}" for name in names)
        raise ValueError(
            "on resume only --max-parallel, --device and --quiet may be given anew: the sweep has"
            f" {changes}"
        )
    then, now = before[2].max_parallel, asked[2].max_parallel
    if then != now:
        warning = f"max_parallel = {now}, not {then} as before: what is trained from here on may"
        print(f"warning: {warning} differ in rounding", file=sys.stderr)

"""The command line of a sweep."""

import dataclasses
import sys
import warnings
from pathlib import Path
from typing import Any, Literal, NamedTuple

import tyro

from rljax import algorithms
from rljax.cli import fail, flags, run_script, space
from rljax.config import Config
from rljax.runs import directory, records, settings
from rljax.sweep.options import SweepOptions
from rljax.utils import errors
from rljax.utils.checks import check

PROCESSES = ("coordinator", "num_processes", "process_id")
MAY_CHANGE = ("max_parallel", "device", "engine", "ray_address", *PROCESSES, "quiet", "resume")
"""On resume, and nothing else."""
SHOWN_FAILURES = 3  # trials whose failure is explained, at most


@dataclasses.dataclass(frozen=True)
class SpaceOptions:
    """The points of a sweep."""

    axis: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """A setting and its values, as NAME=VALUE,VALUE,... or NAME=log:LOW:HIGH:NUMBER or
    NAME=linear:LOW:HIGH:NUMBER; once for each axis. Random and latin-hypercube sample from
    NAME=log:LOW:HIGH. Of hidden_sizes a value is such as 64x64, of wrappers and
    core_inputs such as none or flatten+sticky_actions=0.25; env_params.NAME is one entry."""
    sampling: Literal[space.SAMPLINGS] = "grid"
    """Every combination of values, or points sampled from the axes."""
    num_points: int = 32
    """Points of random and latin-hypercube."""
    sampling_seed: int = 0
    """Of these points."""
    points: Path | None = None
    """Instead of axes: a JSON file with a list of points, each an object of settings."""
    max_points: int = 1000
    """More points are refused."""

    def validate(self) -> "SpaceOptions":
        """Raises ValueError or TypeError if an option is out of its range or of another type."""
        check(self, num_points=1, max_points=1, sampling_seed=0)
        if not all(isinstance(axis, str) for axis in self.axis):
            raise TypeError(f"axis = {self.axis!r}: must be text")
        if self.points and (self.axis or self.sampling != "grid"):
            other = "axis" if self.axis else "sampling"
            raise ValueError(f"points: must not be given together with {other}")
        return self

    def made(self, own: tuple[Any, ...], needs_axis: bool = True) -> list[dict]:
        """The points; raises ValueError if there is no axis, unless none is needed for the one
        point without any, or if one is wrong. `own` are the algorithm's own options."""
        if self.points:
            return space.listed(self.points, self.max_points)
        if not self.axis and not needs_axis:
            return [{}]
        if not self.axis:
            raise ValueError("axis: must be given at least once, as NAME=VALUE,VALUE,...")
        return space.points(self, own)


@dataclasses.dataclass(frozen=True)
class JoinOptions:
    """Several processes on one sweep."""

    join: Path | None = None
    """Instead of --run-dir: a directory, also of machines that share it, in which every process
    with this flag trains what no other does. The first makes it; those that come later, and
    those that continue, need no other flags."""


class Parts(NamedTuple):
    """The dataclasses that the flags set."""

    base: Config
    options: SweepOptions
    space: SpaceOptions
    own: tuple[Any, ...]


def main(doc: str, argv: list[str] | None = None, only: str | None = None) -> int:
    """Sweeps, or resumes a sweep; returns the exit status. A script of one algorithm names that in
    `only`, and needs no axis."""

    def run(argv, signals, stack):
        from rljax.sweep import directory as sweep_directory
        from rljax.sweep import joining

        try:
            asked = parse(doc.splitlines()[0], argv, only)
            prepared = (joining if asked.is_joined else sweep_directory).prepared
            sweep = stack.enter_context(prepared(asked))
        except (ValueError, TypeError) as error:
            return fail(error)
        done = sweep()
        for failure in done.failures[:SHOWN_FAILURES]:
            print(f"error: {failure.trial}: {failure.why}", file=sys.stderr)
        if more := len(done.failures[SHOWN_FAILURES:]):
            print(f"error: {more} other trial{'s' * (more > 1)} failed too", file=sys.stderr)
        return done.exit_status

    return run_script(run, argv)


def parse(description: str, argv: list[str], only: str | None = None) -> Any:
    """The `sweep.directory.Asked` of the flags, on top of a preset, or of the sweep to be resumed;
    raises as `flags.parse` does, and ValueError if an axis is wrong."""
    saved, joined = None, flags.given("join", argv)
    others = [x for x in ("resume", "run-dir", "coordinator") if flags.given(x, argv)]
    if joined and others:
        other = others[0].replace("-", "_")
        raise ValueError(f"join: must not be given together with {other}")
    is_there = joined and (Path(joined) / "config.json").exists()
    if folder := flags.given("resume", argv) or (is_there and joined):
        saved, before = _restored(folder)
    else:
        algorithm = flags.given("algorithm", argv) or only or "a2c"
        env, preset = flags.given("env", argv), flags.given("preset", argv)
        told = settings.start_from(algorithm, env, preset)
        options = SweepOptions(algorithm=algorithm)
        before = Parts(told.config, options, SpaceOptions(), told.own)
    # tyro would append to the axes of before
    made = dataclasses.replace(before.space, axis=())
    parts = (before.base, before.options, made, JoinOptions(), *before.own)
    base, options, asked_space, join, *own = flags.parse(parts, description, argv)
    if join.join:
        options = dataclasses.replace(options, run_dir=join.join)
    if saved and not asked_space.axis:
        asked_space = dataclasses.replace(asked_space, axis=before.space.axis)
    after = Parts(base, options.validate(), asked_space.validate(), tuple(own))
    if only not in (None, after.options.algorithm):
        raise ValueError(f"algorithm = {after.options.algorithm!r}: must be {only!r} here")
    if saved:
        _check_unchanged(before, after)
        points = space.restored(saved["points"], "points of its config.json")
    else:
        points = asked_space.made(tuple(own), needs_axis=only is None)
    return _asked(after, points, saved, is_joined=join.join is not None)


def _asked(parts, points, saved, is_joined):
    from rljax.sweep.directory import Asked

    options = parts.options
    if options.run_dir is None:
        name = f"sweep-{options.algorithm}"
        run_dir = directory.default_path(parts.base.env, name, options.seed)
        options = dataclasses.replace(options, run_dir=run_dir)
    made = dataclasses.asdict(parts.space)
    is_grid = bool(parts.space.axis) and parts.space.sampling == "grid"
    return Asked(parts.base, options, parts.own, points, made, saved, is_grid, is_joined)


def _restored(folder):
    """(config.json of a saved sweep, its parts)."""
    path = Path(folder)
    saved = directory.read_record(path)
    if saved.get("algorithm") != "sweep" or "points" not in saved:
        raise ValueError(f"{folder!r} is a run of {saved.get('algorithm')}, not a sweep")
    told = saved["run"]
    try:
        alone = dict.fromkeys(PROCESSES, None)
        how = dict(run_dir=path, resume=None, quiet=False, **alone)
        options = settings.part(SweepOptions, told, **how).validate()
        points = Path(told["points"]) if told.get("points") else None
        axes = tuple(told.get("axis", ()))
        made = settings.part(SpaceOptions, told, points=points, axis=axes).validate()
        own = algorithms.find(options.algorithm).own_with(told)
    except errors.WRONG as error:
        raise ValueError(f"its config.json is of no sweep: {error}") from error
    return saved, Parts(records.read_config(saved), options, made, own)


def _check_unchanged(before, after):
    def told(parts):
        own = {n: x for part in parts.own for n, x in dataclasses.asdict(part).items()}
        options = {n: x for n, x in vars(parts.options).items() if n not in MAY_CHANGE}
        made = {**vars(parts.space), "points": str(parts.space.points)}
        return {**records.config_record(parts.base), **options, **made, **own}

    if changes := settings.others(told(before), told(after)):
        names = "--max-parallel, --device, --engine, --ray-address, --coordinator and --quiet"
        may = f"on resume only {names} may change"
        raise ValueError(f"{may}: the sweep has {changes}")
    then, now = before.options.max_parallel, after.options.max_parallel
    if then != now:
        why = "what is trained from here on may differ in rounding"
        warnings.warn(f"max_parallel = {now}, not {then} as before: {why}", stacklevel=2)
